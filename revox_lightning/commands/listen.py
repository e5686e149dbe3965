"""``revox listen outputs/RUN ...``: a blind listening test as one page; ``results=`` reads what listeners sent back."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import LISTEN as USAGE
from revox_lightning.errors import UserError


def listen(argv: list[str]) -> None:
    """Writes the page, or the summary of results."""
    named, others, words = settings.arguments(argv, {"kind", "out", "trials", "seconds", "repeat", "seed", "results"})
    if others:
        raise UserError(f"listen has no option {others[0].split('=')[0]}: {USAGE}.")
    if "results" not in named:
        _page(named, words)
        return
    unused = sorted(set(named) - {"results", "out"}) + words
    if unused:
        raise UserError(f"listen results=... takes no {unused[0]}, only out=FOLDER: {USAGE}.")
    from revox_lightning.report import ratings_table

    place = Path(named["results"]).expanduser()
    out = Path(named["out"]).expanduser() if "out" in named else (place if place.is_dir() else place.parent) / "summary"
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file: name a folder for the summary.")
    with disk_faults():
        text, notes, written = ratings_table.summarise(place, out)
    for note in notes:
        log.warning("%s", note)
    print(text)
    print("\n".join(f"wrote {path}" for path in written))


def _page(named: dict[str, str], words: list[str]) -> None:
    kind = named.get("kind", "mushra")
    if kind not in ("mushra", "abx"):
        raise UserError(f"kind={kind}: choose kind=mushra (ratings) or kind=abx (can it be told from the tape?).")
    if not words:
        raise UserError(f"listen needs folders of runs: {USAGE}.")
    if kind == "abx" and "repeat" in named:
        raise UserError("repeat= is of kind=mushra; an ABX test repeats every pair: give trials=, such as trials=16.")
    trials = _whole(named, "trials", 6 if kind == "mushra" else 12, 1 if kind == "mushra" else 10, 100)
    repeat, seed = _whole(named, "repeat", 1, 0, 100), _whole(named, "seed", 0, 0, 2**32 - 1)
    seconds = _number(named.get("seconds", "8"))
    if not 1 <= seconds <= 60:
        raise UserError(f"seconds={named['seconds']}: give 1 to 60 seconds an excerpt, such as seconds=8.")
    out = Path(named.get("out", "listen.html")).expanduser()
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file, such as out={out / 'listen.html'}.")
    from revox_lightning.report import listening_test

    with disk_faults():
        runs = [Path(word).expanduser() for word in words]
        notes = listening_test.write(out, runs, kind, trials, seconds, repeat, seed)
    for note in notes:
        log.warning("%s", note)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser, with headphones.")
    print("Listeners save a file at the end; put all of them in one folder: revox listen results=FOLDER.")


def _whole(named: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = named.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and low <= float(text) <= high):
        raise UserError(f"{name}={text}: give a whole number from {low} to {high}, such as {name}={default}.")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: listen(sys.argv[1:])))


if __name__ == "__main__":
    main()
