"""A training that is interrupted at any moment and goes on ends with the weights of one that was not: all objectives."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from test_hybrid import GENERATED, config

from revox_lightning import audio, distributed
from revox_lightning.commands import active, hybrid, settings, training
from revox_lightning.report import plots
from revox_lightning.runs import read_checkpoint
from revox_lightning.system import System

EFFECT = [
    "data=recordings", "data.sample_rate_hz=8000", "data.dry={dry}", "data.wet={wet}", "data.gap_seconds=0.02",
    "system.batch_size=3", "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100",
    "linear_filter.taps=64", "linear_filter.lookahead_samples=8",
]  # fmt: skip
WHOLE = ["system.segment_samples=16384", "system.hop_samples=16384", "system.batch_size=2"]
MADE = [*WHOLE, "data.source.seconds={{train: 5.0, val: 1.5, test: 1.5}}"]
CASES: dict[str, list[str]] = {
    "lstm": ["model=lstm", "size=4", *EFFECT, "data.workers=1"],
    "lstm on a plateau": [
        "model=lstm_linear", "size=4", *EFFECT, "schedule=plateau", "trainer.check_val_every_n_epoch=2",
        "callbacks.early_stopping_patience=3",
    ],
    "lstm, bf16": ["model=lstm", "size=4", *EFFECT, "trainer.precision=bf16-mixed"],
    "lstm, fp16 with a loss scale": ["model=lstm", "size=4", *EFFECT, "trainer.precision=null"],
    "tcn, 64 bit": ["model=tcn", "size=100", *EFFECT, "system.hop_samples=600", "trainer.precision=64-true"],
    "tcn": ["model=tcn", "size=100", *EFFECT, "system.hop_samples=600", "+system.ema=0.9"],
    "wow and flutter": [
        "model=wow_flutter_diffusion", "model.net.widths=[2,2,2,2]", "model.net.embedding=4", "model.steps=2",
        "system.segment_samples=512", "data.source.seconds={{train: 60, val: 20, test: 30}}",
    ],
    "hiss": [
        "model=hiss_diffusion", "model.net.embedding=4", "model.steps=2", "system.segment_samples=8192",
        "machine.oversampling=1", "data.source.seconds={{train: 2, val: 0.5, test: 0.5}}", "model.overlap_samples=100",
    ],
    "critics": [
        "experiment=tape_adversarial", *EFFECT, "data.trajectory=null", "size=4", "delay_line.max_delay_samples=64",
        "+objective.critics.fft_sizes=[64]", "+objective.critics.kernels=[5]",
    ],
    "style": ["model=style_transfer", *MADE, "objective.practice_steps=5"],
    "style by perturbation": [
        "model=style_transfer", *MADE, "model.processor._target_=revox_lightning.models.style_transfer.SPSA",
        "model.chain=tape", "objective.practice_steps=5",
    ],
    "proxy": ["model=effect_proxy", "model.width=4", *MADE, "data.workers=1"],
}  # fmt: skip
EPOCHS = 4


class Killed(BaseException):
    """What no one catches."""


def told(case: str, folder: Path, dry: Path, wet: Path) -> list[str]:
    """The words of a training in a folder."""
    words = [word.format(dry=dry, wet=wet) for word in CASES[case]]
    words += ["logger=csv", "trainer=cpu", f"trainer.max_epochs={EPOCHS}", "report.data_sheet=false"]
    words += ["report.examples=[]", "system.threads=1", f"data.cache_dir={folder.parent / 'cache'}"]
    return [*words, f"run_dir={folder}"]


@pytest.fixture
def at_step(monkeypatch):
    """``at_step(n, run)`` runs a function that is killed in the n-th step of its training, or None: never; the steps."""
    step = System.training_step

    def until(last: int | None, run: Callable[[], Any]) -> int:
        steps = 0

        def counted(*given: Any) -> None:
            nonlocal steps
            steps += 1
            if steps == last:
                raise Killed
            step(*given)

        monkeypatch.setattr(System, "training_step", counted)
        with contextlib.nullcontext() if last is None else pytest.raises(Killed):
            run()
        torch.set_num_threads(1)
        return steps

    return until


@pytest.fixture
def train(pair, tmp_path, monkeypatch, at_step):
    """Trains a case in a folder of that name, without what comes after training; returns the folder and the steps."""
    for part in ("result", "style_result", "proxy_result", "generator_result"):
        monkeypatch.setattr(getattr(training, part), "report", lambda *_: {})
    dry, wet = pair(seconds=2)

    def run(case: str, name: str, *more: str, resume: bool = False, killed_at: int | None = None) -> tuple[Path, int]:
        folder = tmp_path / name
        if "fp16" in case:  # on a CPU Lightning has it only as a plugin
            monkeypatch.setattr(distributed, "environment", lambda: [MixedPrecision("16-mixed", "cpu")])
        cfg = settings.composed([*told(case, folder, dry, wet), *more])
        return folder, at_step(killed_at, lambda: training.train(cfg, folder, resume))

    return run


def rows(folder: Path, *more: str) -> list[dict[str, str]]:
    """metrics.csv, but for the clock's column."""
    found = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name != "train_seconds" or name in more} for row in found]


