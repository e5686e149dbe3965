"""LSTM and GRU on a real tape recorder: python benchmarks/real_tape.py GOLDEN_FOLDER [--out FOLDER] [--epochs N].

Three excerpts of five seconds from an Akai 4000D (Mikkonen et al., DAFx 2023): the left channel is the programme, the
right one pulses from which the delay of the tape path was measured. Two clips are learned from, the third is the test.
Trains with ``experiment=real_tape``, as many runs at a time as there are processors; finished runs are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from revox_lightning import audio
from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.models.fir import FIR
from revox_lightning.report import references, table
from revox_lightning.runs import RunFolder

CLIPS = {1: "train", 2: "train", 3: "test"}
HISTORY_SAMPLES = 8192  # at the start of every clip: the tape path is late by 160 ms; as long as the longest filter
VAL_SECONDS = 1.0
FILTERS = ((1024, 64), (4096, 512))  # taps and look-ahead in samples
PUBLISHED = "DiffDelGRU_DCPreESR_akai_2"  # the best of the published networks on the test clip, which it was trained on
LINEAR = ["linear_start=true", "optim.lr=0.002", "trainer.max_epochs=40"]  # little is left to learn
# PyTorch trains a GRU on a CPU over ten times slower than an LSTM: fewer time steps, an update after fewer of them.
GRU = ["model=gru", "system.batch_size=40", "system.hop_samples=512", "optim.lr=0.005", "trainer.max_epochs=25"]
# All of the material in each step: the gain of the machine wanders, and the net would follow that of the last batch.
GREYBOX = [
    "model=greybox_tape", "linear_filter.lookahead_samples=512", "system.batch_size=40", "optim.lr=0.001",
    "trainer.max_epochs=40",
]  # fmt: skip
RUNS = {
    "greybox_tape_4096_512": [*GREYBOX, "linear_filter.taps=4096"],
    "greybox_tape_1024_512": GREYBOX,
    "gru": GRU,
    "gru_linear": [*GRU, *LINEAR, "trainer.max_epochs=20"],
    "lstm": ["model=lstm"],
    "lstm_linear_4096_512": ["model=lstm", *LINEAR, "linear_filter.taps=4096", "linear_filter.lookahead_samples=512"],
    "lstm_linear_1024_512": ["model=lstm", *LINEAR, "linear_filter.lookahead_samples=512"],
    "lstm_linear": ["model=lstm", *LINEAR],
}


def aligned(golden: Path, clip: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Dry, moved in time as the tape moved it, and wet, each ``(time,)``, and the sample rate in Hz.

    Dry is delayed by the cubic spline through the delays at the output's pulses, held before the first and after the
    last of them; between its samples it is a cubic spline, too. Where the tape still plays what came before the clip,
    dry is silent.
    """
    folder = golden / "tape" / "real_tape"
    name = f"akai_maxell_7.5ips_{clip}"
    dry, wet = (audio.read(folder / f"{name}_{side}.flac")[0].double().numpy() for side in ("input", "target"))
    rate_hz = audio.info(folder / f"{name}_input.flac").sample_rate_hz
    measured = np.load(folder / "trajectories.npz")
    delays = measured[f"clip{clip}_delay_samples_at_pulse_subsample"].astype(float)
    pulses = measured[f"clip{clip}_output_pulses"][-len(delays) :]  # the first ones answer pulses before the clip
    now = np.arange(len(wet))
    place = now - CubicSpline(pulses, delays)(np.clip(now, pulses[0], pulses[-1]))
    moved = CubicSpline(np.arange(len(dry)), dry)(np.clip(place, 0, len(dry) - 1))
    return np.where(place < 0, 0.0, moved), wet, rate_hz


