"""The linear filter, alone and beside a net."""

import pytest
import torch
from torch import nn

from revox_lightning.models.fir import FIR, direct_convolution, fft_convolution
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import TCN, tcn

torch.set_num_threads(1)


def close(a, b) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("taps", [1, 2, 300])
@torch.no_grad()
def test_fir_is_a_convolution_whichever_way_it_is_computed(taps):
    torch.manual_seed(0)
    x, h = torch.randn(2, 2, 500), torch.randn(2, taps) / taps**0.5
    net = FIR(taps, channels=2)
    net.load(h)
    impulse_response = net(torch.eye(1, taps).expand(1, 2, taps).contiguous())[0][0]
    close(impulse_response, h)
    window = nn.functional.pad(x, (taps - 1, 0))
    close(direct_convolution(window, h), fft_convolution(window, h))
    expected = nn.functional.conv1d(window.double(), h.flip(-1)[:, None].double(), groups=2).float()
    close(net(x)[0], expected)
    for block in (1, 64, 65):
        pieces, state = [], None
        for piece in x.split(block, dim=-1):
            y, state = net(piece, state=state)
            pieces.append(y)
        close(torch.cat(pieces, dim=-1), expected)


@pytest.mark.parametrize("samples", [1749, 1750, 20_000])
@pytest.mark.parametrize("taps", [1, 300, 700])
@torch.no_grad()
def test_a_long_signal_is_filtered_in_pieces_without_a_seam(taps, samples):
    torch.manual_seed(0)
    x, h = torch.randn(2, 2, samples), torch.randn(2, taps) / taps**0.5
    window = nn.functional.pad(x, (taps - 1, 0))
    expected = nn.functional.conv1d(window.double(), h.flip(-1)[:, None].double(), groups=2).float()
    close(fft_convolution(window, h), expected)


def test_fir_learns_only_when_trainable():
    assert list(FIR(16).parameters()) == []
    net = FIR(16, trainable=True)
    net.load(torch.ones(16))
    net(torch.ones(1, 1, 100))[0].sum().backward()
    assert [p.shape for p in net.parameters()] == [(1, 16)] and net.h.grad is not None and net.h.detach().eq(1).all()


@pytest.mark.parametrize("lookahead", [0, 7])
@pytest.mark.parametrize("exact", [False, True])
@torch.no_grad()
def test_linear_start_is_the_filter_at_first(lookahead, exact):
    torch.manual_seed(0)
    net = LinearStart(tcn(100, side_channels=1, paper_exact=exact), FIR(32, lookahead)).eval()
    x, h = torch.randn(1, 1, 200), torch.randn(32)
    net.fir.load(h)
    late = int(exact)
    assert net.latency_samples == lookahead + late and net.receptive_field == 4_445 + 31
    close(net(x)[0][..., late:], net.fir(x)[0][..., : 200 - late])


@torch.no_grad()
def test_linear_start_streams_with_a_net_that_looks_ahead_itself():
    torch.manual_seed(0)
    net = LinearStart(TCN(2, 4, 5, 8, side_channels=1, paper_exact=True), FIR(32, 7)).eval()
    nn.init.normal_(net.net.output_layer.weight)
    x, state, blocks = torch.randn(2, 1, 200), None, []
    for block in x.split([1, 64, 5, 130], dim=-1):
        y, state = net(block, state=state)
        blocks.append(y)
    close(torch.cat(blocks, dim=-1), net(x)[0])


@torch.no_grad()
def test_linear_start_shows_its_net_the_dry_and_the_filtered_signal_in_time():
    net = LinearStart(Recurrent(skip=False, side_channels=1), FIR(32, lookahead=7))  # the filter starts as a delay of 7
    seen = []
    net.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(torch.randn(1, 1, 100))
    close(seen[0][:, 0], seen[0][:, 1])
