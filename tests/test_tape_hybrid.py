"""The whole machine: net, generated transport, generated noise; and the random blocks that both are made of."""

import numpy as np
import pytest
import torch

from revox_lightning import parallel
from revox_lightning.errors import UserError
from revox_lightning.models import random_blocks
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tape_hybrid import TapeHybrid
from revox_lightning.stream import Player, Streamer, stream

torch.set_num_threads(1)
RATE = 8000


class Walk:
    """A random walk with a leak: what comes next depends on what was."""

    def __init__(self, rate_hz: float, block_samples: int = 50, scale: float = 1e-3, excursion_seconds: float = 6e-3):
        self.rate_hz, self.block_samples = rate_hz, block_samples
        self.scale, self.excursion_seconds = scale, excursion_seconds

    def block(self, number, seed, rows, carry):
        steps = torch.randn(rows, self.block_samples, generator=random_blocks.seeded(seed, number))
        value, out = (self.scale * steps[:, 0] if carry is None else carry[:, 0]), []
        for n in range(self.block_samples):
            value = 0.8 * value + 0.6 * self.scale * steps[:, n]
            out.append(value)
        return torch.stack(out, dim=1), value[:, None]


class Sine:
    """A tape that wows at 2 Hz by 1 ms."""

    rate_hz, block_samples, excursion_seconds = 100.0, 30, 1e-3

    def block(self, number, seed, rows, carry):
        n = number * self.block_samples + torch.arange(self.block_samples)
        return 1e-3 * torch.sin(2 * torch.pi * 2 * n / self.rate_hz).expand(rows, -1), torch.zeros(rows, 0)


def white(scale: float = 0.01) -> Walk:
    return Walk(RATE, 300, scale)


def machine(net=None, transport=None, channels=2, **options) -> TapeHybrid:
    torch.manual_seed(0)
    net = Recurrent("gru", 8, skip=False, preroll_samples=200) if net is None else net
    parts = (Walk(100) if transport is None else transport, white())
    return TapeHybrid(net, *parts, sample_rate_hz=RATE, channels=channels, max_delay_samples=500, **options).eval()


