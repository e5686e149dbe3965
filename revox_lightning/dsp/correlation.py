"""Sums of lagged products in float64, block by block."""

import numpy as np
from numpy.fft import irfft, rfft

_BLOCK = 65_536


def lagged_products(x: np.ndarray, y: np.ndarray, offset: int, first_lag: int, last_lag: int) -> np.ndarray:
    """For each lag: the sum over i of `y[i] * x[offset + i - lag]`, with zeros beyond the ends of `x` `(time,)`.

    Returns float64 `(last_lag - first_lag + 1,)`. Memory beyond `x` and `y` depends on the lags only.

    >>> lagged_products(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 2.0]), 0, 0, 2).round(9)
    array([0., 2., 0.])
    """
    lags = last_lag - first_lag + 1
    size = 1 << (lags + min(max(_BLOCK, lags), len(y))).bit_length()
    block = size - lags
    total = np.zeros(size // 2 + 1, dtype=np.complex128)
    for start in range(0, len(y), block):
        part = y[start : start + block].astype(np.float64)
        around = excerpt(x, offset + start - last_lag, len(part) + lags - 1)
        total += rfft(around, size) * np.conj(rfft(part, size))
    return irfft(total, size)[:lags][::-1].copy()


def excerpt(x: np.ndarray, start: int, length: int) -> np.ndarray:
    """`x[start : start + length]` in float64 `(length,)`, zeros where `x` does not reach."""
    out = np.zeros(length)
    first, last = max(start, 0), min(start + length, len(x))
    if last > first:
        out[first - start : last - start] = x[first:last]
    return out
