"""Recurrent models in the JSON format of Automated-GuitarAmpModelling, Proteus and NeuralPi (Wright et al. 2019)."""

import json
from pathlib import Path
from typing import Any

import torch

from revox_lightning.errors import UserError
from revox_lightning.export.captures import Capture, described
from revox_lightning.export.json_weights import positive_integer, read_object, weights, with_keys
from revox_lightning.files import write_atomically
from revox_lightning.models.recurrent import UNITS, Recurrent


def read(path: str | Path) -> Capture:
    """What `load` finds, as a capture; such a file names no sample rate."""
    net = load(path)
    options = {
        "unit": net.unit, "hidden": net.rec.hidden_size, "layers": net.rec.num_layers, "skip": net.skip, "channels": 1,
        "controls": net.controls,
    }  # fmt: skip
    return Capture(net, described(Recurrent, **options), None, {})


def write(net: Any, path: str | Path) -> None:
    """Writes such a file. Raises UserError for a net that is no mono LSTM or GRU."""
    if not isinstance(net, Recurrent) or net.channels != 1 or net.side_channels:
        raise UserError("this format holds mono LSTMs and GRUs: train such a net, or choose format=onnx")
    model = {
        "model": "SimpleRNN", "input_size": 1 + net.controls, "skip": int(net.skip), "output_size": 1,
        "unit_type": net.unit.upper(), "num_layers": net.rec.num_layers, "hidden_size": net.rec.hidden_size,
        "bias_fl": True,
    }  # fmt: skip
    state = {name: weight.tolist() for name, weight in net.state_dict().items() if not name.startswith("initial")}
    state.setdefault("lin.bias", [0.0])
    text = json.dumps({"model_data": model, "state_dict": state}, allow_nan=False)
    write_atomically(Path(path), lambda file: file.write(text.encode()))


def load(path: str | Path) -> Recurrent:
    """The published model in `path`, ready to play; inputs beyond the first are its knobs.

    Raises UserError when the file cannot be read or holds another architecture or wrong sizes.
    """
    content = read_object(path, "model_data", "state_dict")
    data = with_keys(content["model_data"], path, "unit_type", "hidden_size", "input_size")
    unit = str(data["unit_type"]).lower()
    architecture = data.get("model", "SimpleRNN")
    if architecture != "SimpleRNN" or unit not in UNITS or data.get("output_size", 1) != 1:
        found = f"{architecture!s:.50} of {unit:.50} with {data.get('output_size', 1)!s:.50} outputs"
        raise UserError(f"{path} holds a {found}: only a mono LSTM or GRU loads")
    if data.get("skip", 1) not in (0, 1):
        raise UserError(f"{path}: skip is {data['skip']!s:.50} where 0 or 1 is expected")
    with torch.device("meta"):  # sizes without memory: a wrong one shows before anything is allocated
        net = Recurrent(
            unit,
            hidden=positive_integer(data["hidden_size"], "hidden_size", path),
            layers=positive_integer(data.get("num_layers", 1), "num_layers", path, most=64),
            skip=bool(data.get("skip", 1)),
            controls=positive_integer(data["input_size"], "input_size", path, most=64) - 1,
        )
    stored = content["state_dict"]
    if isinstance(stored, dict) and data.get("bias_fl") is False:
        stored.setdefault("lin.bias", [0.0])  # models trained without an output bias leave it out
    expected = net.state_dict()
    with_keys(stored, path, *expected)
    unknown = sorted(set(stored) - set(expected))
    if unknown:
        raise UserError(f"{path} holds weights that a {unit} of these sizes does not have: {', '.join(unknown)}")
    found = {name: weights(stored[name], old.shape, name, path) for name, old in expected.items()}
    net.load_state_dict(found, assign=True)
    return net.eval()
