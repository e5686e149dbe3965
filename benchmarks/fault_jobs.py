"""What the fault campaign kills: commands on small inputs, what each must never lose, and the figures it ends with."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from revox_lightning import audio
from revox_lightning.commands import align, assemble, paper, render, report, rows, settings, status, sweep, train
from revox_lightning.commands import training as training  # what the commands would import when they begin
from revox_lightning.report import alignment, page, paper_table, plots
from revox_lightning.runs import RunFolder, load_tensors

LATE = (training, alignment, page, paper_table, plots)  # imported before the first fork
SHORT = [
    "data=recordings", "data.sample_rate_hz=8000", "logger=csv", "report.audio_seconds=1", "report.data_sheet=false",
    "report.examples=[]", "trainer=cpu", "system.threads=1", "system.batch_size=2", "system.segment_samples=600",
    "system.hop_samples=300", "system.warmup_samples=100", "linear_filter.taps=64",
    "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02",
]  # fmt: skip
_TIMES = ("train_seconds", "real_time_factor", "training, s", "x real time")  # which no two runs share
Found = dict[str, "float | str"]


@dataclass(frozen=True)
class Job:
    """A command: its words in a case's folder, given those of the inputs; shares of the campaign are relative.

    ``finished`` tells what must be there from now on, by name with a fingerprint (empty where a newer one may come).
    ``figures`` are those that a run that was never killed ends with, too: numbers, or hashes of files.
    """

    main: Callable[[], None]
    words: Callable[[Path, Path], list[str]]
    finished: Callable[[Path], dict[str, str]]
    figures: Callable[[Path], Found]
    share: int
    begin: Callable[[Path, Path], None] = lambda inputs, place: None


def make_inputs(inputs: Path) -> None:
    """Recordings, a table and a sweep; the runs that are rendered and reported on come by ``training_words``."""
    inputs.mkdir(parents=True)
    for name, seconds in (("pair", 4.0), ("song", 60.0), ("other", 40.0)):
        noise = torch.randn(1, round(seconds * 8000), generator=torch.Generator().manual_seed(0))
        dry = 0.3 * torch.nn.functional.avg_pool1d(noise[None], 4, 1, 2)[0][:, : noise.shape[1]]
        folder = inputs / ("songs" if name != "pair" else "pair")
        folder.mkdir(exist_ok=True)
        audio.write(folder / f"{name}-dry.wav", dry, 8000, subtype="FLOAT")
        if name == "pair":
            audio.write(folder / f"{name}-wet.wav", torch.tanh(2 * dry) * 0.5, 8000, subtype="FLOAT")
    data = [*_pair(inputs), "trainer.max_epochs=2"]
    table = {
        "title": "Small", "reference": "-", "budget": "two epochs", "unpublished": "", "seeds": 1,
        "words": [word for word in [*SHORT, *data] if not word.startswith("logger")],
        "sets": {"here": {"title": "here", "words": []}},
        "rows": [{"label": label, "words": [f"model={label}", "size=2"]} for label in ("lstm", "gru")],
    }  # fmt: skip
    trials = {
        "program": "train.py", "method": "grid", "metric": {"name": "val/esr", "goal": "minimize"},
        "parameters": {"optim.lr": {"values": [0.001, 0.01]}},
        "command": ["${env}", "${interpreter}", "${program}", "model=lstm", "size=2", "${args_no_hyphens}"],
    }  # fmt: skip
    for name, content in (("small", table), ("rates", trials)):
        (inputs / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def _pair(inputs: Path) -> list[str]:
    return [f"data.{kind}={inputs / 'pair' / f'pair-{kind}.wav'}" for kind in ("dry", "wet")]


def training_words(inputs: Path, place: Path) -> list[str]:
    """A training in ``place/run``, which goes on where there is something to go on with."""
    run = RunFolder(place / "run")
    if run.last.exists():
        return [f"resume={run.path}"]
    return ["model=lstm", "size=2", *SHORT, *_pair(inputs), "trainer.max_epochs=6", f"run_dir={run.path}"]


def _campaign_words(inputs: Path, place: Path) -> list[str]:
    return ["-m", "model=gru", "size=2", "seed=0,1", "campaign=both", "trainer.max_epochs=2", *SHORT, *_pair(inputs)]


def _cache_words(inputs: Path, place: Path) -> list[str]:
    return [str(place / "cache")]


def _build_cache() -> None:
    import sys

    words = ["model=lstm", "data.source.seconds={train: 1.0, val: 0.5, test: 0.5}", f"data.cache_dir={sys.argv[1]}"]
    for machine in ("a77_7.5ips", "worn"):
        assemble.build_source(settings.composed([*words, f"machine={machine}", "data.source.without=[]"])).takes()


def _paper() -> None:
    import sys

    paper.PLACE = Path(sys.argv.pop())  # type: ignore[misc]
    rows.subprocess = _forked()  # type: ignore[attr-defined]
    paper.main()


def _sweep() -> None:
    sweep.subprocess = _forked()  # type: ignore[attr-defined]
    sweep.main()


def _forked() -> type:
    from forked import Subprocess

    return Subprocess


def _epochs(place: Path) -> dict[str, str]:
    """The epochs that a checkpoint holds, each with its row; the checkpoint itself."""
    run = RunFolder(place / "run")
    if not run.last.exists():
        return {}
    last = int(load_tensors(run.last)["epoch"])
    rows_of = csv.DictReader((run.path / "metrics.csv").read_text(encoding="utf-8").splitlines())
    done = {row["epoch"]: row for row in rows_of if int(row["epoch"]) <= last}
    return {f"epoch {n}": str(done.get(str(n), {}).get("val/esr", "no row")) for n in range(last + 1)} | {"last": ""}


def _runs(place: Path) -> dict[str, str]:
    """Trainings that say that they are finished: their figures must stay as they are, times and all."""
    done = {}
    for path in place.rglob("metrics.json"):
        if status.of(RunFolder(path.parent))[0] == status.FINISHED:
            done[str(path.relative_to(place))] = _hash(path)
    return done


def _written(place: Path) -> dict[str, str]:
    """Every file of the cache's splits that are done, which are never made twice."""
    paths = [place / name for name in names(place, "cache")]
    done = [path for path in paths if path.with_name(f"{path.name.split('-')[0]}-wet.wav").exists()]
    return {str(path.relative_to(place)): f"{_hash(path)} {path.stat().st_mtime_ns}" for path in done}


