"""The wandering delay of a tape: kept as a curve over the recorded file's time, and taken out of a recording."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline

from revox_lightning.dsp.interpolation import read_at

_DOUBTFUL_SAMPLES = 0.25  # standard error at which confidence has sunk to one half


@dataclass(frozen=True)
class Trajectory:
    """Delay over the time of the WET file: `wet[n] = dry(n - delay(n))`, known at `times_samples` `(n,)`, rising.

    `delay_samples` `(n,)`; `confidence` `(n,)` from 0 (a guess) to 1, one half at a standard error of a quarter of a
    sample. Raises ValueError for arrays that do not fit together.

    >>> Trajectory(np.array([0.0, 100.0]), np.array([7.0, 9.0]), np.ones(2)).at(np.array([-5.0, 50.0, 200.0]))
    array([7., 8., 9.])
    """

    times_samples: np.ndarray
    delay_samples: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        shapes = {np.shape(part) for part in (self.times_samples, self.delay_samples, self.confidence)}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 1 or shape[0] == 0:
            raise ValueError("a trajectory takes times, delay and confidence of one shape (n,), n > 0")
        if not (np.diff(self.times_samples) > 0).all() or not np.isfinite(self.delay_samples).all():
            raise ValueError("a trajectory takes times that rise and delays that are finite")

    @property
    def mean(self) -> float:
        """Mean delay in samples."""
        return float(np.mean(self.delay_samples))

    @property
    def std(self) -> float:
        """Standard deviation of the delay in samples."""
        return float(np.std(self.delay_samples))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Delay at `positions` (n,) in wet samples: a cubic spline through the points, their end values beyond them."""
        positions = np.asarray(positions, dtype=np.float64)
        if len(self.times_samples) == 1:
            return np.full(positions.shape, float(self.delay_samples[0]))
        first, last = self.times_samples[0], self.times_samples[-1]
        return CubicSpline(self.times_samples, self.delay_samples)(np.clip(positions, first, last))

    def per_sample(self, samples: int) -> np.ndarray:
        """Delay `(samples,)` of every wet sample from the first."""
        return self.at(np.arange(samples))

    def confidence_at(self, positions: np.ndarray) -> np.ndarray:
        """Confidence at `positions` (n,): linear between the known points, the end values beyond them."""
        return np.interp(positions, self.times_samples, self.confidence)

    def shifted(self, samples: float) -> "Trajectory":
        """The same curve with a constant number of samples added to the delay."""
        return replace(self, delay_samples=np.asarray(self.delay_samples, dtype=np.float64) + samples)


def confidence_of(standard_error_samples: np.ndarray) -> np.ndarray:
    """Confidence `(n,)` of delays with these standard errors `(n,)`: 1 for none, one half at a quarter of a sample."""
    return 1 / (1 + (np.asarray(standard_error_samples) / _DOUBTFUL_SAMPLES) ** 2)


def standard_error_of(confidence: np.ndarray) -> np.ndarray:
    """The reverse of `confidence_of`: standard errors `(n,)` in samples, infinite for no confidence at all."""
    return _DOUBTFUL_SAMPLES * np.sqrt(1 / np.maximum(confidence, 1e-300) - 1)


def dry_time_delay(delay_samples: np.ndarray, samples: int) -> np.ndarray:
    """Delay `(samples,)` that each DRY sample m meets, `dry[m] = wet(m + out[m])`, of a delay (time,) over wet time.

    >>> delay = 10 + 0.001 * np.arange(5000.0)
    >>> dry_time_delay(delay, 3)[:1].round(5)
    array([10.01001])
    """
    return _same_moment(delay_samples, samples, 1.0)


def wet_time_delay(delay_samples: np.ndarray, samples: int) -> np.ndarray:
    """The reverse of `dry_time_delay`: from a delay (time,) over dry time to `(samples,)` over wet time."""
    return _same_moment(delay_samples, samples, -1.0)


def _same_moment(delay_samples: np.ndarray, samples: int, sign: float) -> np.ndarray:
    """Fixed point of out = delay(n + sign * out); a transport's speed errors of some 1e-3 make it contract fast."""
    delay = np.asarray(delay_samples, dtype=np.float64)
    if delay.ndim != 1 or delay.size == 0:
        raise ValueError(f"expected a delay (time,), got {delay.shape}")
    own, n = np.arange(delay.size), np.arange(samples)
    out = np.interp(n, own, delay)
    for _ in range(50):
        out, before = np.interp(n + sign * out, own, delay), out
        if samples == 0 or np.abs(out - before).max() < 1e-7:
            break
    return out


def modulate(dry: np.ndarray, delay_samples: np.ndarray) -> np.ndarray:
    """`dry` (time,) as a transport plays it: `dry(n - delay[n])` for each wet sample n of `delay_samples` (time,)."""
    return read_at(dry, np.arange(len(delay_samples)) - delay_samples)


def demodulate(wet: np.ndarray, delay_samples: np.ndarray, samples: int | None = None) -> np.ndarray:
    """`wet` (time,) moved back onto dry's time, `(samples,)`: as many as `wet` has, unless given.

    `delay_samples` (time,) belongs to the WET samples (`Trajectory.per_sample(len(wet))`). What would have to come
    from beyond the ends of `wet` is silence. Raises ValueError where the two differ in length.
    """
    if len(wet) != len(delay_samples):
        raise ValueError(f"wet has {len(wet)} samples, its delay {len(delay_samples)}")
    samples = len(wet) if samples is None else samples
    return read_at(wet, np.arange(samples) + dry_time_delay(delay_samples, samples))
