"""Delay between two recordings of the same programme."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import i0
from torch import Tensor

from revox_lightning.dsp.correlation import lagged_products
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError

_DELAY_REACH, _SINC_REACH = 32, 224
_SEARCH_FFT = 4096
_SEGMENT, _LAGS, _LEAST_OVERLAP = 4096, 64, 512
_LEAST_NOISE = 1e-2  # relative to the signal, at any frequency, in `fractional_delay`
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
        self._block = _SEARCH_FFT - 2 * self.reach  # of the target; the estimate around it fills the transform
        self._products = torch.zeros(_SEARCH_FFT // 2 + 1, dtype=torch.complex128)

    def start_file(self, channels: int) -> None:
        """Each target sample waits for `reach` samples more of the estimate; zeros lie before the file."""
        self._estimate = torch.zeros(channels, 2 * self.reach, dtype=torch.float64)
        self._target = torch.zeros(channels, self.reach, dtype=torch.float64)

    def update(self, y_hat: Tensor | np.ndarray, y: Tensor | np.ndarray) -> None:
        """Take the next samples, `(channels, time)` each."""
        estimate = torch.cat((self._estimate, torch.as_tensor(y_hat)), dim=1)
        target = torch.cat((self._target, torch.as_tensor(y)), dim=1)
        used = (estimate.shape[1] - 2 * self.reach) // self._block * self._block
        if used:
            around = estimate[:, : used + 2 * self.reach].unfold(1, _SEARCH_FFT, self._block)
            blocks = torch.fft.rfft(target[:, :used].unflatten(1, (-1, self._block)), _SEARCH_FFT)
            self._products += torch.fft.rfft(around).mul_(blocks.conj()).sum(dim=(0, 1))
        self._estimate, self._target = estimate[:, used:], target[:, used:]

    def end_file(self) -> None:
        rest = torch.zeros(len(self._target), self.reach + self._block - 1, dtype=torch.float64)
        self.update(rest, rest)

    @property
    def cross(self) -> np.ndarray:
        """Cross-correlation of all that has ended, `(2 reach + 1,)`, zero delay in the middle."""
        return torch.fft.irfft(self._products, _SEARCH_FFT)[: 2 * self.reach + 1].flip(0).numpy()

    def best(self) -> tuple[float, float]:
        """`(delay_samples, correlation)`: the estimate is to be delayed so much, and what the correlation then is."""
        cross, (coarse, kernels) = self.cross, _coarse_delays(self.reach)
        start = float(coarse[np.argmax(np.abs(kernels @ cross))])
        fine = minimize_scalar(
            lambda delay: -abs(_sinc(self.reach, delay) @ cross)[0],
            bounds=(start - 1 / 4, start + 1 / 4),
            method="bounded",
            options={"xatol": 1e-6},
        )
        both = np.array([start, float(fine.x)])
        correlations = _sinc(self.reach, both) @ cross
        best = np.argmax(np.abs(correlations))
        return float(both[best]), float(correlations[best])


@lru_cache(maxsize=1)
def _coarse_delays(reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Delays of quarters of a sample `(n,)`, and what reads a cross-correlation there `(n, 2 reach + 1)`."""
    delays = np.arange(-_DELAY_REACH, _DELAY_REACH + 1 / 8, 1 / 4)
    return delays, _sinc(reach, delays)


def _sinc(reach: int, delays_samples: np.ndarray | float) -> np.ndarray:
    """Kaiser-windowed sinc at any delays `(n,)` that reads a cross-correlation there, `(n, 2 reach + 1)`."""
    distance = np.arange(-reach, reach + 1) - np.atleast_1d(delays_samples)[:, None]
    inside = np.sqrt(np.clip(1 - (distance / _SINC_REACH) ** 2, 0, None))
    return np.sinc(distance) * np.where(inside > 0, i0(10 * inside) / i0(10.0), 0.0)


def peak_of(shape: np.ndarray) -> float:
    """Where the largest peak, of either sign, of a band-limited `shape` (time,) lies, in samples from its first."""
    whole = int(np.argmax(np.abs(shape)))
    fine = whole + np.arange(-1, 1 + 1 / 64, 1 / 32)
    values = np.abs(read_at(shape, fine))
    at = int(np.clip(np.argmax(values), 1, len(fine) - 2))
    left, top, right = values[at - 1 : at + 2]
    return float(fine[at] + (left - right) / (2 * (left - 2 * top + right) - 1e-30) / 32)


def fractional_delay(dry: Tensor | ArrayLike, wet: Tensor | ArrayLike, max_delay: int = 44_100) -> tuple[float, int]:
    """`(delay_samples, polarity)`: constant delay of `wet` after `dry`, both `(time,)`, and +1 or -1.

    The whole samples come from `delay_samples`, within `max_delay`; the rest from the largest peak, of either sign,
    of the cross-correlation with each frequency weighted by its signal-to-noise ratio (Hannan and Thomson,
    Biometrika 60(3), 1973). A filter between the two adds its own delay, none if its response is symmetrical.
    Raises UserError where either is silent or too little of both overlaps, ValueError as `delay_samples` does.

    >>> noise = np.random.default_rng(0).standard_normal(3000)
    >>> fractional_delay(noise[10:], -noise[:-10])
    (10.0, -1)
    """
    x, y = np.asarray(dry, dtype=np.float64), np.asarray(wet, dtype=np.float64)
    whole = delay_samples(x, y, max_delay)
    if not (x.any() and y.any()):
        raise UserError("one of the two recordings is silent, so there is no delay to be read off them")
    delay, value = float(whole), 1.0
    for _ in range(3):
        first, last = max(0, whole), min(len(y), len(x) + whole)
        if last - first < _LEAST_OVERLAP:
            raise UserError(f"only {max(0, last - first)} samples of both recordings overlap: too few for a delay")
        correlation = _clear_correlation(x[first - whole : last - whole], y[first:last])
        peak = peak_of(correlation)
        value = correlation[round(peak)]
        delay = whole + peak - len(correlation) // 2
        if round(delay) == whole:
            break
        whole = round(delay)
    return round(delay, 9) + 0.0, 1 if value > 0 else -1


def _clear_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross-correlation `(129,)` about zero lag of two signals of one length, weighted by signal-to-noise ratio."""
    size = min(_SEGMENT, 1 << (len(x) // 4).bit_length())
    starts = np.arange(0, len(x) - size + 1, size // 2)
    window = np.hanning(size + 1)[:size]
    xx, yy, xy = np.zeros(size // 2 + 1), np.zeros(size // 2 + 1), np.zeros(size // 2 + 1, dtype=np.complex128)
    for start in starts:
        a, b = (np.fft.rfft(window * part[start : start + size]) for part in (x, y))
        xx, yy, xy = xx + np.abs(a) ** 2, yy + np.abs(b) ** 2, xy + b * np.conj(a)
    coherence = np.abs(xy) ** 2 / (xx * yy + 1e-30)
    clear = np.clip(coherence - 2 / len(starts), 0, None)  # what chance gives to so few segments is taken off
    weight = clear / (1 - clear + _LEAST_NOISE) if clear.any() else np.ones(len(clear))
    weight = weight * np.clip((0.47 - np.fft.rfftfreq(size)) / 0.04, 0, 1)  # near the top no reading is exact
    correlation = np.fft.irfft(weight * xy / (np.abs(xy) + 1e-30), size)
    return np.roll(correlation, _LAGS)[: 2 * _LAGS + 1]
