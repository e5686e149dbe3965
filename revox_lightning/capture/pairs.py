"""Writes aligned pairs in three forms, block by block, for `data=recordings` to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.capture.align import Alignment
from revox_lightning.capture.stretch import Stretch, read
from revox_lightning.capture.timing import Line
from revox_lightning.files import write_atomically

FORMS = ("constant", "demodulated", "raw")
_BLOCK = 1 << 20
_RAW_LEAD_SAMPLES = 2  # the shortest delay a raw pair is left with


def write(alignment: Alignment, recorded: np.ndarray, folder: Path, raw_as_is: bool = False) -> list[Path]:
    """Writes every programme stretch as NAME-input.wav and NAME-target.wav under `folder`/FORM; returns the inputs.

    Stereo programme beside mono ones goes to `folder`/stereo/FORM, so that a folder holds one kind. Files are 32-bit
    float at the recording's level. `constant`: polarity, one delay and one clock ratio removed; `demodulated`: the
    whole trajectory removed; `raw`: as recorded, with NAME.npz: delay_samples (time,) such that target[n] =
    input(n - delay_samples[n]), its confidence, and the rate. `raw_as_is` keeps the recorded file's own beginning.
    """
    wanted = [stretch for stretch in alignment.stretches if stretch.kind == "programme"]
    mixed = len({len(stretch.channels) for stretch in wanted}) > 1
    written = []
    for stretch in wanted:
        place = folder / "stereo" if mixed and len(stretch.channels) == 2 else folder
        for form in FORMS[:2]:
            written.append(_pair(alignment, stretch, recorded, place / form, form))
        written.append(_raw(alignment, stretch, recorded, place / "raw", raw_as_is))
    return written


def constant_positions(stretch: Stretch, line: Line, sample_rate_hz: int) -> tuple[float, float]:
    """`(start, ratio)`: recorded positions of the stretch with its mean delay and the clock's ratio alone."""
    k = np.arange(0, stretch.samples, max(round(0.01 * sample_rate_hz), 1))
    return float(np.mean(stretch.positions(k) - line.ratio * k)), line.ratio


def _pair(alignment: Alignment, stretch: Stretch, recorded: np.ndarray, place: Path, form: str) -> Path:
    start, ratio = constant_positions(stretch, alignment.line, alignment.sample_rate_hz)
    paths = [place / f"{stretch.name}-{side}.wav" for side in ("input", "target")]
    place.mkdir(parents=True, exist_ok=True)
    channels, rate_hz = len(stretch.channels), alignment.sample_rate_hz
    with (
        audio.writer(paths[0], rate_hz, channels, "FLOAT") as x,
        audio.writer(paths[1], rate_hz, channels, "FLOAT") as y,
    ):
        for first in range(0, stretch.samples, _BLOCK):
            k = np.arange(first, min(first + _BLOCK, stretch.samples))
            positions = stretch.positions(k) if form == "demodulated" else start + ratio * k
            wet = np.stack([alignment.polarity * read(recorded[channel], positions) for channel in stretch.channels])
            x.write(_tensor(stretch.dry[list(stretch.channels), k[0] : k[-1] + 1]))
            y.write(_tensor(wet))
    return paths[0]


def _raw(alignment: Alignment, stretch: Stretch, recorded: np.ndarray, place: Path, as_is: bool) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    k = np.arange(0, stretch.samples, max(round(0.01 * alignment.sample_rate_hz), 1))
    start = stretch.tape_start
    if not as_is or float(np.min(stretch.positions(k) - k)) < start + _RAW_LEAD_SAMPLES:
        start = int(np.floor(np.min(stretch.positions(k) - k))) - _RAW_LEAD_SAMPLES
    samples = min(stretch.samples, recorded.shape[1] - start)
    paths = [place / f"{stretch.name}-{side}.wav" for side in ("input", "target")]
    rate_hz = alignment.sample_rate_hz
    channels = list(stretch.channels)
    delays, confidences = [], []
    with (
        audio.writer(paths[0], rate_hz, len(channels), "FLOAT") as x,
        audio.writer(paths[1], rate_hz, len(channels), "FLOAT") as y,
    ):
        for first in range(0, samples, _BLOCK):
            n = np.arange(first, min(first + _BLOCK, samples))
            at = start + n
            wet = np.stack([_excerpt(recorded[c], at[0], len(at)) for c in channels])
            x.write(_tensor(stretch.dry[channels, n[0] : n[-1] + 1]))
            y.write(_tensor(wet))
            delays.append(n - stretch.origins(at))
            confidences.append(stretch.confidence(at).astype(np.float32))
    arrays = {
        "delay_samples": np.concatenate(delays),
        "confidence": np.concatenate(confidences),
        "sample_rate_hz": np.array(rate_hz),
    }
    write_atomically(place / f"{stretch.name}.npz", lambda file: np.savez_compressed(file, **arrays))
    return paths[0]


def _excerpt(x: np.ndarray, start: int, samples: int) -> np.ndarray:
    first = max(start, 0)
    part = x[first : max(start + samples, first)]
    return np.pad(part, (first - start, samples - (first - start) - len(part)))


def _tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
