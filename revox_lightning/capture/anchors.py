"""Where a recording without markers belongs: by the rises of the programme's loudness in four bands."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.signal import butter, lfilter, oaconvolve, sosfilt

from revox_lightning.capture.markers import Timeline, slower
from revox_lightning.dsp.correlation import lagged_products

_RATE_HZ = 200.0  # of the loudness curves
_BANDS_HZ = ((80, 250), (250, 700), (700, 2000), (2000, 6000))
_CHUNK_SECONDS, _CHUNKS = 6.0, 24
_PEAKS = 4  # candidates a chunk
_TOLERANCE_SECONDS, _WANDER = 0.02, 0.004
_LIKE = 0.25  # least correlation of a chunk's rises with where it may belong
_LIKE_TOGETHER, _LIKE_ELSEWHERE = 0.45, 0.7  # of all chunks: at the right speed (real tape: 0.9), at another one
SPEEDS = (1.0, 0.5, 2.0, 44_100 / 48_000, 48_000 / 44_100)


def rises(x: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """How much louder each band of `x` (time,) becomes, `(bands, frames)` at 200 frames a second, smoothed."""
    y, rate_hz = slower(x, sample_rate_hz)
    hop = rate_hz / _RATE_HZ
    edges = np.round(hop * np.arange(int(len(y) / hop) + 1)).astype(int)
    curves = []
    for low, high in _BANDS_HZ:
        if low > 0.4 * rate_hz:
            continue
        band = butter(2, [low, min(high, 0.45 * rate_hz)], "bandpass", fs=rate_hz, output="sos")
        power = np.concatenate(([0.0], np.cumsum(np.square(sosfilt(band, y.astype(np.float64))))))
        energy = np.diff(power[edges]) / hop
        loud = np.log10(np.maximum(lfilter([0.3], [1, -0.7], energy), 1e-9 + 1e-4 * energy.mean()))
        curves.append(np.convolve(np.maximum(np.diff(loud, prepend=loud[0]), 0), np.hanning(7)[1:-1], "same"))
    return np.stack(curves)


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A chunk of dry (its start, seconds), where it may have come back (seconds), and how like it is there."""

    dry_seconds: float
    wet_seconds: float
    likeness: float


def _anchors(dry: np.ndarray, wet: np.ndarray, speed: float) -> list[Anchor]:
    """Candidates for chunks of dry's rises (bands, frames) in wet's, both in wet's time; wet plays at `speed`."""
    frames = dry.shape[1]
    length = min(round(_CHUNK_SECONDS * _RATE_HZ), frames // 2, wet.shape[1])
    if length < 0.3 * _RATE_HZ:
        return []
    starts = np.unique(np.linspace(0, frames - length, _CHUNKS).astype(int))
    found: list[Anchor] = []
    for start in starts:
        chunk = dry[:, start : start + length]
        cross, power = 0.0, 0.0
        for a, b in zip(chunk - chunk.mean(1, keepdims=True), wet, strict=True):
            cross = cross + oaconvolve(b, a[::-1], mode="valid") / (np.sqrt(np.sum(a**2)) + 1e-9)
            padded = np.concatenate(([0.0], np.cumsum((b - b.mean()) ** 2)))
            power = power + (padded[length:] - padded[:-length])
        like = cross / np.sqrt(len(wet) * np.maximum(power, 1e-3 * np.mean(power) + 1e-9))
        for _ in range(_PEAKS):
            best = int(np.argmax(like))
            if like[best] < _LIKE:
                break
            found.append(Anchor(start * speed / _RATE_HZ, best / _RATE_HZ, float(like[best])))
            like[max(best - 10, 0) : best + 11] = -1
    return found


def find_timeline(dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float) -> tuple[Timeline | None, float]:
    """Where samples of `dry` (time,) came back in `wet` (time,) to some milliseconds, and at which of `SPEEDS`.

    None where less than a third of dry agrees on any line, or all of it poorly.
    """
    curves = rises(wet, sample_rate_hz)
    best: tuple[float, Timeline | None, float] = (0.0, None, 1.0)
    for speed in SPEEDS:
        played = rises(dry, speed * sample_rate_hz)  # as it would sound at that speed
        bands = min(len(played), len(curves))
        line = _line(_anchors(played[:bands], curves[:bands], speed), 1 / speed)
        least = _LIKE_TOGETHER if speed == 1 else _LIKE_ELSEWHERE
        if line is not None and line[3] > max(least, best[0]):
            x, y = line[0] * sample_rate_hz, line[1] * sample_rate_hz
            best = line[3], Timeline(x, y, line[2], len(x)), speed
    return best[1], best[2]


def _line(anchors: list[Anchor], ratio: float) -> tuple[np.ndarray, np.ndarray, float, float] | None:
    """Dry and wet seconds of the anchors near the best line of about that ratio, its ratio, and their likeness."""
    if not anchors:
        return None
    x, y = (np.array([getattr(a, name) for a in anchors]) for name in ("dry_seconds", "wet_seconds"))
    like = np.array([a.likeness for a in anchors])
    best, votes = np.zeros(len(x), bool), 0.0
    for i in range(len(x)):
        off = np.abs(y - y[i] - ratio * (x - x[i]))
        close = off <= _TOLERANCE_SECONDS + _WANDER * np.abs(x - x[i])
        if like[close].sum() > votes:
            best, votes = close, float(like[close].sum())
    chunks = len(np.unique(x))
    x, y, like = x[best], y[best], like[best]
    _, distinct = np.unique(x, return_index=True)
    x, y, like = x[distinct], y[distinct], like[distinct]
    if len(x) < max(2, chunks / 3):
        return None
    slope = float(np.polyfit(x - x[0], y, 1)[0]) if x[-1] - x[0] > 20 else ratio
    line = np.median(y - slope * x)
    keep = np.abs(y - slope * x - line) <= _TOLERANCE_SECONDS + _WANDER * (x[-1] - x[0])
    return x[keep], y[keep], slope, float(like.mean())


def sharper(timeline: Timeline, dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float) -> Timeline:
    """The same timeline with each point moved to where half a second of dry itself correlates best within 40 ms."""
    x, rate_hz = slower(dry, sample_rate_hz)
    y, _ = slower(wet, sample_rate_hz)
    scale = sample_rate_hz / rate_hz
    length, reach = round(0.5 * rate_hz), round(0.04 * rate_hz)
    tape, recorded = [], []
    for a, b in zip(timeline.tape / scale, timeline.recorded / scale, strict=True):
        piece = np.diff(x[int(a) : int(a) + length].astype(np.float64))
        start = int(b) - reach
        around = np.diff(y[max(start, 0) : start + length + 2 * reach].astype(np.float64))
        if len(piece) < length - 1 or not piece.any() or len(around) < length:
            continue
        lags = lagged_products(around, piece, 0, -(len(around) - len(piece)), 0)
        tape.append(int(a) * scale)
        recorded.append((max(start, 0) + len(lags) - 1 - int(np.argmax(np.abs(lags)))) * scale)
    if len(tape) < 2:
        return timeline
    off = np.array(recorded) - timeline.at(np.array(tape))
    keep = np.abs(off - np.median(off)) <= 0.005 * sample_rate_hz
    return dataclasses.replace(timeline, tape=np.array(tape)[keep], recorded=np.array(recorded)[keep])
