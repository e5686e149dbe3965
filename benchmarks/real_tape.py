"""LSTM and GRU on a real tape recorder: python benchmarks/real_tape.py GOLDEN_FOLDER [--out FOLDER] [--epochs N].

Three excerpts of five seconds from an Akai 4000D (Mikkonen et al., DAFx 2023): the left channel is the programme, the
right one pulses from which the delay of the tape path was measured. Two clips are learned from, the third is the test.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from revox_lightning import audio

CLIPS = {1: "train", 2: "train", 3: "test"}
HISTORY_SAMPLES = 8192  # at the start of every clip: the tape path is late by 160 ms; as long as the longest filter
VAL_SECONDS = 1.0


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
