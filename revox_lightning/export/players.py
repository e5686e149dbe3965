"""Independent players of the formats, in numpy and double precision: what an export is checked against.

They share no code with the nets, and know of a file only what its format says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def play(path: str | Path, x: Array, knobs: Array) -> Array:
    """x (time,) through a .nam, RTNeural, AIDA-X or Proteus file with its knobs (knobs,) standing still: y (time,)."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if "architecture" in content:
        kinds = {"WaveNet": _wavenet, "LSTM": _nam_lstm, "ConvNet": _nam_conv_net, "Linear": _linear}
        return kinds[content["architecture"]](content["config"], np.array(content["weights"], dtype=float), x)
    u = np.vstack([x, np.repeat(knobs[:, None], len(x), axis=1)])  # (inputs, time)
    y = _proteus(content, u) if "model_data" in content else _keras(content["layers"], u)
    skip = content["model_data"]["skip"] if "model_data" in content else content.get("in_skip", 0)
    return y + x if skip else y


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


_ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leakyrelu": lambda z: np.where(z > 0, z, 0.01 * z),
}


def _activation(name: Any) -> Any:
    return _ACTIVATIONS[str(name["type"] if isinstance(name, dict) else name).lower()]


class _Weights:
    def __init__(self, values: Array) -> None:
        self.values, self.place = values, 0

    def __call__(self, *shape: int) -> Array:
        start, self.place = self.place, self.place + int(np.prod(shape))
        return self.values[start : self.place].reshape(shape)


def _convolved(x: Array, w: Array, dilation: int) -> Array:
    """x (in, time), w (out, in, taps), the last tap now: (out, time), with silence before the start."""
    taps = w.shape[2]
    padded = np.pad(x, ((0, 0), ((taps - 1) * dilation, 0)))
    return sum(w[:, :, k] @ padded[:, k * dilation : k * dilation + x.shape[1]] for k in range(taps))  # type: ignore


def _wavenet(config: dict[str, Any], flat: Array, x: Array) -> Array:
    take, signal, condition, head = _Weights(flat), x[None], x[None], None
    for layer in config["layers"]:
        width, dilations = layer["channels"], layer["dilations"]
        kernels = layer.get("kernel_sizes", [layer.get("kernel_size")] * len(dilations))
        gated = layer.get("gated", False) or "gated" in layer.get("gating_mode", [])
        names = layer["activation"] if isinstance(layer["activation"], list) else [layer["activation"]] * len(dilations)
        signal = take(width, len(signal)) @ signal
        for kernel, dilation, name in zip(kernels, dilations, names, strict=True):
            sums = 2 * width if gated else width
            w, b, mixin = take(sums, width, kernel), take(sums), take(sums, 1)
            z = _convolved(signal, w, dilation) + b[:, None] + mixin @ condition
            p = _activation(name)(z[:width])
            if gated:
                p = p * _sigmoid(z[width:])
            head = p if head is None else head + p
            signal = signal + take(width, width) @ p + take(width)[:, None]
        shape = layer.get("head", {"out_channels": layer.get("head_size"), "kernel_size": 1})
        w = take(shape["out_channels"], width, shape["kernel_size"])
        assert head is not None
        head = _convolved(head, w, 1)
        if shape.get("bias", layer.get("head_bias", False)):
            head = head + take(len(w))[:, None]
    assert head is not None
    return take(1)[0] * head[0]


def _nam_lstm(config: dict[str, Any], flat: Array, x: Array) -> Array:
    take, hidden, signal = _Weights(flat), config["hidden_size"], x[None]
    for _ in range(config["num_layers"]):
        both, b, h, c = take(4 * hidden, len(signal) + hidden), take(4 * hidden), take(hidden), take(hidden)
        w_in, w_hidden = both[:, : len(signal)], both[:, len(signal) :]
        signal = _lstm(w_in, w_hidden, b, signal, h, c)
    return take(hidden) @ signal + take(1)


