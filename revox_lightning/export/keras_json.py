"""The JSON of RTNeural (github.com/jatinchowdhury18/RTNeural), and of AIDA-X, which says more: Keras' weight layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.export.captures import Capture, described
from revox_lightning.export.json_weights import (
    check_memory,
    one_of,
    positive_integer,
    rate,
    read_object,
    weights,
    with_keys,
)
from revox_lightning.files import write_atomically
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.recurrent import Recurrent

AIDAX_HIDDEN = (8, 12, 16, 20, 24, 32, 40, 64, 80)  # that the plugin was built for
AIDAX_INPUTS = 3  # at most, the audio and two knobs
BATCH_SAMPLES = 2048  # of the example that an AIDA-X file carries
_GATES = {"lstm": 4, "gru": 3}
_DENSE = ("dense", "time-distributed-dense")
_ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu"}


def read(path: str | Path) -> Capture:
    """The net in `path`: LSTMs or GRUs of one size, or causal convolutions of one, then a dense layer.

    Raises UserError for a file that is damaged or holds another net.
    """
    content = read_object(path, "layers")
    listed = content["layers"]
    if not isinstance(listed, list) or not 2 <= len(listed) <= 4096:
        raise UserError(f"{path}: its layers are {str(listed)[:50]!r} where a list of at least two is expected")
    layers = [with_keys(layer, path, "type", "shape", "weights") for layer in listed]
    inputs = positive_integer(_last(content.get("in_shape", [1]), path), "in_shape", path, most=64)
    *inner, dense = layers
    if one_of(dense["type"], _DENSE, "the type of its last layer", path) and _last(dense["shape"], path) != 1:
        raise UserError(
            f"{path}: its last layer has {str(_last(dense['shape'], path))[:50]!r} outputs, and one is read"
        )
    kinds = {str(layer["type"]) for layer in inner}
    if len(kinds) != 1 or not kinds <= {"lstm", "gru", "conv1d"}:
        raise UserError(f"{path} is made of {', '.join(sorted(kinds))[:99]}: LSTMs, GRUs or convolutions can be read")
    kind = kinds.pop()
    skip = one_of(content.get("in_skip", 0), (0, 1), "in_skip", path)
    reader = _conv_net if kind == "conv1d" else _recurrent
    model, net = reader(inner, dense, inputs, bool(skip), path)
    _apply_gains(net, content, path)
    facts = content.get("metadata")
    facts = facts if isinstance(facts, dict) else {}
    return Capture(net.eval(), model, rate(facts.get("samplerate"), path), facts)


def _last(shape: Any, path: str | Path) -> Any:
    if not isinstance(shape, list) or not shape:
        raise UserError(f"{path}: {str(shape)[:50]!r} is no shape of a layer")
    return shape[-1]


def _parts(layer: dict[str, Any], count: int, path: str | Path) -> list[Any]:
    found = layer["weights"]
    if not isinstance(found, list) or len(found) != count:
        raise UserError(
            f"{path}: a layer of kind {str(layer['type'])[:50]} does not have its {count} arrays of weights"
        )
    return found


def _recurrent(layers: list, dense: dict, inputs: int, skip: bool, path: str | Path) -> tuple[dict, Recurrent]:
    unit = str(layers[0]["type"])
    sizes = {positive_integer(_last(layer["shape"], path), "units", path) for layer in layers}
    if len(sizes) != 1:
        raise UserError(f"{path}: its layers have {sorted(sizes)} units, and as many in each can be read")
    hidden = sizes.pop()
    options = {"unit": unit, "hidden": hidden, "layers": len(layers), "skip": skip}
    found: dict[str, Tensor] = {}
    for n, layer in enumerate(layers):
        before = inputs if n == 0 else hidden
        w_in, w_hidden, bias = _parts(layer, 3, path)
        gates = _GATES[unit] * hidden
        shape = (gates,) if unit == "lstm" else (2, gates)
        both = weights(bias, shape, "bias", path).reshape(-1, gates)
        found |= {
            f"rec.weight_ih_l{n}": _gates(weights(w_in, (before, gates), "input weights", path).T, unit),
            f"rec.weight_hh_l{n}": _gates(weights(w_hidden, (hidden, gates), "recurrent weights", path).T, unit),
            f"rec.bias_ih_l{n}": _gates(both[0], unit),
            f"rec.bias_hh_l{n}": _gates(both[1], unit) if unit == "gru" else torch.zeros(gates),
        }
    w_out, b_out = _parts(dense, 2, path)
    found |= {
        "lin.weight": weights(w_out, (hidden, 1), "dense weights", path).T,
        "lin.bias": weights(b_out, (1,), "dense bias", path),
    }
    net = Recurrent(**options, controls=inputs - 1)
    net.load_state_dict({name: value.contiguous() for name, value in found.items()})
    return described(Recurrent, **options, channels=1, controls=inputs - 1), net


def _gates(rows: Tensor, unit: str) -> Tensor:
    """Keras has a GRU's gates in the order z, r, h, torch in the order r, z, n; of an LSTM they are the same."""
    if unit == "lstm":
        return rows
    z, r, h = rows.chunk(3)
    return torch.cat([r, z, h])


