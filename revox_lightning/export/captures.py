"""Models that other programs trained: any of the formats that are read here, as a net with its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from revox_lightning.errors import UserError
from revox_lightning.export import json_weights


class Capture(NamedTuple):
    """A net ready to play, the ``model`` config that builds one of its kind, and what the file says about it.

    ``sample_rate_hz`` is None where the file names none.
    """

    net: Any
    model: dict[str, Any]
    sample_rate_hz: int | None
    facts: dict[str, Any]


def described(kind: type[nn.Module], **options: Any) -> dict[str, Any]:
    """The config by which such a net is built."""
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **options}


def read(path: str | Path) -> Capture:
    """The model in a .nam or .json file, whatever wrote it. Raises UserError for a file that none of them wrote."""
    from revox_lightning.export import keras_json, nam, wavenetva, wright

    content = json_weights.read_object(path)
    for key, reader in (
        ("architecture", nam), ("model_data", wright), ("layers", keras_json), ("variables", wavenetva),
    ):  # fmt: skip
        if key in content:
            return reader.read(path)
    raise UserError(
        f"{path} is a model of no known kind: .nam, and the JSON of RTNeural, AIDA-X, Proteus and WaveNetVA can be read"
    )
