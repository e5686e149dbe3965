"""A parametric model as it sounds with its knobs where they are: for players that know no knobs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.nam_wavenet import NAMWaveNet
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.wavenet import WaveNet


@torch.no_grad()
def snapshot(net: Any, positions: Sequence[float]) -> Any:
    """The same net without knobs: what constant ones add to a layer goes into its bias, exactly.

    Raises UserError where there are not as many positions as knobs, and for a net whose knobs do more than that.
    """
    if len(positions) != net.controls:
        raise UserError(
            f"the model has {net.controls} knobs and {len(positions)} positions were given: controls=0.5,..."
        )
    if not net.controls:
        return net
    g = torch.tensor(positions, dtype=torch.float32)
    net = copy.deepcopy(net)
    if isinstance(net, Recurrent):
        _without_knobs(net)
        net.rec.bias_ih_l0 += net.rec.weight_ih_l0[:, -len(g) :] @ g
        net.rec.weight_ih_l0 = torch.nn.Parameter(net.rec.weight_ih_l0[:, : -len(g)].contiguous())
        net.rec.input_size -= len(g)
    elif isinstance(net, WaveNet):
        _without_knobs(net)
        _fold(net.input, g)
    elif isinstance(net, NAMWaveNet):
        _without_knobs(net)
        for array in net.arrays:
            for n, (conv, mixin) in enumerate(zip(array.conv, array.mixin, strict=True)):
                if array.knobs is not None:
                    conv.bias += array.knobs[n].weight[..., 0] @ g + array.knobs[n].bias
                else:
                    conv.bias += _taken_off(mixin, g)
            array.knobs = None
        net.conditioning = "concatenate"
    elif isinstance(net, ConvNet) and net.norm is None:
        _without_knobs(net)
        _fold(net.conv[0], g)
    else:
        raise UserError(
            f"the knobs of a {type(net).__name__} do not fold into constants: choose format=onnx or torchscript, which "
            "keep them"
        )
    return net


def _without_knobs(net: Any) -> None:
    net.controls = 0


def _taken_off(conv: torch.nn.Conv1d, g: Tensor) -> Tensor:
    """What constant last inputs of a convolution add to its outputs; it loses them."""
    added = conv.weight[:, -len(g) :].sum(-1) @ g
    conv.weight = torch.nn.Parameter(conv.weight[:, : -len(g)].contiguous())
    conv.in_channels -= len(g)
    return added


def _fold(conv: Any, g: Tensor) -> None:
    conv.bias += _taken_off(conv, g)
