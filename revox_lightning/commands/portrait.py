"""What a trained model measures and sounds like, beside the machine that it learned from: left in its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from revox_lightning.commands import assemble, subjects
from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.measure.figures import lookup
from revox_lightning.models.contract import Net
from revox_lightning.report import data_sheet, examples
from revox_lightning.report.data_sheet import Sheets
from revox_lightning.runs import RunFolder

# The least that a speed is measured of: a net without wow and flutter of its own has nothing there to show.
_SPEED_SECONDS, _GENERATED_SPEED_SECONDS = 5.0, 60.0
_FIGURES = {  # that metrics.json holds of the model and, as NAME_machine, of the machine
    "sheet/wow_flutter_percent": "speed.weighted_two_sigma_percent",
    "sheet/signal_to_noise_db": "noise.re_0_vu_db.a",
}


def check(cfg: DictConfig) -> None:
    """Raises UserError, before anything is trained, for examples that cannot be played."""
    examples.check(cfg.report.get("examples", []))


def draw(cfg: DictConfig, folder: RunFolder, net: Net, logger: Any, knobs: tuple[float, ...] = ()) -> dict[str, float]:
    """Leaves ``data_sheet.json``, ``.md`` and ``.png`` and the examples in a run's folder, and in its W&B run.

    Returns figures for metrics.json: those of the model, and of its machine where that is known. What cannot be
    measured or played is said in a sentence and spoils no training.
    """
    sheets: Sheets = []
    heard: dict[str, Path] = {}
    net.eval()
    try:
        if cfg.report.get("data_sheet"):
            sheets = _measured(cfg, folder, net, knobs)
    except UserError as error:
        log.warning("no data sheet of this model: %s", error)
    try:
        heard = _heard(cfg, folder, net, knobs)
    except UserError as error:
        log.warning("no examples of this model: %s", error)
    if logger:
        from revox_lightning.report.wandb_log import log_portrait

        rows = [[figure.label, figure.unit, *cells] for figure, cells in data_sheet.rows(sheets)]
        columns, picture = ["figure", "unit", *(name for name, _ in sheets)], folder.path / "data_sheet.png"
        log_portrait(logger.experiment, columns, rows, picture if sheets else None, heard)
    if sheets:
        print(f"Data sheet{' beside the machine' if len(sheets) > 1 else ''}: {folder.path / 'data_sheet.md'}")
    return _figures(sheets)


def _measured(cfg: DictConfig, folder: RunFolder, net: Net, knobs: tuple[float, ...]) -> Sheets:
    """The sheet of the model and then of the machine; the machine's is kept in the cache for other runs."""
    log.info("measuring the model%s ...", "" if cfg.data.source.get("machine") is None else " and its machine")
    settings = subjects.Settings(
        speed_seconds=_GENERATED_SPEED_SECONDS if _generates(net) else _SPEED_SECONDS,
        controls=knobs,
        channels=2 if net.channels > 1 else 1,
        keep=Path(cfg.data.cache_dir) / "data_sheets",
    )
    *machine, (_, model) = subjects.of_net(net, cfg, folder, settings, lambda what: None)
    sheets = [(str(cfg.name), model), *(("machine", sheet) for _, sheet in machine[-1:])]
    if machine:
        model["missed"]["target"] = "the machine"
    data_sheet.write_json(sheets, folder.path / "data_sheet.json")
    data_sheet.write_table(sheets, folder.path / "data_sheet.md")
    from revox_lightning.report import sheet_plots  # matplotlib takes a second to import

    sheet_plots.picture(sheets, folder.path / "data_sheet.png")
    return sheets


def _heard(cfg: DictConfig, folder: RunFolder, net: Net, knobs: tuple[float, ...]) -> dict[str, Path]:
    paths, seconds, rate_hz = cfg.report.get("examples", []), cfg.report.audio_seconds, int(cfg.data.sample_rate_hz)
    if seconds <= 0 or paths == []:
        return {}
    machine = _machine(cfg, net, rate_hz)
    dry = examples.examples(paths, seconds, rate_hz)
    return examples.write(net, torch.tensor([knobs]), dry, machine, folder.path / "audio", rate_hz)


def _machine(cfg: DictConfig, net: Net, rate_hz: int) -> examples.Machine | None:
    """The machine as the model heard it; its tape stands still beside a net that makes no wow and flutter."""
    source = cfg.data.source
    if source.get("machine") is None:
        return None
    without = {*(source.get("without") or ()), *(() if _generates(net) else ("transport", "azimuth"))}
    machine = assemble.build(source.machine).without(*without)
    return lambda x: machine.play(x, rate_hz, seed=examples.SEED).wet


def _generates(net: Net) -> bool:
    return bool(getattr(net, "generates", ()))


def _figures(sheets: Sheets) -> dict[str, float]:
    found = {}
    for (_, sheet), suffix in zip(sheets, ("", "_machine"), strict=False):
        for name, path in _FIGURES.items():
            value = lookup(sheet, path)
            values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
            if values:
                found[name + suffix] = float(np.mean(values))
    return found
