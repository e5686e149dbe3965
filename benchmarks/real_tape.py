"""Models of a real tape recorder: python benchmarks/real_tape.py GOLDEN_FOLDER [--out FOLDER] [--rows a,b].

Three excerpts of five seconds from an Akai 4000D (Mikkonen et al., DAFx 2023): the left channel is the programme, the
right one pulses from which the delay of the tape path was measured. Two clips are learned from, the third is the test.
Trains with ``experiment=real_tape``, as many runs at a time as there are processors, finished runs are kept; then
learning curves, from 1, 2 and 5 s of the two clips. All rows know the delay from the pulses alone.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pictures
import runs
import torch
from scipy.interpolate import CubicSpline

from revox_lightning import audio
from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.data.trajectories import LEAST_DELAY_SAMPLES
from revox_lightning.dsp.least_squares import Correlations
from revox_lightning.models.fir import FIR
from revox_lightning.report import references, table
from revox_lightning.runs import RunFolder

CLIPS = {1: "train", 2: "train", 3: "test"}
HISTORY_SAMPLES = 8192  # at the start of every clip: the tape path is late by 160 ms; as long as the longest filter
VAL_SECONDS = 1.0
FILTERS = ((1024, 64), (4096, 512))  # taps and look-ahead in samples
LINEAR = ["linear_start=true", "optim.lr=0.002", "trainer.max_epochs=40"]  # little is left to learn
GRU = ["model=tape_gru", "system.hop_samples=512", "system.batch_size=40", "trainer.max_epochs=100"]
# The recordings as they are, and the delay beside them.
TOLD = [
    *GRU, "model=tape_delay_gru", "data.trajectory=delay", "delay_line.max_delay_samples=512",
    "system.warmup_samples=1024",
]  # fmt: skip
LSTM = ["model=lstm"]
# All of the material in each step: the gain of the machine wanders, and the net would follow that of the last batch.
GREYBOX = [
    "model=greybox_tape", "linear_filter.lookahead_samples=512", "system.batch_size=40", "optim.lr=0.001",
    "trainer.max_epochs=40",
]  # fmt: skip
ROWS = {
    "tape_gru": GRU,
    "tape_gru_linear": [*GRU, *LINEAR, "linear_filter.lookahead_samples=512"],
    "tape_delay_gru": TOLD,
    "tape_delay_gru_linear": [*TOLD, *LINEAR, "linear_filter.lookahead_samples=512"],
    "lstm": LSTM,
    "lstm_linear_1024_64": [*LSTM, *LINEAR],
    "lstm_linear_1024_512": [*LSTM, *LINEAR, "linear_filter.lookahead_samples=512"],
    "lstm_linear_4096_512": [*LSTM, *LINEAR, "linear_filter.taps=4096", "linear_filter.lookahead_samples=512"],
    "greybox_tape_1024_512": GREYBOX,
    "greybox_tape_4096_512": [*GREYBOX, "linear_filter.taps=4096"],
}
CURVES = ("tape_gru", "lstm_linear_1024_512", "greybox_tape_1024_512")
SECONDS = (1, 2, 5)
BRIEF = ["report.data_sheet=false", "report.examples=[]"]
Row = tuple[str, int | None, float, float | None]


def aligned(golden: Path, clip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Dry, dry moved in time as the tape moved it, wet, the delay in samples, each ``(time,)``, and the rate in Hz.

    The delay is the cubic spline through the delays at the output's pulses, held before the first and after the last
    of them; dry between its samples is a cubic spline, too. Where the tape still plays what came before the clip, dry
    is silent.
    """
    folder = golden / "tape" / "real_tape"
    name = f"akai_maxell_7.5ips_{clip}"
    dry, wet = (audio.read(folder / f"{name}_{side}.flac")[0].double().numpy() for side in ("input", "target"))
    rate_hz = audio.info(folder / f"{name}_input.flac").sample_rate_hz
    measured = np.load(folder / "trajectories.npz")
    delays = measured[f"clip{clip}_delay_samples_at_pulse_subsample"].astype(float)
    pulses = measured[f"clip{clip}_output_pulses"][-len(delays) :]  # the first ones answer pulses before the clip
    now = np.arange(len(wet))
    delay = CubicSpline(pulses, delays)(np.clip(now, pulses[0], pulses[-1]))
    place = now - delay
    moved = CubicSpline(np.arange(len(dry)), dry)(np.clip(place, 0, len(dry) - 1))
    return dry, np.where(place < 0, 0.0, moved), wet, delay, rate_hz


