"""The training of a machine of parts: one after another, each in a run folder of its own, then put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from revox_lightning.callbacks.checkpoints import save_atomically
from revox_lightning.commands import assemble, loggers, portrait, settings, status
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count, real_time_factor
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.gaussian_process import GaussianProcess
from revox_lightning.models.shaped_noise import ShapedNoise
from revox_lightning.report import generators
from revox_lightning.runs import RunFolder

PARTS = ("net", "transport", "noise")
# Generators that are fitted in closed form, to the data of the model that they stand in for.
FITTED = {"gaussian": "wow_flutter_diffusion", "shaped": "hiss_diffusion"}
# What a net is built by, of the config of its run.
_BUILT_BY = ("model", "seed", "linear_start", "linear_filter", "delay_line", "audio_channels")
_SHARED = ("machine", "trainer", "logger", "callbacks", "seed", "kernels", "report")
Train = Callable[[DictConfig, Path, bool], dict[str, Any]]


def train(cfg: DictConfig, path: Path, resume: bool, train_one: Train) -> dict[str, Any]:
    """Trains the parts that ``cfg.parts`` names and leaves the whole machine in ``path``; returns its metrics.json.

    Parts lie in ``path/parts``; those that are finished stay as they are, and with ``resume`` one that was interrupted
    goes on. ``train_one(cfg, folder, resume)`` trains a model.
    """
    folder = RunFolder(path)
    OmegaConf.resolve(cfg)
    portrait.check(cfg)
    if "group" in cfg.logger and cfg.logger.group is None:
        cfg.logger.group = f"{cfg.name}/{path.name}"  # of the machine and of its parts
    folder.write_text("config.yaml", OmegaConf.to_yaml(cfg))  # what a resumed run goes by
    metrics: dict[str, Any] = {"name": cfg.name, "task": cfg.task}
    modules = {}
    for number, part in enumerate(PARTS, 1):
        log.info("part %d of %d, %s: %s", number, len(PARTS), part, cfg.parts[part])
        if cfg.parts[part] in FITTED:
            cfg.model[part], modules[part] = _fitted(cfg, part)
            continue
        cfg.model[part], modules[part], found = _trained(cfg, part, path, resume, train_one)
        metrics |= {f"{part}/{name}": value for name, value in found.items() if not isinstance(value, str)}
        if part == "net":
            metrics |= {n: v for n, v in found.items() if n == "kernels" or n.startswith("computed/")}
    net = assemble.build_hybrid(cfg, modules)
    save_atomically({"state_dict": {f"net.{name}": value for name, value in net.state_dict().items()}}, folder.best)
    folder.write_text("config.yaml", OmegaConf.to_yaml(cfg))
    folder.write_json("levels.json", RunFolder(_place(path, "net")).read_json("levels.json"))
    metrics |= {
        "parameters": count(net),
        "multiply_adds_per_sample": net.multiply_adds_per_sample,
        "real_time_factor": real_time_factor(net.eval(), cfg.data.sample_rate_hz),
        "train_seconds": sum(metrics.get(f"{part}/train_seconds", 0.0) for part in PARTS),
    }
    folder.write_json("metrics.json", metrics)
    metrics |= _shown(cfg, folder, net, metrics)
    folder.write_json("metrics.json", metrics)
    print(
        f"{cfg.name}: {metrics['parameters']:,} parameters in three parts, {metrics['real_time_factor']:.1f} x real "
        f"time.\nPlay a file through it: revox render run={path} IN OUT [wow_flutter=1] [hiss=1] [seed=0]\n"
        f"Measure it: revox measure run={path}"
    )
    return metrics


def _shown(cfg: DictConfig, folder: RunFolder, net: Net, metrics: dict[str, Any]) -> dict[str, float]:
    """The machine beside the one it learned from, in its folder and in a run of its own in W&B; figures of both."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    logger = loggers.build_logger(cfg, folder.path, plain)
    try:
        found = portrait.draw(cfg, folder, net, logger)
        if logger:
            logged = {name: value for name, value in (metrics | found).items() if name not in ("name", "task")}
            logger.experiment.log(logged)
            logger.experiment.summary.update(logged)
        return found
    finally:
        loggers.close(logger)


def _place(path: Path, part: str) -> Path:
    return path / "parts" / part


def _composed(cfg: DictConfig, part: str, model: str) -> DictConfig:
    """The config of a part: its model's own, with what all parts have in common."""
    data = [f"data.root={cfg.data.root}"] if cfg.data.get("root") else []
    own = settings.composed([f"model={model}", *data])
    for name in _SHARED:
        own[name] = cfg[name]
    if part == "net":  # which follows the transport, or is spared it
        trajectory = own.data.get("trajectory") or (cfg.data.trajectory and "demodulate")
        own.data = cfg.data
        own.data.trajectory = trajectory
    own.data.cache_dir = cfg.data.cache_dir
    own.run_dir = str(_place(Path(cfg.run_dir), part))
    return own


def _trained(
    cfg: DictConfig, part: str, path: Path, resume: bool, train_one: Train
) -> tuple[DictConfig, nn.Module, dict[str, Any]]:
    """A part that is trained here, or was before: what it is built by, its net, and what it reached."""
    place = RunFolder(_place(path, part))
    metrics = place.read_json("metrics.json")
    if not metrics or status.of(place)[0] != status.FINISHED:
        metrics = train_one(_composed(cfg, part, cfg.parts[part]), place.path, resume)
    net, own, _ = assemble.load_run(place.path, playing=False)
    if isinstance(net, EachChannel):
        raise UserError(f"{place.path} was trained on stereo, and each part is for one channel: set data.channels=mix.")
    return OmegaConf.create({name: own[name] for name in _BUILT_BY if name in own}), net, metrics  # type: ignore


def _fitted(cfg: DictConfig, part: str) -> tuple[DictConfig, nn.Module]:
    """A part that is fitted in closed form, each time, as that takes seconds: its config, and what was fitted."""
    own = _composed(cfg, part, FITTED[cfg.parts[part]])
    generator = generators.rival(assemble.build_data(own), own.task)
    return OmegaConf.create(_described(generator)), generator


def _described(generator: GaussianProcess | ShapedNoise) -> dict[str, Any]:
    """The config by which a generator of the same size is built."""
    target = f"{type(generator).__module__}.{type(generator).__qualname__}"
    if isinstance(generator, GaussianProcess):
        return {"_target_": target, "taps": generator.noise.taps, "rate_hz": generator.rate_hz}
    how = {"channels": generator.channels, "taps": generator.taps, "rate_hz": generator.rate_hz}
    return {"_target_": target, **how}
