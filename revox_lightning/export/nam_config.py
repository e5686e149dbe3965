"""The config of a .nam file's architectures: options of the nets that compute them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.export.json_weights import one_of, positive_integer, positive_integers, with_keys
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import ACTIVATIONS, NAMWaveNet
from revox_lightning.models.recurrent import Recurrent

_LEAKY_SLOPE = 0.01
_SETTLED_SAMPLES = 48_000
# Parts of the newest files that no net here computes: absent or switched off, they do nothing.
_OFF: tuple[tuple[str, Any], ...] = (
    ("groups_input", 1), ("groups_input_mixin", 1), ("condition_dsp", None),
)  # fmt: skip
_FILM = (
    "conv_pre_film", "conv_post_film", "input_mixin_pre_film", "input_mixin_post_film", "activation_pre_film",
    "activation_post_film", "layer1x1_post_film", "head1x1_post_film",
)  # fmt: skip


def wavenet_options(config: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Options of a NAMWaveNet; raises UserError for what it cannot compute."""
    layers = config.get("layers")
    if not isinstance(layers, list) or not layers or len(layers) > 64:
        raise UserError(f"{path}: its layers are {str(layers)[:50]!r} where a list of layer arrays is expected")
    if config.get("head") is not None or config.get("condition_dsp") is not None:
        raise UserError(f"{path} has a net before or after its layers, which cannot be read")
    arrays = [_array(with_keys(layer, path, "input_size", "channels", "dilations"), path) for layer in layers]
    widths = [array["width"] for array in arrays]
    for n, array in enumerate(arrays):
        last = n == len(arrays) - 1
        wanted = (1, True) if last else (widths[n + 1], False)
        chained = layers[n]["input_size"] == (1 if n == 0 else widths[n - 1])
        if (array["head"], array["head_bias"]) != wanted or not chained or layers[n].get("condition_size", 1) != 1:
            raise UserError(f"{path}: its layer arrays do not follow one another as a WaveNet's do")
        if array["head_kernel"] != 1 and not last:
            raise UserError(f"{path}: only the last head may have a kernel of more than one sample")
    for name in ("activation", "gated"):
        if len({array[name] for array in arrays}) > 1:
            raise UserError(f"{path}: its layer arrays differ in their {name}, which cannot be read")
    return {
        "widths": widths,
        "dilations": [array["dilations"] for array in arrays],
        "kernel": [array["kernels"] for array in arrays],
        "activation": arrays[0]["activation"],
        "gated": arrays[0]["gated"],
        "head_kernel": arrays[-1]["head_kernel"],
    }


