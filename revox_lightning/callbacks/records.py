"""metrics.csv: one row an epoch, on the disk as soon as it is known."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytorch_lightning as pl


class MetricsCSV(pl.Callback):
    """Writes ``metrics.csv``: epoch, learning rate, seconds, audio seconds, and every train/ and val/ value.

    When a run goes on from a checkpoint, rows of epochs that are trained again are dropped first.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "metrics.csv"
        self._columns: list[str] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._path.exists():
            return
        with open(self._path, newline="") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if (row["epoch"] or "").isdigit() and int(row["epoch"]) < trainer.current_epoch]
        self._path.unlink()
        for row in kept:
            self._append(row)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = {
            "epoch": trainer.current_epoch,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_seconds": round(pl_module.train_seconds, 3),  # type: ignore[arg-type]
            "audio_seconds_trained": round(pl_module.audio_seconds_trained, 3),  # type: ignore[arg-type]
        }
        row |= {name: f"{float(value):.9g}" for name, value in sorted(trainer.callback_metrics.items())}
        self._append(row)

    def _append(self, row: dict) -> None:
        new = not self._path.exists()
        if self._columns is None:
            self._columns = list(row)
        with open(self._path, "a", newline="") as file:
            writer = csv.DictWriter(file, self._columns, extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())
