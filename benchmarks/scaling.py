"""How the cost grows: with hidden size, channels, batch, threads and hop in training, with length in play.

Training: seconds of one update, this package and stock torch in turn. Play: `render` of a file and validation of a take
of 1, 4 and 16 minutes (`--hours 10` adds one and ten hours) in a process of its own each; `reference` is what the
shortest one would cost if every second cost the same, so a ratio of 1 is linear growth. The exponent is fitted to the
medians, the memory is the highest of each process.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import pairs
import torch

from revox_lightning import audio
from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend
from revox_lightning.models.wavenet import WaveNet

SIDES = {"ours": {"kernels": "auto", "tuned": True}, "stock": {"kernels": "torch", "tuned": False}}
WHAT = ("hidden", "channels", "batch", "threads", "hop", "render", "validate")
MINUTES, QUICK_MINUTES = (1.0, 4.0, 16.0), (0.05, 0.1)
WAVENET_DILATIONS = [2**n for n in range(10)]
COLUMNS = {
    "job": "job", "threads": "threads", "unit": "unit", "ours": "ours", "reference": "reference", "ratio": "ratio",
    "peak MB": "peak_mb", "exponent": "exponent", "growth MB": "memory_growth_mb",
}  # fmt: skip


def variations(what: str, threads: int) -> dict[str, tuple[jobs.Job, int]]:
    """Job and threads for each value of one size; the others stay at those of lstm-32."""
    if what == "hidden":
        return {f"LSTM, hidden {n}": (jobs.Job(jobs.recurrent("lstm", n), 40, 2048), threads)
                for n in (8, 16, 32, 64, 128)}  # fmt: skip
    if what == "channels":
        return {f"WaveNet, channels {n}": (jobs.Job(lambda n=n: WaveNet(WAVENET_DILATIONS, n), 4, 8192), threads)
                for n in (4, 8, 16, 32)}  # fmt: skip
    lstm = jobs.recurrent("lstm", 32)
    if what == "batch":
        return {f"LSTM-32, batch {n}": (jobs.Job(lstm, n, 2048), threads) for n in (1, 8, 40, 128)}
    if what == "threads":
        return {f"LSTM-32, threads {n}": (jobs.Job(lstm, 40, 2048), n) for n in range(1, threads + 1)}
    return {f"LSTM-32, hop {n}": (jobs.Job(lstm, 40, n), threads) for n in (128, 512, 2048, 8192)}


class Worker:
    """What a child does."""

    def __init__(self, role: dict[str, Any]) -> None:
        if role["tuned"]:
            allocator.tune()
        backend.choose(role["kernels"])
        torch.set_num_threads(role["threads"])
        self._threads, self._step = role["threads"], lambda: None

    def prepare_update(self, what: str, job: str, quick: bool) -> float:
        chosen, threads = variations(what, self._threads)[job]
        torch.set_num_threads(threads)
        chosen = chosen.quick() if quick else chosen
        self._step = jobs.Update(chosen, jobs.built(chosen))
        self._step()
        return pairs.timed(self._step, 1)["wall"]

    def step(self, repeats: int) -> float:
        return pairs.timed(self._step, repeats)["wall"]

    def prepare_play(self, what: str, run: str, dry: str, wet: str) -> None:
        self._step = renderer(run, dry) if what == "render" else validator(run, dry, wet)

    def warm_up(self, what: str, run: str, dry: str, wet: str) -> None:
        """The first time includes imports and compiling."""
        self.prepare_play(what, run, dry, wet)
        self._step()

    def memory(self) -> float:
        return pairs.peak_mb()


def renderer(run: str, source: str) -> Callable[[], object]:
    """`revox render` of a file."""
    from revox_lightning.commands import render

    target = str(Path(source).with_stem(f"{Path(source).stem}_rendered"))
    return lambda: render.render([f"run={run}", source, target])


def validator(run: str, dry: str, wet: str) -> Callable[[], object]:
    """The validation of a trained net on a pair of files, which are read as they are needed."""
    from revox_lightning.commands import assemble, settings
    from revox_lightning.metrics import EffectMetrics
    from revox_lightning.scorer import score

    net = assemble.load_run(run)[0]
    words = ["data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.memory_mb=1", "model.controls=0"]
    data = assemble.build_data(settings.composed(words), test_only=True)
    return lambda: score(net, data.chunks("test"), EffectMetrics(data.sample_rate_hz))


def a_run(place: Path) -> str:
    """A run folder of an untrained LSTM-32, as a training leaves it."""
    from omegaconf import OmegaConf

    from revox_lightning.commands import assemble, settings
    from revox_lightning.runs import RunFolder

    cfg = settings.composed(["model=lstm", "model.controls=0"])
    cfg.audio_channels, cfg.knobs = 1, []
    net = assemble.build_net(cfg)
    folder = RunFolder(place)
    folder.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    folder.write_json("levels.json", {"train_input_peak_dbfs": 0.0})
    folder.best.parent.mkdir(parents=True)
    torch.save({"state_dict": {f"net.{name}": value for name, value in net.state_dict().items()}}, folder.best)
    return str(folder.path)


def a_pair(place: Path, minutes: float) -> tuple[str, str]:
    """Noise of so many minutes and a softly clipped copy, written block by block."""
    dry, wet = (place / f"{minutes:g}_{name}.wav" for name in ("dry", "wet"))
    generator = torch.Generator().manual_seed(0)
    with (
        audio.writer(dry, jobs.RATE_HZ, 1, "PCM_16", "WAV") as dry_file,
        audio.writer(wet, jobs.RATE_HZ, 1, "PCM_16", "WAV") as wet_file,
    ):
        left = round(minutes * 60 * jobs.RATE_HZ)
        while left:
            x = 0.1 * torch.randn(1, min(left, 1 << 20), generator=generator)
            dry_file.write(x)
            wet_file.write(torch.tanh(2 * x))
            left -= x.shape[-1]
    return str(dry), str(wet)


def measure_updates(what: str, given: Any) -> list[dict[str, Any]]:
    """A row for each value of one size of training."""
    rows = []
    with (
        pairs.Child.of(__file__, {**SIDES["ours"], "threads": given.threads}) as ours,
        pairs.Child.of(__file__, {**SIDES["stock"], "threads": given.threads}) as stock,
    ):
        children = {"ours": ours, "stock": stock}
        for job, (_, threads) in variations(what, given.threads).items():
            repeats = {
                side: pairs.repeats_for(child.ask("prepare_update", what=what, job=job, quick=given.quick), given.quick)
                for side, child in children.items()
            }
            turns = {
                side: lambda side=side, repeats=repeats: children[side].ask("step", repeats=repeats[side])
                for side in children
            }
            taken = pairs.in_turn(turns, given.rounds, job)
            rows.append(pairs.row(job, taken["ours"], taken["stock"], "s / update", threads))
    return rows


def measure_play(what: str, minutes: list[float], place: Path, given: Any) -> list[dict[str, Any]]:
    """A row for each length, and one with the exponent and the growth of memory."""
    role = {**SIDES["ours"], "threads": given.threads}
    children = {f"{n:g} min": pairs.Child.of(__file__, role) for n in minutes}
    try:
        short = a_pair(place, QUICK_MINUTES[0])
        for n, child in zip(minutes, children.values(), strict=True):
            for name, (dry, wet) in (("warm_up", short), ("prepare_play", a_pair(place, n))):
                child.ask(name, what=what, run=str(place / "run"), dry=dry, wet=wet)
        turns = {name: lambda child=child: child.ask("step", repeats=1) for name, child in children.items()}
        taken = pairs.in_turn(turns, min(given.rounds, 3), what)
        memory = [child.ask("memory") for child in children.values()]
    finally:
        for child in children.values():
            child.close()
    shortest = next(iter(taken.values()))
    rows = []
    for n, (name, seconds), peak in zip(minutes, taken.items(), memory, strict=True):
        expected = [n / minutes[0] * s for s in shortest]
        rows.append(pairs.row(f"{what}, {name}", seconds, expected, "s", given.threads, peak_mb=peak))
    slope = exponent(minutes, [statistics.median(seconds) for seconds in taken.values()])
    total = {"job": f"{what}, exponent over length", "ours": slope, "reference": 1.0, "ratio": 1.0 / slope,
             "unit": "exponent", "threads": given.threads, "exponent": slope,
             "memory_growth_mb": memory[-1] - memory[0]}  # fmt: skip
    return [*rows, total]


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """Slope of log seconds over log sizes, least squares.

    >>> round(exponent([1.0, 2.0, 4.0], [3.0, 6.0, 12.0]), 6)
    1.0
    """
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds]).slope


def main() -> None:
    words = pairs.parser(__doc__, WHAT)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--hours", type=float, default=0.0, help="render and validate as long as that, too")
    given = pairs.parsed(words)
    if given.child:
        worker = Worker(json.loads(given.child))
        names = ("prepare_update", "step", "warm_up", "prepare_play", "memory")
        pairs.serve({name: getattr(worker, name) for name in names})
        return
    minutes = list(QUICK_MINUTES if given.quick else MINUTES)
    minutes += [60 * hours for hours in (1.0, given.hours) if 0 < hours <= given.hours]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="revox_scaling_") as folder:
        a_run(Path(folder) / "run")
        for what in given.jobs:
            try:
                played = what in ("render", "validate")
                rows += measure_play(what, minutes, Path(folder), given) if played else measure_updates(what, given)
            except (RuntimeError, UserError) as error:
                pairs.say(f"{what} left out: {error}")
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
