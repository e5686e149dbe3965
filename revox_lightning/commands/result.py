"""What a finished training says and leaves: figures, sounds, pictures, and the table it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from revox_lightning.commands import portrait
from revox_lightning.commands.exits import log
from revox_lightning.commands.show import count, real_time_factor
from revox_lightning.data.module import PairData
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.fir import FIR
from revox_lightning.report import references, table
from revox_lightning.report.listening import Listening
from revox_lightning.report.references import Reference
from revox_lightning.runs import RunFolder
from revox_lightning.scorer import BySetting, score
from revox_lightning.system import System

_WORST = 5  # settings that are printed


def report(
    cfg: DictConfig, folder: RunFolder, data: PairData, system: System, filters: dict[str, FIR], logger: Any
) -> dict[str, Any]:
    """Scores the best weights on validation and test, writes audio, plots and metrics.json, and prints the table."""
    log.info("scoring the best weights ...")
    net = system.net.cpu().eval()
    listening = Listening(data, "test", folder.path / "audio", cfg.report.audio_seconds)
    val = score(net, data.chunks("val"), EffectMetrics(data.sample_rate_hz))
    settings = BySetting(len(data.knobs))
    measured = EffectMetrics(data.sample_rate_hz)
    test = score(net, data.chunks("test"), measured, listening, settings)
    folder.write_text("stretches.csv", _stretches(measured))
    rivals = references.references(data, filters)
    metrics: dict[str, Any] = {f"val/{k}": v for k, v in val.items()} | test_metrics(test, rivals, data)
    metrics |= by_setting(folder, settings, data.knobs)
    metrics |= {
        "name": cfg.name,
        "task": cfg.task,
        "parameters": count(net),
        "multiply_adds_per_sample": net.multiply_adds_per_sample,
        "real_time_factor": real_time_factor(net, data.sample_rate_hz),
        "audio_seconds_trained": system.audio_seconds_trained,
        "train_seconds": system.train_seconds,
    }
    folder.write_json("metrics.json", metrics)
    from revox_lightning.report import plots

    drawn: list[Path] = []
    for i, paths in enumerate(listening.written, 1):
        drawn += plots.draw(paths, folder.path / "plots", f"{i:02d}")
    rows = as_rows(cfg.name, test, rivals, metrics.get("test/esr_floor"))
    if logger:
        from revox_lightning.report.wandb_log import log_result

        logged = {k: v for k, v in metrics.items() if k not in ("name", "task")}  # which the config holds
        kept = [path for path in (folder.best, folder.config_path) if path.is_file()]
        log_result(logger.experiment, logged, rows, listening.written, drawn, kept)
    tell(f"{cfg.name} on the test split ({data.seconds('test'):.0f} s)", rows, rivals)
    tell_worst(settings, data.knobs)
    knobs = data.takes("test")[0].controls  # settings that it was trained at, or near to
    found = portrait.draw(cfg, folder, net, logger, knobs)
    if found:
        metrics |= found
        folder.write_json("metrics.json", metrics)
    print(
        f"Listen: {folder.path / 'audio'}   pictures: {folder.path / 'plots'}   figures: {folder.path / 'metrics.json'}"
    )
    return metrics


def _stretches(measured: EffectMetrics) -> str:
    """What intervals are drawn from: squared errors and energies of the test, stretch by stretch."""
    return "file,error,energy\n" + "".join(f"{n},{error:.9g},{energy:.9g}\n" for n, error, energy in measured.stretches)


def test_metrics(test: dict[str, float], rivals: list[Reference], data: PairData) -> dict[str, float]:
    """The ``test/`` part of metrics.json: the model's own figures, its rivals' and the floor."""
    metrics = {f"test/{k}": v for k, v in test.items()}
    for rival in rivals:
        metrics[f"test/esr_{rival.name}"] = rival.metrics["esr"]
        metrics[f"test/esr_{rival.name}_gain_aligned"] = rival.metrics["esr_gain_aligned"]
    floor = references.esr_floor(data)
    return metrics if floor is None else metrics | {"test/esr_floor": floor}


def as_rows(name: str, test: dict[str, float], rivals: list[Reference], floor: float | None) -> list[dict[str, Any]]:
    """One row for the model, each rival, and the machine's hiss where it is known."""
    rows = [{"row": name} | test] + [{"row": rival.label} | rival.metrics for rival in rivals]
    return rows if floor is None else [*rows, {"row": "floor: the machine's own hiss", "esr": floor}]


def tell(title: str, rows: list[dict[str, Any]], rivals: list[Reference]) -> None:
    """Prints the result table, and in words how its first row, the model, stands against the best linear filter."""
    columns = [
        "",
        "ESR",
        "ESR dB",
        "gain-aligned",
        "pre-emph.",
        "MAE",
        "MRSTFT",
        "LUFS err dB",
        "level err dB",
        "centroid err Hz",
    ]
    names = ["esr", None, "esr_gain_aligned", "esr_preemphasis", "mae", "mrstft", "lufs_error_db", "rms_error_db"]
    cells = []
    for row in rows:
        values = [table.number(row.get(n), 5) if n else table.decibels(row.get("esr")) for n in names]
        cells.append([str(row["row"]), *values, table.number(row.get("spectral_centroid_error_hz"), 1)])
    table.show(title, columns, cells)
    linear = next(rival for rival in rivals if rival.name == "linear")
    print(table.verdict(rows[0], linear.metrics, linear.label))


def by_setting(folder: RunFolder, settings: BySetting, knobs: Sequence[str]) -> dict[str, float]:
    """Writes settings.csv, worst first, where there are knobs; the part of metrics.json that sums it up."""
    found = settings.worst()
    if found:
        lines = [",".join([*knobs, "esr", "level_dbfs"])]
        lines += [",".join(f"{value:g}" for value in (*s.knobs, s.esr, s.level_dbfs)) for s in found]
        folder.write_text("settings.csv", "\n".join(lines) + "\n")
    return {f"test/{name}": value for name, value in settings.summary().items()}


def tell_worst(settings: BySetting, knobs: Sequence[str]) -> None:
    """Prints the settings that the model is worst at."""
    found = settings.worst()
    if len(found) > 1:
        cells = [[*(f"{value:g}" for value in s.knobs), f"{s.esr:.5f}", f"{s.level_dbfs:.1f}"] for s in found[:_WORST]]
        title = f"The worst {len(cells)} of {len(found)} settings (all: settings.csv)"
        table.show(title, [*knobs, "ESR", "target, dBFS"], cells)
