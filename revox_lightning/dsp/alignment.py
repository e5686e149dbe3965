"""Delay between two recordings of the same programme."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import i0
from torch import Tensor

from revox_lightning.dsp.correlation import lagged_products

_DELAY_REACH, _SINC_REACH = 32, 224
_PREEMPHASIS = 0.95  # music falls with frequency; flattening it sharpens the peak


def delay_samples(dry: Tensor | ArrayLike, wet: Tensor | ArrayLike, max_delay: int = 44_100) -> int:
    """Constant delay of `wet` after `dry`, both `(time,)`, to the nearest sample; negative where wet comes first.

    The largest peak, of either polarity, of the cross-correlation after pre-emphasis, within `max_delay` samples.
    Returns 0 where either is silent. Raises ValueError for signals that are not one-dimensional or are empty.

    >>> noise = np.random.default_rng(0).standard_normal(1000)
    >>> delay_samples(noise[10:], noise[:-10])
    10
    """
    x, y = np.asarray(dry, dtype=np.float64), np.asarray(wet, dtype=np.float64)
    if x.ndim != 1 or y.ndim != 1 or len(x) == 0 or len(y) == 0:
        raise ValueError(f"expected dry and wet as (time,), got {x.shape} and {y.shape}")
    x, y = (np.append(signal[:1], signal[1:] - _PREEMPHASIS * signal[:-1]) for signal in (x, y))
    reach = min(max_delay, max(len(x), len(y)))
    correlation = np.abs(lagged_products(x, y, 0, -reach, reach))
    return int(np.argmax(correlation)) - reach if x.any() and y.any() else 0


class DelaySearch:
    """Cross-correlation of streamed files around zero delay, and the best delay in it, down to fractions of a sample.

    Searches 32 samples to either side; between samples it interpolates with a windowed sinc.
    """

    def __init__(self) -> None:
        self.reach = _DELAY_REACH + _SINC_REACH
        self.cross = np.zeros(2 * self.reach + 1)

    def start_file(self, channels: int) -> None:
        self.estimate, self.target = np.zeros((channels, 2 * self.reach)), np.zeros((channels, self.reach))

    def update(self, y_hat: np.ndarray, y: np.ndarray) -> None:
        """The target waits for `reach` samples, so that the estimate around each of them is known."""
        frames = y.shape[1]
        self.estimate = np.concatenate((self.estimate, y_hat), axis=1)
        self.target = np.concatenate((self.target, y), axis=1)
        for estimate, target in zip(self.estimate, self.target, strict=True):
            self.cross += lagged_products(estimate, target[:frames], self.reach, -self.reach, self.reach)
        self.estimate, self.target = self.estimate[:, frames:], self.target[:, frames:]

    def end_file(self) -> None:
        rest = np.zeros((len(self.target), self.reach))
        self.update(rest, rest)

    def best(self) -> tuple[float, float]:
        """`(delay_samples, correlation)`: the estimate is to be delayed so much, and what the correlation then is."""
        coarse = np.arange(-_DELAY_REACH, _DELAY_REACH + 1 / 8, 1 / 4)
        start = float(coarse[np.argmax(np.abs(self._at(coarse)))])
        fine = minimize_scalar(
            lambda delay: -abs(self._at(delay)[0]),
            bounds=(start - 1 / 4, start + 1 / 4),
            method="bounded",
            options={"xatol": 1e-6},
        )
        both = np.array([start, float(fine.x)])
        correlations = self._at(both)
        best = np.argmax(np.abs(correlations))
        return float(both[best]), float(correlations[best])

    def _at(self, delays_samples: np.ndarray | float) -> np.ndarray:
        """Cross-correlation at any delays `(n,)`, by a Kaiser-windowed sinc."""
        distance = np.arange(-self.reach, self.reach + 1) - np.atleast_1d(delays_samples)[:, None]
        inside = np.sqrt(np.clip(1 - (distance / _SINC_REACH) ** 2, 0, None))
        window = np.where(inside > 0, i0(10 * inside) / i0(10.0), 0.0)
        return (np.sinc(distance) * window) @ self.cross
