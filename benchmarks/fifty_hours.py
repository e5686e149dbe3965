"""What hours of recordings cost before and in training: `train.py data=recordings` on 1, 10 and 50 hours of pairs.

Each size is started twice in a process of its own, with an empty cache and with what that left: processor seconds of
all threads for the headers (`found`), for the health checks (`looked at`), for the linear filters, from the start of
the process to the first update of the net, and for an epoch of one minute of audio from there; and the peak of memory
up to its end. Processor seconds, because a busy machine makes clocks tell of its other work; threads read side by side.
The reference of every figure is that of the shortest size.

Pairs are mono FLAC files of ten minutes, 16 bit, 16 kHz: six seconds of noise in every minute, the rest dither. One
hour of them is made; more hours are the same files under other names (hard links), so they come from the system's
cache once they were read. They are deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pairs

ROOT = Path(__file__).parents[1]
RATE_HZ = 16_000
HOURS, QUICK_HOURS = (1, 10, 50), (1, 2)
MEMORY_MB = 256  # less than an hour needs: no size is kept in memory
MINUTES, FILES_AN_HOUR, HEARD_SECONDS = 10, 6, 6
COLUMNS = {
    "hours": "hours", "start": "start", "found (s)": "found", "looked at (s)": "looked_at", "filters (s)": "filters",
    "first update (s)": "first_update", "epoch of 60 s (s)": "epoch", "peak memory (MB)": "peak_mb",
    "first update, ratio": "first_update_ratio", "memory, ratio": "peak_mb_ratio",
}  # fmt: skip
MEASURED = ("found", "looked_at", "filters", "first_update", "epoch", "peak_mb")
# Times what a training does first, and ends it when it would begin to validate.
TRAINING = """
import json, os, sys, time
import torch
out = sys.argv.pop(1)
sys.path.append(sys.argv.pop(1))
import pairs
from revox_lightning.commands import assemble, training
from revox_lightning.data import module, recordings, segments
from revox_lightning.report import references
told = {}
def tell():
    told["peak_mb"] = pairs.peak_mb()
    open(out, "w").write(json.dumps(told))
def timed(place, name, as_what):
    work = getattr(place, name)
    def timing(*words, **named):
        start = time.process_time()
        result = work(*words, **named)
        told[as_what] = told.get(as_what, 0) + time.process_time() - start
        tell()
        return result
    setattr(place, name, timing)
timed(recordings.Recordings, "__init__", "found")
timed(module.PairData, "check", "looked_at")
timed(references, "correlations", "filters")
step = torch.optim.Adam.step
def first_step(*words, **named):
    if "first_update" not in told:
        told["first_update"] = time.process_time()
        tell()
    return step(*words, **named)
torch.optim.Adam.step = first_step
def ends(*_):
    told["epoch"] = time.process_time() - told["first_update"]
    tell()
    os._exit(0)
segments.Chunks.__getitem__ = ends
from revox_lightning.commands.train import main
main()
"""


def an_hour(folder: Path) -> list[tuple[Path, Path]]:
    """Pairs of files that make an hour, all different."""
    import torch

    from revox_lightning import audio

    generator, made = torch.Generator().manual_seed(0), []
    for n in range(FILES_AN_HOUR):
        dry = torch.zeros(1, MINUTES * 60 * RATE_HZ)
        for minute in range(MINUTES):
            start, frames = minute * 60 * RATE_HZ, HEARD_SECONDS * RATE_HZ
            dry[0, start : start + frames] = 0.1 * torch.randn(frames, generator=generator)
        paths = folder / f"{n}-input.flac", folder / f"{n}-target.flac"
        for path, x in zip(paths, (dry, torch.tanh(2 * dry)), strict=True):
            audio.write(path, x, RATE_HZ, subtype="PCM_16")
        made.append(paths)
    return made


def hours_of(made: list[tuple[Path, Path]], hours: int, folder: Path) -> Path:
    """A folder of so many hours: the hour again and again under other names."""
    folder.mkdir()
    for hour in range(hours):
        for dry, wet in made:
            for path in (dry, wet):
                os.link(path, folder / f"hour{hour:03d}_{path.name}")
    return folder


def a_start(root: Path, cache: Path, place: Path) -> dict[str, float]:
    """The figures of one training."""
    words = [
        "data=recordings", f"data.root={root}", f"data.cache_dir={cache}", "data.epoch_seconds=60",
        f"data.sample_rate_hz={RATE_HZ}", f"data.memory_mb={MEMORY_MB}",
        "model=lstm", "size=8", "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=none",
        f"run_dir={place / 'run'}",
    ]  # fmt: skip
    out = place / "told.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-c", TRAINING, str(out), str(Path(__file__).parent), *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the training ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    told = json.loads(out.read_text())
    pairs.say(f"{root.name}: {told}")
    return told


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Two rows a size, of the first start and of the second."""
    sizes = given.hours or (QUICK_HOURS if given.quick else HOURS)
    with tempfile.TemporaryDirectory(prefix="revox_hours_", dir=given.place) as name:
        (place := Path(name) / "hour").mkdir()
        made = an_hour(place)
        roots = [hours_of(made, hours, Path(name) / f"hours_{hours}") for hours in sizes]

        def starts(root: Path) -> list[dict[str, float]]:
            (own := root.with_name(f"of_{root.name}")).mkdir()
            return [a_start(root, own / "cache", own) for _ in range(2)]

        with ThreadPoolExecutor() as pool:  # side by side: neither processor seconds nor memory mind
            told = list(pool.map(starts, roots))
    rows = []
    for hours, both in zip(sizes, told, strict=True):
        for start, figures in enumerate(both, 1):
            shortest = told[0][start - 1]
            rows.append({
                "job": f"{hours} h, start {start}", "hours": hours, "start": start, "ours": figures["first_update"],
                "reference": shortest["first_update"], "ratio": shortest["first_update"] / figures["first_update"],
                "unit": "CPU s to the first update", "threads": os.cpu_count(), **figures,
                **{f"{key}_ratio": figures[key] / shortest[key] for key in MEASURED},
            })  # fmt: skip
    return rows


def main() -> None:
    words = pairs.parser(__doc__)
    words.add_argument("--hours", type=lambda text: [int(n) for n in text.split(",")], help="sizes, such as 1,10,50")
    words.add_argument("--place", type=Path, help="where the files are made for the time being")
    given = pairs.parsed(words)
    rows = measure(given)
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
