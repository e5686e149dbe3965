"""What a State Transition Network costs and how close it comes: python benchmarks/hysteresis.py RUN [RUN ...].

Each run is a folder that `python train.py model=stn` left. Beside them stand the solvers of the same equation, all
against Newton's method of eight steps on the test music of the first run's data, at its drives, saturation and width
one half. Costs are nanoseconds for a sample of one signal on one core, everything in turn. The noise is white, at the
music's rate, its peaks at full scale, through one drive after the other; the error counts from the last ten seconds.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble
from revox_lightning.dsp.oversampling import change_rate
from revox_lightning.kernels import backend
from revox_lightning.models.contract import Net
from revox_lightning.runs import RunFolder
from revox_lightning.tape.hysteresis import jiles_atherton

TRUTH = "nr8"
SOLVERS = ("rk2", "rk4", "nr4", TRUTH)
NOISE_BLOCK_SECONDS = 10
Player = Callable[[np.ndarray, tuple[float, ...]], np.ndarray]


def solver(name: str, rate_hz: int) -> Player:
    def play(field: np.ndarray, knobs: tuple[float, ...]) -> np.ndarray:
        drive, saturation, width = knobs
        return jiles_atherton(field, rate_hz, drive=drive, saturation=saturation, width=width, solver=name)

    return play


def network(net: Net) -> Player:
    def play(field: np.ndarray, knobs: tuple[float, ...]) -> np.ndarray:
        with torch.inference_mode():
            y, _ = net(torch.from_numpy(field)[None, None], torch.tensor([knobs]))
        return y[0, 0].numpy()

    return play


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    return 10 * float(np.log10(np.sum(error.astype(float) ** 2) / np.sum(signal.astype(float) ** 2)))


def cost_ns(play: Player, field: np.ndarray, knobs: tuple[float, ...]) -> float:
    start = time.perf_counter()
    play(field, knobs)
    return 1e9 * (time.perf_counter() - start) / field.size


def noise_errors(net: Net, rate_hz: int, factor: int, minutes: float, drives: list[float]) -> tuple[float, float]:
    """The greatest magnetisation, and dB of error in the last block, over `minutes` of noise at each drive."""
    blocks = max(round(60 * minutes / NOISE_BLOCK_SECONDS), 1)
    greatest, worst = 0.0, -np.inf
    for drive in drives:
        random, knobs, state = np.random.default_rng(0), (drive, 0.5, 0.5), None
        for _ in range(blocks):
            x = np.clip(0.4 * random.standard_normal(NOISE_BLOCK_SECONDS * rate_hz // factor), -1, 1)
            field = change_rate(x, factor, up=True).astype(np.float32)
            with torch.inference_mode():
                y, state = net(torch.from_numpy(field)[None, None], torch.tensor([knobs]), state)
            greatest = max(greatest, float(y.abs().max())) if torch.isfinite(y).all() else float("nan")
        truth = solver(TRUTH, rate_hz)(field, knobs)  # from rest: what it remembers of rest is over in a second
        tail = slice(2 * rate_hz, None)
        worst = max(worst, decibels(y[0, 0].numpy()[tail] - truth[tail], truth[tail]))
    return greatest, worst


def rows(folders: list[Path], given: Any) -> list[dict[str, Any]]:
    runs = {folder.parent.name + "/" + folder.name: assemble.load_run(folder) for folder in folders}
    _, cfg, _ = next(iter(runs.values()))
    source, rate_hz = assemble.build(cfg.data.source), int(cfg.data.sample_rate_hz)
    takes = [take for take in source.takes() if take.split == "test"]
    fields = [audio.read(take.dry)[0].numpy() for take in takes]
    drives = [take.controls[0] for take in takes]
    if given.quick:
        fields = [field[: rate_hz // 4] for field in fields]
    settings = [tuple(take.controls) for take in takes]
    players = {name: solver(name, rate_hz) for name in SOLVERS}
    players |= {name: network(net) for name, (net, _, _) in runs.items()}
    truths = [players[TRUTH](field, knobs) for field, knobs in zip(fields, settings, strict=True)]
    sides = {name: functools.partial(cost_ns, play, fields[0], settings[0]) for name, play in players.items()}
    for side in sides.values():
        side()  # compiled, and warm
    taken = pairs.in_turn(sides, given.rounds, "ns a sample:")
    result = []
    for name, play in players.items():
        outputs = [play(field, knobs) for field, knobs in zip(fields, settings, strict=True)]
        errors = [decibels(y - m, m) if name != TRUTH else None for y, m in zip(outputs, truths, strict=True)]
        line: dict[str, Any] = {"name": name, "ns": statistics.median(taken[name])}
        line |= {f"db_{drive}": value for drive, value in zip(drives, errors, strict=True)}
        for rival in ("rk4", TRUTH):
            line[f"times_{rival}"] = pairs.ratio(taken[rival], taken[name])["median"]
        if name in runs:
            net, own, _ = runs[name]
            line["parameters"] = sum(weight.numel() for weight in net.parameters())
            line["greatest"], line["noise_db"] = noise_errors(
                net, rate_hz, own.data.source.oversampling, given.noise_minutes, drives
            )
        result.append(line)
    return result


def main() -> None:
    words = pairs.parser(__doc__)
    words.add_argument("runs", nargs="+", type=lambda text: RunFolder.existing(text).path, help="folders of model=stn")
    words.add_argument("--noise-minutes", type=float, default=10.0, help="at each drive")
    given = pairs.parsed(words)
    torch.set_num_threads(1)
    backend.set_threads(1)
    found = rows(given.runs, given)
    drives = [key for key in found[0] if key.startswith("db_")]
    columns = {"": "name", "parameters": "parameters"} | {f"dB at drive {key[3:]}": key for key in drives}
    columns |= {"ns a sample": "ns", "times rk4": "times_rk4", f"times {TRUTH}": f"times_{TRUTH}"}
    pairs.show(found, columns | {"noise: greatest |M|": "greatest", "dB": "noise_db"})
    pairs.write(given, found)


if __name__ == "__main__":
    main()