def _conv_net(layers: list, dense: dict, inputs: int, skip: bool, path: str | Path) -> tuple[dict, ConvNet]:
    def whole(layer: dict, name: str, most: int = 65_536) -> int:
        value = layer.get(name, 1)
        return positive_integer(_last(value, path) if isinstance(value, list) else value, name, path, most)

    widths = {positive_integer(_last(layer["shape"], path), "units", path) for layer in layers}
    kernels = {whole(layer, "kernel_size") for layer in layers}
    activations = {str(layer.get("activation", "")) for layer in layers}
    known = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
    grouped = any(layer.get("groups", 1) != 1 for layer in layers)
    if (
        skip
        or grouped
        or len(widths) != 1
        or len(kernels) != 1
        or len(activations) != 1
        or not activations <= set(known)
    ):
        raise UserError(f"{path}: its convolutions are not all of one width, kernel and activation (tanh or relu)")
    width, kernel = widths.pop(), kernels.pop()
    dilations = [whole(layer, "dilation", 2**22) for layer in layers]
    check_memory(1 + sum((kernel - 1) * dilation for dilation in dilations), path)
    options = {
        "width": width, "dilations": dilations, "kernel": kernel, "batch_norm": False,
        "activation": known[activations.pop()],
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for n, layer in enumerate(layers):
        w, b = _parts(layer, 2, path)
        before = inputs if n == 0 else width
        found[f"conv.{n}.weight"] = weights(w, (kernel, before, width), "weights", path).permute(2, 1, 0).contiguous()
        found[f"conv.{n}.bias"] = weights(b, (width,), "bias", path)
    w_out, b_out = _parts(dense, 2, path)
    found["head.weight"] = weights(w_out, (width, 1), "dense weights", path).T[..., None].contiguous()
    found["head.bias"] = weights(b_out, (1,), "dense bias", path)
    net = ConvNet(**options, controls=inputs - 1)
    net.load_state_dict(found)
    return described(ConvNet, **options, channels=1, controls=inputs - 1), net


@torch.no_grad()
def _apply_gains(net: Any, content: dict[str, Any], path: str | Path) -> None:
    """An AIDA-X file's gains in dB, at its input and output, become part of the weights."""
    gains = [content.get(name, 0) for name in ("in_gain", "out_gain")]
    if not all(isinstance(gain, (int, float)) and abs(gain) < 200 for gain in gains):
        raise UserError(f"{path}: in_gain and out_gain are {str(gains)[:50]} where dB are expected")
    if any(gains) and getattr(net, "skip", False):
        raise UserError(f"{path} has gains around a net that adds its input to its output: set them to 0 dB")
    first = net.rec.weight_ih_l0 if isinstance(net, Recurrent) else net.conv[0].weight
    first[:, :1] *= 10 ** (gains[0] / 20)
    for parameter in net.output_layer.parameters():
        parameter *= 10 ** (gains[1] / 20)


def write(net: Any, path: str | Path) -> None:
    """Writes RTNeural's JSON. Raises UserError for a net that has no such layers."""
    _save(_content(net), path)


@torch.no_grad()
def write_aidax(net: Any, path: str | Path, facts: dict[str, Any]) -> None:
    """Writes AIDA-X' JSON, with an example of input and output. Raises UserError for a net the plugin cannot load."""
    if not isinstance(net, Recurrent) or net.rec.num_layers != 1:
        raise UserError("AIDA-X plays one layer of LSTM or GRU: choose format=rtneural, nam or onnx for this net")
    if net.rec.hidden_size not in AIDAX_HIDDEN or 1 + net.controls > AIDAX_INPUTS:
        sizes = ", ".join(map(str, AIDAX_HIDDEN))
        raise UserError(
            f"AIDA-X plays {sizes} units and at most {AIDAX_INPUTS - 1} knobs, and this net has {net.rec.hidden_size} "
            f"units and {net.controls} knobs"
        )
    x = 0.3 * torch.randn(1, 1, BATCH_SAMPLES, generator=torch.Generator().manual_seed(0))
    y = net(x, torch.zeros(1, net.controls) if net.controls else None)[0]
    more = {
        "in_skip": int(net.skip), "in_gain": 0.0, "out_gain": 0.0, "metadata": facts,
        "input_batch": x.flatten().tolist(), "output_batch": y.flatten().tolist(),
    }  # fmt: skip
    _save(_content(net, with_skip=True) | more, path)


def _save(content: dict[str, Any], path: str | Path) -> None:
    text = json.dumps(content, allow_nan=False)
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def _content(net: Any, with_skip: bool = False) -> dict[str, Any]:
    if not isinstance(net, (Recurrent, ConvNet)):
        raise UserError(
            f"a {type(net).__name__} has no layers that RTNeural knows: export an LSTM, a GRU or a conv_net, or choose "
            "format=onnx"
        )
    if net.channels != 1 or net.side_channels:
        raise UserError("this format holds mono models: train with data.channels=left or mix")
    if isinstance(net, Recurrent):
        if net.skip and not with_skip:
            raise UserError("RTNeural's own JSON cannot add the input to the output: choose format=aidax or proteus")
        layers = _recurrent_layers(net)
    else:
        layers = _convolutions(net)
    return {"in_shape": [None, None, 1 + net.controls], "layers": layers}


def _layer(kind: str, units: int, arrays: list[Tensor], activation: str = "", **more: Any) -> dict[str, Any]:
    listed = [array.detach().tolist() for array in arrays]
    return {"type": kind, "activation": activation, "shape": [None, None, units], **more, "weights": listed}


def _recurrent_layers(net: Recurrent) -> list[dict[str, Any]]:
    layers = []
    for n in range(net.rec.num_layers):
        parts = (getattr(net.rec, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        w_in, w_hidden, b_in, b_hidden = (_gates(part, net.unit) for part in parts)
        bias = b_in + b_hidden if net.unit == "lstm" else torch.stack([b_in, b_hidden])
        layers.append(_layer(net.unit, net.rec.hidden_size, [w_in.T, w_hidden.T, bias]))
    bias = torch.zeros(1) if net.lin.bias is None else net.lin.bias
    return [*layers, _layer("dense", 1, [net.lin.weight.T, bias])]


def _convolutions(net: ConvNet) -> list[dict[str, Any]]:
    if net.activation not in _ACTIVATIONS:
        raise UserError(f"RTNeural knows no {net.activation}: train with model.activation=Tanh")
    layers = []
    for n, conv in enumerate(net.conv):
        w, b = conv.weight.double(), torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.double()
        if net.norm is not None:  # in playing, batch norm is a factor and a constant
            norm = net.norm[n]
            factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            w, b = w * factor[:, None, None], (b - norm.running_mean) * factor + norm.bias
        layers.append(_layer(
            "conv1d", conv.out_channels, [w.permute(2, 1, 0), b], _ACTIVATIONS[net.activation],
            kernel_size=[conv.kernel_size[0]], dilation=[conv.dilation[0]], groups=1,
        ))  # fmt: skip
    return [*layers, _layer("dense", 1, [net.head.weight[..., 0].T, net.head.bias])]
