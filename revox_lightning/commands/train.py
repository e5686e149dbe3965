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
from revox_lightning.commands.exits import disk_faults, guarded, log, set_up_logging
from revox_lightning.commands.show import count, show
from revox_lightning.data.inspect import Level
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import references
from revox_lightning.runs import RunFolder, read_checkpoint
from revox_lightning.system import System, score


def train(cfg: DictConfig, path: Path, resume: bool = False) -> dict[str, Any]:
    """Trains one model and leaves its run folder; returns what stands in ``metrics.json``."""
    _quieten()
    torch.set_num_threads(cfg.system.threads or _ALL_THREADS)
    folder = RunFolder(path)
    resume = resume and folder.last.exists()
    best = BestAndLast(str(path / "checkpoints"), cfg.monitor)
    trainer = _trainer(cfg, folder, best)
    data = assemble.build_data(cfg)
    net = assemble.build_net(cfg)
    system = assemble.build_system(cfg, net)
    level = data.check()
    plain = _write_settings(cfg, folder, data, level)
    log.info(
        "%s: %s trainable parameters; %.0f s to train on, %.0f s to validate, %.0f s to test; everything goes to %s",
        cfg.name, f"{count(net):,}", *(data.seconds(s) for s in ("train", "val", "test")), path,
    )  # fmt: skip
    log.info("fitting the best linear filters ...")
    fitted = references.correlations(data, "train", cfg.linear_filter.taps, cfg.linear_filter.lookahead_samples)
    filters = references.best_filters(fitted, references.correlations(data, "val"))
    references.save_filters(filters, folder.filters_path)
    if resume:
        folder.load_weights(net, folder.last)
    elif cfg.linear_start:
        assemble.fit_linear_start(net, fitted)
        # The filter alone is the first candidate: a run never ends below what it started from.
        best.offer(net, score(net, data.chunks("val"), EffectMetrics(data.sample_rate_hz)))
    logger = loggers.build_logger(cfg, path, plain)
    try:
        trainer.logger = logger or None
        _fit(trainer, system, data, folder if resume else None)
        folder.load_weights(net)
        return result.report(cfg, folder, data, system, filters, logger)
    finally:
        loggers.close(logger)


def _write_settings(cfg: DictConfig, folder: RunFolder, data: PairData, level: Level) -> dict[str, Any]:
    """config.yaml (resolved, with absolute paths) and levels.json; returns the config as plain types."""
    for name in ("root", "dry", "wet", "manifest"):
        if cfg.data.get(name):
            cfg.data[name] = str(Path(cfg.data[name]).expanduser().resolve())
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)))
    folder.write_json("levels.json", {
        "zero_vu_dbfs": data.source.zero_vu_dbfs,
        "train_input_peak_dbfs": level.peak_dbfs,
        "train_input_rms_dbfs": level.rms_dbfs,
    })  # fmt: skip
    return plain


def _trainer(cfg: DictConfig, folder: RunFolder, best: BestAndLast) -> pl.Trainer:
    if cfg.trainer.max_epochs < 1:
        raise UserError(f"trainer.max_epochs={cfg.trainer.max_epochs}: give 1 or more.")
    callbacks: list[pl.Callback] = [EpochLines(cfg.monitor)]
    if cfg.logger.kind != "none":
        callbacks.append(MetricsCSV(str(folder.path)))
    if cfg.callbacks.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(cfg.monitor, patience=cfg.callbacks.early_stopping_patience))
    return assemble.build(
        cfg.trainer,
        logger=False,
        callbacks=[*callbacks, best],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder.path),
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )


def _fit(trainer: pl.Trainer, system: System, data: PairData, interrupted: RunFolder | None) -> None:
    checkpoint = None
    if interrupted is not None:
        content = read_checkpoint(interrupted.last)
        stops = [state for name, state in content["callbacks"].items() if name.startswith("EarlyStopping")]
        if any(state["stopped_epoch"] > 0 for state in stops):
            system.on_load_checkpoint(content)
            return
        checkpoint = str(interrupted.last)
    trainer.fit(system, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


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
    path = Path(hydra_cfg.runtime.output_dir)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    cfg.run_dir = str(path)
    try:
        settings.check_types(cfg, list(hydra_cfg.overrides.task))
        if cfg.show:
            return show(cfg)
        with disk_faults():
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


# What a run that goes on may be told anew; everything else made it the run it is.
_CHANGEABLE = ("trainer.", "callbacks.", "logger.", "report.", "system.threads=")


def resume(argv: list[str]) -> int:
    """``resume=outputs/...``: goes on in that folder with its own config; returns the exit code."""
    named, changes, words = settings.arguments(argv, {"resume"})
    if words:
        raise UserError(f"resume does not understand {words[0]!r}: write options as name=value.")
    fixed = [text for text in changes if not text.startswith(_CHANGEABLE)]
    if fixed:
        raise UserError(
            f"resume cannot change {fixed[0].split('=')[0]}: only trainer., callbacks., logger., report. and "
            "system.threads; start a new run for the rest."
        )
    folder = RunFolder.existing(named["resume"], "resume")
    cfg = OmegaConf.create(folder.config())
    epochs = cfg.trainer.max_epochs
    cfg = settings.changed(cfg, changes)
    if cfg.optim.get("scheduler") and cfg.optim.scheduler.get("T_max") == epochs:
        cfg.optim.scheduler.T_max = cfg.trainer.max_epochs
    with disk_faults():
        train(cfg, folder.path, resume=True)
    return 0


def _refuse_run_dir() -> None:
    raise UserError("run_dir= names one folder; a multirun makes one for each job, outputs/<name>/<time>_<job>/.")


def main() -> None:
    """Entry point of train.py and ``revox train``."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach exits.guarded instead of Hydra's own printer
    argv = sys.argv[1:]
    if any(text.startswith("resume=") and text not in ("resume=", "resume=null") for text in argv):
        sys.exit(guarded(lambda: resume(argv)))
    if {"-m", "--multirun"} & set(argv) and any(text.startswith("run_dir=") for text in argv):
        sys.exit(guarded(_refuse_run_dir))
    if "show=true" in [text.lower() for text in argv]:
        sys.argv += ["hydra.run.dir=."]  # nothing is written
    application = hydra.main(version_base="1.3", config_path=str(settings.CONF), config_name="train")(task)
    sys.exit(guarded(lambda: application() or (2 if _failed else 0)))


if __name__ == "__main__":
    main()
