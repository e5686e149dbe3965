"""Keeps small runs of the version at hand, so that later versions can be held to what they play.

``python benchmarks/keep_run.py [NAME ...]`` trains each net for seconds on the built-in machine and leaves config.yaml,
the best checkpoint, metrics.json and what the run makes of ``input.npz`` in ``tests/kept_runs/VERSION/NAME/``;
``tests/test_kept_runs.py`` plays them with the code of the day. Without names: all of ``KEPT``. A run that is kept is
never made again.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revox_lightning import __version__
from revox_lightning.commands import assemble
from revox_lightning.commands.rows import START
from revox_lightning.kernels import backend
from revox_lightning.runs import read_checkpoint
from revox_lightning.stream import stream

PLACE = Path(__file__).parents[1] / "tests" / "kept_runs"
FILES = ("config.yaml", "levels.json", "metrics.json", "checkpoints/best.ckpt")
SAMPLES, RATE_HZ = 8192, 44_100
_SECONDS = "data.source.seconds={train: 6.0, val: 1.5, test: 1.5}"
_USUAL = [
    "logger=none", "report.data_sheet=false", "report.examples=[]", "report.audio_seconds=1", "trainer=cpu",
    "trainer.max_epochs=1", "system.threads=1", "linear_filter.taps=256", _SECONDS,
]  # fmt: skip
KEPT = {
    "lstm": ["model=lstm", "size=8"],
    "gru": ["model=gru", "size=8"],
    "tcn": ["model=tcn", "size=100"],
    "wavenet": ["model=wavenet", "size=1"],
    "nam_wavenet": ["model=nam_wavenet", "size=nano"],
    "lstm_linear": ["model=lstm_linear", "size=8"],
    "tape_delay_gru": ["model=tape_delay_gru", "size=8"],
    "style_transfer": [
        "model=style_transfer", "data.source.seconds={train: 60.0, val: 12.0, test: 12.0}",
        "system.segment_samples=32768", "system.hop_samples=32768",
    ],
}  # fmt: skip


def signal() -> Tensor:
    """What kept runs play (1, time): a chord that dies away, then noise, then silence."""
    t = torch.arange(SAMPLES, dtype=torch.float64) / RATE_HZ
    chord = sum(torch.sin(2 * math.pi * hz * t) for hz in (110.0, 277.18, 1318.5)) * torch.exp(-20 * t)  # type: ignore
    noise = torch.randn(SAMPLES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 0.2 * chord + 0.1 * noise * (t > 0.5 * t[-1])
    return (x * (t < 0.85 * t[-1]))[None].float()


def controls(net: object) -> Tensor | None:
    """A delay that wavers (1, 1, time), for a net that is told where the tape is; None for one that takes nothing."""
    if not getattr(net, "controls", 0):
        return None
    t = torch.arange(SAMPLES) / RATE_HZ
    return (200 + 50 * torch.sin(2 * math.pi * 9 * t))[None, None]


@torch.no_grad()
def played(folder: Path, x: Tensor, kernels: str) -> Tensor:
    """What a kept run makes of x (1, time), in blocks of 999 samples; a style's reference is x from its end."""
    net, cfg, _ = assemble.load_run(folder, kernels, playing=False)
    with backend.using(kernels):
        if cfg.task == "style":
            return net(x[None], x[None].flip(-1))[0][0]
        return stream(net, x[None], controls(net), block_samples=999)[0][0]


def without_optimisers(path: Path) -> None:
    """Takes out of a checkpoint what only training needs, which is twice as large as the weights."""
    content = read_checkpoint(path)
    torch.save(content | {"optimizer_states": []}, path)


def keep(name: str, words: list[str], place: Path) -> None:
    """Trains a run and keeps what is needed to play it."""
    with tempfile.TemporaryDirectory() as scratch:
        # Started there, so that its config names no folder of this machine.
        command = [sys.executable, "-c", START, *_USUAL, *words, f"run_dir={name}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
        (place / "checkpoints").mkdir(parents=True)
        for file in FILES:
            shutil.copyfile(Path(scratch) / name / file, place / file)
    without_optimisers(place / "checkpoints" / "best.ckpt")
    x = torch.from_numpy(np.load(place.parent / "input.npz")["x"])
    np.savez_compressed(place / "rendered.npz", y=played(place, x, "torch").numpy())


def main() -> int:
    """Keeps what is named and not kept yet; ends with 2 for a name that there is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(KEPT)}; without: all")
    parser.add_argument("--out", type=Path, default=PLACE, help="the folder of versions")
    told = parser.parse_args()
    torch.set_num_threads(1)
    if unknown := [name for name in told.names if name not in KEPT]:
        print(f"error: {unknown[0]}: choose of {', '.join(KEPT)}.", file=sys.stderr)
        return 2
    version = told.out / __version__
    version.mkdir(parents=True, exist_ok=True)
    if not (version / "input.npz").exists():
        np.savez_compressed(version / "input.npz", x=signal().numpy())
    for name in told.names or KEPT:
        place = version / name
        if place.exists():
            print(f"{place} is kept already")
            continue
        keep(name, KEPT[name], place)
        print(f"{place}: {sum(path.stat().st_size for path in place.rglob('*') if path.is_file()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
