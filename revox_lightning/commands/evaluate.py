"""``revox evaluate run=outputs/... [data=... data.root=...]``: a test, on the run's own data or on other recordings."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from revox_lightning import identity
from revox_lightning.commands import assemble, result, settings, style_result
from revox_lightning.commands.exits import disk_faults, guarded
from revox_lightning.commands.usage import EVALUATE as USAGE
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import references
from revox_lightning.report.listening import Listening
from revox_lightning.runs import RunFolder
from revox_lightning.scorer import BySetting, score


def evaluate(argv: list[str]) -> dict[str, Any]:
    """Scores a run's best weights; figures, audio and plots go to ``evaluations/<time>/`` in the run's folder."""
    named, changes, words = settings.arguments(argv, {"run", "kernels"})
    if "run" not in named or words:
        raise UserError(f"evaluate needs a run: {USAGE}.")
    net, cfg, folder = assemble.load_run(named["run"], named.get("kernels"), playing=False)
    if cfg.get("parts"):
        raise UserError(
            f"{named['run']} makes wow and flutter and hiss of its own, which no recording can have: evaluate its net, "
            f"run={named['run']}/parts/net, or compare data sheets with revox measure."
        )
    other = [text for text in changes if text.split("=")[0] == "data" or text.startswith("data.")]
    report = [text for text in changes if text.startswith("report.")]
    unknown = [text for text in changes if text not in other + report]
    if unknown:
        raise UserError(
            f"evaluate cannot change {unknown[0].split('=')[0]}: only data=, data., report. and kernels= options."
        )
    if cfg.task == "style":
        return _style(net, cfg, folder, other)
    if cfg.task != "effect":
        raise UserError(f"run={named['run']} is of task {cfg.task}, which is tested at the end of its training only.")
    elsewhere = bool(other)
    cfg = settings.changed(cfg, report)
    if elsewhere:
        cfg = _with_data(cfg, other)
    trained_for = cfg.audio_channels, list(cfg.knobs or [])
    data = assemble.build_data(cfg, test_only=elsewhere)
    if (data.audio_channels, list(data.knobs)) != trained_for:
        raise UserError(
            f"the run was trained for {trained_for[0]} channel(s) and the knobs {trained_for[1]}; these recordings "
            f"have {data.audio_channels} and {list(data.knobs)}: choose other recordings, or data.channels=left."
        )
    data.check()
    place = _place(folder).path
    listening = Listening(data, "test", place / "audio", cfg.report.audio_seconds)
    by = BySetting(len(data.knobs))
    test = score(net, data.chunks("test"), EffectMetrics(data.sample_rate_hz), listening, by)
    rivals = references.references(data, references.load_filters(folder.filters_path))
    metrics = result.test_metrics(test, rivals, data) | result.by_setting(RunFolder(place), by, data.knobs)
    RunFolder(place).write_json("metrics.json", metrics | identity.computed(net, torch.device("cpu")))
    from revox_lightning.report import plots

    for i, paths in enumerate(listening.written, 1):
        plots.draw(paths, place / "plots", f"{i:02d}")
    what = "other recordings" if elsewhere else "its test split"
    rows = result.as_rows(cfg.name, test, rivals, metrics.get("test/esr_floor"))
    result.tell(f"{folder.path} on {data.seconds('test'):.0f} s of {what}", rows, rivals)
    result.tell_worst(by, data.knobs)
    print(f"figures, audio and pictures: {place}")
    return metrics


def _style(net: Any, cfg: DictConfig, folder: RunFolder, other: list[str]) -> dict[str, Any]:
    """A style net on its own test split, or on recordings that the data. options name."""
    cfg = settings.changed(cfg, other)
    told = {text.split("=")[0].removeprefix("data.") for text in other}
    for name in told & cfg.data.source.keys():  # which has what was told when it was written
        cfg.data.source[name] = cfg.data[name]
    data = assemble.build_data(cfg, test_only="root" in told and cfg.data.root is not None)
    place = _place(folder)
    metrics, _ = style_result.scored(cfg, place, data, net)
    place.write_json("metrics.json", metrics | identity.computed(net, torch.device("cpu")))
    print(f"figures and audio: {place.path}")
    return metrics


def _place(folder: RunFolder) -> RunFolder:
    return RunFolder(folder.path / "evaluations" / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def _with_data(cfg: DictConfig, options: list[str]) -> DictConfig:
    """The run's config with other data; the net's sample rate stays. ``data.root=...`` alone means recordings."""
    if not any(text.startswith("data=") for text in options):
        options = ["data=recordings", *options]
    composed = settings.composed([*options, f"data.sample_rate_hz={cfg.data.sample_rate_hz}"])
    settings.check_types(composed, options)
    cfg.data = OmegaConf.to_container(composed.data, resolve=True)
    return cfg


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(evaluate)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
