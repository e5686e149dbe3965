"""What can be measured: a machine of conf/machine, a trained run and its target, a pair of files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from revox_lightning import audio, dsp, measure, plain_files
from revox_lightning import tape as tape_package
from revox_lightning.commands import assemble
from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.measure import sweeps
from revox_lightning.measure.bench import Bench, plain
from revox_lightning.measure.data_sheet import aliasing_of, data_sheet
from revox_lightning.measure.figures import differences
from revox_lightning.measure.locate import coarse_delay
from revox_lightning.measure.programme import programme_sheet
from revox_lightning.measure.tape import MeasuringTape, excerpt, measuring_tape
from revox_lightning.models.contract import Net
from revox_lightning.report import examples
from revox_lightning.report.data_sheet import Sheets, read_json, write_json
from revox_lightning.runs import RunFolder
from revox_lightning.tape.machine import TapeMachine

SHEET_NAME = "data_sheet.json"
_UNSTEADY = ("transport", "azimuth", "hiss", "asperity", "dropouts", "print_through")
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure; None takes what the machine or run itself says."""

    mode: str | None = None
    speed_seconds: float = 60.0
    sample_rate_hz: int | None = None
    zero_vu_dbfs: float | None = None
    controls: tuple[float, ...] = ()
    kernels: str | None = None
    channels: int = 2
    keep: Path | None = None  # a folder for sheets of machines, which are then measured once

    def tape(self, sample_rate_hz: int, zero_vu_dbfs: float) -> MeasuringTape:
        zero_vu = zero_vu_dbfs if self.zero_vu_dbfs is None else self.zero_vu_dbfs
        return measuring_tape(self.sample_rate_hz or sample_rate_hz, zero_vu, self.speed_seconds, self.channels)


def of_machine(name: str, overrides: list[str], settings: Settings, progress: Progress) -> Sheets:
    """The sheet of a virtual machine."""
    machine = assemble.build_machine(name, overrides)
    tape = settings.tape(44_100, machine.zero_vu_dbfs)
    return [(name, _machine_sheet(machine, tape, settings.mode, name, progress))]


def _machine_sheet(
    machine: TapeMachine, tape: MeasuringTape, mode: str | None, name: str, progress: Progress
) -> dict[str, Any]:
    if machine.transport is not None:
        mode = mode or machine.transport.mode
        machine = dataclasses.replace(machine, transport=dataclasses.replace(machine.transport, mode=mode))
    progress(f"{name}: {tape.signal.shape[1] / tape.sample_rate_hz:.0f} s of measuring tape through the machine")
    wet = machine.play(tape.signal, tape.sample_rate_hz, seed=0).wet
    sheet = _sheet(tape, wet, mode if machine.transport else None, name, progress)
    if sheet["response"]["group_delay_ms"] is None or not sheet["aliasing"]:
        progress(f"{name}: group delay and aliasing")
        steady = machine.without(*_UNSTEADY)
        _add_steady(sheet, tape, lambda x: steady.play(x, tape.sample_rate_hz, seed=0).wet)
    return sheet | {"published": machine.published}


def _add_steady(sheet: dict[str, Any], tape: MeasuringTape, play: Callable[[np.ndarray], np.ndarray]) -> None:
    """What only a steady machine shows: `play` is the one of the sheet with its speed and noise switched off."""
    still = excerpt(tape, ("alignment", "sweep_-20", "aliasing_0", "aliasing_6"))
    bench = Bench(still.sections, still.signal, play(still.signal), tape.sample_rate_hz, tape.zero_vu_dbfs)
    sheet["response"]["group_delay_ms"] = plain(sweeps.responses(bench)["group_delay_ms"])
    sheet["aliasing"] = plain(aliasing_of(bench))
    sheet["notes"].append("group delay and aliasing measured with the unsteady stages (speed, noise) off")
    for what in ("group delay", "aliasing"):
        sheet["missing"].pop(what, None)


def _still(net: Net, scales: Sequence[str], x: np.ndarray, controls: torch.Tensor) -> np.ndarray:
    """x (channels, time) through a net with what it generates switched off."""
    as_set = {name: getattr(net, name) for name in scales}
    try:
        for name in scales:
            setattr(net, name, 0.0)
        return examples.played(net, torch.from_numpy(x), controls).numpy()
    finally:
        for name, value in as_set.items():
            setattr(net, name, value)


