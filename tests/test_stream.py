"""Block by block, detached, and aligned pairs from a net that looks ahead."""

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import TCN
from revox_lightning.stream import Player, detach, stream

torch.set_num_threads(1)


def small_tcn(**others) -> TCN:
    torch.manual_seed(0)
    return TCN(2, 4, 5, 8, **others).eval()


@pytest.mark.parametrize("block", [1, 64, 999, 1000, 5000])
@torch.no_grad()
def test_stream_equals_one_call(block):
    net = small_tcn(controls=2)
    time = 50 if block == 1 else 1000
    x = torch.randn(2, 1, time)
    for controls in (torch.rand(2, 2), torch.rand(2, 2, 1), torch.rand(2, 2, time)):
        _, before = net(torch.randn(2, 1, 50), controls[..., :50] if controls.ndim == 3 else controls)
        for a, b in zip(net(x, controls, before), stream(net, x, controls, before, block), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("time", "block"), [(0, 64), (10, 0)])
def test_nothing_to_stream_is_refused(time, block):
    with pytest.raises(UserError, match="at least 1"):
        stream(small_tcn(), torch.zeros(1, 1, time), block_samples=block)


def test_detach_keeps_the_values_and_cuts_the_graph():
    net = LinearStart(Recurrent(skip=False, side_channels=1), FIR(16, 2))
    x = torch.randn(1, 1, 20)
    _, state = net(x)
    cut = detach(state)
    assert torch.equal(net(x, None, state)[0], net(x, None, cut)[0])
    assert state[-1][0].requires_grad and not cut[-1][0].requires_grad
    assert detach(None) is None


def play(player: Player, dry, wet, cuts: list[int]):
    pairs = []
    for i, (d, w) in enumerate(zip(dry.split(cuts, -1), wet.split(cuts, -1), strict=True)):
        pairs.append(player.step(d, w, first=i == 0))
        assert pairs[-1][0].shape == pairs[-1][1].shape
    return [torch.cat(parts, dim=-1) for parts in zip(*pairs, strict=True)]


@pytest.mark.parametrize("cuts", [[100], [1] * 100, [3, 7, 90], [50, 50]])
def test_player_pairs_are_aligned_whatever_the_chunks(cuts):
    """A filter that only delays by its look-ahead estimates wet = dry perfectly: every pair must be equal."""
    player = Player(FIR(16, lookahead=5))
    for seed in range(2):  # a second take must not hear the first
        dry = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(seed))
        y_hat, y = play(player, dry, dry, cuts)
        assert y.shape == (2, 1, 95) and torch.equal(y, dry[..., :95])
        torch.testing.assert_close(y_hat, y, rtol=0, atol=1e-6)


def test_player_without_latency_is_the_net_itself():
    net = small_tcn()
    dry, wet = torch.randn(1, 1, 100), torch.randn(1, 1, 100)
    y_hat, y = play(Player(net), dry, wet, [33, 67])
    assert torch.equal(y, wet) and not y_hat.requires_grad
    torch.testing.assert_close(y_hat, net(dry)[0], rtol=0, atol=2e-6)


def test_player_without_target():
    player = Player(FIR(16, lookahead=5))
    dry = torch.randn(1, 1, 30)
    y_hat, y = player.step(dry, None, first=True)
    assert y is None
    torch.testing.assert_close(y_hat, dry[..., :25], rtol=0, atol=1e-6)
    y_hat, _ = player.step(torch.zeros(1, 1, 5), None)  # silence plays the rest
    torch.testing.assert_close(y_hat, dry[..., 25:], rtol=0, atol=1e-6)


def test_player_refuses_a_pair_of_different_lengths():
    with pytest.raises(UserError, match="same length"):
        Player(FIR(16)).step(torch.zeros(1, 1, 10), torch.zeros(1, 1, 9))
