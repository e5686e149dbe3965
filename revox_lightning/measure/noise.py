"""Noise of a machine: its level by the weightings in use, its spectrum, and hum."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from scipy.signal import welch

from revox_lightning.dsp.weighting import NOISE_WEIGHTINGS, weighted
from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked, decibels, level_dbfs

DETECTORS = ("rms", "quasi_peak")


@dataclass(frozen=True)
class NoiseSpectrum:
    """`band_hz`, `band_dbfs` (bands,): third octaves, level in each; `frequency_hz`, `density_dbfs` (bins,): per Hz."""

    band_hz: np.ndarray
    band_dbfs: np.ndarray
    frequency_hz: np.ndarray
    density_dbfs: np.ndarray


@dataclass(frozen=True)
class Hum:
    """Lines of the mains: `frequency_hz`, `level_dbfs` and `above_noise_db` (count,) at multiples of `mains_hz`."""

    mains_hz: float
    frequency_hz: np.ndarray
    level_dbfs: np.ndarray
    above_noise_db: np.ndarray


def noise_level_dbfs(
    x: np.ndarray, sample_rate_hz: float, weighting: str = "unweighted", detector: str = "rms"
) -> float:
    """Level of the noise `x` (time,): a full-scale sine at 1 kHz reads 0 by every weighting and detector.

    `weighting`: "unweighted" (20 Hz to 20 kHz), "a" (IEC 61672-1) or "itu_r_468" (ITU-R BS.468-4). `detector`: "rms",
    or "quasi_peak", the mean reading of the meter of ITU-R BS.468-4 once it has risen for a second.
    Raises UserError where `x` is shorter than 0.5 s (quasi-peak: 2 s), silent, not finite, or a name is not listed.
    """
    if weighting not in NOISE_WEIGHTINGS or detector not in DETECTORS:
        known = f"{tuple(NOISE_WEIGHTINGS)} and {DETECTORS}"
        raise UserError(f"noise has no {weighting!r} {detector!r} level; name one of {known}")
    x = checked(x, "the noise", sample_rate_hz, seconds=2.0 if detector == "quasi_peak" else 0.5)
    x = weighted(x, sample_rate_hz, NOISE_WEIGHTINGS[weighting])
    if detector == "rms":
        return level_dbfs(x)
    return float(decibels(np.sqrt(2) * np.mean(quasi_peak(x, sample_rate_hz)[round(sample_rate_hz) :])))


def signal_to_noise_db(
    reference_dbfs: float,
    noise: np.ndarray,
    sample_rate_hz: float,
    weighting: str = "unweighted",
    detector: str = "rms",
) -> float:
    """Distance in dB from a reference level (of a sine, such as 0 VU or the maximum output level) to the noise."""
    return reference_dbfs - noise_level_dbfs(noise, sample_rate_hz, weighting, detector)


def noise_spectrum(x: np.ndarray, sample_rate_hz: float) -> NoiseSpectrum:
    """Spectrum of the noise `x` (time,), 25 Hz to 20 kHz in third octaves (IEC 61260-1, base ten), and its density.

    Bands that do not fit below half the sample rate are left out. Raises UserError where `x` is shorter than 1 s,
    silent or not finite.
    """
    x = checked(x, "the noise", sample_rate_hz, seconds=1.0)
    frequency_hz, density = welch(x, sample_rate_hz, nperseg=round(sample_rate_hz))
    step = frequency_hz[1]
    total = np.append(0.0, np.cumsum(density)) * step
    edges = np.append(frequency_hz - step / 2, frequency_hz[-1] + step / 2)
    band_hz = 1000 * 10 ** (np.arange(-16, 14) / 10)
    band_hz = band_hz[band_hz * 10**0.05 <= sample_rate_hz / 2]
    power = np.interp(band_hz * 10**0.05, edges, total) - np.interp(band_hz / 10**0.05, edges, total)
    return NoiseSpectrum(band_hz, decibels(np.sqrt(2 * power)), frequency_hz, decibels(np.sqrt(2 * density)))


def hum(x: np.ndarray, sample_rate_hz: float, count: int = 10) -> Hum:
    """Lines at multiples of 50 or 60 Hz in `x` (time,), whichever mains is the stronger, and how far they stand out.

    Raises UserError where `x` is shorter than 1 s, silent or not finite.
    """
    x = checked(x, "the noise", sample_rate_hz, seconds=1.0)
    if count < 1:
        raise UserError(f"{count} lines of hum cannot be had; ask for 1 or more")
    window = np.hanning(x.size)
    power = 2 * np.abs(np.fft.rfft(window * x)) ** 2 / (x.size * np.sum(window**2))
    lines = {mains: _lines(power, sample_rate_hz / x.size, mains * np.arange(1, count + 1)) for mains in (50.0, 60.0)}

    def strength(mains: float) -> float:
        """Power of the lines that only this mains has."""
        own = np.arange(1, count + 1) * mains % 300 != 0
        return float(np.sum(lines[mains][0][own]))

    mains = max(lines, key=strength)
    line, noise = lines[mains]
    above = decibels(np.sqrt((line + noise) / np.maximum(noise, 1e-40)))
    return Hum(mains, mains * np.arange(1, count + 1), decibels(np.sqrt(2 * line)), above)


def _lines(power: np.ndarray, step_hz: float, at_hz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power of the lines and of the noise in their place, each (n,): within 1 Hz, as the mains is not exact."""
    frequency_hz = np.arange(power.size) * step_hz
    half_width_hz = max(1.0, 2.5 * step_hz)
    line, noise = np.zeros(at_hz.size), np.zeros(at_hz.size)
    for n, hz in enumerate(at_hz):
        away_hz = np.abs(frequency_hz - hz)
        inside, around = away_hz <= half_width_hz, (away_hz > half_width_hz) & (away_hz < 20)
        if around.any() and inside.any():
            # The median of noise power is ln 2 of its mean, and lines nearby do not move it.
            noise[n] = np.median(power[around]) / np.log(2) * inside.sum()
            line[n] = max(power[inside].sum() - noise[n], 0.0)
    return line, noise


