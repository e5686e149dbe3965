"""Kills commands with SIGKILL at random moments and starts them again: what is lost, what is broken, what differs?

``python benchmarks/faults.py [--kills 200] [--seed 0] [--jobs 2] [--only KIND/NUMBER] [--page FILE.md]``. Half the
moments are drawn evenly over the time that the command takes undisturbed, half are the n-th change of a file in its
folder. Half the kills end the command alone, half with it every process that it started. After each kill every file
below the folder is read, and the same command is started again (which a kill may meet again), until it is done.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fault_jobs import EARLIER, JOBS, Found, Job, make_inputs, names, training_words
from fault_readers import unreadable
from forked import adopt, reap, watched
from fuzz import write_page

_TRIES = 20  # for a case whose command ended before it was killed


@dataclass
class Tally:
    """What came of the kills of a kind; ``problems`` in words, each with its case."""

    kills: int = 0
    lost: int = 0
    unreadable: int = 0
    differ: float = 0.0
    left: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.kills + other.kills, self.lost + other.lost, self.unreadable + other.unreadable,
            max(self.differ, other.differ), self.left + other.left, self.seconds + other.seconds,
            self.problems + other.problems,
        )  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A run that nobody disturbed: how long it took, how often its files changed, what it left."""

    seconds: float
    changes: int
    figures: Found
    names: list[str]


def run(job: Job, inputs: Path, place: Path, moment: tuple[str, float] | None, alone: bool) -> tuple[int | None, int]:
    """Runs a job, as ``watched`` says."""
    return watched(job.main, job.words(inputs, place), place, moment, alone)


def reference(kind: str, inputs: Path, place: Path) -> Reference:
    """Runs a job of a kind undisturbed."""
    job = JOBS[kind]
    job.begin(inputs, place)
    began = time.monotonic()
    code, changes = run(job, inputs, place, None, False)
    if code != 0:
        raise RuntimeError(f"{kind} ended with {code}:\n{(place / 'said.log').read_text()[-3000:]}")
    return Reference(time.monotonic() - began, changes, job.figures(place), names(place))


def case(kind: str, number: int, kills: int, seed: int, inputs: Path, place: Path, whole: Reference) -> Tally:
    """One job that is killed so often, begun anew where it was faster than the kill."""
    rng = random.Random(f"{seed}/{kind}/{number}")
    began, job, tally = time.monotonic(), JOBS[kind], Tally()
    for _ in range(_TRIES):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        job.begin(inputs, place)
        groups_before, kept = tally.kills, job.finished(place)
        for n in range(kills - tally.kills):
            share = rng.random() * (1.0 if n == 0 else 0.6)  # what goes on is done sooner
            by = ("seconds", share * whole.seconds) if rng.random() < 0.5 else ("changes", 1 + share * whole.changes)
            told = f"{kind}/{number}, killed at {by[1]:.3f} {by[0]}"
            code, _ = run(job, inputs, place, by, alone := rng.random() < 0.5)
            if code is not None:
                _check_end(tally, code, told, place)
                break
            tally.kills += 1
            kept = _check(tally, job, place, kept, told + (" alone" if alone else ""))
        if tally.kills > groups_before:
            code, _ = run(job, inputs, place, ("seconds", math.inf), False)
            _check_end(tally, code, f"{kind}/{number}", place)
            reap()
            _check(tally, job, place, kept, f"{kind}/{number}, at the end")
            _compare(tally, job, place, whole, f"{kind}/{number}")
        if tally.kills >= kills:
            break
    if not tally.problems:
        shutil.rmtree(place, ignore_errors=True)
    tally.seconds = time.monotonic() - began
    return tally


def _check_end(tally: Tally, code: int | None, told: str, place: Path) -> None:
    if code != 0:
        last = (place / "said.log").read_text(errors="replace").strip().splitlines()[-1:]
        tally.lost += 1
        tally.problems.append(f"{told}: it then ended with {code} ({' '.join(last)[:300]})")


def _check(tally: Tally, job: Job, place: Path, kept: dict[str, str], told: str) -> dict[str, str]:
    """Reads every file; what was finished before must be there as it was. Returns what is finished now."""
    for problem in unreadable(place):
        tally.unreadable += 1
        tally.problems.append(f"{told}: {problem}")
    try:
        now = job.finished(place)
    except Exception as error:
        tally.unreadable += 1
        tally.problems.append(f"{told}: {type(error).__name__}: {error}")
        return kept
    for name, mark in kept.items():
        if now.get(name) != mark:
            tally.lost += 1
            tally.problems.append(f"{told}: {name} was {mark or 'there'} and is {now.get(name, 'gone')}")
    return now


def _compare(tally: Tally, job: Job, place: Path, whole: Reference, told: str) -> None:
    """The end of a run that was killed beside that of the one that was not."""
    for name in sorted(set(whole.names) - set(names(place))):
        tally.lost += 1
        tally.problems.append(f"{told}: {name} is missing at the end")
    left = [path for path in place.rglob(".*") if path.name.endswith((".part", ".old"))]
    tally.left += len(left)
    tally.problems += [f"{told}: {path.relative_to(place)} is left over" for path in left]
    try:
        found = job.figures(place)
    except Exception as error:
        tally.unreadable += 1
        tally.problems.append(f"{told}: no figures at the end ({type(error).__name__}: {error})")
        return
    for name, expected in whole.figures.items():
        distance = _distance(expected, found.get(name))
        tally.differ = max(tally.differ, distance)
        if distance > 1e-6:
            tally.problems.append(f"{told}: {name} is {found.get(name)} and undisturbed {expected}")


