"""Which generator of wow and flutter, or of hiss, comes closest, and what it costs: python benchmarks/generators.py.

Trains nothing. The material is that of the built-in machine (data.source.machine and so on are those of conf/data), or
of a trained run: `--run FOLDER`, whose generator stands in the table. `--published` compares the published networks
instead (REVOX_GOLDEN names the folder of golden data) with what stands for their training data, which is not at hand:
the trajectories stored beside them. `--out FILE` keeps the rows as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from revox_lightning.commands import assemble, settings
from revox_lightning.export import mikkonen_unet
from revox_lightning.models.denoiser import Denoiser
from revox_lightning.models.gaussian_process import GaussianProcess
from revox_lightning.report import generators

SECONDS = {"trajectory": 600.0, "noise": 6.0}
MODELS = {"trajectory": "wow_flutter_diffusion", "noise": "hiss_diffusion"}


def of_run(folder: str, seconds: float | None) -> tuple[str, list[dict[str, Any]]]:
    """Task and rows of a trained run, its data read or made again."""
    net, cfg, _ = assemble.load_run(folder)
    rows = generators.against(assemble.build_data(cfg), cfg.task, {cfg.name: net}, seconds or SECONDS[cfg.task])
    return cfg.task, rows


def of_machine(task: str, seconds: float | None) -> list[dict[str, Any]]:
    """Rows of the plain generator alone, on the built-in machine."""
    data = assemble.build_data(settings.composed([f"model={MODELS[task]}"]))
    return generators.against(data, task, {}, seconds or SECONDS[task])


def of_published(folder: Path, samples: int) -> list[dict[str, Any]]:
    """Rows of the published trajectory net at several numbers of steps, against its stored samples at 50."""
    place = folder / "tape" / "unet"
    stored = torch.from_numpy(np.load(place / "real_samples_T50.npz")["samples_seconds"])
    net = mikkonen_unet.load(place / "real_ema.npz")
    rows = []
    for steps in (8, 10, 50):
        made = published(net, steps).segments(samples, torch.Generator().manual_seed(0))
        rows.append(
            generators.row(f"published, {steps} steps", "trajectory", list(stored[:, None]), [*made[:, None]], 100)
        )
    process = GaussianProcess(taps=512).fit(list(stored))
    return rows + generators.compare("trajectory", list(stored[:, None]), {"Gaussian process": process}, 100)


def published(net: torch.nn.Module, steps: int) -> Denoiser:
    """The published sampler of trajectories (rho as in its yaml)."""
    return Denoiser(
        net, 1e-4, 1e-5, 1e-2, 7.0, steps=steps, rate_hz=100, segment_samples=512, overlap_samples=100
    ).eval()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--run", help="folder of a run of wow_flutter_diffusion or hiss_diffusion")
    words.add_argument("--task", choices=generators.TASKS, default="trajectory", help="without --run")
    words.add_argument("--published", action="store_true")
    words.add_argument("--samples", type=int, default=64, help="trajectories of 5.12 s from the published net")
    words.add_argument("--seconds", type=float, help="of the test split that are compared")
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    torch.set_num_threads(1)
    if given.published:
        place = os.environ.get("REVOX_GOLDEN")
        if not place:
            sys.exit("error: REVOX_GOLDEN does not name the folder of golden data.")
        title, rows = "Published net, against its own samples", of_published(Path(place), given.samples)
    elif given.run:
        title, rows = of_run(given.run, given.seconds)
    else:
        title, rows = given.task, of_machine(given.task, given.seconds)
    generators.show(title, rows)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