def _array(layer: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """One layer array, of the older form or the newer."""
    width = positive_integer(layer["channels"], "channels", path)
    dilations = positive_integers(layer["dilations"], "dilations", path, most=2**22)
    _check_off(layer, width, path)
    if "head" in layer:
        head = with_keys(layer["head"], path, "out_channels", "kernel_size")
        outputs, head_kernel, head_bias = head["out_channels"], head["kernel_size"], head.get("bias", False)
    else:
        outputs, head_kernel, head_bias = layer.get("head_size"), 1, layer.get("head_bias", False)
    sizes = layer.get("kernel_sizes", layer.get("kernel_size"))
    kernels = positive_integers(sizes if isinstance(sizes, list) else [sizes] * len(dilations), "kernel_size", path)
    if len(kernels) != len(dilations):
        raise UserError(f"{path}: {len(kernels)} kernel sizes and {len(dilations)} dilations: as many are expected")
    modes = layer.get("gating_mode", "gated" if layer.get("gated") else "none")
    mode = _same(modes, "gating_mode", path)
    second = _same(layer.get("secondary_activation"), "secondary_activation", path)
    second = second.get("type") if isinstance(second, dict) else second
    if one_of(mode, ("none", "gated"), "gating_mode", path) == "gated" and second not in (None, "Sigmoid"):
        raise UserError(f"{path}: its gate is {str(second)[:50]!r}, and only Sigmoid can be read")
    return {
        "width": width, "dilations": dilations, "kernels": kernels, "gated": mode == "gated",
        "activation": _activation(_same(layer.get("activation"), "activation", path), path),
        "head": positive_integer(outputs, "the size of a head", path), "head_bias": bool(head_bias),
        "head_kernel": positive_integer(head_kernel, "the kernel of a head", path),
    }  # fmt: skip


def _check_off(layer: dict[str, Any], width: int, path: str | Path) -> None:
    active = [name for name, off in _OFF if layer.get(name, off) != off]
    active += [name for name in _FILM if isinstance(layer.get(name), dict) and layer[name].get("active", True)]
    active += ["bottleneck"] if layer.get("bottleneck", width) != width else []
    residual, head = layer.get("layer1x1") or {}, layer.get("head1x1") or {}
    if not isinstance(residual, dict) or not residual.get("active", True) or residual.get("groups", 1) != 1:
        active.append("layer1x1")
    if not isinstance(head, dict) or head.get("active", False):
        active.append("head1x1")
    if active:
        raise UserError(f"{path} makes use of {', '.join(active)}, which no net here computes")


def _same(value: Any, name: str, path: str | Path) -> Any:
    """What all layers have in common: a list has it many times."""
    if not isinstance(value, list):
        return value
    if not value or any(other != value[0] for other in value):
        raise UserError(f"{path}: its layers differ in their {name}, which cannot be read")
    return value[0]


def _activation(value: Any, path: str | Path) -> str:
    slope = _LEAKY_SLOPE
    if isinstance(value, dict):
        value, slope = value.get("type"), value.get("negative_slope", _LEAKY_SLOPE)
    if value == "LeakyReLU" and slope != _LEAKY_SLOPE:
        raise UserError(f"{path}: a LeakyReLU of slope {str(slope)[:50]}, and only {_LEAKY_SLOPE} can be read")
    return one_of(value, tuple(ACTIVATIONS), "activation", path)


def conv_net_options(config: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Options of a ConvNet; raises UserError for what it cannot compute."""
    config = with_keys(config, path, "channels", "dilations", "activation")
    if config.get("groups", 1) != 1:
        raise UserError(f"{path}: a ConvNet in {str(config['groups'])[:50]!r} groups, and only one can be read")
    return {
        "width": positive_integer(config["channels"], "channels", path),
        "dilations": positive_integers(config["dilations"], "dilations", path, most=2**22),
        "batch_norm": bool(config.get("batchnorm")),
        "activation": _activation(config["activation"], path),
    }


def stored(net: Any) -> tuple[str, str, dict[str, Any], Tensor]:
    """Version, architecture, config and flat weights of a net; raises UserError where a player has none such."""
    kinds = {NAMWaveNet: _stored_wavenet, Recurrent: _stored_lstm, ConvNet: _stored_conv_net, FIR: _stored_linear}
    if type(net) not in kinds:
        raise UserError(
            f"a {type(net).__name__} has no place in a .nam file: export nam_wavenet, nam_lstm, conv_net or a filter, "
            "or choose format=onnx"
        )
    if net.channels != 1 or net.side_channels:
        raise UserError("a .nam file holds mono models: train with data.channels=left or mix")
    if net.controls:
        raise UserError(
            f"a .nam file knows no knobs: say where the {net.controls} of this model stand, controls=0.5,..."
        )
    return kinds[type(net)](net)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().flatten() for part in parts])


def _stored_wavenet(net: NAMWaveNet) -> tuple[str, str, dict[str, Any], Tensor]:
    """In the older form where that can say it, with the one key beside that newer readers ask for."""
    flat = _joined([*(weight for array in net.arrays for weight in array.published_order()), net.head_scale])
    older = net._plain and not net.arrays[0].gated
    layers = []
    for array in net.arrays:
        kernels, dilations = ([getattr(conv, name)[0] for conv in array.conv] for name in ("kernel_size", "dilation"))
        head, biased, width = array.head, array.head.bias is not None, array.rechannel.out_channels
        shared = {
            "input_size": array.rechannel.in_channels, "condition_size": 1, "channels": width, "dilations": dilations,
            "head": {"out_channels": head.out_channels, "kernel_size": head.kernel_size[0], "bias": biased},
        }  # fmt: skip
        if older:
            layers.append(shared | {
                "head_size": head.out_channels, "head_bias": biased, "kernel_size": kernels[0],
                "activation": array.activation, "gated": False,
            })  # fmt: skip
            continue
        activation: dict[str, Any] = {"type": array.activation}
        if array.activation == "LeakyReLU":
            activation["negative_slope"] = _LEAKY_SLOPE
        count, second = len(dilations), {"type": "Sigmoid"} if array.gated else None
        layers.append(shared | {
            "bottleneck": width, "kernel_sizes": kernels, "activation": [activation] * count,
            "gating_mode": ["gated" if array.gated else "none"] * count, "secondary_activation": [second] * count,
            "layer1x1": {"active": True, "groups": 1},
            "head1x1": {"active": False, "out_channels": 1, "groups": 1},
            "groups_input": 1, "groups_input_mixin": 1, "slimmable": None,
        })  # fmt: skip
    config = {"layers": layers, "head": None, "head_scale": net.head_scale.item()}
    return "0.5.4" if older else "0.7.0", "WaveNet", config, flat


def _stored_lstm(net: Recurrent) -> tuple[str, str, dict[str, Any], Tensor]:
    if net.unit != "lstm" or net.skip:
        what = "a GRU" if net.unit != "lstm" else "a net that adds its input to its output"
        raise UserError(f"a .nam file cannot hold {what}: train model=nam_lstm, or choose format=aidax or proteus")
    with torch.no_grad():
        _, settled = net(torch.zeros(1, 1, _SETTLED_SAMPLES))
    parts = []
    for n in range(net.rec.num_layers):
        weights = (getattr(net.rec, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        w_in, w_hidden, b_in, b_hidden = weights
        parts += [torch.cat([w_in, w_hidden], dim=1), b_in + b_hidden, *(part[n, 0] for part in settled)]
    bias = torch.zeros(1) if net.lin.bias is None else net.lin.bias
    config = {"input_size": 1, "hidden_size": net.rec.hidden_size, "num_layers": net.rec.num_layers}
    return "0.5.4", "LSTM", config, _joined([*parts, net.lin.weight, bias])


def _stored_conv_net(net: ConvNet) -> tuple[str, str, dict[str, Any], Tensor]:
    if any(conv.kernel_size[0] != 2 for conv in net.conv):
        raise UserError("a .nam file's ConvNet has kernels of two samples: train with model.kernel=2")
    parts = []
    for n, conv in enumerate(net.conv):
        parts.append(conv.weight)
        if net.norm is None:
            parts.append(conv.bias)
        else:
            norm = net.norm[n]
            parts += [norm.running_mean, norm.running_var, norm.weight, norm.bias, torch.tensor([norm.eps])]
    config = {
        "channels": net.conv[0].out_channels, "dilations": [conv.dilation[0] for conv in net.conv],
        "batchnorm": net.norm is not None, "activation": net.activation,
    }  # fmt: skip
    return "0.5.4", "ConvNet", config, _joined([*parts, net.head.weight, net.head.bias])


def _stored_linear(net: FIR) -> tuple[str, str, dict[str, Any], Tensor]:
    """As players hold it: the impulse response, newest sample first."""
    parts = [net.h] if net.bias is None else [net.h, net.bias]
    return "0.5.4", "Linear", {"receptive_field": net.taps, "bias": net.bias is not None}, _joined(parts)