# Found by a search for the recommendation's readings: rise and fall of the first rectifier, then of the second.
_TIMES_SECONDS = (0.0016, 0.404, 0.174, 0.449)


def quasi_peak(x: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Reading against time (time,) of the quasi-peak meter of ITU-R BS.468-4, as an rms: a steady sine reads its rms.

    Two peak rectifiers in a row. Bursts of 5 kHz of 1, 2, 5, 10, 20, 50, 100 and 200 ms read 17.0, 26.6, 40, 48, 52,
    59, 68 and 80 % of the steady tone, within the limits of the recommendation's table 2; bursts of 5 ms, 2, 10 and
    100 times a second, 48, 77 and 97 % (table 3).
    """
    x = checked(x, "the noise", sample_rate_hz, silent=True)
    return _meter(x, *_meter_steps(sample_rate_hz)) / _meter_of_a_sine(sample_rate_hz)


def _meter_steps(sample_rate_hz: float) -> tuple[float, ...]:
    return tuple(-np.expm1(-1 / (seconds * sample_rate_hz)) for seconds in _TIMES_SECONDS)


@lru_cache
def _meter_of_a_sine(sample_rate_hz: float) -> float:
    """Uncalibrated reading of a sine of 1 kHz and rms 1."""
    sine = np.sqrt(2) * np.sin(2 * np.pi * 1000 * np.arange(round(3 * sample_rate_hz)) / sample_rate_hz)
    return float(_meter(sine, *_meter_steps(sample_rate_hz))[-1])


@njit(cache=True, nogil=True)
def _meter(x: np.ndarray, rise: float, fall: float, slow_rise: float, slow_fall: float) -> np.ndarray:
    out = np.empty(x.size)
    fast = slow = 0.0
    for n in range(x.size):
        height = abs(x[n])
        fast += rise * (height - fast) if height > fast else -fall * fast
        slow += slow_rise * (fast - slow) if fast > slow else -slow_fall * slow
        out[n] = slow
    return out
