"""What the benchmarks share: work in child processes, rounds in turn, tables, JSON.

The machine may be busy with other things. So whatever is compared takes turns, one piece of work each, and every ratio
is the median over the rounds of the ratios within a round. Each side has a process of its own, because the allocator's
settings and the choice of instructions hold for a whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROUNDS, QUICK_ROUNDS = 7, 2
SHORTEST_SECONDS = 0.25  # work that takes less is repeated within a round


def parser(text: str | None, jobs: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that all benchmarks know."""
    words = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", type=Path, help="write the figures there")
    words.add_argument("--quick", action="store_true", help="tiny sizes and two rounds: shows that it runs, no more")
    words.add_argument("--rounds", type=int, default=None, help=f"default {ROUNDS}")
    if jobs:
        words.add_argument("--jobs", default=",".join(jobs), help=f"some of {','.join(jobs)}")
    words.add_argument("--child", help=argparse.SUPPRESS)
    return words


def parsed(words: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options given, `rounds` filled in and `jobs` cut into a list."""
    given = words.parse_args(argv)
    if given.rounds is None:
        given.rounds = QUICK_ROUNDS if given.quick else ROUNDS
    if isinstance(getattr(given, "jobs", None), str):
        given.jobs = [name for name in given.jobs.split(",") if name]
        known = (words.get_default("jobs") or "").split(",")
        unknown = [name for name in given.jobs if name not in known]
        if unknown:
            words.error(f"unknown job {unknown[0]}: choose from {', '.join(known)}")
    return given


def peak_mb() -> float:
    """The most memory that this process ever had; what it inherited from its parent does not count where that shows."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def forget_peak() -> None:
    """From now on `peak_mb` is of what comes (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


class Child:
    """A script kept alive in a process of its own: `child.ask("step", repeats=3)` calls its function `step`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, log: Path | None = None) -> None:
        """`log` is the file that takes what the script says on stderr; without it, that appears here."""
        self._log = log
        with log.open("w") if log else contextlib.nullcontext() as said:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
                env={**os.environ, **(env or {})},
            )  # fmt: skip

    @classmethod
    def of(cls, script: str, role: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Child:
        """The benchmark `script` again, told its role with `--child`."""
        return cls([sys.executable, script, "--child", json.dumps(role)], env)

    def ask(self, name: str, **words: Any) -> Any:
        """What the function returned; RuntimeError with its last line if it failed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"name": name, **words}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._end()) from None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._end())
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["value"]

    def _end(self) -> str:
        said = self._log.read_text().strip().splitlines() if self._log else []
        return f"the child ended with status {self._process.wait()}{': ' + said[-1] if said else ''}"

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(functions: Mapping[str, Callable[..., Any]]) -> None:
    """In a child: answers until the parent closes the pipe. What the functions print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        words = json.loads(line)
        try:
            reply = {"value": functions[words.pop("name")](**words)}
        except Exception as error:  # the parent decides what a failure means
            reply = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"}
        print(json.dumps(reply), file=out, flush=True)


def timed(work: Callable[[], object], repeats: int) -> dict[str, float]:
    """Wall seconds and this process's CPU seconds of one `work`, mean over the repeats."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    return {"wall": (time.perf_counter() - wall) / repeats, "cpu": (time.process_time() - cpu) / repeats}


def repeats_for(seconds: float, quick: bool = False) -> int:
    """How often work of `seconds` is done within a round."""
    return 1 if quick else max(1, min(1000, round(SHORTEST_SECONDS / max(seconds, 1e-6))))


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int, label: str = "") -> dict[str, list[float]]:
    """Seconds (or whatever the sides return) of every side in every round; the order turns round each time."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            taken[name].append(sides[name]())
        now = ", ".join(f"{name} {seconds[-1]:.4g}" for name, seconds in taken.items())
        say(f"{label} {number + 1}/{rounds}: {now}")
    return taken


def ratio(reference: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest ratio of seconds within a round; above 1: ours is faster."""
    each = [a / b for a, b in zip(reference, ours, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "greatest": max(each)}


def row(
    job: str, ours: Sequence[float], reference: Sequence[float], unit: str, threads: int, amount: float | None = None,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A line of the results from seconds in turn. With `amount` the figures are amounts a second, else seconds."""
    found = ratio(reference, ours)
    figure = (lambda s: amount / statistics.median(s)) if amount is not None else statistics.median
    return {
        "job": job, "ours": figure(ours), "reference": figure(reference), "ratio": found["median"], "unit": unit,
        "threads": threads, "ratio_min": found["least"], "ratio_max": found["greatest"], "rounds": len(ours),
        "seconds": {"ours": list(ours), "reference": list(reference)}, **more,
    }  # fmt: skip


def short(value: Any) -> str:
    """A figure as tables show it; "-" for what was not measured.

    >>> short(12.345), short(None), short(0.01234), short(1234.5)
    ('12.3', '-', '0.0123', '1234')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def show(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Prints a table; `columns` maps headings to keys."""
    cells = [list(columns), *([short(row.get(key)) for key in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))))  # noqa: B905


def write(given: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as JSON where `--json` says."""
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(list(rows), indent=1))