def same(a: Any, b: Any, where: str = "") -> None:
    """Whether two checkpoints are equal to the bit, but for the clock."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{where}: {(a - b).abs().max()}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for name in a:
            if name != "train_seconds":
                same(a[name], b[name], f"{where}/{name}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for n, (one, other) in enumerate(zip(a, b, strict=True)):
            same(one, other, f"{where}/{n}")
    else:
        assert a == b or a != a, f"{where}: {a} and {b}"


def kept(folder: Path) -> dict[str, Any]:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    names = (
        "state_dict",
        "trained",
        "average_steps",
        "optimizer_states",
        "lr_schedulers",
        "callbacks",
        "counters",
        "MixedPrecision",
    )
    return {name: content[name] for name in names if name in content}


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (name in ("hiss", "style", "style by perturbation"))


@pytest.mark.parametrize("case", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_what_was_interrupted_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(case, train):
    whole, steps = train(case, "whole")
    assert steps >= 2 * EPOCHS, "there is a middle"
    parted, _ = train(case, "parted", killed_at=round(0.6 * steps))
    torch.manual_seed(1)  # another process draws other numbers
    torch.rand(7)
    train(case, "parted", "data.workers=2", resume=True)
    same(kept(whole), kept(parted))
    assert ("MixedPrecision" in kept(whole)) == ("loss scale" in case)
    assert len(rows(whole)) == EPOCHS
    same(rows(whole), rows(parted))


def everything(folder: Path) -> dict[str, Any]:
    """What all trainings below a folder ended with."""
    found = sorted(folder.rglob("last.ckpt"))
    return {str(path.relative_to(folder)): kept(path.parents[1]) for path in found}


@pytest.mark.slow
def test_an_ensemble_that_was_interrupted_asks_for_the_same_settings(at_step, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    noise = torch.randn(1, 66150, generator=torch.Generator().manual_seed(0))
    audio.write(tmp_path / "dry.wav", 0.1 * noise, 22050, subtype="FLOAT")
    words = [
        "machine=a77_7.5ips",
        f"dry={tmp_path / 'dry.wav'}",
        "knob.record_level_db=-6:6",
        "recordings=4",
        "start=3",
    ]
    words += ["per_round=1", "ensemble=2", "restarts=2", "steps=2", "ascent_seconds=0.2", "size=2", "model=lstm"]
    words += ["trainer.max_epochs=2", "trainer=cpu", "logger=none", "linear_filter.taps=64", "data.gap_seconds=0.05"]
    words += ["linear_filter.lookahead_samples=8", "system.batch_size=4", "system.threads=1"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    steps = at_step(None, lambda: active.active([f"run={whole}", *words]))
    at_step(round(0.5 * steps), lambda: active.active([f"run={parted}", *words]))
    at_step(None, lambda: active.active([f"run={parted}"]))
    assert (whole / "settings.csv").read_text() == (parted / "settings.csv").read_text()
    assert len(everything(whole)) == 3, "two members and the model"
    same(everything(whole), everything(parted))


@pytest.mark.slow
def test_a_machine_of_parts_that_was_interrupted_goes_on_with_the_part(at_step, tmp_path, monkeypatch):
    composed = hybrid._composed

    def shorter(cfg, part, model):
        own = composed(cfg, part, model)
        if part in GENERATED:
            own.data.source.seconds = GENERATED[part]
        return own

    monkeypatch.setattr(hybrid, "_composed", shorter)
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    whole, parted = tmp_path / "whole", tmp_path / "parted"

    def run(folder, resume):
        cfg = config(folder, tmp_path / "cache", "trainer.max_epochs=3", "parts.net=lstm")
        return lambda: training.train(cfg, folder, resume)

    steps = at_step(None, run(whole, False))
    at_step(round(0.6 * steps), run(parted, False))
    at_step(None, run(parted, True))
    assert len(everything(whole)) == 1, "the others are fitted"
    same(everything(whole), everything(parted))
    a, b = (read_checkpoint(folder / "checkpoints" / "best.ckpt") for folder in (whole, parted))
    same(a["state_dict"], b["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["lstm", "tcn", "wow and flutter", "critics", "style by perturbation", "proxy"])
def test_what_was_killed_at_any_moment_ends_as_if_it_had_not_been(case, pair, tmp_path):
    dry, wet = pair(seconds=30)
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "revox_lightning.commands.train", *words]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ends(*words: str) -> None:
        with start(*words) as process:
            out, _ = process.communicate(timeout=500)
        assert process.returncode == 0, out

    ends(*told(case, whole, dry, wet))
    chance = random.Random(case)
    epoch = chance.randrange(1, EPOCHS)  # that is over when it is killed; how far the next one is, chance says
    spent = float(rows(whole, "train_seconds")[epoch]["train_seconds"]) / (epoch + 1)
    with start(*told(case, killed, dry, wet)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"epoch {epoch:3d}/"):
                time.sleep(chance.uniform(0, spent))
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL and not (killed / "metrics.json").exists()
    ends(f"resume={killed}", "data.workers=2")
    same(kept(whole), kept(killed))
    same(rows(whole), rows(killed))
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, killed)]
    scores = [
        {k: v for k, v in found.items() if k.startswith(("test/", "val/")) and "seconds" not in k} for found in figures
    ]
    assert scores[0] and scores[0] == scores[1]
