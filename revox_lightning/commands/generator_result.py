"""What the training of a generator says and leaves: how near it came, beside its plain rival, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from revox_lightning import audio
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count
from revox_lightning.data.module import PairData
from revox_lightning.report import generators
from revox_lightning.runs import RunFolder
from revox_lightning.system import System

_SECONDS = {"trajectory": 300.0, "noise": 10.0}  # that are compared
_SHOWN_SECONDS = {"trajectory": 120.0, "noise": 5.0}  # that pictures are drawn of; noise is written as audio too


def report(cfg: DictConfig, folder: RunFolder, data: PairData, system: System, logger: Any) -> dict[str, Any]:
    """Compares what the best weights make with the test split; writes metrics.json, pictures and, of noise, sounds."""
    log.info("making signals with the best weights ...")
    net: Any = system.net.cpu().eval()
    plain = generators.rival(data, cfg.task)
    with torch.inference_mode():
        rows = generators.against(data, cfg.task, {cfg.name: net}, _SECONDS[cfg.task], plain=plain)
        signals = _signals(cfg, data, {generators.PLAIN[cfg.task]: plain, cfg.name: net})
    own, rival = rows[-1], rows[-2]
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in own.items() if name != "row"}
    metrics |= {f"test/{name}_rival": value for name, value in rival.items() if name != "row"}
    metrics |= {
        "name": cfg.name,
        "task": cfg.task,
        "parameters": count(net),
        "real_time_factor": 1 / own["cpu_seconds_per_second"],
        "audio_seconds_trained": system.audio_seconds_trained,
        "train_seconds": system.train_seconds,
    }
    folder.write_json("metrics.json", metrics)
    from revox_lightning.report import generator_plots

    shown = {name: x[0].numpy() for name, x in signals.items()}
    drawn = generator_plots.draw(shown, cfg.task, data.sample_rate_hz, folder.path / "plots")
    heard = _written(signals, folder.path / "audio", data.sample_rate_hz) if cfg.task == "noise" else {}
    if logger:
        from revox_lightning.report.wandb_log import log_result

        logged = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        log_result(logger.experiment, logged, rows, [heard] if heard else [], drawn)
    generators.show(f"{cfg.name} and the test split", rows)
    listen = f"Listen: {folder.path / 'audio'}   " if heard else ""
    print(f"{listen}pictures: {folder.path / 'plots'}   figures: {folder.path / 'metrics.json'}")
    return metrics


def _signals(cfg: DictConfig, data: PairData, sources: dict[str, generators.Generator]) -> dict[str, Tensor]:
    """Signals (1, time) to show: the first take of the test split, and what each source makes."""
    seconds = _SHOWN_SECONDS[cfg.task]
    real = generators.material(data, "test", seconds)[0][:1]
    samples = round(seconds * data.sample_rate_hz)
    made = {
        # Noise of several channels comes in sets of them; the first is shown.
        name: source.sample(samples, torch.Generator().manual_seed(cfg.seed), getattr(source, "channels", 1))[:1]
        for name, source in sources.items()
    }
    return {"test split": real} | made


def _written(signals: dict[str, Tensor], folder: Path, rate_hz: int) -> dict[str, Path]:
    """Real, rival and made noise as float WAV, for hiss lies far below the steps of 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{kind}.wav" for kind in ("real", "rival", "made")}
    for path, x in zip(paths.values(), signals.values(), strict=True):
        audio.write(path, x, rate_hz, "FLOAT")
    return paths
