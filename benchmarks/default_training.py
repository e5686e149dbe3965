"""How long `python train.py` takes with its defaults, as a user types it, and what it reaches.

The whole command is timed: start, data, training, test, report; `reference` is the same with `kernels=torch`. The
built-in recordings are rendered before, unless `--fresh` counts that, too. "better by" is how many dB the test ESR lies
below that of the best linear filter. One round unless `--rounds` says more, because each takes minutes.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pairs

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "job": "job", "threads": "threads", "seconds": "ours", "kernels=torch": "reference", "ratio": "ratio",
    "of them training": "train_seconds", "test ESR": "esr", "better by, dB": "better_db",
}  # fmt: skip
QUICK = ["trainer.max_epochs=1", "data.source.seconds={train: 4.0, val: 1.0, test: 1.0}"]


def trained(words: list[str], place: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of the command, and the figures of the run."""
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "train.py"), f"run_dir={place}", "logger=csv", *words]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)
    return time.perf_counter() - start, json.loads((place / "metrics.json").read_text())


def main() -> None:
    words = pairs.parser(__doc__)
    words.add_argument("--fresh", action="store_true", help="render the recordings anew in each run")
    words.set_defaults(rounds=1)
    given = pairs.parsed(words)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="revox_default_") as folder:
        base = QUICK if given.quick else []

        def side(kernels: str) -> float:
            place = Path(tempfile.mkdtemp(dir=folder))
            cache = [f"data.cache_dir={place / 'cache'}"] if given.fresh else []
            seconds, figures[kernels] = trained([*base, *cache, f"kernels={kernels}"], place / "run")
            return seconds

        if not given.fresh:
            pairs.say("rendering the recordings ...")
            trained([*base, "trainer.max_epochs=1"], Path(folder) / "first")
        sides = {kernels: lambda kernels=kernels: side(kernels) for kernels in ("auto", "torch")}
        taken = pairs.in_turn(sides, given.rounds, "training")
    found = figures["auto"]
    linear = found.get("test/esr_linear")
    better = 10 * math.log10(linear / found["test/esr"]) if linear else None
    rows = [
        pairs.row("default training", taken["auto"], taken["torch"], "s", 1, train_seconds=found.get("train_seconds"),
                  esr=found["test/esr"], better_db=better)
    ]  # fmt: skip
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
