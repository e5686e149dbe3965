"""``revox active run=FOLDER``: which settings of the knobs to record next, round by round, until a model knows them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from revox_lightning import audio
from revox_lightning.active.campaign import Campaign, Place, Plan, Record, Train
from revox_lightning.active.knobs import read_knob
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.training import train
from revox_lightning.commands.usage import ACTIVE as USAGE
from revox_lightning.data import performer
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.report import table
from revox_lightning.runs import RunFolder
from revox_lightning.tape.knobs import KNOBS, turned
from revox_lightning.tape.machine import TapeMachine

_PLAN = {field.name: str(field.type) for field in fields(Plan) if field.name not in ("knobs", "dry")}
_KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
_FIXED = ("design", "start", "align", "seed")  # what cannot change once the first settings are made
_FILE = "active.yaml"
_MACHINE_SECONDS, _MACHINE_RATE_HZ = 60.0, 44_100
_STILL = ("transport", "azimuth")  # stages that only a varying alignment can follow
# Members of the ensemble come without pictures and portraits.
_MEMBER = ["report.data_sheet=false", "report.examples=[]", "report.audio_seconds=5"]


def active(argv: list[str]) -> None:
    """Begins a campaign in ``run=``, or goes on with the one that lies there."""
    named, others, words = settings.arguments(argv, {"run", "dry", "machine", *_PLAN})
    if words or "run" not in named:
        raise UserError(f"active needs run=FOLDER and options as name=value: {USAGE}.")
    folder = Path(named.pop("run")).expanduser()
    told = _changed(folder, named, others) if (folder / _FILE).is_file() else _begun(folder, named, others)
    plan, campaign = _plan(told), Campaign(folder, _plan(told))
    missing = campaign.advance(_recorder(told, plan) if told.machine else None, _trainer(told))
    if missing:
        rows = [[str(s.file), *(str(value) for value in campaign.place(s).values())] for s in missing]
        title = f"Play {plan.dry} through the machine and record it, with its knobs at"
        table.show(title, ["as", *(knob.name for knob in plan.knobs)], rows)
        print(f"{len(missing)} recordings are missing in {folder}; when they lie there: revox active run={folder}")
        return
    count = len(campaign.settings())
    path = folder / f"model_{count:03d}"
    if not RunFolder(path).read_json("metrics.json"):
        log.info("all %d settings are recorded: training the model", count)
        train(_composed(told, folder / "recordings.csv", [f"seed={plan.seed}", f"run_dir={path}"]), path, resume=True)
    print(f"recorded: {folder / 'settings.csv'}   for data=recordings: {folder / 'recordings.csv'}   model: {path}")


def _begun(folder: Path, named: dict[str, str], others: list[str]) -> DictConfig:
    """Checks what is asked for and writes it down."""
    knobs = {text.partition("=")[0][5:]: text.partition("=")[2] for text in others if text.startswith("knob.")}
    machine = named.get("machine")
    if machine is None and not ("dry" in named and knobs):
        raise UserError(f"a machine of your own needs dry=FILE and its knobs, knob.NAME=LOW:HIGH: {USAGE}.")
    turning = [text for text in others if text.startswith(("machine.", "machine/"))]
    told = DictConfig({
        "machine": machine, "machine_words": turning, "knobs": knobs or KNOBS,
        "dry": str(Path(named["dry"]).expanduser().resolve() if "dry" in named else (folder / "dry.wav").resolve()),
        "train": [text for text in others if text not in turning and not text.startswith("knob.")],
        "plan": {name: _read(name, named[name]) for name in _PLAN if name in named},
    })  # fmt: skip
    plan = _plan(told)
    if machine is not None:
        turned(_machine(told, plan), {knob.name: knob.value(0.0) for knob in plan.knobs})
    if "dry" in named:
        audio.info(told.dry)
    _composed(told, folder / "recordings.csv", [])
    folder.mkdir(parents=True, exist_ok=True)
    if "dry" not in named:
        dry = torch.from_numpy(performer.perform(_MACHINE_SECONDS, _MACHINE_RATE_HZ, plan.seed)).float()[None]
        audio.write(told.dry, dry, _MACHINE_RATE_HZ, subtype="FLOAT")
    RunFolder(folder).write_text(_FILE, OmegaConf.to_yaml(told))
    return told


def _changed(folder: Path, named: dict[str, str], others: list[str]) -> DictConfig:
    """What was written down, with another number of recordings, say."""
    try:
        told = DictConfig(yaml.safe_load((folder / _FILE).read_text(encoding="utf-8")))
        plan = _plan(told)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, OmegaConfBaseException) as error:
        raise UserError(f"{folder / _FILE} is damaged ({type(error).__name__}): choose another run=.") from error
    fixed = [*others, *(name for name in named if name not in _PLAN or name in _FIXED)]
    if fixed:
        raise UserError(f"run={folder} goes on as it began: leave {fixed[0].partition('=')[0]} out, or choose another.")
    for name, text in named.items():
        told.plan[name] = _read(name, text)
    if named and plan != _plan(told):
        RunFolder(folder).write_text(_FILE, OmegaConf.to_yaml(told))
    return told


def _read(name: str, text: str) -> Any:
    try:
        return _KINDS[_PLAN[name]](text)
    except ValueError:
        raise UserError(f"{name}={text}: expected a number.") from None


def _plan(told: DictConfig) -> Plan:
    knobs = tuple(read_knob(str(name), str(text)) for name, text in told.knobs.items())
    return Plan(knobs, Path(told.dry), **told.plan)


def _machine(told: DictConfig, plan: Plan) -> TapeMachine:
    machine = assemble.build_machine(told.machine, list(told.machine_words))
    return machine if plan.align == "varying" else machine.without(*_STILL)


def _recorder(told: DictConfig, plan: Plan) -> Record:
    machine = _machine(told, plan)
    dry, rate_hz = audio.read(plan.dry).numpy(), audio.info(plan.dry).sample_rate_hz

    def record(place: Place, path: Path, number: int) -> None:
        playback = turned(machine, place).play(dry, rate_hz, number)
        path.parent.mkdir(exist_ok=True)
        audio.write(path, torch.from_numpy(playback.wet), rate_hz, subtype="FLOAT")

    return record


def _trainer(told: DictConfig) -> Train:
    def member(manifest: Path, path: Path, seed: int) -> Net:
        if not RunFolder(path).read_json("metrics.json"):
            log.info("%s: %s", path.parent.name, path.name)
            train(_composed(told, manifest, [*_MEMBER, f"seed={seed}", f"run_dir={path}"]), path, resume=True)
        net, _, _ = assemble.load_run(path)
        if net.channels != 1 or net.controls != len(told.knobs):
            raise UserError(f"{path} is no net for one channel and {len(told.knobs)} knobs: choose another model.")
        return net

    return member


def _composed(told: DictConfig, manifest: Path, more: list[str]) -> DictConfig:
    """The config of a training on what is recorded."""
    rate_hz = audio.info(told.dry).sample_rate_hz if Path(told.dry).is_file() else _MACHINE_RATE_HZ
    usual = [] if any(text.startswith("model=") for text in told.train) else ["model=lstm"]
    usual += [] if any(text.startswith("logger=") for text in told.train) else ["logger=csv"]
    data = ["data=recordings", f"data.manifest={manifest}", f"data.sample_rate_hz={rate_hz}", "data.channels=mix"]
    return settings.composed([*usual, *data, *told.train, *more])


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(active)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:])))


if __name__ == "__main__":
    main()
