"""Playing on several cores gives the samples of one call, whatever the net remembers and however the signal is cut."""

import pytest
import torch

from revox_lightning import parallel
from revox_lightning.errors import UserError
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import TCN
from revox_lightning.models.wavenet import WaveNet

FRAMES = 120_000


class Counter(torch.nn.Module):
    """Adds up its input: it never forgets, so every guess is wrong. Counts the samples it was asked for."""

    channels, controls, side_channels, receptive_field, latency_samples = 1, 0, 0, None, 0

    def __init__(self):
        super().__init__()
        self.played = 0

    def forward(self, x, controls=None, state=None):
        self.played += x.shape[-1]
        y = 1e-3 * x.cumsum(-1) + (0 if state is None else state)
        return y, y[..., -1:]


def signal(channels, frames=FRAMES):
    return 0.3 * torch.randn(channels, frames, generator=torch.Generator().manual_seed(channels))


def blocks(x, frames=7000):
    return iter(x.split(frames, dim=1))


def recurrent(seed=0, **options):
    torch.manual_seed(seed)
    return Recurrent(hidden=8, **options).eval()


def linear_start():
    net = LinearStart(recurrent(skip=False, side_channels=1), FIR(64, lookahead=16))
    torch.nn.init.normal_(net.net.output_layer.weight, std=0.2)
    return net.eval()


def convolutional(kind, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options).eval()


def played(net, x, **options):
    options = {"warmup_samples": 4000, "block_samples": 5000} | options
    return torch.cat(list(parallel.play(net, blocks(x), **options)), dim=1)


NETS = {
    "recurrent": lambda: recurrent(),
    "gru": lambda: recurrent(unit="gru"),
    "linear start": linear_start,
    "filter": lambda: FIR(300, lookahead=40).eval(),
    "tcn": lambda: convolutional(TCN, 3, 10, 5, width=4, paper_exact=True),
    "wavenet": lambda: convolutional(WaveNet, [1, 2, 4, 8], width=4),
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_it_is_the_net_in_one_call(name, channels, threads):
    net, x = NETS[name](), signal(channels)
    with torch.no_grad():
        late = torch.nn.functional.pad(x, (0, net.latency_samples))
        y = net(late[:, None])[0][:, 0, net.latency_samples :]
    y_hat = played(net, x, threads=threads, samples=FRAMES if threads == 2 else None)
    assert y_hat.shape == x.shape and (y_hat - y).abs().max() < 1e-6


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_one_net_a_channel(threads):
    net, x = EachChannel([recurrent(0), recurrent(1)]), signal(2)
    with torch.no_grad():
        y = net(x[None])[0][0]
    assert (played(net, x, threads=threads) - y).abs().max() < 1e-6


def test_a_net_for_both_channels_is_cut_in_time():
    net, x = recurrent(channels=2), signal(2)
    with torch.no_grad():
        y = net(x[None])[0][0]
    assert (played(net, x, threads=2) - y).abs().max() < 1e-6
    with pytest.raises(UserError, match="3 channels and the net takes 2"):
        played(net, signal(3), threads=2)


def test_knobs_reach_every_stretch():
    net, x, knobs = recurrent(controls=2), signal(1), torch.tensor([[0.2, 0.7]])
    with torch.no_grad():
        y = net(x[None], knobs)[0][0]
    assert (played(net, x, controls=knobs, threads=2) - y).abs().max() < 1e-6


def test_wrong_guesses_are_played_again_and_not_made_for_ever():
    net, x = Counter(), signal(1, 1_000_000)
    y_hat = played(net, x, threads=2)
    assert torch.allclose(y_hat, 1e-3 * x.double().cumsum(-1).float(), atol=1e-4)
    asked = 80_000 + 5000  # of a stretch that is guessed
    assert x.shape[1] + asked <= net.played <= x.shape[1] + 4 * asked, "it does not guess, or guesses on"


def test_a_net_that_forgets_is_played_once():
    class Counting(Recurrent):
        played = 0

        def forward(self, x, controls=None, state=None):
            Counting.played += x.shape[-1]
            return super().forward(x, controls, state)

    torch.manual_seed(0)
    played(Counting(hidden=8).eval(), signal(1, 500_000), threads=2)
    assert Counting.played <= 500_000 * 17 / 16


def test_only_a_few_stretches_are_in_memory():
    """What has been taken in and not given out stays below a bound that does not depend on the length."""
    taken = given = most = 0

    def endless():
        nonlocal taken
        for _ in range(400):
            taken += 10_000
            yield torch.zeros(1, 10_000)

    net = recurrent()
    for y in parallel.play(net, endless(), threads=2, warmup_samples=2000, block_samples=1000):
        given += y.shape[1]
        most = max(most, taken - given)
    assert given == 4_000_000 and most < 4 * 32_000 + 10_000


def test_an_error_in_a_thread_reaches_the_caller():
    with pytest.raises(UserError, match="2 knobs"):
        played(recurrent(controls=2), signal(1), controls=torch.zeros(1, 3), threads=2)


def test_nothing_gives_nothing():
    assert list(parallel.play(recurrent(), iter([]), threads=2)) == []
