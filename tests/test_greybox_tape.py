"""The grey-box tape recorder: it begins as the linear filter it is given, streams, and learns hysteresis."""

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.models.greybox_tape import GreyBoxTape, greybox_tape
from revox_lightning.models.stn import STN, stn
from revox_lightning.stream import stream


def small(**others) -> GreyBoxTape:
    torch.manual_seed(0)
    return greybox_tape(size=4, equaliser_taps=8, playback_taps=32, lookahead_samples=6, **others)


def learned(**others) -> GreyBoxTape:
    net = small(**others)
    torch.nn.init.normal_(net.hysteresis.output_layer.weight, std=0.3)
    torch.nn.init.normal_(net.trim.h, std=0.2)
    return net


def test_sizes():
    net = greybox_tape(size=8, playback_taps=4096, lookahead_samples=512)
    assert sum(weight.numel() for weight in net.parameters()) == 2 * 64 + 129 + 1
    assert net.latency_samples == 512 + 64 and net.receptive_field is None and net.fir is net.playback
    trainable = greybox_tape(size=8, playback_taps=4096, lookahead_samples=512, trainable=True)
    assert sum(weight.numel() for weight in trainable.parameters()) == 2 * 64 + 129 + 1 + 4096


@torch.no_grad()
def test_it_begins_as_the_filter_it_is_given():
    net, h = small(), torch.randn(32)
    net.fir.load(h)
    fir = FIR(32, 6)
    fir.load(h)
    x = torch.randn(2, 1, 700)
    late = net.latency_samples - fir.latency_samples
    assert torch.allclose(net(x)[0][..., late:], fir(x)[0][..., :-late], atol=1e-5)


@torch.no_grad()
def test_what_is_not_linear_is_hysteresis():
    """Odd, and without scaling: twice the signal is not twice the output."""
    net, x = learned(), torch.randn(1, 1, 500)
    y = net(x)[0]
    assert torch.allclose(net(-x)[0], -y, atol=1e-5)
    assert (net(2 * x)[0] - 2 * y).norm() > 0.01 * y.norm()


@pytest.mark.parametrize("block", [1, 64, 999])
@pytest.mark.parametrize("form", [{}, {"channels": 2, "controls": 3}])
@torch.no_grad()
def test_blocks_equal_one_call(block, form):
    net = learned(**form)
    x = 0.3 * torch.randn(2, net.channels, 1200 if block > 1 else 30)
    knobs = torch.rand(2, 3) if net.controls else None
    whole, _ = net(x, knobs)
    parts, _ = stream(net, x, knobs, block_samples=block)
    assert torch.allclose(parts, whole, atol=5e-6)


def test_it_learns_the_compression_of_a_hysteresis_behind_an_equaliser():
    torch.manual_seed(0)
    tape = STN((4, 4))
    torch.nn.init.normal_(tape.output_layer.weight, std=0.5)
    x = 0.3 * torch.randn(8, 1, 1024)
    with torch.no_grad():
        y = x + 0.5 * tape(3 * x)[0]
    net = small()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    losses = []
    late = net.latency_samples
    for _ in range(60):
        loss = (net(x)[0][..., late:] - y[..., :-late]).square().mean() / y.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_every_part_hears_the_gradient():
    net = learned()
    net(0.3 * torch.randn(2, 1, 300))[0].square().mean().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.any(), name


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="channels"):
        GreyBoxTape(FIR(8), stn(4, channels=2), FIR(8), FIR(8))
