"""Weights in JSON files written by other programs: read and checked, so that a bad file is one sentence."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError


def read_object(path: str | Path, *keys: str) -> dict[str, Any]:
    """The JSON object in `path`; raises UserError when it cannot be read, is no object or lacks one of `keys`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the model file {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file ({error}): give the model's JSON file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no model: a JSON object is expected, not a {type(content).__name__}")
    return with_keys(content, path, *keys)


def with_keys(content: Any, path: str | Path, *keys: str) -> dict[str, Any]:
    """`content` if it is an object that has all `keys`; raises UserError naming the missing ones."""
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} is not a model of this kind: it lacks {', '.join(missing)}")
    return content


def positive_integer(value: Any, name: str, path: str | Path) -> int:
    """`value` if it is a whole number above zero, else UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: {name} is {value!r} where a whole number above zero is expected")
    return value


def weights(data: Any, shape: Sequence[int], name: str, path: str | Path) -> Tensor:
    """Nested lists of numbers as a float tensor of `shape`; raises UserError for other sizes or non-numbers."""
    try:
        tensor = torch.tensor(data, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {name} is not an array of numbers") from error
    if tensor.numel() != math.prod(shape) or (tensor.ndim > 1 and tensor.shape != torch.Size(shape)):
        raise UserError(f"{path}: {name} has shape {tuple(tensor.shape)} where {tuple(shape)} is expected")
    if not torch.isfinite(tensor).all():
        raise UserError(f"{path}: {name} contains values that are not finite numbers")
    return tensor.reshape(*shape)