def of_run(path: str, settings: Settings, progress: Progress) -> tuple[Sheets, RunFolder]:
    """The sheet of a trained net, with what it missed, and before it that of its target where that can be had."""
    net, cfg, folder = assemble.load_run(path, settings.kernels)
    return of_net(net, cfg, folder, settings, progress), folder


def of_net(net: Net, cfg: DictConfig, folder: RunFolder, settings: Settings, progress: Progress) -> Sheets:
    """The same of a net at hand, and of the run folder that it belongs to."""
    rate_hz = int(cfg.data.sample_rate_hz)
    if settings.sample_rate_hz not in (None, rate_hz):
        raise UserError(
            f"sample_rate_hz={settings.sample_rate_hz}: the net of {folder.path} works at {rate_hz} Hz only."
        )
    machine, recorded = _target(cfg)
    zero_vu = machine.zero_vu_dbfs if machine else cfg.data.get("zero_vu_dbfs")
    if recorded and zero_vu is None:
        zero_vu = recorded[0][1].get("zero_vu_dbfs")
    tape = settings.tape(rate_hz, -18.0 if zero_vu is None else zero_vu)
    targets = recorded
    if machine:
        name = f"target of {folder.path.parent.name}"
        targets = [(name, _kept(settings.keep, machine, tape, settings.mode, name, progress))]
    name = f"{cfg.name} ({folder.path.name})"
    progress(f"{name}: {tape.signal.shape[1] / rate_hz:.0f} s of measuring tape through the net")
    wet = examples.played(net, torch.from_numpy(tape.signal), _controls(cfg, settings.controls)).numpy()
    if not np.isfinite(wet).all():
        raise UserError(f"the output of {name} holds NaN or infinities: train it again, with a smaller optim.lr.")
    if not wet.any():
        raise UserError(f"the output of {name} is silent: there is nothing to measure.")
    # A net that makes its own wow and flutter keeps no step with the tape, and needs to be found on it.
    generates = getattr(net, "generates", ())
    sheet = _sheet(tape, wet, None, name, progress, known=not generates)
    if generates:
        progress(f"{name}: group delay and aliasing")
        _add_steady(sheet, tape, lambda x: _still(net, generates, x, _controls(cfg, settings.controls)))
    peak_dbfs = folder.read_json("levels.json").get("train_input_peak_dbfs")
    if peak_dbfs is not None:
        over = peak_dbfs - tape.zero_vu_dbfs
        sheet["notes"].append(
            f"trained on peaks up to {peak_dbfs:.1f} dBFS ({over:+.1f} VU): figures of louder tones are a guess"
        )
    never_shown = ", ".join(cfg.data.source.get("without") or ())
    if never_shown:
        sheet["notes"].append(f"trained on the machine without its {never_shown}, so it cannot have learned that")
    if targets:
        target_name, target = targets[-1]
        sentences = differences(sheet, target) or ["Nothing that these figures show."]
        sheet["missed"] = {"target": target_name, "sentences": sentences}
    else:
        log.warning("%s: its target machine is not known, so the net is measured alone", folder.path)
    return [*targets, (name, sheet)]


def _kept(
    place: Path | None, machine: TapeMachine, tape: MeasuringTape, mode: str | None, name: str, progress: Progress
) -> dict[str, Any]:
    """A machine's sheet, from `place` where it was measured before by the same code."""
    if place is None:
        return _machine_sheet(machine, tape, mode, name, progress)
    sources = [path for package in (dsp, measure, tape_package) for path in sorted(_folder(package).glob("*.py"))]
    what = repr([machine, machine.published, tape.layout(), mode])
    key = hashlib.sha256((what + "".join(path.read_text(encoding="utf-8") for path in sources)).encode())
    path = place / f"{key.hexdigest()[:16]}.json"
    if not path.is_file():
        write_json([(name, _machine_sheet(machine, tape, mode, name, progress))], path)
    return {name: value for name, value in read_json(path)[0][1].items() if name != "name"}


