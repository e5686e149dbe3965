"""One training from its config to a scored run folder; imported only when something is trained."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from revox_lightning import distributed, identity
from revox_lightning.callbacks.checkpoints import AtomicCheckpointIO, BestAndLast
from revox_lightning.callbacks.progress import EpochLines
from revox_lightning.callbacks.records import MetricsCSV
from revox_lightning.commands import (
    assemble,
    generator_result,
    hybrid,
    loggers,
    memory,
    portrait,
    proxies,
    proxy_result,
    result,
    status,
    style_result,
)
from revox_lightning.commands.exits import log, set_up_logging
from revox_lightning.commands.show import count
from revox_lightning.data.inspect import Level
from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.models.fir import FIR
from revox_lightning.report import references
from revox_lightning.runs import RunFolder, read_checkpoint
from revox_lightning.scorer import score
from revox_lightning.system import System


def train(cfg: DictConfig, path: Path, resume: bool = False) -> dict[str, Any]:
    """Trains one model and leaves its run folder, which says how it stands; returns what is in ``metrics.json``."""
    if distributed.rank() > 0 and _together(cfg):
        return _help(cfg, path, resume)
    with status.kept(RunFolder(path)):
        if cfg.system.get("auto_batch") and _together(cfg):
            raise UserError("system.auto_batch is for a training in one process: leave trainer.devices=1.")
        if cfg.get("parts"):
            return hybrid.train(cfg, path, resume, train)
        return memory.with_smaller_batches(cfg, RunFolder(path), resume, lambda going_on: _train(cfg, path, going_on))


def _train(cfg: DictConfig, path: Path, resume: bool) -> dict[str, Any]:
    portrait.check(cfg)
    set_up_logging()  # again: Lightning set its own level when it was imported
    _quieten()
    allocator.tune()
    backend.choose(cfg.kernels)
    folder = RunFolder(path)
    resume = resume and folder.last.exists()
    best = BestAndLast(str(path / "checkpoints"), cfg.monitor)
    trainer = _trainer(cfg, folder, best)
    started = None if resume else assemble.take_over(cfg)
    stand_ins = {} if resume else proxies.take_over(cfg)
    data = assemble.build_data(cfg)
    net = assemble.build_net(cfg)
    if started is not None:
        assemble.begin_with(net, started, cfg.start)
    proxies.give(net, stand_ins)
    assemble.divide_threads(cfg, net)
    system = assemble.build_system(cfg, net)
    if cfg.task == "style" and not resume and started is None:
        assemble.practise(system, data)
    data.validate_segments = system.validates_segments
    level = data.check()
    plain = _write_settings(cfg, folder, data, level)
    log.info(
        "%s: %s trainable parameters; %.0f s to train on, %.0f s to validate, %.0f s to test; everything goes to %s",
        cfg.name, f"{count(net):,}", *(data.seconds(s) for s in ("train", "val", "test")), path,
    )  # fmt: skip
    if resume:
        folder.load_weights(net, folder.last)
    filters = _linear_filters(cfg, folder, data, net, None if resume else best) if cfg.task == "effect" else {}
    logger = loggers.build_logger(cfg, path, plain)
    try:
        trainer.logger = logger or None
        with memory.watched(cfg):
            _fit(trainer, system, data, folder if resume else None)
        computed = identity.computed(net, trainer.strategy.root_device, trainer.precision)
        system.float()  # what was trained in 64 bit plays in 32, as it does when it is read again
        folder.load_weights(net)
        metrics = _report(cfg, folder, data, system, filters, logger) | computed
        folder.write_json("metrics.json", metrics)
        if logger:
            logger.experiment.summary.update(computed)
        return metrics
    finally:
        loggers.close(logger)


def _report(
    cfg: DictConfig, folder: RunFolder, data: PairData, system: System, filters: dict[str, FIR], logger: Any
) -> dict[str, Any]:
    """What a run of its task says of its best weights."""
    if cfg.task == "effect":
        return result.report(cfg, folder, data, system, filters, logger)
    if cfg.task == "style":
        return style_result.report(cfg, folder, data, system, logger)
    if cfg.task == "proxy":
        return proxy_result.report(cfg, folder, data, system, logger)
    return generator_result.report(cfg, folder, data, system, logger)


def _together(cfg: DictConfig) -> bool:
    """Whether several processes train this net."""
    return cfg.trainer.devices not in (0, 1, "auto") or cfg.trainer.get("num_nodes", 1) > 1


def _help(cfg: DictConfig, path: Path, resume: bool) -> dict[str, Any]:
    """What every process but the first does of a training: its share of the batches; it leaves nothing."""
    set_up_logging()
    _quieten()
    allocator.tune()
    backend.choose(cfg.kernels)
    cfg.logger.kind = "none"
    folder = RunFolder(path)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(cfg, RunFolder(scratch), BestAndLast(scratch, cfg.monitor))
        started = None if resume else assemble.take_over(cfg)  # which tells what the net is built by
        data = assemble.build_data(cfg)
        net = assemble.build_net(cfg)
        del started
        assemble.divide_threads(cfg, net)
        system = assemble.build_system(cfg, net)
        _fit(trainer, system, data, folder if resume and folder.last.exists() else None)
    return {}


def _linear_filters(
    cfg: DictConfig, folder: RunFolder, data: PairData, net: Net, best: BestAndLast | None
) -> dict[str, FIR]:
    """The best linear filters, which a net may start from: it is then offered to ``best``, of a run that begins."""
    log.info("fitting the best linear filters ...")
    fitted = references.correlations(data, "train", cfg.linear_filter.taps, cfg.linear_filter.lookahead_samples)
    filters = references.best_filters(fitted, references.correlations(data, "val"))
    references.save_filters(filters, folder.filters_path)
    if (cfg.linear_start or cfg.get("start")) and best is not None:
        if not cfg.get("start"):
            assemble.fit_linear_start(net, fitted)
        # The first candidate: a run never ends below what it started from.
        best.offer(net, score(net, data.chunks("val"), EffectMetrics(data.sample_rate_hz)))
    return filters


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
    devices, nodes = cfg.trainer.devices, cfg.trainer.get("num_nodes", 1)  # of runs of older versions
    return assemble.build(
        cfg.trainer,
        strategy=distributed.settled(devices, nodes, cfg.trainer.get("strategy", "auto")),
        use_distributed_sampler=False,  # the data knows its shares
        logger=False,
        callbacks=[*callbacks, best],
        plugins=[AtomicCheckpointIO(), *distributed.environment()],
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
        trainer.precision_plugin.convert_module(system)  # Lightning would round what it reads to 32 bit first
    with contextlib.suppress(SystemExit):  # Lightning's answer to an interruption
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
        ".*sync_dist.*",
    ):
        warnings.filterwarnings("ignore", text)
