"""Weights & Biases as a run uses it: offline by default, everything inside the run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

KINDS = ("wandb", "csv", "none")


def build_logger(cfg: DictConfig, folder: Path, plain_config: dict[str, Any]) -> Any:
    """Lightning's WandbLogger for ``logger=wandb``, otherwise False.

    W&B stages artifacts and caches in the home directory by default; here they stay in the run folder, so that it
    can be moved and uploaded from elsewhere (``revox sync``).
    """
    if cfg.logger.kind not in KINDS:
        raise UserError(f"logger.kind={cfg.logger.kind}: choose one of {', '.join(KINDS)}.")
    if cfg.logger.kind != "wandb":
        return False
    place = (folder / "wandb").resolve()
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        path = place / name.lower()
        path.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{name}_DIR"] = str(path)
    os.environ["WANDB_DIR"] = str(folder.resolve())
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    known = place / "run_id"  # a run that goes on stays one run in W&B
    try:
        run = wandb.init(
            id=known.read_text() if known.exists() else None,
            resume="allow",
            name=f"{cfg.name}/{folder.name}",
            dir=str(folder.resolve()),
            project=cfg.logger.project,
            entity=cfg.logger.entity,
            group=cfg.logger.group,
            job_type=cfg.logger.get("job_type"),
            tags=list(cfg.logger.tags),
            mode="offline" if cfg.logger.offline else "online",
            config=plain_config,
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"W&B refused the run ({reason}): run `wandb login`, or use logger.offline=true.") from error
    write_atomically(known, lambda file: file.write(run.id.encode()))
    logger = WandbLogger(save_dir=folder, experiment=run)
    # Nets of other batches and hops compare by what they heard, not by steps; epochs say best how much that is.
    logger.experiment.define_metric("audio_seconds_trained")
    for part in ("train/*", "val/*"):
        logger.experiment.define_metric(part, step_metric="audio_seconds_trained", step_sync=True)
    return logger


def close(logger: Any) -> None:
    """Ends the W&B run, and W&B's process with it, so that the next run of a multirun starts afresh."""
    if logger:
        import wandb

        logger.experiment.finish()
        wandb.teardown()
