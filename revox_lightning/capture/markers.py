"""Markers that survive a tape: chirps whose period grows linearly, found again at any speed.

A hyperbolic chirp played faster or slower is the same chirp, earlier or later (Kroszczynski, "Pulse Compression by
Means of Linear-Period Modulation", Proc. IEEE 57(7), 1969): one matched filter finds it at half and double speed too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.signal import butter, oaconvolve, resample_poly, sosfiltfilt

MARKER_SECONDS = 0.5
_LOW_HZ, _HIGH_HZ = 400.0, 5000.0
_HIGHEST = 0.42  # of the rate
_SEARCH_HZ = 16_000  # markers are searched at about this rate
_THRESHOLD = 0.35  # of the correlation coefficient; music stays under 0.2
_BLOCK = 1 << 22
_TOLERANCE_SECONDS, _WANDER = 0.03, 0.004  # how far a marker may lie from a straight line, and per second of distance
MARKERS_NEEDED = 2


def marker(sample_rate_hz: float, level_dbfs: float) -> np.ndarray:
    """A falling-period chirp from 400 to 5,000 Hz with soft ends, `(time,)` float64.

    >>> marker(16_000, -20.0).shape
    (8000,)
    """
    first, last = _periods(sample_rate_hz)
    t = np.arange(round(MARKER_SECONDS * sample_rate_hz)) / sample_rate_hz
    slope = (first - last) / MARKER_SECONDS
    chirp = np.sin(-2 * np.pi / slope * np.log(1 - slope * t / first))
    fade = round(0.01 * sample_rate_hz)
    chirp[:fade] *= np.sin(np.pi / 2 * np.arange(fade) / fade) ** 2
    chirp[-fade:] *= np.cos(np.pi / 2 * np.arange(fade) / fade) ** 2
    return 10 ** (level_dbfs / 20) * chirp


def _periods(sample_rate_hz: float) -> tuple[float, float]:
    """The chirp's first and last period in seconds."""
    return 1 / _LOW_HZ, 1 / min(_HIGH_HZ, _HIGHEST * sample_rate_hz)


def speed_shift_seconds(ratio: float, sample_rate_hz: float) -> float:
    """How much later than its start a marker seems that lasts `ratio` times as long."""
    first, last = _periods(sample_rate_hz)
    return (ratio - 1) * first * MARKER_SECONDS / (first - last)


