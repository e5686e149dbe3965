"""``revox evaluate run=outputs/... [data=... data.root=...]``: a test, on the run's own data or on other recordings."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from revox_lightning.commands import assemble, result, settings
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import plots, references, table
from revox_lightning.report.listening import Listening
from revox_lightning.runs import RunFolder
from revox_lightning.system import score

USAGE = "revox evaluate run=outputs/NAME/TIME [data=recordings data.root=FOLDER ...]"


def evaluate(argv: list[str]) -> dict[str, Any]:
    """Scores a run's best weights; figures, audio and plots go to ``evaluations/<time>/`` in the run's folder."""
    named, changes, words = settings.arguments(argv, {"run"})
    if "run" not in named or words:
        raise UserError(f"evaluate needs a run: {USAGE}.")
    net, cfg, folder = assemble.load_run(named["run"])
    elsewhere = any(text.split("=")[0] == "data" for text in changes)
    cfg = _with_data(cfg, changes) if elsewhere else settings.changed(cfg, changes)
    trained_for = cfg.audio_channels, list(cfg.knobs or [])
    data = assemble.build_data(cfg, test_only=elsewhere)
    if (data.audio_channels, list(data.knobs)) != trained_for:
        raise UserError(
            f"the run was trained for {trained_for[0]} channel(s) and the knobs {trained_for[1]}; these recordings "
            f"have {data.audio_channels} and {list(data.knobs)}: choose other recordings, or data.channels=left."
        )
    data.check()
    place = folder.path / "evaluations" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    listening = Listening(data, "test", place / "audio", cfg.report.audio_seconds)
    test = score(net, data.chunks("test"), EffectMetrics(data.sample_rate_hz), listening)
    rivals = references.references(data, references.load_filters(folder.filters_path))
    metrics = result.test_metrics(test, rivals, data)
    RunFolder(place).write_json("metrics.json", metrics)
    for i, paths in enumerate(listening.written, 1):
        plots.draw(paths, place / "plots", f"{i:02d}")
    rows = result.as_rows(cfg.name, test, rivals, metrics.get("test/esr_floor"))
    result.print_rows(
        f"{folder.path} on {data.seconds('test'):.0f} s of {'other recordings' if elsewhere else 'its test split'}",
        rows,
    )
    print(table.verdict(test["esr"], rivals[1].metrics["esr"], rivals[1].label))
    print(f"figures, audio and pictures: {place}")
    return metrics


def _with_data(cfg: DictConfig, changes: list[str]) -> DictConfig:
    """The run's config with another data group; the net's rate stays."""
    rate_hz = cfg.data.sample_rate_hz
    other = settings.composed([*changes, f"data.sample_rate_hz={rate_hz}"])
    settings.check_types(other, changes)
    cfg.data = OmegaConf.to_container(other.data, resolve=True)
    return cfg


def main() -> None:
    """Entry point."""
    torch.set_grad_enabled(False)
    sys.exit(guarded(lambda: evaluate(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
