"""Every reader of files that may come from elsewhere: small whole files to begin with, and what reads them.

``read`` gets the folder in which the damaged file lies and its path; whatever it returns must be usable.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fuzz_runs
import fuzz_sounds
import mutations
import torch
import yaml
from omegaconf import OmegaConf

from revox_lightning.capture import layout
from revox_lightning.commands import paper, score, settings, subjects, sweep, sync, transfer
from revox_lightning.data import bench, recordings, trajectories
from revox_lightning.dsp import effects
from revox_lightning.export import mikkonen_unet
from revox_lightning.report import data_sheet, ratings, ratings_table, references


class Reader(NamedTuple):
    """``originals`` writes whole files into a folder; a damaged copy lies in ``beside`` of it under ``name``, or under
    the original's name."""

    mutate: Callable[[bytes, random.Random], bytes]
    originals: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    name: str | None = None


def _results(folder: Path) -> list[Path]:
    whole = {"format": ratings.FORMAT, "page": "p", "listener": "me", "session": "s1"}
    stimulus = [{"name": "tape", "kind": "reference", "rating": 100}, {"name": "lstm", "kind": "system", "rating": 50}]
    mushra = {
        "kind": "mushra",
        "trials": [{"excerpt": f"e{n}", "repeated": False, "stimuli": stimulus} for n in range(2)],
    }
    abx = {"kind": "abx", "trials": [{"mode": "abx", "system": "lstm", "excerpt": "e", "correct": True}] * 3}
    for name, kind in (("mushra.json", mushra), ("abx.json", abx)):
        (folder / name).write_text(json.dumps(whole | kind))
    return [folder / "mushra.json", folder / "abx.json"]


def _result(path: Path) -> None:
    sessions, _ = ratings.read(path)
    text, files = (_mushra if sessions[0].kind == "mushra" else ratings_table._abx)(sessions)
    assert text and files


def _mushra(sessions: list[ratings.Session]) -> tuple[str, Any]:
    rated = [rating for session in sessions for rating in session.answers]
    return ratings_table._table(*ratings_table._people(ratings.listeners(rated))), ratings_table._scores_csv(
        ratings.scores(rated)
    )


def _knobs(folder: Path) -> list[Path]:
    values = {name: value.item() for name, value in effects.denormalised(torch.full((1, 24), 0.5)).items()}
    (folder / "knobs.json").write_text(json.dumps({"knobs": values, "peak": 0.5}))
    return [folder / "knobs.json"]


def _knob(path: Path) -> None:
    p, peak = transfer._read_knobs(path)
    assert torch.isfinite(p).all() and math.isfinite(peak)


