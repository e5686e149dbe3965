"""Weights in JSON files written by other programs: read and checked, so that a bad file is one sentence."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning import plain_files
from revox_lightning.errors import UserError

_LARGEST_BYTES = 256 * 2**20
_MOST = 65_536  # units, taps or layers: more is a damaged file, or one that wants to fill the memory
_LONGEST_SAMPLES = 2**22  # of memory: a minute and a half


def read_object(path: str | Path, *keys: str) -> dict[str, Any]:
    """The JSON object in `path`; raises UserError when it cannot be read, is no object or lacks one of `keys`."""
    try:
        content = plain_files.read_json(Path(path), _LARGEST_BYTES)
    except OSError as error:
        raise UserError(f"cannot read the model file {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}): give the model's JSON file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no model: a JSON object is expected, not a {type(content).__name__}")
    return with_keys(content, path, *keys)


def with_keys(content: Any, path: str | Path, *keys: str) -> dict[str, Any]:
    """`content` if it is an object that has all `keys`; raises UserError naming the missing ones."""
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a model of this kind: it has {str(content)[:50]!r} where an object is expected")
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} is not a model of this kind: it lacks {', '.join(missing)}")
    return content


def positive_integer(value: Any, name: str, path: str | Path, most: int = _MOST) -> int:
    """`value` if it is a whole number above zero and at most `most`, else UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UserError(f"{path}: {name} is {str(value)[:50]!r} where a whole number from 1 to {most} is expected")
    return value


def positive_integers(values: Any, name: str, path: str | Path, most: int = _MOST) -> list[int]:
    """A list of them, with at least one; else UserError."""
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST:
        raise UserError(f"{path}: {name} is {str(values)[:50]!r} where a list of whole numbers is expected")
    return [positive_integer(value, name, path, most) for value in values]


def one_of(value: Any, allowed: Sequence[Any], name: str, path: str | Path) -> Any:
    """`value` if it is one of those allowed, else UserError."""
    if not isinstance(value, (str, int, float, type(None))) or value not in allowed:
        choices = ", ".join(str(choice) for choice in allowed)
        raise UserError(f"{path}: {name} is {str(value)[:50]!r}, and only {choices} can be read")
    return value


def check_memory(samples: int, path: str | Path) -> None:
    """Raises UserError for a net that looks further back than any real one."""
    if samples > _LONGEST_SAMPLES:
        raise UserError(f"{path}: its net looks back {samples} samples, and at most {_LONGEST_SAMPLES} can be played")


def rate(value: Any, path: str | Path) -> int | None:
    """A sample rate in Hz, None where there is none; UserError for what is no rate."""
    if value is None or value == "":
        return None
    try:
        hz = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: the sample rate is {str(value)[:50]!r} where a number of Hz is expected") from error
    if not 1000 <= hz <= 1e6 or isinstance(value, bool):
        raise UserError(f"{path}: a sample rate of {hz:g} Hz cannot be played")
    return round(hz)


def weights(data: Any, shape: Sequence[int], name: str, path: str | Path) -> Tensor:
    """Nested lists of numbers as a float tensor of `shape`; raises UserError for other sizes or non-numbers."""
    try:
        tensor = torch.tensor(data, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: {name} is not an array of numbers") from error
    if tensor.numel() != math.prod(shape) or (tensor.ndim > 1 and tensor.shape != torch.Size(shape)):
        raise UserError(f"{path}: {name} has shape {tuple(tensor.shape)} where {tuple(shape)} is expected")
    if not torch.isfinite(tensor).all():
        raise UserError(f"{path}: {name} contains values that are not finite numbers")
    return tensor.reshape(*shape)
