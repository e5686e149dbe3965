"""Slow random processes of a machine: made in the spectrum on a coarse grid, read at any moment by a periodic spline.

A process is held as its half spectrum over one period, longer than the tape; so it can be shaped and integrated
exactly, and the spline through its samples (a sum of cubic B-splines) costs four products at each moment.
"""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from numba import njit
from numpy.fft import irfft, rfftfreq
from scipy.fft import next_fast_len

from revox_lightning.errors import UserError

compiled = njit(cache=True, nogil=True, error_model="numpy")


def period_samples(seconds: float, grid_hz: float) -> int:
    """Even number of grid samples, quick to transform, that lasts at least `seconds`."""
    return 2 * quick_size(int(np.ceil(seconds * grid_hz / 2)) + 2)


def quick_size(least: int) -> int:
    """Number of samples of at least `least` that is quick to transform."""
    return cast(int, next_fast_len(least, real=True))


def bump(frequency_hz: np.ndarray, centre_hz: float, width: float) -> np.ndarray:
    """Bell over the logarithm of the frequency; `width` is its standard deviation in nepers. 0 at 0 Hz."""
    distance = np.log(np.maximum(frequency_hz, 1e-9) / centre_hz) / width
    return np.exp(-0.5 * distance**2)


def band(frequency_hz: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """1 between the corners, falling with 12 dB an octave outside. 0 at 0 Hz."""
    f = np.maximum(frequency_hz, 1e-9)
    return 1 / np.sqrt((1 + (low_hz / f) ** 4) * (1 + (f / high_hz) ** 4))


def noise_spectrum(gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half spectrum (bins,) of Gaussian noise shaped by `gain` (bins,), without mean and of rms 1 over its period.

    >>> x = irfft(noise_spectrum(np.ones(513), np.random.default_rng(0)))
    >>> x.shape, round(float(np.std(x)), 6)
    ((1024,), 1.0)
    """
    used = np.flatnonzero(gain > 1e-9 * gain.max())
    used = used[(used > 0) & (used < gain.size - 1)]
    if not used.size:
        raise ValueError(f"the band holds none of the {gain.size} lines of the spectrum")
    spectrum = np.zeros(gain.size, complex)
    parts = rng.standard_normal((2, used.size))
    spectrum[used] = gain[used] * (parts[0] + 1j * parts[1])
    return unit_rms(spectrum)


def unit_rms(spectrum: np.ndarray) -> np.ndarray:
    """The half spectrum (bins,) scaled to rms 1 over its period; its mean and its Nyquist line are taken as zero."""
    samples = 2 * (spectrum.size - 1)
    power = 2 * np.sum(np.abs(spectrum[1:-1]) ** 2) / samples**2
    return spectrum / np.sqrt(power)


def integrated(spectrum: np.ndarray, grid_hz: float) -> np.ndarray:
    """Half spectrum of the integral over time in seconds, without mean."""
    frequency_hz = rfftfreq(2 * (spectrum.size - 1), 1 / grid_hz)
    out = np.zeros_like(spectrum)
    out[1:] = spectrum[1:] / (2j * np.pi * frequency_hz[1:])
    return out


def spline(spectrum: np.ndarray) -> np.ndarray:
    """Coefficients (period,) of the cubic spline through the samples of a half spectrum, for `read_spline`."""
    turn = 2 * np.pi * rfftfreq(2 * (spectrum.size - 1))
    return irfft(spectrum * 3 / (2 + np.cos(turn)))


@compiled
def read_spline(coefficients: np.ndarray, position: float) -> float:
    """Value of the periodic spline at one position, in samples of its grid."""
    whole = math.floor(position)
    f = position - whole
    n = coefficients.size
    if whole < 1 or whole >= n - 2:
        a, b = coefficients[(whole - 1) % n], coefficients[whole % n]
        c, d = coefficients[(whole + 1) % n], coefficients[(whole + 2) % n]
    else:
        a, b = coefficients[whole - 1], coefficients[whole]
        c, d = coefficients[whole + 1], coefficients[whole + 2]
    g = 1 - f
    return (g * g * g * a + (4 - 3 * f * f * (1 + g)) * b + (4 - 3 * g * g * (1 + f)) * c + f * f * f * d) / 6


@compiled
def read_spline_evenly(coefficients: np.ndarray, start: float, step: float, samples: int) -> np.ndarray:
    """Values (samples,) of the periodic spline at start, start + step, ..., in samples of its grid."""
    out = np.empty(samples)
    for n in range(samples):
        out[n] = read_spline(coefficients, start + step * n)
    return out


def streams(seed: int | Sequence[int], count: int) -> list[np.random.Generator]:
    """Independent generators, the same ones for the same seed."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise UserError unless low <= value <= high; NaN is refused too."""
    if not low <= value <= high:
        raise UserError(f"{name} is {value}: give a number from {low:g} to {high:g}.")


def check_speed(speed_ips: float) -> None:
    """Raise UserError unless the tape moves forward."""
    if not 0 < speed_ips < np.inf:
        raise UserError(f"the tape speed is {speed_ips} ips: give a speed above 0, such as 7.5.")