def prepare(golden: Path, folder: Path) -> Path:
    """Writes the pairs as float WAV and the manifest for ``data=recordings``; returns the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip, split in CLIPS.items():
        *pair, rate_hz = aligned(golden, clip)
        names = [f"akai_{clip}-{side}.wav" for side in ("input", "target")]
        for name, signal in zip(names, pair, strict=True):
            audio.write(folder / name, torch.from_numpy(signal[None]).float(), rate_hz, subtype="FLOAT")
        start, end = HISTORY_SAMPLES / rate_hz, len(pair[0]) / rate_hz
        if split == "train":
            val = end - VAL_SECONDS
            rows += [(*names, "train", start, val - HISTORY_SAMPLES / rate_hz), (*names, "val", val, end)]
        else:
            rows.append((*names, split, start, end))
    manifest = folder / "pairs.csv"
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("dry", "wet", "split", "start_seconds", "end_seconds"), *rows])
    return manifest


def train(name: str, overrides: list[str], out: Path, manifest: Path, epochs: int | None) -> dict[str, Any]:
    """One run through the train command; returns its metrics.json. What it prints goes to ``<out>/<name>.log``."""
    run = RunFolder(out / name)
    if not (metrics := run.read_json("metrics.json")):
        words = ["data=recordings", f"data.manifest={manifest}", "experiment=real_tape", *overrides]
        words += [f"run_dir={run.path}", f"name={name}", *([f"trainer.max_epochs={epochs}"] if epochs else [])]
        with open(out / f"{name}.log", "w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "revox_lightning.commands.train", *words]
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        metrics = run.read_json("metrics.json")
    print(f"{name}: test ESR {metrics['test/esr']:.5f} after {metrics['train_seconds']:.0f} s of training", flush=True)
    return metrics


def fixed_filters(data: PairData) -> dict[str, FIR]:
    """The filters of ``FILTERS``, fitted on the training split."""
    train_correlations = references.correlations(data, "train")
    filters = {}
    for taps, lookahead in FILTERS:
        filters[f"{taps}_{lookahead}"] = fir = FIR(taps, lookahead)
        fir.load(train_correlations[0].solve(taps, lookahead).float())
    return filters


def rivals(golden: Path, out: Path, manifest: Path) -> list[tuple[str, int | None, float, float | None]]:
    """Rows of the table: dry, the filters a run chose on validation, the fixed ones, and the published network."""
    data = PairData(Recordings(manifest=str(manifest)), history_samples=HISTORY_SAMPLES)
    filters = references.load_filters(RunFolder(out / "lstm").filters_path) | fixed_filters(data)
    rows: list[tuple[str, int | None, float, float | None]] = []
    for row in references.references(data, filters):
        chosen = {"linear": " (best on validation)", "linear_causal": " (best on validation)"}.get(row.name, "")
        taps = None if row.name == "dry" else row.net.h.numel()
        rows.append((row.label + chosen, taps, row.metrics["esr"], row.metrics["esr_gain_aligned"]))
    expected = json.loads((golden / "tape" / "real_tape" / "expected_esr.json").read_text(encoding="utf-8"))
    published = expected[PUBLISHED]["clip3"]["ESR_eps1e-5"]
    return [*rows, (f"published {PUBLISHED}, trained on the test clip too", 12928, published, None)]


def write_table(rows: list[tuple[str, int | None, float, float | None]], path: Path) -> None:
    """Prints the result and writes it as Markdown."""
    columns = ["model", "parameters", "test ESR", "dB", "gain-aligned ESR"]
    cells = [
        [name, "-" if count is None else f"{count:,}", f"{esr:.5f}", table.decibels(esr), table.number(aligned, 5)]
        for name, count, esr, aligned in rows
    ]
    table.show("Akai 4000D, clip 3", columns, cells)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    path.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    print(f"Written to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description="LSTM and GRU on a real tape recorder, beside linear filters.")
    parser.add_argument("golden", type=Path, help="the folder of golden data, which holds tape/real_tape")
    parser.add_argument("--out", type=Path, default=Path("outputs/real_tape"), help="where everything goes")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifest = prepare(args.golden, args.out / "data")
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        jobs = {
            name: at_once.submit(train, name, words, args.out, manifest, args.epochs) for name, words in RUNS.items()
        }
        results = {name: job.result() for name, job in jobs.items()}
    rows: list[tuple[str, int | None, float, float | None]] = [
        (name, m["parameters"], m["test/esr"], m["test/esr_gain_aligned"]) for name, m in results.items()
    ]
    write_table([*rows, *rivals(args.golden, args.out, manifest)], args.out / "table.md")


if __name__ == "__main__":
    main()