def _distance(a: float | str, b: float | str | None) -> float:
    """Of two figures, relative where they are large; infinite where one is text and not the other's."""
    if a == b:
        return 0.0
    try:
        x, y = float(a), float(b)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.inf
    return abs(x - y) / max(1.0, abs(x))


_told: tuple[int, Path, dict[str, Reference]]  # of the campaign, for its processes


def _begin(seed: int, work: Path, wholes: dict[str, Reference]) -> None:
    global _told
    adopt()
    torch.set_num_threads(1)
    _told = seed, work, wholes


def _one(task: tuple[str, int, int]) -> tuple[str, Tally]:
    kind, number, kills = task
    seed, work, wholes = _told
    place = work / "cases" / f"{kind}-{number}".replace(" ", "_")
    try:
        return kind, case(kind, number, kills, seed, work / "inputs", place, wholes[kind])
    except Exception as error:
        return kind, Tally(lost=1, problems=[f"{kind}/{number}: {type(error).__name__}: {error}"])


def tasks(kills: int, seed: int, kinds: list[str]) -> list[tuple[str, int, int]]:
    """Kind, number and kills of each case, all together ``kills``, in an order that mixes the kinds."""
    rng, whole, drawn, left = random.Random(seed), sum(JOBS[kind].share for kind in kinds), [], kills
    for n, kind in enumerate(kinds):
        quota = left if n == len(kinds) - 1 else min(left, max(1, round(kills * JOBS[kind].share / whole)))
        left -= quota
        number = 0
        while quota:
            drawn.append((kind, number, min(quota, rng.choice((1, 1, 2, 3)))))
            quota -= drawn[-1][2]
            number += 1
    rng.shuffle(drawn)
    return drawn


def campaign(
    kills: int, seed: int, jobs: int, work: Path, kinds: list[str], only: str | None = None
) -> dict[str, Tally]:
    """Runs the cases, ``jobs`` at a time; prints what they find. Ctrl+C ends it with what was found so far."""
    told = [one for one in tasks(kills, seed, kinds) if only in (None, f"{one[0]}/{one[1]}")]
    kinds = [kind for kind in kinds if any(kind == one[0] for one in told)]
    inputs = work / "inputs"
    make_inputs(inputs)
    context = multiprocessing.get_context("fork")
    with context.Pool(1, _begin, (seed, work, {})) as pool:  # the forks of this process stay clean of what ran
        wholes = pool.apply(_references, (kinds, inputs, work / "undisturbed"))
    for kind, whole in wholes.items():
        print(f"{kind:16s}undisturbed {whole.seconds:5.1f} s, {whole.changes:4d} changes", flush=True)
    tallies = {kind: Tally() for kind in kinds}
    began = time.monotonic()
    with context.Pool(jobs, _begin, (seed, work, wholes)) as pool, contextlib.suppress(KeyboardInterrupt):
        for n, (kind, tally) in enumerate(pool.imap_unordered(_one, told), 1):
            tallies[kind] += tally
            done = sum(one.kills for one in tallies.values())
            print(f"{n}/{len(told)} {(time.monotonic() - began) / 60:5.1f} min, {done} kills: {kind}", flush=True)
            for problem in tally.problems:
                print(f"    {problem}", flush=True)
    return tallies


def _references(kinds: list[str], inputs: Path, place: Path) -> dict[str, Reference]:
    trained = inputs / "trained"
    trained.mkdir()
    job = JOBS["training"]
    code, _ = run(Job(job.main, training_words, job.finished, job.figures, 0), inputs, trained, None, False)
    if code:
        raise RuntimeError((trained / "said.log").read_text())
    found = {}
    for kind in kinds:
        (place / kind).mkdir(parents=True)
        found[kind] = reference(kind, inputs, place / kind)
        if kind in EARLIER:
            shutil.copytree(place / kind / "out", inputs / f"earlier-{kind}")
    return found


def table(tallies: dict[str, Tally], seed: int, minutes: float) -> str:
    """The table of a campaign, in Markdown."""
    heads = ("kind of job", "kills", "lost", "unreadable", "left over", "largest difference", "minutes")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    for name, one in [*tallies.items(), ("**all**", sum(tallies.values(), Tally()))]:
        cells = (one.kills, one.lost, one.unreadable, one.left, f"{one.differ:.1g}", f"{one.seconds / 60:.1f}")
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    told = f"Seed {seed}, {datetime.date.today()}, {minutes:.0f} minutes of {os.cpu_count()} cores."
    return "\n".join([told, "", *lines, ""])


def main() -> int:
    """Runs a campaign; ends with 1 where something was lost, unreadable or different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2), help="cases at once")
    parser.add_argument("--kinds", default=";".join(JOBS), help="separated by semicolons; without: all")
    parser.add_argument("--only", help="KIND/NUMBER, one case of a campaign of the same kills and seed")
    parser.add_argument("--page", type=Path, help="a page that gets the table")
    told = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="faults."))
    began = time.monotonic()
    kinds = [name for name in JOBS if name in told.kinds.split(";")]
    tallies = campaign(told.kills, told.seed, told.jobs, work, kinds, told.only)
    text = table(tallies, told.seed, (time.monotonic() - began) / 60)
    print(text)
    if told.page:
        write_page(told.page, text)
    problems = any(one.problems for one in tallies.values())
    if problems:
        print(f"what is left of the cases: {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
    return int(problems)


if __name__ == "__main__":
    sys.exit(main())
