"""``revox report outputs/FOLDER ...``: finished runs compared on one page, with tables, curves and sound."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import REPORT as USAGE
from revox_lightning.errors import UserError


def report(argv: list[str]) -> None:
    """Writes the page and says where it lies."""
    named, others, words = settings.arguments(argv, {"out", "excerpts", "seconds"})
    if others:
        raise UserError(f"report has no option {others[0].split('=')[0]}: {USAGE}.")
    if not words:
        raise UserError(f"report needs folders of runs: {USAGE}.")
    count, seconds = named.get("excerpts", "6"), _number(named.get("seconds", "10"))
    if not (count.isascii() and count.isdecimal()):
        raise UserError(f"excerpts={count}: give a whole number, such as excerpts=6.")
    if not 0.5 <= seconds <= 600:
        raise UserError(f"seconds={named['seconds']}: give 0.5 to 600 seconds of each excerpt, such as seconds=10.")
    out = Path(named.get("out", "report.html")).expanduser()
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file, such as out={out / 'report.html'}.")
    from revox_lightning.report import leaderboard, page

    boards, problems = leaderboard.read(Path(word).expanduser() for word in words)
    log.info("reading the audio of %d models ...", sum(len(board.rows) for board in boards))
    with disk_faults():
        problems += page.write(out, boards, problems, int(count), seconds)
    for problem in problems:
        log.warning("%s", problem)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; open it in a browser.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: report(sys.argv[1:])))


if __name__ == "__main__":
    main()
