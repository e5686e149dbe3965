"""How long a command takes before it does its work: seconds from the start of the process.

The reference is a process that imports torch and Lightning, which is where the time goes once something is trained.
A first update of training has composed the config, read and checked four seconds of recordings, fitted the linear
filters and computed one hop; with W&B it has also started W&B's own process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pairs

ROOT = Path(__file__).parents[1]
REFERENCE = ["-c", "import torch, pytorch_lightning"]
REVOX = ["-m", "revox_lightning.commands.cli"]
# Ends the process at the first step of the optimiser, so that nothing after it counts.
FIRST_UPDATE = """
import os, sys, torch
torch.optim.Adam.step = lambda *_, **__: os._exit(0)
from revox_lightning.commands.train import main
main()
"""
COLUMNS = {"job": "job", "seconds": "ours", "import torch, pytorch_lightning": "reference", "ratio": "ratio"}
RATE_HZ = 44_100


def recordings(folder: Path) -> list[str]:
    """Options that name a short pair, which is written here."""
    import torch

    from revox_lightning import audio

    dry = 0.1 * torch.randn(1, 4 * RATE_HZ)
    audio.write(folder / "take-input.wav", dry, RATE_HZ)
    audio.write(folder / "take-target.wav", torch.tanh(2 * dry), RATE_HZ)
    words = {"data.dry": folder / "take-input.wav", "data.wet": folder / "take-target.wav", "data.gap_seconds": 0.05}
    return ["data=recordings", *(f"{name}={value}" for name, value in words.items()), "trainer.accelerator=cpu"]


def seconds(words: list[str], place: Path) -> float:
    """Of a Python process with these words."""
    start = time.perf_counter()
    run = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(f"{' '.join(words)[:80]} ended with status {run.returncode}: {run.stderr.strip()[-200:]}")
    return taken


def main() -> None:
    given = pairs.parsed(pairs.parser(__doc__))
    with tempfile.TemporaryDirectory(prefix="revox_startup_") as name:
        place = Path(name)
        data = recordings(place)
        jobs = {
            "train.py --help": [str(ROOT / "train.py"), "--help"],
            "train.py --cfg job": [str(ROOT / "train.py"), "--cfg", "job"],
            "train.py modle=tcn, refused": ["-c", _REFUSED.format(path=str(ROOT / "train.py"))],
            "revox --help": [*REVOX, "--help"],
            "revox render --help": [*REVOX, "render", "--help"],
            "first update": ["-c", FIRST_UPDATE, *data, "logger=csv"],
            "first update, W&B": ["-c", FIRST_UPDATE, *data, "logger=wandb"],
        }
        seconds(jobs["first update"], place)  # compiles the kernel where that was never done
        sides = {job: lambda words=words: seconds(words, place) for job, words in jobs.items()}
        taken = pairs.in_turn({"reference": lambda: seconds(REFERENCE, place), **sides}, given.rounds, "start")
    rows = [pairs.row(job, taken[job], taken["reference"], "s", 1) for job in jobs]
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


# A wrong option ends with status 2, as it should.
_REFUSED = """
import runpy, sys
sys.argv = ["train.py", "modle=tcn"]
try:
    runpy.run_path({path!r}, run_name="__main__")
except SystemExit as ended:
    sys.exit(ended.code != 2)
"""

if __name__ == "__main__":
    main()
