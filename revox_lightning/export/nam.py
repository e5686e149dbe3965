"""Neural Amp Modeler's .nam files (github.com/sdatkinson/NeuralAmpModelerCore): WaveNet, LSTM, ConvNet, Linear."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.export import nam_config
from revox_lightning.export.captures import Capture, described
from revox_lightning.export.json_weights import check_memory, positive_integer, rate, read_object, weights, with_keys
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import NAMWaveNet
from revox_lightning.models.recurrent import Recurrent

USUAL_RATE_HZ = 48_000  # of a file that names none
_SETTLING_SECONDS = 0.5  # of silence, which players feed an LSTM first


def read(path: str | Path) -> Capture:
    """The capture in `path`; of a container, its largest model.

    Raises UserError for a file that is damaged, of an unknown version or architecture, or has a part that no net here
    can compute.
    """
    return _read(read_object(path, "version", "architecture", "config", "weights"), path)


def _read(content: dict[str, Any], path: str | Path, inner: bool = False) -> Capture:
    version = re.fullmatch(r"0\.(\d+)\.\d+", str(content["version"])[:50])
    if not version or not 5 <= int(version[1]) <= 7:
        raise UserError(f"{path} is of version {str(content['version'])[:50]!r}: 0.5 to 0.7 can be read")
    facts = content.get("metadata") or {}
    hz = rate(content.get("sample_rate"), path)
    config = with_keys(content["config"], path)
    readers = {"WaveNet": _wavenet, "LSTM": _lstm, "ConvNet": _conv_net, "Linear": _linear}
    architecture = content["architecture"]
    if architecture == "SlimmableContainer" and not inner:
        found = _read(_largest(config, path), path, inner=True)
        return found._replace(sample_rate_hz=hz or found.sample_rate_hz, facts=facts or found.facts)
    if not isinstance(architecture, str) or architecture not in readers:
        kinds = ", ".join(readers)
        raise UserError(f"{path} holds a {str(architecture)[:50]!r}: the architectures that can be read are {kinds}")
    flat = content["weights"]
    if not isinstance(flat, list):
        raise UserError(f"{path}: weights is not a list of numbers")
    model, net = readers[architecture](config, flat, path, hz or USUAL_RATE_HZ)
    return Capture(net.eval(), model, hz or USUAL_RATE_HZ, facts if isinstance(facts, dict) else {})


def _largest(config: dict[str, Any], path: str | Path) -> dict[str, Any]:
    models = config.get("submodels")
    if not isinstance(models, list) or not models or not all(isinstance(part, dict) for part in models):
        raise UserError(f"{path} is a container without models")
    sizes = [part.get("max_value") for part in models]
    if not all(isinstance(size, (int, float)) for size in sizes):
        raise UserError(f"{path}: a model of its container does not say its max_value")
    largest = models[max(range(len(models)), key=lambda n: sizes[n])]
    return with_keys(largest.get("model"), path, "version", "architecture", "config", "weights")


def _flat(values: list[Any], count: int, path: str | Path) -> Tensor:
    if len(values) != count:
        raise UserError(f"{path}: a net of its sizes has {count} weights, and the file holds {len(values)}")
    return weights(values, (count,), "weights", path)


def _wavenet(config: dict, flat: list, path: str | Path, hz: int) -> tuple[dict[str, Any], NAMWaveNet]:
    options = nam_config.wavenet_options(config, path)
    with torch.device("meta"):  # sizes without memory: a wrong one shows before anything is allocated
        net = NAMWaveNet(**options)
    check_memory(net.receptive_field, path)
    values = _flat(flat, sum(weight.numel() for weight in net.parameters()), path)
    net = NAMWaveNet(**options)
    net.load_weights(values)
    return described(NAMWaveNet, **options, channels=1, controls=0), net


def _lstm(config: dict, flat: list, path: str | Path, hz: int) -> tuple[dict[str, Any], Recurrent]:
    config = with_keys(config, path, "input_size", "hidden_size", "num_layers")
    if config["input_size"] != 1:
        raise UserError(f"{path}: an LSTM of {str(config['input_size'])[:50]!r} inputs: only one can be read")
    hidden = positive_integer(config["hidden_size"], "hidden_size", path)
    layers = positive_integer(config["num_layers"], "num_layers", path, most=64)
    per_layer = [(4 * hidden, (1 if n == 0 else hidden) + hidden) for n in range(layers)]
    values = _flat(flat, sum(rows * columns + rows + 2 * hidden for rows, columns in per_layer) + hidden + 1, path)
    options = {
        "unit": "lstm", "hidden": hidden, "layers": layers, "skip": False, "initial_state": True,
        "preroll_samples": round(_SETTLING_SECONDS * hz),
    }  # fmt: skip
    net: Any = Recurrent(**options)
    taken = _Taking(values)
    with torch.no_grad():
        for n, (rows, columns) in enumerate(per_layer):
            both = taken(rows, columns)
            getattr(net.rec, f"weight_ih_l{n}").copy_(both[:, : columns - hidden])
            getattr(net.rec, f"weight_hh_l{n}").copy_(both[:, columns - hidden :])
            getattr(net.rec, f"bias_ih_l{n}").copy_(taken(rows))
            getattr(net.rec, f"bias_hh_l{n}").zero_()
            for part in net.initial:
                part[n, 0].copy_(taken(hidden))
        net.lin.weight.copy_(taken(1, hidden))
        net.lin.bias.copy_(taken(1))
    return described(Recurrent, **options, channels=1, controls=0), net


def _conv_net(config: dict, flat: list, path: str | Path, hz: int) -> tuple[dict[str, Any], ConvNet]:
    options = nam_config.conv_net_options(config, path)
    with torch.device("meta"):
        net = ConvNet(**options)
    check_memory(net.receptive_field, path)
    blocks, normed = len(options["dilations"]), options["batch_norm"]
    count = sum(weight.numel() for weight in net.parameters()) + normed * blocks * (2 * options["width"] + 1)
    taken = _Taking(_flat(flat, count, path))
    net = ConvNet(**options)
    with torch.no_grad():
        for n, conv in enumerate(net.conv):
            conv.weight.copy_(taken(*conv.weight.shape))
            if net.norm is None:
                conv.bias.copy_(taken(*conv.bias.shape))
                continue
            norm = net.norm[n]
            for part in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                part.copy_(taken(*part.shape))
            norm.running_var.add_(taken(1) - norm.eps)  # a net's own eps is not among its weights
        net.head.weight.copy_(taken(*net.head.weight.shape))
        net.head.bias.copy_(taken(1))
    return described(ConvNet, **options, channels=1, controls=0), net


def _linear(config: dict, flat: list, path: str | Path, hz: int) -> tuple[dict[str, Any], FIR]:
    taps = positive_integer(config.get("receptive_field"), "receptive_field", path, most=2**22)
    biased = bool(config.get("bias"))
    values = _flat(flat, taps + biased, path)
    options = {"taps": taps, "channels": 1, "trainable": True, "bias": biased}
    net = FIR(**options)
    net.load(values[:taps])
    if net.bias is not None:
        with torch.no_grad():
            net.bias.copy_(values[taps:, None])
    return described(FIR, **options), net


class _Taking:
    """Hands out a file's weights in order."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._place = values, 0

    def __call__(self, *shape: int) -> Tensor:
        count = 1
        for size in shape:
            count *= size
        self._place += count
        return self._values[self._place - count : self._place].view(*shape)


def write(net: Any, path: str | Path, sample_rate_hz: int, facts: dict[str, Any]) -> None:
    """Writes a capture in the oldest version that can say it; `facts` become its metadata.

    An LSTM is stored with the state that silence settles it to. Raises UserError for a net that players cannot compute.
    """
    from revox_lightning.files import write_atomically

    version, architecture, config, flat = nam_config.stored(net)
    content = {
        "version": version, "metadata": facts, "architecture": architecture, "config": config,
        "weights": [float(value) for value in flat], "sample_rate": sample_rate_hz,
    }  # fmt: skip
    text = json.dumps(content, allow_nan=False)
    write_atomically(Path(path), lambda file: file.write(text.encode()))
