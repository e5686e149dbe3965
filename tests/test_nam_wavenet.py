"""The WaveNet of Neural Amp Modeler: its published files, and its equations written out."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from revox_lightning import audio
from revox_lightning.kernels import backend
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet

torch.set_num_threads(1)
each_backend = pytest.mark.parametrize("kernels", ["torch", "auto"])


def settled(net, x: torch.Tensor, controls: torch.Tensor | None = None) -> torch.Tensor:
    """y after the silence that published captures are played from."""
    _, state = net(torch.zeros(1, x.shape[1], net.preroll_samples), controls)
    return net(x, controls, state)[0]


@each_backend
@pytest.mark.parametrize("name", ["wavenet", "wavenet_a1_standard"])
@torch.no_grad()
def test_published_captures_play_as_in_their_own_engine(golden, name, kernels):
    folder = golden / "amp" / "nam"
    capture = json.loads((folder / f"{name}.nam").read_text())
    layers = capture["config"]["layers"]
    net = NAMWaveNet([layer["channels"] for layer in layers], [layer["dilations"] for layer in layers])
    net.load_weights(torch.tensor(capture["weights"]))
    x, y = (audio.read(folder / file)[None] for file in ("input.wav", f"{name}_out.wav"))
    with backend.using(kernels):
        torch.testing.assert_close(settled(net, x), y, rtol=0, atol=1e-5)


@each_backend
@torch.no_grad()
def test_a_published_parametric_capture_plays_as_in_its_own_engine(golden, kernels):
    """Its knobs act through a linear layer with a bias of its own, which adds to the convolution's."""
    folder = golden / "amp" / "panama"
    weights = {k: torch.from_numpy(v) for k, v in np.load(folder / "parametric_wavenet.npz").items()}
    net = nam_wavenet("standard", controls=6, conditioning="bias")
    assert sum(w.numel() for w in net.parameters()) == 15_481 + 1  # and the head's scale
    for n, array in enumerate(net.arrays):
        own = f"_net._net._blocks.{n}."
        array.rechannel.weight.copy_(weights[f"{own}_rechannel.weight"])
        array.head.load_state_dict({k: weights[f"{own}_head_rechannel.{k}"] for k in array.head.state_dict()})
        for i, layer in enumerate(zip(array.conv, array.mixin, array.knobs, array.residual, strict=True)):
            names = ("_conv", "_input_mixer", "_global_mixer", "_1x1")
            for module, name in zip(layer, names, strict=True):
                for key, parameter in module.named_parameters():
                    parameter.copy_(weights[f"{own}_layers.{i}.{name}.{key}"].view_as(parameter))
    x, y = (audio.read(folder / file)[None, :, :96_000] for file in ("demo1.flac", "demo1_ours_gain-low.flac"))
    with backend.using(kernels):
        y_hat = settled(net, x, torch.tensor([[0.3, 0.5, 0.5, 0.5, 0.5, 0.5]]))
    assert ((y_hat - y).square().sum() / y.square().sum()).item() < 1e-8


@each_backend
@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_sample_by_sample(gated, kernels):
    """Two arrays, one layer each, written out."""
    torch.manual_seed(0)
    net = NAMWaveNet((3, 2), ([2], [1]), gated=gated, head_scale=0.5)
    x = torch.randn(1, 20)
    signal, total = x, torch.zeros(3, 20)
    for array, dilation in zip(net.arrays, (2, 1), strict=True):
        signal = array.rechannel.weight[..., 0] @ signal
        past = [nn.functional.pad(signal, (lag * dilation, 0))[:, :20] for lag in (2, 1, 0)]
        z = sum(array.conv[0].weight[..., k] @ past[k] for k in range(3)) + array.conv[0].bias[:, None]
        z = z + array.mixin[0].weight[..., 0] @ x
        width = len(signal)
        p = torch.tanh(z[:width]) * (torch.sigmoid(z[width:]) if gated else 1)
        signal = signal + array.residual[0].weight[..., 0] @ p + array.residual[0].bias[:, None]
        bias = 0 if array.head.bias is None else array.head.bias[:, None]
        total = array.head.weight[..., 0] @ (total + p) + bias
    with backend.using(kernels):
        torch.testing.assert_close(net(x[None])[0][0], 0.5 * total, rtol=0, atol=1e-6)


def test_a_weight_file_round_trips():
    torch.manual_seed(0)
    net, other = nam_wavenet("nano"), nam_wavenet("nano")
    flat = torch.cat([w.flatten() for array in net.arrays for w in array.published_order()] + [torch.tensor([0.1])])
    other.load_weights(flat)
    assert other.head_scale == 0.1
    pairs = zip(net.arrays.state_dict().items(), other.arrays.state_dict().items(), strict=True)
    assert all(name == same and torch.equal(a, b) for (name, a), (same, b) in pairs)
