"""Reads damaged and hostile files by every reader of the package: which of them crash, hang or fill the memory?

``python benchmarks/fuzz.py [--cases 1000] [--seed 0] [--targets a;b] [--page FILE.md]``: so many cases a reader.
A case is a whole file with a few changes (``mutations``), drawn from seed, reader and number: ``--targets X --only 17``
repeats one. It is read in a process of its own kind, that may take 5 s and 1 GB of memory beside what it has; a file is
read, or refused by a ``UserError`` of one sentence (or what the command line turns into one). All else is a finding.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import multiprocessing
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pairs
import torch
from fuzz_readers import READERS
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from revox_lightning.commands.exits import config_sentence
from revox_lightning.errors import UserError

MOST_SECONDS, MOST_BYTES = 5.0, 2**30
_KILLED_SECONDS = 15.0  # where the alarm does not get through
_LONGEST_SENTENCE = 1200


class Hangs(BaseException):
    """Longer than ``MOST_SECONDS``; no reader catches it."""


@dataclass
class Tally:
    """What a reader did with its cases: ``bugs`` by where they come up, each with the numbers of its cases."""

    cases: int = 0
    refused: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    bugs: dict[str, list[int]] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        return self.cases - self.refused - sum(map(len, self.bugs.values()))


def begin(reader: str, place: Path) -> list[Path]:
    """The whole files of a reader, in a folder of their own."""
    place.mkdir(parents=True)
    originals = READERS[reader].originals(place)
    for path in originals:
        READERS[reader].read(path)  # or the fuzzing would be of nothing
    return originals


def case(reader: str, originals: Sequence[Path], seed: int, number: int) -> str | None:
    """Reads one damaged file: "" where it is accepted, the sentence where it is refused; raises what else comes up."""
    return read(reader, *damaged(reader, originals, seed, number))


def damaged(reader: str, originals: Sequence[Path], seed: int, number: int) -> tuple[Path, bytes]:
    """One of a reader's files, and what stands in it this time."""
    rng = random.Random(f"{seed}/{reader}/{number}")
    path = originals[rng.randrange(len(originals))]
    return path, READERS[reader].mutate(path.read_bytes(), rng)


def read(reader: str, path: Path, content: bytes) -> str | None:
    """`case` for content at hand; the file is whole again afterwards."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[reader].read(path)
        return ""
    except UserError as error:
        sentence = str(error)
    except (HydraException, OmegaConfBaseException) as error:
        sentence = str(UserError(config_sentence(error)))
    finally:
        path.write_bytes(whole)
    if not sentence.strip() or "\n" in sentence or len(sentence) > _LONGEST_SENTENCE:
        raise AssertionError(f"no sentence: {sentence[:99]!r}")
    return sentence


def _work(reader: str, originals: Sequence[Path], seed: int, numbers: Iterable[int], pipe: Any) -> None:
    """In a process of its own: (number, outcome, seconds, MB) of each case; outcome None where it was accepted."""

    def ring(*_: Any) -> None:
        raise Hangs

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, ring)
    sys.stdout = sys.stderr = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115
    begun = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begun + MOST_BYTES,) * 2)
    for number in numbers:
        pipe.send((number,))
        path, content = damaged(reader, originals, seed, number)  # which may take longer than to read it
        pairs.forget_peak()
        before, started, outcome = pairs.peak_mb(), time.monotonic(), None
        signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
        try:
            outcome = "refused" if read(reader, path, content) else None
        except Hangs as error:
            outcome = f"hangs in {_where(error)}"
        except BaseException as error:
            outcome = f"{type(error).__name__} in {_where(error)}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send((number, outcome, time.monotonic() - started, pairs.peak_mb() - before))
    pipe.close()


def _where(error: BaseException) -> str:
    """The last line of ours in a traceback, and what was said there."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "revox_lightning" in f.filename] or frames
    said = re.sub(r"[0-9]+|'.*'", "#", (str(error).strip().splitlines() or [""])[0][:90])
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" + (f" ({said})" if said else "")


