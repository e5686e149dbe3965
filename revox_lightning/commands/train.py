"""``python train.py model=...``: compose, build, fit, score, report."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from revox_lightning.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast
from revox_lightning.callbacks.progress import EpochLines
from revox_lightning.callbacks.records import MetricsCSV
from revox_lightning.commands import assemble, loggers, result, settings
from revox_lightning.commands.exits import guarded, log, set_up_logging
from revox_lightning.commands.show import show
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.report import references
from revox_lightning.runs import RunFolder
from revox_lightning.system import System


def train(cfg: DictConfig, path: Path, resume: bool = False) -> dict[str, Any]:
    """Trains one model and leaves its run folder; returns what stands in ``metrics.json``."""
    _quieten()
    torch.set_num_threads(cfg.system.threads or _ALL_THREADS)
    data = assemble.build_data(cfg)
    net = assemble.build_net(cfg)
    level = data.check()
    folder = RunFolder(path)
    plain = OmegaConf.to_container(cfg, resolve=True)
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
    folder.write_json("levels.json", {
        "zero_vu_dbfs": data.source.zero_vu_dbfs,
        "train_input_peak_dbfs": level.peak_dbfs,
        "train_input_rms_dbfs": level.rms_dbfs,
    })  # fmt: skip
    log.info(
        "%s: %s parameters; %.0f s to train on, %.0f s to validate, %.0f s to test; everything goes to %s",
        cfg.name, f"{count(net):,}", *(data.seconds(s) for s in ("train", "val", "test")), path,
    )  # fmt: skip
    train_correlations = references.correlations(data, "train")
    filters = references.best_filters(train_correlations, references.correlations(data, "val"))
    references.save_filters(filters, folder.filters_path)
    if cfg.linear_start and not resume:
        assemble.fit_linear_start(net, train_correlations)
    logger = loggers.build_logger(cfg, path, plain)  # type: ignore[arg-type]
    try:
        system = assemble.build_system(cfg, net)
        _fit(cfg, folder, data, system, logger, resume)
        folder.load_weights(net)
        return result.report(cfg, folder, data, system, filters, logger)
    finally:
        loggers.close(logger)


def _fit(cfg: DictConfig, folder: RunFolder, data: PairData, system: System, logger: Any, resume: bool) -> None:
    callbacks: list[pl.Callback] = [EpochLines(cfg.monitor)]
    if cfg.logger.kind != "none":
        callbacks.append(MetricsCSV(str(folder.path)))
    if cfg.callbacks.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(cfg.monitor, patience=cfg.callbacks.early_stopping_patience))
    callbacks.append(BestAndLast(str(folder.path / "checkpoints"), cfg.monitor))
    trainer: pl.Trainer = assemble.build(
        cfg.trainer,
        logger=logger,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder.path),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(
        system, data, ckpt_path=str(folder.last) if resume and folder.last.exists() else None, weights_only=True
    )
    if trainer.interrupted:
        raise KeyboardInterrupt


def count(net: Net) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _quieten() -> None:
    """Lightning's advice that does not apply here (data comes from memory; epochs are short on purpose)."""
    for text in (
        ".*does not have many workers.*",
        ".*srun.*",
        ".*litlogger.*",
        ".*LeafSpec.*",
        ".*Checkpoint directory.*",
    ):
        warnings.filterwarnings("ignore", text)


_ALL_THREADS = torch.get_num_threads()
_failed: list[str] = []  # the run folders of jobs that the user must change


def task(cfg: DictConfig) -> dict[str, Any]:
    """One job of Hydra: a run, or with show=true a look at the network."""
    hydra_cfg = HydraConfig.get()
    set_up_logging()
    path = Path(os.path.relpath(hydra_cfg.runtime.output_dir))
    cfg.run_dir = str(path)
    try:
        settings.check_types(cfg, list(hydra_cfg.overrides.task))
        if cfg.show:
            return show(cfg)
        return train(cfg, path)
    except UserError as error:
        # Hydra would print more than one sentence; the other jobs of a multirun go on, and its table names this one.
        print(f"error: {error}", file=sys.stderr)
        _remove_if_empty(path)
        _failed.append(str(path))
        return {"name": cfg.name, "task": cfg.task, "error": str(error)}
    except Exception as error:
        error.run_folder = str(path)  # type: ignore[attr-defined]
        raise


def _remove_if_empty(path: Path) -> None:
    for place in (path, path.parent):
        if place.is_dir() and not any(place.iterdir()) and place.name != "outputs":
            place.rmdir()


def resume(argv: list[str]) -> dict[str, Any]:
    """``resume=outputs/...``: goes on in that folder with its own config; other options change it."""
    named, changes, words = settings.arguments(argv, {"resume"})
    if words:
        raise UserError(f"resume does not understand {words[0]!r}: write options as name=value.")
    folder = RunFolder.existing(named["resume"])
    cfg = settings.changed(OmegaConf.create(folder.config()), changes)
    try:
        return train(cfg, folder.path, resume=True)
    except UserError:
        raise
    except Exception as error:
        error.run_folder = str(folder.path)  # type: ignore[attr-defined]
        raise


def main() -> None:
    """Entry point of train.py and ``revox train``."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach exits.guarded instead of Hydra's own printer
    argv = sys.argv[1:]
    if any(text.startswith("resume=") and text not in ("resume=", "resume=null") for text in argv):
        sys.exit(guarded(lambda: resume(argv) and 0))
    if "show=true" in [text.lower() for text in argv]:
        sys.argv += ["hydra.run.dir=."]  # nothing is written
    application = hydra.main(version_base="1.3", config_path=str(settings.CONF), config_name="train")(task)
    sys.exit(guarded(lambda: application() or (2 if _failed else 0)))


if __name__ == "__main__":
    main()
