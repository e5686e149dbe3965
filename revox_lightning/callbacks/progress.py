"""Progress of a training: a bar on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class EpochLines(pl.Callback):
    """Prints a line an epoch: loss, validation ESR, best so far, learning rate, time; a bar within it on a terminal."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._bar: Progress | None = None
        self._best = float("inf")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        if sys.stdout.isatty() and trainer.is_global_zero:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(
                "", total=int(trainer.num_training_batches), epoch=trainer.current_epoch + 1
            )
            self._bar.start()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        value = metrics.get(self._monitor, float("nan"))
        mark = " *" if value < self._best else ""
        self._best = min(self._best, value)
        loss, lr = metrics.get("train/loss", float("nan")), trainer.optimizers[0].param_groups[0]["lr"]
        print(
            f"epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  loss {loss:.5f}  "
            f"{self._monitor} {value:.5f}{mark}  lr {lr:.1e}  "
            f"{time.monotonic() - self._started:.1f} s",
            flush=True,
        )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]
