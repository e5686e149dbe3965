"""What the training of a generator says and leaves: how near it came, beside its plain rival, and what it costs."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from revox_lightning import audio
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count
from revox_lightning.data.module import PairData
from revox_lightning.report import generators
from revox_lightning.runs import RunFolder
from revox_lightning.system import System

_SECONDS = {"trajectory": 600.0, "noise": 10.0}  # that are compared


def report(cfg: DictConfig, folder: RunFolder, data: PairData, system: System, logger: Any) -> dict[str, Any]:
    """Compares what the best weights make with the test split; writes metrics.json and, of noise, a sound."""
    log.info("making signals with the best weights ...")
    net: Any = system.net.cpu().eval()
    with torch.inference_mode():
        rows = generators.against(data, cfg.task, {cfg.name: net}, _SECONDS[cfg.task])
        made = net.sample(round(10 * data.sample_rate_hz), torch.Generator().manual_seed(cfg.seed))
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
    if cfg.task == "noise":
        (folder.path / "audio").mkdir(exist_ok=True)
        audio.write(folder.path / "audio" / "made.wav", made, data.sample_rate_hz, "FLOAT")
    if logger:
        logger.log_metrics({name: value for name, value in metrics.items() if isinstance(value, int | float)})
    generators.show(f"{cfg.name} and the test split", rows)
    print(f"figures: {folder.path / 'metrics.json'}")
    return metrics
