"""Checkpoints that are whole or absent: written beside their place, synced, then renamed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.models.contract import Net


def save_atomically(content: Any, path: Path) -> None:
    """``torch.save`` that leaves either the old file or the new one, whatever happens.

    Raises UserError where the folder cannot be written or the disk is full.
    """
    try:
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as RuntimeError from its zip writer.
        cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__ or error
        raise UserError(
            f"could not write the checkpoint {path} ({cause}): make room or choose another run_dir, then go on with "
            f"resume={path.parent.parent}; what was saved before is untouched."
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint reader with a writer that survives power cuts and full disks."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save_atomically(checkpoint, Path(path))


class BestAndLast(Checkpoint):
    """``last.ckpt`` after every epoch, and ``best.ckpt`` whenever the monitored value has fallen."""

    def __init__(self, folder: str, monitor: str) -> None:
        self._folder, self._monitor = Path(folder), monitor
        self.best = math.inf
        self.best_epoch = -1

    def offer(self, net: Net, val: dict[str, float]) -> None:
        """Takes a net's weights before any training as the best so far; ``val`` are its metrics without ``val/``."""
        self.best = val.get(self._monitor.removeprefix("val/"), math.inf)
        weights = {f"net.{name}": weight for name, weight in net.state_dict().items()}
        save_atomically({"state_dict": weights}, self._folder / "best.ckpt")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.best = trainer.strategy.broadcast(self.best)  # all processes of a training are to save at once
        if trainer.is_global_zero:
            self._folder.mkdir(parents=True, exist_ok=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises UserError where the folder has gone: what is made anew below a lost disk would lack all that was."""
        if trainer.is_global_zero and not self._folder.is_dir():
            place = self._folder.parent
            raise UserError(f"the run folder {place} has gone: bring its disk back, then go on with resume={place}.")
        value = trainer.callback_metrics.get(self._monitor)
        if value is not None and float(value) < self.best:
            self.best, self.best_epoch = float(value), trainer.current_epoch
            trainer.save_checkpoint(self._folder / "best.ckpt")
        trainer.save_checkpoint(self._folder / "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