def _earlier(place: Path) -> dict[str, str]:
    """Every file of the result; an earlier one may be replaced, and not be missed."""
    return dict.fromkeys(names(place, "out"), "")


def names(place: Path, part: str = "") -> list[str]:
    """The files below a folder of a case, without temporary ones."""
    found = (path for path in (place / part).rglob("*") if path.is_file())
    kept = (path.relative_to(place) for path in found)
    return sorted(str(path) for path in kept if not any(p.startswith(".") for p in path.parts))


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _metrics(place: Path) -> Found:
    """Of every training and table of a case."""
    found: Found = {}
    for path in sorted(place.rglob("metrics.json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        where = path.parent.relative_to(place)
        found |= {f"{where}:{name}": v for name, v in metrics.items() if name not in _TIMES and v is not None}
    for path in sorted([*place.rglob("table.csv"), *place.rglob("trials.csv")]):
        for n, row in enumerate(csv.DictReader(path.read_text(encoding="utf-8").splitlines())):
            found |= {f"{path.name}:{n}:{name}": value for name, value in row.items() if name not in _TIMES}
    return found


def _hashes(part: str) -> Callable[[Path], Found]:
    return lambda place: {name: _content(place / name) for name in names(place, part)}


def _content(path: Path) -> str:
    """Of a sound the samples count: float WAV files hold the time of their making."""
    if path.suffix != ".wav":
        return _hash(path)
    samples = audio.read(path).contiguous().numpy().tobytes()
    return f"{audio.info(path).sample_rate_hz} {hashlib.sha256(samples).hexdigest()[:16]}"


def _put(name: str, part: str) -> Callable[[Path, Path], None]:
    """Begins with an earlier result, which the reference left in the inputs."""

    def begin(inputs: Path, place: Path) -> None:
        if (inputs / name).exists():
            shutil.copytree(inputs / name, place / part)

    return begin


JOBS = {
    "training": Job(train.main, training_words, _epochs, _metrics, 60),
    "multirun": Job(train.main, _campaign_words, _runs, _metrics, 20),
    "rendering": Job(
        render.main,
        lambda inputs, place: [f"run={inputs / 'trained' / 'run'}", str(inputs / "songs"), str(place / "out")],
        _earlier, _hashes("out"), 30, _put("earlier-rendering", "out"),
    ),
    "data cache": Job(_build_cache, _cache_words, _written, _hashes("cache"), 20),
    "aligned pairs": Job(
        align.main,
        lambda inputs, place: [*(word.removeprefix("data.") for word in _pair(inputs)), f"out={place / 'out'}"],
        _earlier, _hashes("out"), 15, _put("earlier-aligned pairs", "out"),
    ),
    "paper table": Job(
        _paper, lambda inputs, place: ["paper=small", f"out={place / 'out'}", "logger=csv", str(inputs)],
        _runs, _metrics, 20,
    ),
    "sweep": Job(
        _sweep, lambda inputs, place: [str(inputs / "rates.yaml"), f"out={place / 'out'}", "trials=2", *SHORT,
                                       *_pair(inputs), "trainer.max_epochs=2"],
        _runs, _metrics, 20,
    ),
    "report": Job(
        report.main,
        lambda inputs, place: [str(inputs / "trained"), f"out={place / 'out' / 'page.html'}", "seconds=1"],
        _earlier, _hashes("out"), 15, _put("earlier-report", "out"),
    ),
}  # fmt: skip
EARLIER = ("rendering", "aligned pairs", "report")  # whose cases begin with an earlier result