def music(channels=2, samples=4000) -> torch.Tensor:
    return 0.3 * torch.randn(1, channels, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sizes", [[1] * 400, [50] * 8, [7, 393], [400, 0]])
def test_random_blocks_may_be_cut_anywhere(sizes):
    source, state, parts = Walk(100), None, []
    whole, _ = random_blocks.take(source, 400, 3, 2)
    for size in sizes:
        part, state = random_blocks.take(source, size, 3, 2, state)
        parts.append(part)
    assert torch.equal(torch.cat(parts, dim=1), whole) and whole.shape == (2, 400)
    assert not torch.equal(whole[0], whole[1]) and whole[0].unique().numel() == 400


def test_random_blocks_stream_by_their_generator_alone():
    source = Walk(100)
    first, again, other = (random_blocks.stream(source, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    a = torch.cat([first(30), first(0), first(170)], dim=1)
    assert torch.equal(a, again(200)) and not torch.equal(a, other(200))
    assert random_blocks.take(source, 0, 0)[0].shape == (1, 0)


@pytest.mark.parametrize("block", [1, 64, 512, 999])
@torch.no_grad()
def test_blocks_equal_one_call(block):
    net, x = machine(), music(samples=200 if block == 1 else 4000)
    whole, _ = net(x)
    parts, _ = stream(net, x, block_samples=block)
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_seed_alone_decides():
    net, x = machine(), music()
    y = net(x)[0]
    torch.rand(10)
    assert torch.equal(net(x)[0], y)
    net.seed = 1
    other = net(x)[0]
    assert not torch.allclose(other, y, atol=1e-3)
    seeds = []
    for seed in (5, 5, 6):
        net.reseed(torch.Generator().manual_seed(seed))
        seeds.append(net.seed)
    assert seeds[0] == seeds[1] != seeds[2]


@torch.no_grad()
def test_all_switched_off_the_settled_net_is_heard():
    net, x = machine(wow_flutter=0, hiss=0), music()
    settled = net.net(torch.zeros(1, 1, 200))[1]
    expected = torch.cat([net.net(x[:, i : i + 1], None, settled)[0] for i in range(2)], dim=1)
    torch.testing.assert_close(net(x)[0], expected, rtol=0, atol=1e-6)
    assert net.latency_samples == 0


@torch.no_grad()
def test_hiss_is_added_per_channel_and_scales():
    x = music()
    clean, once, twice = (machine(hiss=scale)(x)[0] for scale in (0.0, 1.0, 2.0))
    torch.testing.assert_close(twice - clean, 2 * (once - clean), rtol=0, atol=1e-6)
    noise = (once - clean)[0]
    assert 0.003 < noise.std() < 0.03 and abs(np.corrcoef(noise)[0, 1]) < 0.2


@torch.no_grad()
def test_the_transport_is_common_to_all_channels_and_the_latency_is_the_least():
    """An identity net makes the transport audible alone: a sine of 2 Hz, exactly known."""
    net = machine(FIR(1), Sine(), hiss=0)
    assert net.latency_samples == 15 + 8  # of the kernel, and 1 ms
    n = torch.arange(12_000, dtype=torch.float64)
    tone = 0.5 * torch.sin(2 * torch.pi * 440 / RATE * n).float()
    y, _ = net(tone.expand(1, 2, -1))
    # The generator's first sixteen points lie before the start: what is read between points lies between known ones.
    at = 16 / 100 + n / RATE
    moment = n - net.latency_samples - 1e-3 * RATE * torch.sin(2 * torch.pi * 2 * at)
    expected = 0.5 * torch.sin(2 * torch.pi * 440 / RATE * moment)
    assert torch.equal(y[0, 0], y[0, 1])
    assert (y[0, 0] - expected)[100:].abs().max() < 1e-4


@torch.no_grad()
def test_wow_and_flutter_scales_and_is_smooth():
    net = machine(FIR(1), Walk(100), hiss=0)
    once, _ = net._deviation(1, 40_000, None)
    net.wow_flutter = 2.0
    twice, _ = net._deviation(1, 40_000, None)
    torch.testing.assert_close(twice, 2 * once, rtol=0, atol=1e-9)
    assert net.latency_samples == 15 + 96
    bend = once.diff().diff().abs().max()  # of speed, from sample to sample: nowhere a corner
    assert once.abs().max() > 10 and bend < 0.04 * once.diff().abs().max()


@torch.no_grad()
def test_an_excursion_beyond_what_was_expected_stays_on_the_line():
    net, x = machine(transport=Walk(100, scale=0.02)), music(samples=RATE)
    y, _ = net(x)
    assert torch.isfinite(y).all() and net._deviation(1, RATE, None)[0].abs().max() == 48


@torch.no_grad()
def test_silence_starts_settled():
    net = machine(hiss=0)
    y, _ = net(torch.zeros(1, 2, 3000))
    assert (y - y[..., -1:]).abs().max() < 1e-4 < y.abs().max()


@torch.no_grad()
def test_items_of_a_batch_have_transports_of_their_own():
    y, _ = machine(hiss=0)(music().expand(2, -1, -1))
    assert not torch.allclose(y[0], y[1], atol=1e-3)


@torch.no_grad()
def test_a_player_and_a_streamer_and_several_threads_play_it():
    net, x = machine(hiss=0.5), music(samples=9000)
    whole, _ = net(torch.cat([x, x.new_zeros(1, 2, net.latency_samples)], dim=-1))
    y_hat, wet = Player(net).step(x, x, first=True)
    assert wet is not None and torch.equal(y_hat, whole[..., net.latency_samples : x.shape[-1]])
    streamer = Streamer(net)
    parts = torch.cat([streamer.play(part) for part in x[0].split(512, dim=-1)], dim=-1)
    torch.testing.assert_close(parts, whole[0, :, : x.shape[-1]], rtol=0, atol=2e-6)
    played = parallel.play(net, x[0].split(1000, dim=-1), threads=2, block_samples=512, warmup_samples=1024)
    torch.testing.assert_close(torch.cat(list(played), dim=-1), whole[0, :, net.latency_samples :], rtol=0, atol=2e-6)


@torch.no_grad()
def test_one_net_for_each_channel_and_knobs():
    torch.manual_seed(0)
    nets = EachChannel([Recurrent("gru", 8, controls=1), Recurrent("gru", 8, controls=1)])
    for net in (machine(nets, wow_flutter=0, hiss=0), machine(nets.nets[0], wow_flutter=0, hiss=0)):
        x, knobs = music(), torch.tensor([[0.3]])
        expected = [
            nets.nets[i % len(net.net.nets) if net.net is nets else 0](x[:, i : i + 1], knobs)[0] for i in (0, 1)
        ]
        torch.testing.assert_close(net(x, knobs)[0], torch.cat(expected, dim=1), rtol=0, atol=1e-6)
        torch.testing.assert_close(net(x, knobs[..., None].expand(1, 1, 4000))[0], net(x, knobs)[0], rtol=0, atol=1e-6)


def test_the_line_that_a_net_was_trained_with_is_left_out():
    core = Recurrent("gru", 8, skip=False, bias=False)
    net = machine(Delayed(core, DelayLine(100)))
    assert net.net is core and net.controls == 0 and net.multiply_adds_per_sample > 2 * core.multiply_adds_per_sample


def test_parts_that_do_not_fit_are_refused():
    for build in (
        lambda: machine(Recurrent(channels=2), channels=1),
        lambda: machine(Recurrent(side_channels=1)),
        lambda: machine(wow_flutter=-1),
        lambda: machine(hiss=float("nan")),
        lambda: machine()(music(channels=1)),
        lambda: TapeHybrid(Recurrent(), Walk(100), Walk(44_100), sample_rate_hz=48_000),
        lambda: machine(transport=Walk(100, scale=0.5, excursion_seconds=1.0))(music()),
    ):
        with pytest.raises(UserError):
            build()
