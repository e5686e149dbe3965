"""Recurrent models in the JSON format of Automated-GuitarAmpModelling, Proteus and NeuralPi (Wright et al. 2019)."""

from pathlib import Path

import torch

from revox_lightning.errors import UserError
from revox_lightning.export.json_weights import positive_integer, read_object, weights, with_keys
from revox_lightning.models.recurrent import UNITS, Recurrent


def load(path: str | Path) -> Recurrent:
    """The published model in `path`, ready to play; inputs beyond the first are its knobs.

    Raises UserError when the file cannot be read or holds another architecture or wrong sizes.
    """
    content = read_object(path, "model_data", "state_dict")
    described = with_keys(content["model_data"], path, "unit_type", "hidden_size", "input_size")
    unit = str(described["unit_type"]).lower()
    architecture = described.get("model", "SimpleRNN")
    if architecture != "SimpleRNN" or unit not in UNITS or described.get("output_size", 1) != 1:
        outputs = described.get("output_size", 1)
        raise UserError(
            f"{path} holds a {architecture} of {unit} with {outputs} outputs: only a mono LSTM or GRU loads"
        )
    if described.get("skip", 1) not in (0, 1):
        raise UserError(f"{path}: skip is {described['skip']!r} where 0 or 1 is expected")
    with torch.device("meta"):  # sizes without memory: a wrong one shows before anything is allocated
        net = Recurrent(
            unit,
            hidden=positive_integer(described["hidden_size"], "hidden_size", path),
            layers=positive_integer(described.get("num_layers", 1), "num_layers", path),
            skip=bool(described.get("skip", 1)),
            controls=positive_integer(described["input_size"], "input_size", path) - 1,
        )
    stored = content["state_dict"]
    if isinstance(stored, dict) and described.get("bias_fl") is False:
        stored.setdefault("lin.bias", [0.0])  # models trained without an output bias leave it out
    expected = net.state_dict()
    with_keys(stored, path, *expected)
    unknown = sorted(set(stored) - set(expected))
    if unknown:
        raise UserError(f"{path} holds weights that a {unit} of these sizes does not have: {', '.join(unknown)}")
    found = {name: weights(stored[name], old.shape, name, path) for name, old in expected.items()}
    net.load_state_dict(found, assign=True)
    return net.eval()