def run(reader: str, cases: Iterable[int], seed: int, place: Path) -> Tally:
    """Reads the cases in processes that may die; a process that does counts as a finding."""
    tally, left = Tally(), list(cases)
    originals = begin(reader, place / reader.replace(" ", "_").replace("/", "_"))
    while left:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        how = (reader, originals, seed, left, theirs)
        process = multiprocessing.get_context("fork").Process(target=_work, args=how)
        wholes = {path: path.read_bytes() for path in originals}
        process.start()
        theirs.close()
        done, now = 0, left[0]
        while True:
            try:
                if not ours.poll(_KILLED_SECONDS):
                    process.kill()
                told = ours.recv()
            except EOFError:
                break
            if len(told) == 1:
                now = told[0]
            else:
                _count(tally, *told)
                done += 1
        process.join()
        if done < len(left):  # it died of the case at hand
            tally.cases += 1
            tally.bugs.setdefault(f"the process ends with {process.exitcode}", []).append(now)
            for path, whole in wholes.items():
                path.write_bytes(whole)
            done += 1
        left = left[done:]
    return tally


def _count(tally: Tally, number: int, outcome: str | None, seconds: float, grown: float) -> None:
    tally.cases += 1
    tally.seconds, tally.megabytes = max(tally.seconds, seconds), max(tally.megabytes, grown)
    if outcome == "refused":
        tally.refused += 1
    elif outcome is not None:
        tally.bugs.setdefault(outcome, []).append(number)


def page(tallies: dict[str, Tally], seed: int) -> str:
    """The table of a campaign, in Markdown."""
    head = ("reader", "cases", "refused", "read", "slowest, s", "most memory, MB", "findings")
    lines = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    whole = Tally()
    for name, one in tallies.items():
        lines.append(_line(name, one))
        whole.cases, whole.refused = whole.cases + one.cases, whole.refused + one.refused
        whole.seconds, whole.megabytes = max(whole.seconds, one.seconds), max(whole.megabytes, one.megabytes)
        whole.bugs |= {f"{name}: {what}": numbers for what, numbers in one.bugs.items()}
    told = f"{whole.cases:,} cases of seed {seed}, {datetime.date.today()}."
    return "\n".join([told, "", *lines, _line("**all**", whole), ""])


def _line(name: str, one: Tally) -> str:
    found = sum(map(len, one.bugs.values()))
    counts = f"{one.cases:,} | {one.refused:,} | {one.accepted:,}"
    return f"| {name} | {counts} | {one.seconds:.2f} | {one.megabytes:.0f} | {found} |"


def write_page(path: Path, text: str) -> None:
    """Puts the table between the marks of a page; what stands around it is written by hand."""
    begins, ends = "<!-- table -->\n", "<!-- end of table -->"
    old = path.read_text(encoding="utf-8") if path.is_file() else f"# Fuzzing\n\n{begins}{ends}\n"
    before, _, rest = old.partition(begins)
    path.write_text(f"{before}{begins}{text}{ends}{rest.partition(ends)[2]}", encoding="utf-8")


def main() -> int:
    """Runs a campaign; ends with 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="", help=f"of {', '.join(READERS)}, separated by semicolons; without: all")
    parser.add_argument("--only", type=int, help="one case, with its traceback")
    parser.add_argument("--page", type=Path, help="a page that gets the table")
    told = parser.parse_args()
    names = [name for name in READERS if not told.targets or any(t and t in name for t in told.targets.split(";"))]
    place = Path(tempfile.mkdtemp(prefix="fuzz."))
    tallies = {}
    try:
        for name in names:
            if told.only is not None:
                print(repr(case(name, begin(name, place / "one"), told.seed, told.only)))
                return 0
            tallies[name] = one = run(name, range(told.cases), told.seed, place)
            print(f"{name:24s}{one.cases:7d} cases {one.refused:7d} refused {one.accepted:7d} read "
                  f"{one.seconds:6.2f} s {one.megabytes:6.0f} MB", flush=True)  # fmt: skip
            for what, numbers in one.bugs.items():
                print(f"    {len(numbers)} x {what}: {', '.join(map(str, numbers[:5]))}", flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if told.page and tallies:
        write_page(told.page, page(tallies, told.seed))
    return int(any(one.bugs for one in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
