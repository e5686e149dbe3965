"""The result of a run in Weights & Biases: the same figures, sounds and pictures as in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb


def log_result(
    experiment: Any,
    metrics: dict[str, Any],
    rows: list[dict[str, Any]],
    heard: list[dict[str, Path]],
    plots: list[Path],
    kept: Sequence[Path] = (),
) -> None:
    """Logs metrics (also as summary), tables of test results and of what was heard, every audio file and picture.

    The files of ``kept``, the best checkpoint and what it is built by, become an artifact of type model.
    """
    columns = sorted({key for row in rows for key in row}, key=lambda key: (key != "row", key))
    table = wandb.Table(columns=list(columns), data=[[row.get(key) for key in columns] for row in rows])
    # Files are handed over by path: an array would be cut to 16 bits and clipped.
    sounds = {
        f"audio/{i:02d}_{kind}": wandb.Audio(str(path), caption=path.name)
        for i, take in enumerate(heard, 1)
        for kind, path in take.items()
    }
    pictures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in plots}
    experiment.summary.update(metrics)
    # Tables need an answer of the server's. Where it is gone they fail, and so would what is logged with them.
    for logged in (metrics, sounds | pictures):
        if logged:
            experiment.log(logged)
    experiment.log({"test/results": table} | _excerpts(heard))
    if kept:
        artifact = wandb.Artifact(f"model-{experiment.id}", "model", metadata=_plain(metrics))
        for path in kept:
            artifact.add_file(str(path), name=path.name)
        experiment.log_artifact(artifact, aliases=["best"])


def _excerpts(heard: list[dict[str, Path]]) -> dict[str, Any]:
    """A row for each excerpt, with its sounds in the cells."""
    kinds = list(dict.fromkeys(kind for take in heard for kind in take))
    if not kinds:
        return {}
    rows = [
        [number, *(wandb.Audio(str(take[kind]), caption=take[kind].name) if kind in take else None for kind in kinds)]
        for number, take in enumerate(heard, 1)
    ]
    return {"test/excerpts": wandb.Table(columns=["excerpt", *kinds], data=rows)}


def _plain(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)}


def log_portrait(
    experiment: Any, columns: Sequence[str], rows: list[list[str]], picture: Path | None, heard: dict[str, Path]
) -> None:
    """Logs a data sheet (its table, its picture) and the examples (``music_dry``, ... and their files)."""
    logged: dict[str, Any] = {
        f"examples/{name}": wandb.Audio(str(path), caption=path.name) for name, path in heard.items()
    }
    if rows:
        logged["data_sheet/figures"] = wandb.Table(columns=[*columns], data=rows)
    if picture is not None:
        logged["data_sheet/curves"] = wandb.Image(str(picture))
    if logged:
        experiment.log(logged)