def prepare(golden: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the pairs as float WAV and two manifests for ``data=recordings``: dry moved along the delay, and as it is.

    Both score the same samples of wet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[tuple]] = {"moved": [], "raw": []}
    for clip, split in CLIPS.items():
        dry, moved, wet, delay, rate_hz = aligned(golden, clip)
        for name, signal in (("input", dry), ("moved", moved), ("target", wet)):
            path = folder / f"akai_{clip}-{name}.wav"
            audio.write(path, torch.from_numpy(signal[None]).float(), rate_hz, subtype="FLOAT")
        np.savez(folder / f"akai_{clip}-delay.npz", delay_samples=delay, sample_rate_hz=rate_hz)
        # Places in a manifest are those of dry: in raw recordings wet is that much later.
        late = int(np.floor(delay.min())) - LEAST_DELAY_SAMPLES
        for kind, side, shift, trajectory in (
            ("moved", "moved", 0, ""),
            ("raw", "input", late, f"akai_{clip}-delay.npz"),
        ):
            names = f"akai_{clip}-{side}.wav", f"akai_{clip}-target.wav"
            start, end = HISTORY_SAMPLES - shift, len(wet) - shift
            val = end - round(VAL_SECONDS * rate_hz)
            parts = [("train", start, val - HISTORY_SAMPLES), ("val", val, end)]
            for part, first, last in parts if split == "train" else [(split, start, end)]:
                rows[kind].append((*names, part, first / rate_hz, last / rate_hz, trajectory))
    for kind, lines in rows.items():
        with open(folder / f"{kind}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("dry", "wet", "split", "start_seconds", "end_seconds", "trajectory"), *lines])
    return folder / "moved.csv", folder / "raw.csv"


def words(name: str, moved: Path, raw: Path, epochs: int | None) -> list[str]:
    """What the train command is told for a row."""
    manifest = raw if "data.trajectory=delay" in ROWS[name] else moved
    told = ["data=recordings", "experiment=real_tape", *ROWS[name], f"data.manifest={manifest}", *BRIEF]
    return told + ([f"trainer.max_epochs={epochs}"] if epochs else [])


def shorter(told: list[str], seconds: float, whole_seconds: float) -> list[str]:
    """The same with less to learn from, and as many steps: where a step held a part of it, more epochs."""
    less = [*told, f"data.train_seconds={seconds}"]
    if "system.batch_size=40" in told:  # all of it in a step
        return less
    epochs = next((int(word.partition("=")[2]) for word in reversed(told) if "max_epochs" in word), 80)
    more = round(whole_seconds / seconds)
    return [*less, f"trainer.max_epochs={epochs * more}", f"trainer.check_val_every_n_epoch={more}"]


def fixed_filters(data: PairData) -> dict[str, FIR]:
    """The filters of ``FILTERS``, fitted on the training split."""
    train: list[Correlations] = references.correlations(data, "train")
    filters = {}
    for taps, lookahead in FILTERS:
        filters[f"{taps}_{lookahead}"] = fir = FIR(taps, lookahead)
        fir.load(train[0].solve(taps, lookahead).float())
    return filters


def rivals(golden: Path, run: Path, data: PairData) -> list[Row]:
    """Rows of the table: dry, the filters that ``run`` chose on validation, the fixed ones, and the published nets."""
    filters = references.load_filters(RunFolder(run).filters_path) | fixed_filters(data)
    rows: list[Row] = []
    for row in references.references(data, filters):
        chosen = {"linear": " (best on validation)", "linear_causal": " (best on validation)"}.get(row.name, "")
        taps = None if row.name == "dry" else row.net.h.numel()
        rows.append((row.label + chosen, taps, row.metrics["esr"], row.metrics["esr_gain_aligned"]))
    expected = json.loads((golden / "tape" / "real_tape" / "expected_esr.json").read_text(encoding="utf-8"))
    for name, clips in expected.items():
        if "GRU" in name:
            count = 12928 if name.startswith("DiffDel") else 12929
            rows.append((f"published {name}, trained on the test clip too", count, clips["clip3"]["ESR_eps1e-5"], None))
    return rows


def write_table(rows: list[Row], path: Path) -> None:
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


def curves(done: dict[str, dict], whole_seconds: float, path: Path) -> None:
    """Draws test ESR over the length of the training material, beside the best linear filter of each length."""
    lines: dict[str, dict[float, list[float]]] = {"best linear filter": {}}
    for name in CURVES:
        points = {seconds: done[f"{name}_{seconds}s"] for seconds in SECONDS} | {round(whole_seconds, 1): done[name]}
        lines[name] = {seconds: [metrics["test/esr"]] for seconds, metrics in points.items()}
        lines["best linear filter"] = {seconds: [metrics["test/esr_linear"]] for seconds, metrics in points.items()}
    pictures.learning_curves(lines, "Akai 4000D, clip 3", path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Models of a real tape recorder, beside linear filters.")
    parser.add_argument("golden", type=Path, help="the folder of golden data, which holds tape/real_tape")
    parser.add_argument("--out", type=Path, default=Path("outputs/real_tape"), help="where everything goes")
    parser.add_argument("--rows", default=",".join(ROWS), help="which nets; learning curves want all of theirs")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifests = prepare(args.golden, args.out / "data")
    data = PairData(Recordings(manifest=str(manifests[0])), history_samples=HISTORY_SAMPLES)
    whole, names = data.seconds("train"), args.rows.split(",")
    jobs = {name: words(name, *manifests, args.epochs) for name in names}
    with_curves = set(CURVES) <= set(names)
    if with_curves:
        jobs |= {f"{name}_{s}s": shorter(jobs[name], s, whole) for name in CURVES for s in SECONDS}
    done = runs.all_trained(jobs, args.out)
    rows: list[Row] = [
        (name, done[name]["parameters"], done[name]["test/esr"], done[name]["test/esr_gain_aligned"]) for name in names
    ]
    write_table([*rows, *rivals(args.golden, args.out / names[-1], data)], args.out / "table.md")
    if with_curves:
        curves(done, whole, args.out / "learning_curves.png")


if __name__ == "__main__":
    main()