def slower(x: np.ndarray, sample_rate_hz: float) -> tuple[np.ndarray, float]:
    """`x` (time,) at about 16 kHz, block by block, and its rate: enough to look for events in hours of audio."""
    factor = max(int(sample_rate_hz // _SEARCH_HZ), 1)
    if factor == 1:
        return np.asarray(x, dtype=np.float32), sample_rate_hz
    block, around = factor * (_BLOCK // factor), factor * 512
    parts = []
    for start in range(0, len(x), block):
        before = min(start, around)
        part = resample_poly(x[start - before : start + block + around].astype(np.float64), 1, factor)
        parts.append(part[before // factor : (before + min(block, len(x) - start)) // factor].astype(np.float32))
    return np.concatenate(parts), sample_rate_hz / factor


@dataclasses.dataclass(frozen=True)
class Peaks:
    """Where markers seem to begin (samples) and how like a marker they are (0 to 1)."""

    samples: np.ndarray
    likeness: np.ndarray


def find_markers(x: np.ndarray, sample_rate_hz: float) -> Peaks:
    """Markers in a recording `(time,)`, of either polarity: peaks of the normalised matched filter."""
    searched, rate_hz = slower(x, sample_rate_hz)
    template = marker(rate_hz, 0.0)
    band = butter(2, [0.5 * _LOW_HZ, min(1.3 * _HIGH_HZ, 0.49 * rate_hz)], "bandpass", fs=rate_hz, output="sos")
    template = sosfiltfilt(band, template)
    length = len(template)
    found: list[tuple[float, float]] = []
    for start in range(0, max(len(searched) - length, 0) + 1, _BLOCK):
        part = searched[start : start + _BLOCK + length].astype(np.float64)
        if len(part) < length:
            break
        found += [(start + at, like) for at, like in _peaks(sosfiltfilt(band, part), template, round(0.2 * rate_hz))]
    scale = sample_rate_hz / rate_hz
    return Peaks(np.array([at * scale for at, _ in found]), np.array([like for _, like in found]))


def _peaks(x: np.ndarray, template: np.ndarray, apart: int) -> list[tuple[float, float]]:
    cross = oaconvolve(x, template[::-1], mode="valid")
    energy = np.concatenate(([0.0], np.cumsum(x**2)))
    energy = energy[len(template) :] - energy[: -len(template)]
    floor = 1e-9 * len(template)  # -90 dBFS: nothing is sought in silence
    like = np.abs(cross) / np.sqrt(np.maximum(energy, floor) * np.sum(template**2))
    found: list[tuple[float, float]] = []
    for i in np.flatnonzero((like[1:-1] > _THRESHOLD) & (like[1:-1] >= like[:-2]) & (like[1:-1] > like[2:])) + 1:
        curve = like[i - 1] - 2 * like[i] + like[i + 1]
        peak = (i + 0.5 * (like[i - 1] - like[i + 1]) / curve if curve else float(i), float(like[i]))
        if found and peak[0] - found[-1][0] < apart:
            found[-1] = max(found[-1], peak, key=lambda p: p[1])
        else:
            found.append(peak)
    return found


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Where tape samples came back: straight lines between the markers that were found.

    `tape` and `recorded` are samples of the found markers' beginnings `(n,)`; `ratio` is how many recorded samples a
    tape sample lasts on the whole; `wanted` counts the markers on the tape.
    """

    tape: np.ndarray
    recorded: np.ndarray
    ratio: float
    wanted: int

    def at(self, tape_samples: np.ndarray | float) -> np.ndarray:
        """Recorded positions of tape positions; beyond the outermost markers along the overall ratio."""
        t = np.asarray(tape_samples, dtype=np.float64)
        inside = np.interp(t, self.tape, self.recorded)
        outside = np.minimum(t - self.tape[0], 0) + np.maximum(t - self.tape[-1], 0)
        return inside + self.ratio * outside


def fit_timeline(peaks: Peaks, starts: Sequence[int], sample_rate_hz: float) -> Timeline | None:
    """The timeline that explains most markers (tape samples `starts`) by the peaks found; None where none does.

    All pairs of markers and peaks vote; among equals the one nearest to unchanged speed wins.
    """
    tape, seen = np.asarray(starts, dtype=np.float64), peaks.samples
    if len(peaks.samples) > 4 * len(tape):
        keep = np.sort(np.argsort(peaks.likeness)[-4 * len(tape) :])
        seen = seen[keep]
    best: tuple[int, float, Timeline] | None = None
    for i in range(len(tape)):
        for j in range(i + 1, len(tape)):
            for p in range(len(seen)):
                ratios = (seen[p + 1 :] - seen[p]) / (tape[j] - tape[i])
                for ratio in ratios[(ratios > 0.2) & (ratios < 5)]:
                    candidate = _votes(tape, seen, tape[i], seen[p], float(ratio), sample_rate_hz)
                    rank = len(candidate.tape), -abs(np.log(candidate.ratio))
                    if best is None or rank > best[:2]:
                        best = (*rank, candidate)
            if best is not None and best[0] == len(tape) and abs(best[1]) < 0.02:
                return _without_shift(best[2], sample_rate_hz)
    if best is None or best[0] < MARKERS_NEEDED:
        return None
    return _without_shift(best[2], sample_rate_hz)


def _votes(
    tape: np.ndarray, seen: np.ndarray, tape_at: float, seen_at: float, ratio: float, sample_rate_hz: float
) -> Timeline:
    """The markers that lie near the line through one point with one ratio, and the line through them."""
    expected = seen_at + ratio * (tape - tape_at)
    nearest = np.clip(np.searchsorted(seen, expected), 1, max(len(seen) - 1, 1))
    nearest -= expected - seen[nearest - 1] < seen[nearest % len(seen)] - expected
    allowed = _TOLERANCE_SECONDS * sample_rate_hz + _WANDER * np.abs(expected - seen_at)
    close = np.abs(seen[nearest] - expected) <= allowed
    near_tape, near_seen = tape[close], seen[nearest[close]]
    distinct = np.append(True, np.diff(near_seen) > 0)
    near_tape, near_seen = near_tape[distinct], near_seen[distinct]
    if len(near_tape) > 1:
        ratio = float(np.polyfit(near_tape - near_tape[0], near_seen, 1)[0])
    return Timeline(near_tape, near_seen, ratio, len(tape))


def _without_shift(timeline: Timeline, sample_rate_hz: float) -> Timeline:
    shift = speed_shift_seconds(timeline.ratio, sample_rate_hz) * sample_rate_hz
    return dataclasses.replace(timeline, recorded=timeline.recorded - shift)
