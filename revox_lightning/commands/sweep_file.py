"""A sweep's file and the trials it left, which may come from elsewhere: read, checked, and no more than options."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from revox_lightning import plain_files
from revox_lightning.errors import UserError

_MOST_BYTES = 2**14  # ten times the longest here; W&B's schema takes a second for four times as much


def read(path: Path) -> tuple[dict[str, Any], int | None]:
    """A sweep's config as W&B's schema has it, and its run_cap; raises UserError where W&B would refuse it."""
    try:
        content = plain_files.read_yaml(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no sweep file: it has no parameters.")
    cap = content.pop("run_cap", None)  # which this engine's schema does not know
    try:
        problems = engine().schema_violations_from_proposed_config(content)
        problems = problems or _problems(content, cap)
        if not problems:
            from sweeps.config import fill_validate_schema

            filled = dict(fill_validate_schema(content))
            filled["metric"] = {"goal": "minimize"} | filled["metric"]
            return filled, cap
    except UserError:
        raise
    except Exception as error:  # of the engine, which takes a schema's word for what the file holds
        problems = [(str(error).strip() or type(error).__name__)]
    said = problems[0].splitlines()[0][:300]
    raise UserError(f"{path} is no sweep file that W&B takes: {said.rstrip('.')}.")


def _problems(content: dict[str, Any], cap: Any) -> list[str]:
    """What W&B's schema lets pass and a training cannot be started with."""
    command = content.get("command", ["${program}"])
    metric, parameters = content.get("metric"), content.get("parameters")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        return ["it has no metric"]
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        return ["the goal of its metric is neither minimize nor maximize"]
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return ["its command is no list of words"]
    if "${program}" not in command:
        return ["its command has no ${program}"]
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        return ["its run_cap is no whole number of at least 1"]
    names = list(parameters) if isinstance(parameters, dict) else []
    return [f"it sets {str(name)[:50]}, which is no option of a run" for name in names if not _is_option(f"{name}=")]


def kept(path: Path) -> list[dict[str, Any]]:
    """The trials that trials.json tells of; an empty list where there is none. Raises UserError where it is damaged."""
    if not path.is_file():
        return []
    try:
        told = plain_files.read_json(path)
        for n, one in enumerate(told):
            value = one["value"]
            number = value is None or (isinstance(value, (int, float)) and math.isfinite(value))
            names = isinstance(one["parameters"], dict) and all(map(_is_option, (f"{n}=" for n in one["parameters"])))
            if one["number"] != n or not isinstance(one["state"], str) or not number or not names:
                raise ValueError(f"trial {n} is none")
        return told
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): choose another out=.") from error


def checked(words: Sequence[str], path: Path) -> list[str]:
    """The words themselves. Raises UserError for flags, and for what is Hydra's own: both can start other programs."""
    for word in words:
        if not _is_option(word):
            raise UserError(
                f"the command of {path} says {word[:100]}, and only options of a run (name=value) may stand there."
            )
    return list(words)


def _is_option(word: str) -> bool:
    name = word.partition("=")[0].lstrip("+~")
    return "=" in word and name[:1].isalpha() and not name.startswith("hydra")


def engine() -> Any:
    """W&B's sweeps. Raises UserError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic speaks of names that sweeps uses
            import sweeps
    except ImportError as error:
        raise UserError("sweeps without a server need W&B's engine: pip install 'revox_lightning[sweep]'.") from error
    return sweeps
