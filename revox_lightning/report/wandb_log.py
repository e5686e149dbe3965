"""The result of a run in Weights & Biases: the same figures, sounds and pictures as in its folder."""

from __future__ import annotations

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
) -> None:
    """Logs metrics (also as summary), a table of test results, every audio file and every picture."""
    columns = sorted({key for row in rows for key in row}, key=lambda key: (key != "row", key))
    table = wandb.Table(columns=list(columns), data=[[row.get(key) for key in columns] for row in rows])
    # Files are handed over by path: an array would be cut to 16 bits and clipped.
    sounds = {
        f"audio/{i:02d}_{kind}": wandb.Audio(str(path), caption=path.name)
        for i, take in enumerate(heard, 1)
        for kind, path in take.items()
    }
    pictures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in plots}
    experiment.log(metrics | sounds | pictures | {"test/results": table})
    experiment.summary.update(metrics)


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
