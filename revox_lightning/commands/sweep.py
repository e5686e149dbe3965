"""``revox sweep sweeps/NAME.yaml``: a W&B sweep file without a server: W&B's own engine draws, the trials run here."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revox_lightning.commands import settings, status, sweep_file
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.render import cores
from revox_lightning.commands.rows import START
from revox_lightning.commands.usage import SWEEP as USAGE
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.report import table
from revox_lightning.runs import RunFolder

_POLL_SECONDS = 0.5
_END_SECONDS = 60.0  # what a training is given to end by itself
# A shell's background jobs ignore SIGINT and hand that on: hyperband could not stop a training of theirs.
_START = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + START
_USUAL_TRIALS = 20
_DONE, _STOPPED, _FAILED, _OPEN = "finished", "stopped early", "failed", "open"
_SERVER_ONLY = ("logger.",)  # parameters that only mean something where W&B's server is


@dataclass
class Trial:
    """One draw; ``parameters`` by name, ``value`` the metric's best so far."""

    number: int
    parameters: dict[str, Any]
    state: str = _OPEN
    value: float | None = None


class Sweep:
    """A sweep file and the folder of its trials: ``trials.json``, a run folder a trial, and ``trials.csv``."""

    def __init__(self, path: Path, out: Path, seed: int) -> None:
        self.out, self.seed = out, seed
        self.path = path
        self.config, self.cap = sweep_file.read(path)
        self.metric, self.goal = self.config["metric"]["name"], self.config["metric"]["goal"]
        self.trials = self._kept()

    def claim(self, words: Sequence[str]) -> None:
        """Notes in ``sweep.json`` what the trials are made by; raises UserError where others lie in the folder."""
        made_by = {"sweep": self.config, "seed": self.seed, "words": sorted(w for w in words if not _is_free(w))}
        path, text = self.out / "sweep.json", json.dumps(made_by, indent=1, sort_keys=True)
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{self.out} holds the trials of another sweep (its file, seed or words differ): choose another out=."
            )
        write_atomically(path, lambda file: file.write(text.encode()))

    def draw(self) -> Trial | None:
        """The next trial of W&B's engine, None where a grid is through; the same seed draws the same, given the same
        results before it."""
        engine = sweep_file.engine()
        number = len(self.trials)
        random.seed(1_000_003 * self.seed + number)
        np.random.seed((1_000_003 * self.seed + number) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Gaussian process of bayes speaks of its own convergence
            drawn = engine.next_run(self.config, [self._as_run(trial) for trial in self.trials])
        if drawn is None:
            return None
        parameters = {name: _plain(told["value"]) for name, told in drawn.config.items()}
        self.trials.append(Trial(number, parameters))
        self.keep()
        return self.trials[-1]

    def to_stop(self) -> set[int]:
        """Numbers of the running trials that hyperband gives up."""
        if "early_terminate" not in self.config:
            return set()
        runs = [self._as_run(trial) for trial in self.trials]
        return {int(run.name) for run in sweep_file.engine().stop_runs(self.config, runs)}

    def folder(self, trial: Trial) -> RunFolder:
        return RunFolder(self.out / f"{trial.number:03d}")

    def words(self, trial: Trial, more: Sequence[str]) -> list[str]:
        """What the file's command says after the program, as W&B's agent would fill it in."""
        from wandb.sdk.launch.sweeps import utils

        kept = {n: {"value": v} for n, v in trial.parameters.items() if not n.startswith(_SERVER_ONLY)}
        filled = utils.create_sweep_command_args({"args": kept})
        command = self.config.get("command", ["${program}", "${args_no_hyphens}"])
        words: list[str] = []
        for chunk in command[command.index("${program}") + 1 :]:
            known = filled.get(chunk.strip("${}")) if chunk.startswith("${") else None
            words += known if known is not None else [chunk]
        return [*sweep_file.checked(words, self.path), "logger=csv", *more, f"run_dir={self.folder(trial).path}"]

    def history(self, trial: Trial) -> list[float]:
        """The metric, validation by validation."""
        path = self.folder(trial).path / "metrics.csv"
        if not path.is_file():
            return []
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return [float(row[self.metric]) for row in rows if row.get(self.metric)]

    def keep(self) -> None:
        """Writes trials.json and trials.csv, best first."""
        content = json.dumps([vars(trial) for trial in self.trials], indent=1)
        write_atomically(self.out / "trials.json", lambda file: file.write(content.encode()))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows())
        write_atomically(self.out / "trials.csv", lambda file: file.write(text.getvalue().encode()))

    def rows(self) -> list[list[str]]:
        """Heading and trials as text, the best first, those without a value last."""
        sign = 1 if self.goal == "minimize" else -1
        ranked = sorted(self.trials, key=lambda t: (math.inf if t.value is None else sign * t.value, t.number))
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.parameters))
        body = [
            [f"{t.number:03d}", "" if t.value is None else f"{t.value:.6g}", t.state,
             *(str(t.parameters.get(n, "")) for n in names)] for t in ranked
        ]  # fmt: skip
        return [["trial", self.metric, "state", *names], *body]

    def settle(self, trial: Trial, state: str) -> None:
        """What a trial came to, on the disk."""
        values = self.history(trial)
        best = min(values, default=None) if self.goal == "minimize" else max(values, default=None)
        trial.state, trial.value = state, best
        self.keep()

    def _as_run(self, trial: Trial) -> Any:
        engine, history = sweep_file.engine(), self.history(trial)
        states = {_DONE: "finished", _STOPPED: "killed", _FAILED: "failed", _OPEN: "running"}
        best = (min if self.goal == "minimize" else max)(history, default=None)
        # The names of W&B's server, which every version of the engine takes.
        told: dict[str, Any] = {"sampledHistory": [{self.metric: value} for value in history]}
        told["summaryMetrics"] = {} if best is None else {self.metric: best}
        config = {n: {"value": v} for n, v in trial.parameters.items()}
        return engine.SweepRun(name=str(trial.number), config=config, state=states[trial.state], **told)

    def _kept(self) -> list[Trial]:
        try:
            return [Trial(**one) for one in sweep_file.kept(self.out / "trials.json")]
        except TypeError as error:
            raise UserError(f"{self.out / 'trials.json'} is damaged ({error}): choose another out=.") from error