def _sweeps(folder: Path) -> list[Path]:
    content = {
        "program": "train.py", "method": "random", "metric": {"name": "val/esr", "goal": "minimize"}, "run_cap": 4,
        "parameters": {"model.hidden": {"values": [4, 8]}, "optim.lr": {"min": 1e-4, "max": 1e-2}},
        "command": ["${env}", "python", "${program}", "${args_no_hyphens}", "model=lstm"],
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return [folder / "sweep.yaml"]


def _sweep(path: Path) -> None:
    one = sweep.Sweep(path, path.parent / "out", 0)
    trial = sweep.Trial(0, {"model.hidden": 4})
    assert all(isinstance(word, str) for word in one.words(trial, []))


def _trials(folder: Path) -> list[Path]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    _sweeps(folder)
    told = [{"number": n, "parameters": {"model.hidden": 4}, "state": "finished", "value": 0.1} for n in range(3)]
    (out / "trials.json").write_text(json.dumps(told))
    return [out / "trials.json"]


def _trial(path: Path) -> None:
    sweep.Sweep(path.parent.parent / "sweep.yaml", path.parent, 0).rows()


def _papers(folder: Path) -> list[Path]:
    content = {
        "title": "T", "reference": "R", "budget": "B", "unpublished": "","words": ["trainer.max_epochs=1"], "seeds": 1,
        "sets": {"one": {"title": "S", "words": ["data=virtual_revox"]}},
        "rows": [{"label": "lstm", "words": ["model=lstm"], "published": {"one": {"ESR": 0.1}}}],
    }  # fmt: skip
    (folder / "table.yaml").write_text(yaml.safe_dump(content))
    return [folder / "table.yaml"]


def _paper(path: Path) -> None:
    paper.PLACE = path.parent
    told = paper.Paper.read(path.stem)
    assert [paper.row_words(row, {}) for row in told.rows] and list(told.sets)


def _cards(folder: Path) -> list[Path]:
    card = {"files": {"a.wav": "00"}, "machines": {"preisach": {"metrics": {"test/esr": 0.1, "test/mrstft": None}}}}
    (folder / "card.json").write_text(json.dumps(card))
    return [folder / "card.json"]


def _card(path: Path) -> None:
    card = {"files": {"a.wav": "00"}, "machines": {"preisach": {"metrics": {"test/esr": 0.1, "test/mrstft": None}}}}
    score._confirm(card, path)


def _benches(folder: Path) -> list[Path]:
    (folder / "a.txt").write_text("x")
    content = {"bench": "v1", "files": {"a.txt": bench.sha256(folder / "a.txt")}, "noise": {"a": 1e-6}, "machines": {}}
    (folder / "bench.json").write_text(json.dumps(content))
    return [folder / "bench.json"]


def _sheets(folder: Path) -> list[Path]:
    sheet = {
        "name": "m", "kind": "tape", "notes": ["n"], "response": {"lower_minus_3db_hz": [30.0, 31.0]}, "published": {},
        "speed": {"weighted_two_sigma_percent": 0.1}, "missed": {"target": "t", "sentences": ["s"]},
    }  # fmt: skip
    (folder / "data_sheet.json").write_text(json.dumps({"sheets": [sheet]}))
    return [folder / "data_sheet.json"]


def _sheet(path: Path) -> None:
    sheets = data_sheet.read_json(path)
    data_sheet.rows(sheets)


def _layouts(folder: Path) -> list[Path]:
    section = {
        "name": "a",
        "kind": "tone",
        "start": 0,
        "stop": 100,
        "channels": [0],
        "parameters": {"frequency_hz": 1000.0},
    }
    content = {
        "format": layout.FORMAT, "sample_rate_hz": 8000, "channels": 2, "samples": 1000, "zero_vu_dbfs": -18.0,
        "pulses_hz": 10.0, "sections": [section], "loopback_samples": 500, "loopback": [section],
    }  # fmt: skip
    (folder / "tape.json").write_text(json.dumps(content))
    return [folder / "tape.json"]


def _layout(path: Path) -> None:
    subjects._layout(path)
    layout.Layout.read(path).as_dict()


def _logs(folder: Path) -> list[Path]:
    from wandb.proto.wandb_internal_pb2 import Record

    content = [Record(num=n, uuid="x" * 50).SerializeToString() for n in range(20)]
    (folder / "run.wandb").write_bytes(sync.framed(b":W&B\x21\xbe\x00", content))
    return [folder / "run.wandb"]


def _overrides(folder: Path) -> list[Path]:
    lines = (
        "model=tcn\ntrainer.max_epochs=2\nseed=1\nname=x",
        "model=lstm\nmodel.hidden=4\ndata=recordings\ndata.root=/songs",
        "data=recordings\ndata.fractions=[0.8,0.1,0.1]\n+extra=1\nlogger=csv\nmachine.mol_db=6",
    )  # fmt: skip
    for n, text in enumerate(lines):
        (folder / f"{n}.txt").write_text(text)
    return sorted(folder.glob("*.txt"))


_composed: list[Any] = []


def _override(path: Path) -> None:
    words = path.read_bytes().decode(errors="replace").split("\n")
    cfg = settings.composed(words)
    OmegaConf.to_container(cfg, resolve=True)


def _change(path: Path) -> None:
    words = [
        word
        for word in path.read_bytes().decode(errors="replace").split("\n")
        if not word.startswith(("model=", "data", "logger=", "+"))
    ]
    if not _composed:
        _composed.append(settings.composed(["model=lstm"]))
    settings.arguments(words, {"run"})
    OmegaConf.to_container(settings.changed(_composed[0].copy(), words), resolve=True)


m = mutations
READERS: dict[str, Reader] = {
    "WAV": Reader(m.of_chunks, fuzz_sounds.sounds(".wav", ("PCM_16", "PCM_24", "FLOAT")), fuzz_sounds.sound),
    "FLAC": Reader(m.of_chunks, fuzz_sounds.sounds(".flac", ("PCM_16", "PCM_24")), fuzz_sounds.sound),
    "FLAC, read whole": Reader(m.of_chunks, fuzz_sounds.sounds(".flac", ("PCM_16",)), fuzz_sounds.whole_sound),
    "AIFF": Reader(m.of_chunks, fuzz_sounds.sounds(".aiff", ("PCM_16", "FLOAT")), fuzz_sounds.sound),
    "Ogg": Reader(m.of_bytes, fuzz_sounds.sounds(".ogg", ("VORBIS",)), fuzz_sounds.sound),
    "manifest": Reader(m.of_csv, fuzz_sounds.manifests, fuzz_sounds.manifest),
    "floor.json": Reader(m.of_json, fuzz_sounds.floors, lambda path: recordings._floor(path.parent)),
    "trajectory": Reader(m.of_archive, fuzz_sounds.delays, lambda path: trajectories.load.__wrapped__(path)),
    ".nam": Reader(m.of_json, fuzz_sounds.nams, fuzz_sounds.capture),
    "JSON models": Reader(m.of_json, fuzz_sounds.jsons, fuzz_sounds.capture),
    "tape models (.npz)": Reader(m.of_archive, fuzz_sounds.tape_models, fuzz_sounds.tape_model),
    "U-Nets (.npz)": Reader(m.of_archive, fuzz_sounds.unets, mikkonen_unet.load),
    "checkpoint": Reader(m.of_archive, fuzz_runs.of_run("checkpoints/best.ckpt"), fuzz_runs.checkpoint),
    "linear filters": Reader(
        m.of_archive, fuzz_runs.of_run("checkpoints/linear_filters.ckpt"), references.load_filters
    ),
    "config.yaml, reported": Reader(m.of_yaml, fuzz_runs.of_run("config.yaml"), fuzz_runs.report),
    "config.yaml, built": Reader(m.of_yaml, fuzz_runs.of_run("config.yaml"), fuzz_runs.net),
    "metrics.json": Reader(m.of_json, fuzz_runs.of_run("metrics.json"), fuzz_runs.report),
    "metrics.csv": Reader(m.of_csv, fuzz_runs.of_run("metrics.csv"), fuzz_runs.report),
    "stretches.csv": Reader(m.of_csv, fuzz_runs.of_run("stretches.csv"), fuzz_runs.report),
    "listening results": Reader(m.of_json, _results, _result),
    "knobs of a transfer": Reader(m.of_json, _knobs, _knob),
    "sweep": Reader(m.of_yaml, _sweeps, _sweep),
    "trials of a sweep": Reader(m.of_json, _trials, _trial),
    "table of a paper": Reader(m.of_yaml, _papers, _paper),
    "score card": Reader(m.of_json, _cards, _card),
    "bench.json": Reader(m.of_json, _benches, lambda path: bench.read(path.parent)),
    "data sheet": Reader(m.of_json, _sheets, _sheet),
    "layout of a test tape": Reader(m.of_json, _layouts, _layout),
    "log of W&B": Reader(m.of_bytes, _logs, lambda path: list(sync.records(path))),
    "overrides, composed": Reader(m.of_words, _overrides, _override),
    "overrides of a run": Reader(m.of_words, _overrides, _change),
}
