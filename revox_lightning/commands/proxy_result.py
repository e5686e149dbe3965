"""What the training of a neural proxy says and leaves: how near it comes to its effect, beside no effect at all."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from revox_lightning import audio
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count
from revox_lightning.data.module import PairData
from revox_lightning.measure.style import mean_scores, style_metrics
from revox_lightning.report import table
from revox_lightning.runs import RunFolder
from revox_lightning.system import System

_PASSAGES = 120  # of the test split, at most
_HEARD = 4
_COLUMNS = {
    "esr": "ESR",
    "esr_median": "median",
    "mae": "MAE",
    "stft_distance": "STFT",
    "spectral_centroid_error_hz": "SCE, Hz",
    "crest_factor_error_db": "CFE, dB",
    "rms_error_db": "RMS, dB",
    "lufs_error_db": "LUFS, dB",
}


def report(cfg: DictConfig, folder: RunFolder, data: PairData, system: System, logger: Any) -> dict[str, Any]:
    """Scores the test split's passages, each at a setting of its own; writes metrics.json and examples."""
    log.info("playing the test split with the best weights ...")
    net: Any = system.net.cpu().eval()
    rate_hz, spent, seconds = data.sample_rate_hz, 0.0, 0.0
    scores: dict[str, list[dict[str, float | None]]] = {"input": [], cfg.name: []}
    for number, (x, y, p) in enumerate(_passages(data)):
        before = time.perf_counter()
        with torch.inference_mode():
            y_hat = net(x[None], p[None])[0]
        spent += time.perf_counter() - before
        seconds += x.shape[-1] / rate_hz
        for name, made in {"input": x, cfg.name: y_hat}.items():
            scores[name].append(_scores(made, y, rate_hz))
        if number < _HEARD:
            _keep(folder, number, {"input": x, "target": y, cfg.name: y_hat}, rate_hz)
    means = {name: _summary(rows) for name, rows in scores.items()}
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in means[cfg.name].items()}
    metrics |= {f"test/{name}_input": value for name, value in means["input"].items()}
    metrics |= {
        "name": cfg.name,
        "task": cfg.task,
        "effect": cfg.model.effect,
        "parameters": count(net),
        "real_time_factor": seconds / spent,
        "passages": len(scores["input"]),
        "audio_seconds_trained": system.audio_seconds_trained,
        "train_seconds": system.train_seconds,
    }
    folder.write_json("metrics.json", metrics)
    if logger:
        from revox_lightning.report.wandb_log import log_result

        told = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        log_result(logger.experiment, told, [{"row": name} | row for name, row in means.items()], [], [])
    rows = [[name, *("-" if row.get(key) is None else f"{row[key]:.4g}" for key in _COLUMNS)]
            for name, row in means.items()]  # fmt: skip
    title = f"The {cfg.model.effect} on {len(scores['input'])} passages of the test split"
    table.show(title, ["", *_COLUMNS.values()], rows)
    print(f"Listen: {folder.path / 'audio'}   figures: {folder.path / 'metrics.json'}")
    return metrics


def _scores(y_hat: Tensor, y: Tensor, rate_hz: int) -> dict[str, float | None]:
    """Figures of one passage (1, time), and the energies of its error and of its target."""
    error, energy = float((y_hat - y).square().sum()), float(y.square().sum())
    found = {"error": error, "energy": energy, "mae": float((y_hat - y).abs().mean())}
    return found | style_metrics(y_hat, y, rate_hz)


def _summary(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Means over the passages; the error to signal ratio of all together, and that of the passage in the middle."""
    means = mean_scores([{k: v for k, v in row.items() if k not in ("error", "energy")} for row in rows])
    ratios = [row["error"] / row["energy"] for row in rows if row["energy"] > 0]
    if not ratios:
        return means | {"esr": None, "esr_median": None}
    total = sum(row["error"] for row in rows) / sum(row["energy"] for row in rows)
    return means | {"esr": total, "esr_median": statistics.median(ratios)}


def _passages(data: PairData) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input and target (1, time) and knobs (knobs,)."""
    batches = (
        zip(*(batch[name] for name in ("dry", "wet", "controls")), strict=True) for batch in data.segments("test")
    )
    found = [one for batch in batches for one in batch]
    return found[:: -(-len(found) // _PASSAGES)]


def _keep(folder: RunFolder, number: int, signals: dict[str, Tensor], rate_hz: int) -> None:
    for name, x in signals.items():
        path = folder.path / "audio" / f"{number}_{name}.wav"
        path.parent.mkdir(exist_ok=True)
        audio.write(path, x, rate_hz, "FLOAT")