def _lstm(w_in: Array, w_hidden: Array, b: Array, u: Array, h: Array, c: Array) -> Array:
    """Gates i, f, g, o: u (in, time) -> (hidden, time)."""
    driven, hidden = w_in @ u + b[:, None], len(h)
    out = np.empty((hidden, u.shape[1]))
    for n in range(u.shape[1]):
        z = driven[:, n] + w_hidden @ h
        i, f, o = _sigmoid(z[:hidden]), _sigmoid(z[hidden : 2 * hidden]), _sigmoid(z[3 * hidden :])
        c = f * c + i * np.tanh(z[2 * hidden : 3 * hidden])
        h = out[:, n] = o * np.tanh(c)
    return out


def _gru(w_in: Array, w_hidden: Array, b_in: Array, b_hidden: Array, u: Array) -> Array:
    """Gates r, z, n: u (in, time) -> (hidden, time)."""
    driven, hidden = w_in @ u + b_in[:, None], w_hidden.shape[1]
    h, out = np.zeros(hidden), np.empty((hidden, u.shape[1]))
    for n in range(u.shape[1]):
        a, g = driven[:, n], w_hidden @ h + b_hidden
        r, z = _sigmoid(a[:hidden] + g[:hidden]), _sigmoid(a[hidden : 2 * hidden] + g[hidden : 2 * hidden])
        new = np.tanh(a[2 * hidden :] + r * g[2 * hidden :])
        h = out[:, n] = (1 - z) * new + z * h
    return out


def _nam_conv_net(config: dict[str, Any], flat: Array, x: Array) -> Array:
    take, signal, width = _Weights(flat), x[None], config["channels"]
    for dilation in config["dilations"]:
        z = _convolved(signal, take(width, len(signal), 2), dilation)
        if config["batchnorm"]:
            mean, var, gain, bias, eps = take(width), take(width), take(width), take(width), take(1)
            z = (z - mean[:, None]) / np.sqrt(var + eps)[:, None] * gain[:, None] + bias[:, None]
        else:
            z = z + take(width)[:, None]
        signal = _activation(config["activation"])(z)
    return take(width) @ signal + take(1)


def _linear(config: dict[str, Any], flat: Array, x: Array) -> Array:
    taps = config["receptive_field"]
    return np.convolve(x, flat[:taps])[: len(x)] + (flat[taps] if config["bias"] else 0)


def _proteus(content: dict[str, Any], u: Array) -> Array:
    state = {name: np.array(value, dtype=float) for name, value in content["state_dict"].items()}
    for n in range(content["model_data"]["num_layers"]):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_in, w_hidden, b_in, b_hidden = (state[f"rec.{name}_l{n}"] for name in names)
        if content["model_data"]["unit_type"] == "GRU":
            u = _gru(w_in, w_hidden, b_in, b_hidden, u)
        else:
            zero = np.zeros(w_hidden.shape[1])
            u = _lstm(w_in, w_hidden, b_in + b_hidden, u, zero, zero)
    return (state["lin.weight"] @ u + state["lin.bias"][:, None])[0]


def _keras(layers: list[dict[str, Any]], u: Array) -> Array:
    for layer in layers:
        parts = [np.array(part, dtype=float) for part in layer["weights"]]
        if layer["type"] == "lstm":
            zero = np.zeros(parts[1].shape[0])
            u = _lstm(parts[0].T, parts[1].T, parts[2], u, zero, zero)
        elif layer["type"] == "gru":  # gates z, r, h
            w_in, w_hidden, b_in, b_hidden = (_r_first(part) for part in (parts[0].T, parts[1].T, *parts[2]))
            u = _gru(w_in, w_hidden, b_in, b_hidden, u)
        elif layer["type"] == "conv1d":
            z = _convolved(u, parts[0].transpose(2, 1, 0), layer["dilation"][0]) + parts[1][:, None]
            u = _activation(layer["activation"])(z) if layer["activation"] else z
        else:
            u = parts[0].T @ u + parts[1][:, None]
    return u[0]


def _r_first(rows: Array) -> Array:
    z, r, h = np.split(rows, 3)
    return np.concatenate([r, z, h])
