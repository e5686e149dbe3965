"""Tempo and pitch, one without the other: overlapping stretches of the signal, laid where they fit each other best.

W. Verhelst, M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_WINDOW_SECONDS, _SEARCH_SECONDS = 0.05, 0.012


def stretched(x: np.ndarray, sample_rate_hz: float, tempo: float) -> np.ndarray:
    """x (time,) played ``tempo`` times as fast at its own pitch: (time / tempo,). Raises ValueError for tempo <= 0.

    >>> stretched(np.zeros(24_000), 24_000, 1.2).shape
    (20000,)
    """
    if not tempo > 0:
        raise ValueError(f"tempo is {tempo}: give more than 0")
    half = max(round(_WINDOW_SECONDS * sample_rate_hz / 2), 8)
    search = max(round(_SEARCH_SECONDS * sample_rate_hz), 1)
    return _overlapped(np.ascontiguousarray(x, dtype=np.float64), half, search, tempo, round(x.size / tempo))


def shifted(x: np.ndarray, sample_rate_hz: float, cents: float) -> np.ndarray:
    """x (time,) that many cents higher, as long as before: stretched, then read faster (linear interpolation)."""
    ratio = 2 ** (cents / 1200)
    longer = stretched(x, sample_rate_hz, 1 / ratio)
    return np.interp(np.arange(x.size) * ratio, np.arange(longer.size), longer)


@njit(cache=True)
def _overlapped(x, half, search, tempo, samples):  # pragma: no cover
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * half) / half)
    margin = 2 * half + search
    padded = np.zeros(x.size + 2 * margin + half)
    padded[margin : margin + x.size] = x
    y, weight = np.zeros(samples + 3 * half), np.zeros(samples + 3 * half)
    place = margin - half
    for start in range(0, samples + half, half):
        wanted = margin - half + round(start * tempo)
        if wanted + search + 2 * half >= padded.size:
            break
        if start > 0:  # the stretch most like what would have followed the last one
            follows, best, at = place + half, -1e300, wanted
            for lag in range(-search, search + 1):
                likeness = 0.0
                for n in range(0, 2 * half, 4):
                    if follows + n < padded.size:
                        likeness += padded[wanted + lag + n] * padded[follows + n]
                if likeness > best:
                    best, at = likeness, wanted + lag
            wanted = at
        place = wanted
        for n in range(2 * half):
            y[start + n] += window[n] * padded[place + n]
            weight[start + n] += window[n]
    return (y / np.maximum(weight, 1e-3))[half : half + samples]