def _folder(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent


def _target(cfg: DictConfig) -> tuple[TapeMachine | None, Sheets]:
    """The virtual machine of a run's data, or the sheet that lies beside its recordings."""
    source = cfg.data.source
    if source.get("machine") is not None:
        try:
            return assemble.build(source.machine), []
        except UserError as error:
            log.warning("the run's machine cannot be built by this version (%s)", error)
            return None, []
    root = cfg.data.get("root")
    places = [Path(root).expanduser(), *Path(root).expanduser().resolve().parents[:2]] if root else []
    for place in places:
        if (place / SHEET_NAME).is_file():
            return None, read_json(place / SHEET_NAME)
    return None, []


def _controls(cfg: DictConfig, given: tuple[float, ...]) -> torch.Tensor:
    knobs = list(cfg.get("knobs") or [])
    if len(given) != len(knobs):
        wanted = f"controls= with {len(knobs)} numbers ({', '.join(knobs)})" if knobs else "no controls"
        raise UserError(f"the net takes {wanted}, and {len(given)} were given.")
    return torch.tensor([given], dtype=torch.float32)


def of_files(dry_path: Path, wet_path: Path, settings: Settings, progress: Progress) -> Sheets:
    """The sheet of whatever made the second file of the first: all of it where a layout stands beside the first."""
    infos = [audio.info(path) for path in (dry_path, wet_path)]
    if infos[0].sample_rate_hz != infos[1].sample_rate_hz or infos[0].channels != infos[1].channels:
        facts = " and ".join(f"{i.path} ({i.channels} ch, {i.sample_rate_hz} Hz)" for i in infos)
        raise UserError(f"{facts} differ in channels or sample rate: convert one of them.")
    dry, wet = (audio.read(path).numpy() for path in (dry_path, wet_path))
    for path, signal in ((dry_path, dry), (wet_path, wet)):
        if not signal.any():
            raise UserError(f"{path} is silent: record it again.")
    layout = dry_path.with_suffix(".json")
    content = _layout(layout)
    if content is None:
        log.warning("no layout %s beside %s, so it is no measuring tape: only what a programme tells", layout, dry_path)
        progress(f"{wet_path.name}: programme")
        return [(wet_path.stem, programme_sheet(dry, wet, infos[0].sample_rate_hz))]
    if settings.zero_vu_dbfs is not None:
        content["zero_vu_dbfs"] = settings.zero_vu_dbfs
    tape = MeasuringTape.from_layout(content, dry)
    if tape.sample_rate_hz != infos[0].sample_rate_hz:
        raise UserError(f"{layout} is of a tape at {tape.sample_rate_hz} Hz and {dry_path} is not: convert neither.")
    return [(wet_path.stem, _sheet(tape, wet, settings.mode, wet_path.stem, progress))]


def _layout(path: Path) -> dict[str, Any] | None:
    """The layout beside a measuring tape; None where there is none."""
    if not path.is_file():
        return None
    try:
        content = plain_files.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a layout: write the measuring tape again.") from error
    return content if isinstance(content, dict) and "sections" in content else None


def _sheet(
    tape: MeasuringTape, wet: np.ndarray, mode: str | None, name: str, progress: Progress, known: bool = False
) -> dict[str, Any]:
    """The data sheet of a recording of the tape that may be late by up to 20 s; its latency counts that in.

    What is `known` to have played the tape is in step with it.
    """
    late = 0 if known else coarse_delay(tape.sections, tape.signal, wet, tape.sample_rate_hz)
    aligned = np.zeros_like(tape.signal)
    part = wet[:, max(late, 0) :][:, : aligned.shape[1] - max(-late, 0)]
    aligned[:, max(-late, 0) : max(-late, 0) + part.shape[1]] = part
    sheet = data_sheet(
        tape.sections, tape.signal, aligned, tape.sample_rate_hz, tape.zero_vu_dbfs, mode,
        lambda what: progress(f"{name}: {what}"), known,
    )  # fmt: skip
    if sheet["latency"]["milliseconds"] is not None:
        sheet["latency"]["milliseconds"] += 1000 * late / tape.sample_rate_hz
    return sheet | {"notes": []}