def sweep(argv: list[str]) -> Sweep:
    """Runs what a sweep lacks, prints its table, and returns it."""
    named, others, words = settings.arguments(argv, {"out", "trials", "jobs", "seed"})
    if len(words) != 1:
        raise UserError(f"sweep needs one file: {USAGE}.")
    path = Path(words[0]).expanduser()
    out = Path(named.get("out") or Path("outputs/sweeps") / path.stem).expanduser()
    seed, jobs = _whole(named, "seed", 0, 0), _whole(named, "jobs", 1, 1)
    one = Sweep(path, out, seed)
    trials = _whole(named, "trials", one.cap or _USUAL_TRIALS, 1)
    settings.composed([*others, "logger=csv"])  # before anything runs
    one.claim(others)
    log.info("%s: %d of at most %d trials are settled already", path, sum(t.state != _OPEN for t in one.trials), trials)
    _run(one, trials, jobs, others)
    heading, *body = one.rows()
    table.show(f"{path}: {one.goal} {one.metric}", heading, body)
    print(f"Trials: {out / 'trials.csv'}")
    if body and all(trial.state == _FAILED for trial in one.trials):
        raise UserError(f"every trial failed: {out / '000' / 'train.log'} says why.")
    return one


def _run(one: Sweep, trials: int, jobs: int, more: list[str]) -> None:
    """Keeps ``jobs`` trainings going until enough are settled; those that a kill left open go on first."""
    threads = [] if jobs == 1 or any(w.startswith("system.threads=") for w in more) else [
        f"system.threads={max(cores() // jobs, 1)}"
    ]  # fmt: skip
    for trial in one.trials:
        if trial.state == _OPEN and _ended_well(one.folder(trial)):
            one.settle(trial, _DONE)  # a kill came before it was told
    waiting = [trial for trial in one.trials if trial.state == _OPEN]
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while True:
            while len(running) < jobs and (waiting or len(one.trials) < trials):
                trial = waiting.pop(0) if waiting else one.draw()
                if trial is None:
                    trials = len(one.trials)  # the grid is through
                    break
                running[trial.number] = _start(one, trial, [*more, *threads])
            if not running:
                return
            time.sleep(_POLL_SECONDS)
            for number in one.to_stop() & running.keys():
                _settle(one, one.trials[number], running.pop(number), _STOPPED)
            for number in [n for n, process in running.items() if process.poll() is not None]:
                _settle(one, one.trials[number], running.pop(number), None)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            _wait(process)  # the next sweep goes on in their folders


def _ended_well(folder: RunFolder) -> bool:
    return status.of(folder)[0] == status.FINISHED and bool(folder.read_json("metrics.json"))


def _start(one: Sweep, trial: Trial, more: list[str]) -> subprocess.Popen[bytes]:
    folder = one.folder(trial)
    folder.path.mkdir(parents=True, exist_ok=True)
    how = [f"resume={folder.path}"] if folder.last.exists() else one.words(trial, more)
    log.info("trial %03d: %s", trial.number, ", ".join(f"{n}={v}" for n, v in trial.parameters.items()))
    with open(folder.path / "train.log", "a", encoding="utf-8") as out:
        return subprocess.Popen([sys.executable, "-c", _START, *how], stdout=out, stderr=subprocess.STDOUT)


def _settle(one: Sweep, trial: Trial, process: subprocess.Popen[bytes], state: str | None) -> None:
    if state == _STOPPED:
        process.send_signal(signal.SIGINT)  # it keeps its best weights
    rc = _wait(process) if state == _STOPPED else process.wait()
    one.settle(trial, state or (_DONE if rc == 0 and one.folder(trial).read_json("metrics.json") else _FAILED))
    value = "nothing" if trial.value is None else f"{one.metric} {trial.value:.5g}"
    log.info("trial %03d: %s, %s", trial.number, trial.state, value)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Waits for a training that was told to end, and ends it where it does not."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _is_free(word: str) -> bool:
    """Whether a word changes nothing that a trial learns."""
    return word.startswith(("system.threads=", "logger", "report.", "kernels="))


def _plain(value: Any) -> Any:
    """Of numpy's kinds, which neither JSON nor W&B's macros take, to Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _whole(named: dict[str, str], name: str, usual: int, least: int) -> int:
    text = named.get(name, str(usual))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name}={text}: give a whole number of at least {least}.")
    return int(text)


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(sweep)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
