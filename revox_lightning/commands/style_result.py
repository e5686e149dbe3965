"""What the training of a style net says and leaves: how near it comes to references, beside doing nothing and rules."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from revox_lightning import audio
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count
from revox_lightning.data.module import PairData
from revox_lightning.dsp import rule_based
from revox_lightning.errors import UserError
from revox_lightning.measure.style import mean_scores, style_metrics
from revox_lightning.report import table
from revox_lightning.runs import RunFolder
from revox_lightning.system import System

_PASSAGES = 60  # of the test split, at most
_DRAWS = 20  # of the corruptions of a test split, at most
_HEARD = 4
_COLUMNS = {
    "pesq": "PESQ",
    "stft_distance": "STFT",
    "mel_distance": "MSD",
    "spectral_centroid_error_hz": "SCE, Hz",
    "crest_factor_error_db": "CFE, dB",
    "rms_error_db": "RMS, dB",
    "lufs_error_db": "LUFS, dB",
}


def report(cfg: DictConfig, folder: RunFolder, data: PairData, system: System, logger: Any) -> dict[str, Any]:
    """Scores the test split's passages, the second half of each the reference; writes metrics.json and examples."""
    trained = {"audio_seconds_trained": system.audio_seconds_trained, "train_seconds": system.train_seconds}
    metrics, means = scored(cfg, folder, data, system.net)
    folder.write_json("metrics.json", metrics | trained)
    if logger:
        from revox_lightning.report.wandb_log import log_result

        told = {name: value for name, value in (metrics | trained).items() if isinstance(value, int | float)}
        log_result(logger.experiment, told, [{"row": name} | row for name, row in means.items()], [], [])
    print(f"Listen: {folder.path / 'audio'}   figures: {folder.path / 'metrics.json'}")
    return metrics | trained


def scored(
    cfg: DictConfig, folder: RunFolder, data: PairData, net: Any
) -> tuple[dict[str, Any], dict[str, dict[str, float | None]]]:
    """The figures of a test split, and the means of input, rules and net; prints them and leaves examples to hear."""
    log.info("transferring the styles of the test split ...")
    net = net.cpu().eval()
    rate_hz, scores, seconds = data.sample_rate_hz, {"input": [], "rules": [], cfg.name: []}, 0.0
    limit_hz, spent = cfg.data.get("limit_hz"), 0.0
    for number, (x, reference, y) in enumerate(_passages(data)):
        made = {"input": x, "rules": rule_based.match(x, reference, rate_hz)[0]}
        before = time.perf_counter()
        with torch.inference_mode():
            made[cfg.name] = net(x[None], reference[None])[0][0]
        spent += time.perf_counter() - before
        for name, y_hat in made.items():
            scores[name].append(style_metrics(y_hat, y, rate_hz, pesq=_speaks(cfg), limit_hz=limit_hz))
        if number < _HEARD:
            _keep(folder, number, {"reference": reference, "target": y} | made, rate_hz)
        seconds += x.shape[-1] / rate_hz
    means = {name: mean_scores(rows) for name, rows in scores.items()}
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in means[cfg.name].items()}
    metrics |= {f"test/{name}_{row}": v for row in ("input", "rules") for name, v in means[row].items()}
    metrics |= {
        "name": cfg.name,
        "task": cfg.task,
        "parameters": count(net),
        "real_time_factor": seconds / spent,
        "passages": len(scores["input"]),
    }
    columns = [name for name in _COLUMNS if any(row.get(name) is not None for row in means.values())]
    rows = [
        [name, *("-" if row.get(key) is None else f"{row[key]:.4g}" for key in columns)] for name, row in means.items()
    ]
    title = f"{len(scores['input'])} passages of the test split" + (f", up to {limit_hz:g} Hz" if limit_hz else "")
    table.show(title, ["", *(_COLUMNS[name] for name in columns)], rows)
    return metrics, means


def _speaks(cfg: DictConfig) -> bool:
    """Whether PESQ is asked for and can be told."""
    if cfg.data.get("kind") != "speech":
        return False
    if importlib.util.find_spec("pesq") is None:
        log.warning("PESQ is left out: pip install 'revox_lightning[style]'")
        return False
    return True


def _passages(data: PairData) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, reference and target (1, time) each; the quiet ones are left out, as in the paper.

    A short test split is corrupted several times.
    """
    found = []
    for draw in range(_DRAWS):
        for batch in data.segments("test", draw):
            half = batch["dry"].shape[-1] // 2
            for dry, wet in zip(batch["dry"], batch["wet"], strict=True):
                parts = dry[:, :half], wet[:, half : 2 * half], wet[:, :half]
                if all(float(part.square().mean()) > 1e-5 for part in parts):
                    found.append(parts)
        if len(found) >= _PASSAGES:
            break
    if not found:
        raise UserError("the test part holds no passage that is loud enough: give more material.")
    return found[:: -(-len(found) // _PASSAGES)]


def _keep(folder: RunFolder, number: int, signals: dict[str, Tensor], rate_hz: int) -> None:
    for name, x in signals.items():
        path = folder.path / "audio" / f"{number}_{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, x, rate_hz, "FLOAT")
