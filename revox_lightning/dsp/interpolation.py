"""Band-limited reading of a signal at moments between its samples: time-varying delays, and their removal.

A sinc under a Kaiser window (Smith, "Digital Audio Resampling", sections 3 to 4), tabulated finely and interpolated
linearly between the entries of the table.
"""

import numpy as np
from numba import njit

HALF_WIDTH = 32  # samples to either side: flat within 0.01 dB to 0.45 of the rate
_PHASES = 1024
_KAISER_BETA = 9.0


def _table() -> np.ndarray:
    """Rows for fractions 0, 1 / _PHASES, ..., 1 of a sample: the weights (2 HALF_WIDTH,) of the samples around."""
    fraction = np.arange(_PHASES + 1)[:, None] / _PHASES
    distance = fraction - np.arange(1 - HALF_WIDTH, HALF_WIDTH + 1)[None]
    inside = np.sqrt(np.clip(1 - (distance / HALF_WIDTH) ** 2, 0, None))
    weights = np.sinc(distance) * np.i0(_KAISER_BETA * inside) / np.i0(_KAISER_BETA)
    return weights / weights.sum(axis=1, keepdims=True)


_WEIGHTS = _table()


@njit(cache=True, nogil=True)
def _read(x: np.ndarray, positions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    out = np.empty(positions.size)
    half, phases = weights.shape[1] // 2, weights.shape[0] - 1
    for n in range(positions.size):
        if not -half < positions[n] < x.size + half:  # also false for NaN
            out[n] = 0.0
            continue
        whole = int(np.floor(positions[n]))
        phase = (positions[n] - whole) * phases
        row = int(phase)
        share = phase - row
        first = whole + 1 - half
        total = 0.0
        for k in range(max(0, -first), min(2 * half, x.size - first)):
            total += x[first + k] * (weights[row, k] + share * (weights[row + 1, k] - weights[row, k]))
        out[n] = total
    return out


def read_at(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Values of `x` (time,) at `positions` (n,), in samples from its first; float64 (n,), silence beyond the ends.

    >>> read_at(np.cos(0.1 * np.arange(200)), np.array([100.25])).round(3) - np.cos(10.025).round(3)
    array([0.])
    """
    x, positions = np.asarray(x), np.asarray(positions)
    if x.ndim != 1 or positions.ndim != 1:
        raise ValueError(f"read_at takes x (time,) and positions (n,), not {x.shape} and {positions.shape}")
    x, positions = (np.ascontiguousarray(part, dtype=np.float64) for part in (x, positions))
    return _read(x, positions, _WEIGHTS)
