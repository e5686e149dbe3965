"""metrics.csv: one row an epoch, on the disk as soon as it is known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytorch_lightning as pl

from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically


class MetricsCSV(pl.Callback):
    """Writes ``metrics.csv``: epoch, learning rate, seconds, audio seconds, and every train/ and val/ value.

    When a run goes on from a checkpoint, rows of epochs that are trained again are dropped. An epoch without a
    validation has no val/ values, and none of terms that it did not have (``pl_module.told`` names its own): Lightning
    would repeat those of an earlier one.
    """

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "metrics.csv"
        self._rows: list[dict] = []
        self._validated = False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._path.exists():
            rows = list(csv.DictReader(self._path.read_text().splitlines()))
            self._rows = [r for r in rows if (r["epoch"] or "").isdigit() and int(r["epoch"]) < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = {
            "epoch": trainer.current_epoch,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_seconds": round(pl_module.train_seconds, 3),  # type: ignore[arg-type]
            "audio_seconds_trained": round(pl_module.audio_seconds_trained, 3),  # type: ignore[arg-type]
        }
        told: set[str] = pl_module.told  # type: ignore[assignment]
        known = {
            name: value
            for name, value in trainer.callback_metrics.items()
            if (self._validated if name.startswith("val/") else name in told)
        }
        self._validated = False
        self._rows.append(row | {n: f"{float(v):.9g}" for n, v in sorted(known.items())})
        # A column may appear late: validation need not come every epoch.
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(self._rows)
        try:
            write_atomically(self._path, lambda file: file.write(text.getvalue().encode()))
        except OSError as error:
            raise UserError(
                f"could not write {self._path} ({error.strerror}): make room, then resume the run."
            ) from error
