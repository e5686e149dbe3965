"""WaveNets in the JSON format of the plug-in of Wright et al. 2020 (WaveNetVA), also used by PedalNet."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.export.captures import Capture, described
from revox_lightning.export.json_weights import (
    check_memory,
    positive_integer,
    positive_integers,
    read_object,
    weights,
    with_keys,
)
from revox_lightning.models.wavenet import WaveNet

KEYS = (
    "activation",
    "input_channels",
    "output_channels",
    "residual_channels",
    "filter_width",
    "dilations",
    "variables",
)


def read(path: str | Path) -> Capture:
    """What `load` finds, as a capture; such a file names no sample rate."""
    net = load(path)
    options = {
        "dilations": [gated.dilation[0] for gated in net.gated], "width": net.input.out_channels,
        "kernel": net.gated[0].kernel_size[0],
    }  # fmt: skip
    return Capture(net, described(WaveNet, **options, channels=1, controls=0), None, {})


def load(path: str | Path) -> WaveNet:
    """The published model in `path`, ready to play.

    Raises UserError when the file cannot be read or holds another architecture or wrong sizes.
    """
    content = read_object(path, *KEYS)
    if (content["activation"], content["input_channels"], content["output_channels"]) != ("gated", 1, 1):
        found = f"{content['activation']!r} with {content['input_channels']} in, {content['output_channels']} out"
        raise UserError(f"{path} holds a WaveNet of activation {found}: only a gated one, 1 in and 1 out, loads")
    with torch.device("meta"):  # sizes without memory: a wrong one shows before anything is allocated
        net = WaveNet(
            positive_integers(content["dilations"], "dilations", path, most=2**22),
            width=positive_integer(content["residual_channels"], "residual_channels", path),
            kernel=positive_integer(content["filter_width"], "filter_width", path),
        )
    check_memory(net.receptive_field, path)
    stored = variables(content["variables"], path)
    expected = net.state_dict()
    found = {name: convolution(stored, name, old, net, path) for name, old in expected.items()}
    net.load_state_dict(found, assign=True)
    return net.eval()


def variables(listed: Any, path: str | Path) -> dict[tuple[str, str], Any]:
    """The file's arrays by layer (-1 input, 0.. gated layers, last the mixer) and name."""
    if not isinstance(listed, list):
        raise UserError(f"{path}: variables is not a list of arrays")
    stored = [with_keys(variable, path, "layer_idx", "name", "data") for variable in listed]
    return {(str(variable["layer_idx"]), str(variable["name"])): variable["data"] for variable in stored}


def convolution(
    stored: dict[tuple[str, str], Any], name: str, expected: Tensor, net: WaveNet, path: str | Path
) -> Tensor:
    """The array of one parameter of the net, from (tap, in, out) order to torch's (out, in, tap)."""
    layer, *number, kind = name.split(".")
    letter = "W" if kind == "weight" else "b"
    index = number[0] if number else {"input": "-1", "mixer": str(len(net.gated))}[layer]
    key = (index, letter + {"gated": "_conv", "residual": "_out"}.get(layer, ""))
    if key not in stored:
        raise UserError(f"{path} is not a model of this kind: layer {key[0]} lacks {key[1]}")
    label = f"{key[1]} of layer {key[0]}"
    data = weights(stored[key], expected.shape[::-1], label, path)
    return data.permute(*reversed(range(data.ndim))).contiguous()
