"""Tempo and pitch, one without the other: overlapping stretches of the signal, laid where they fit each other best.

W. Verhelst, M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_WINDOW_SECONDS, _SEARCH_SECONDS = 0.05, 0.012
_COARSE = 4  # lags at once that the search begins with


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


def shifted(x: np.ndarray, sample_rate_hz: float, cents: float, tempo: float = 1.0) -> np.ndarray:
    """x (time,) that many cents higher and ``tempo`` times as fast: stretched, then read faster (linear interpolation).

    >>> shifted(np.zeros(24_000), 24_000, cents=100).shape
    (24000,)
    """
    ratio = 2 ** (cents / 1200)
    longer = stretched(x, sample_rate_hz, tempo / ratio)
    return np.interp(np.arange(round(x.size / tempo)) * ratio, np.arange(longer.size), longer)


@njit(cache=True, fastmath=True)
def _most_alike(x, place, other, half, first, last, step):  # pragma: no cover
    """The lag from ``first`` to ``last`` at which the window at ``place`` is most like the one at ``other``."""
    best, at = -1e300, 0
    stop = min(2 * half, x.size - other)
    for lag in range(first, last + 1, step):
        likeness = 0.0
        for n in range(0, stop, 4):
            likeness += x[place + lag + n] * x[other + n]
        if likeness > best:
            best, at = likeness, lag
    return at


@njit(cache=True)
def _overlapped(x, half, search, tempo, samples):  # pragma: no cover
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * half) / half)
    margin = 2 * half + search + _COARSE
    padded = np.zeros(x.size + 2 * margin + half)
    padded[margin : margin + x.size] = x
    y, weight = np.zeros(samples + 3 * half), np.zeros(samples + 3 * half)
    place = margin - half
    for start in range(0, samples + half, half):
        wanted = margin - half + round(start * tempo)
        if wanted + search + _COARSE + 2 * half >= padded.size:
            break
        if start > 0:  # the stretch most like what would have followed the last one
            follows = place + half
            middle = _most_alike(padded, wanted, follows, half, -search, search, _COARSE)
            wanted += _most_alike(padded, wanted, follows, half, middle - _COARSE + 1, middle + _COARSE - 1, 1)
        place = wanted
        for n in range(2 * half):
            y[start + n] += window[n] * padded[place + n]
            weight[start + n] += window[n]
    return (y / np.maximum(weight, 1e-3))[half : half + samples]
