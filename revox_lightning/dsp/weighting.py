"""Weighting curves of the standards, as gains at frequencies: how annoying a noise or a speed error is."""

from collections.abc import Callable

import numpy as np
from scipy.interpolate import PchipInterpolator

# Frequency in Hz and gain in dB of the weighting of wow and flutter: IEC 60386, DIN 45507 and AES6-2008 share it.
_FLUTTER = np.array([
    (0.1, -48.0), (0.2, -30.6), (0.315, -19.7), (0.4, -15.0), (0.63, -8.4), (0.8, -6.0), (1.0, -4.2), (1.6, -1.8),
    (2.0, -0.9), (4.0, 0.0), (6.3, -0.9), (10.0, -2.1), (20.0, -5.9), (40.0, -10.4), (63.0, -14.2), (100.0, -17.3),
    (200.0, -23.0),
])  # fmt: skip
_FLUTTER_DB = PchipInterpolator(np.log(_FLUTTER[:, 0]), _FLUTTER[:, 1], extrapolate=False)


def a_weighting(frequency_hz: np.ndarray) -> np.ndarray:
    """Gain of the A curve, 1 at 1 kHz (IEC 61672-1, annex E).

    >>> (20 * np.log10(a_weighting(np.array([100.0, 1000.0, 10_000.0])))).round(1).tolist()
    [-19.1, 0.0, -2.5]
    """

    def unscaled(f: np.ndarray) -> np.ndarray:
        low = np.sqrt((f**2 + 107.65265**2) * (f**2 + 737.86223**2))
        return 12194.217**2 * f**4 / ((f**2 + 20.598997**2) * low * (f**2 + 12194.217**2))

    return unscaled(np.asarray(frequency_hz, dtype=np.float64)) / unscaled(np.array(1000.0))


def itu_r_468(frequency_hz: np.ndarray) -> np.ndarray:
    """Gain of the noise weighting of ITU-R BS.468-4, 1 at 1 kHz; +12.2 dB at 6.3 kHz.

    The passive network of the recommendation's annex as two polynomials in the frequency.

    >>> (20 * np.log10(itu_r_468(np.array([100.0, 1000.0, 6300.0, 10_000.0])))).round(1).tolist()
    [-19.8, 0.0, 12.2, 8.1]
    """
    f = np.asarray(frequency_hz, dtype=np.float64)
    even = -4.737338981378384e-24 * f**6 + 2.043828333606125e-15 * f**4 - 1.363894795463638e-7 * f**2 + 1
    odd = 1.306612257412824e-19 * f**5 - 2.118150887518656e-11 * f**3 + 5.559488023498642e-4 * f
    return 10 ** (18.246265068039158 / 20) * 1.246332637532143e-4 * f / np.sqrt(even**2 + odd**2)


def flat(frequency_hz: np.ndarray) -> np.ndarray:
    """No weighting: 1 from 20 Hz to 20 kHz and 0 outside, the band of an unweighted noise figure."""
    f = np.asarray(frequency_hz, dtype=np.float64)
    return ((f >= 20) & (f <= 20_000)).astype(np.float64)


NOISE_WEIGHTINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "unweighted": flat,
    "a": a_weighting,
    "itu_r_468": itu_r_468,
}


def flutter_weighting(frequency_hz: np.ndarray) -> np.ndarray:
    """Gain of the wow and flutter weighting, 1 at 4 Hz, 0 below 0.1 Hz and above 200 Hz (AES6-2008; IEC 60386, table).

    >>> (20 * np.log10(flutter_weighting(np.array([0.8, 4.0, 20.0])))).round(2).tolist()
    [-6.0, 0.0, -5.9]
    """
    f = np.abs(np.asarray(frequency_hz, dtype=np.float64))
    level_db = _FLUTTER_DB(np.log(np.maximum(f, 1e-9)))
    return np.where(np.isnan(level_db), 0.0, 10 ** (np.nan_to_num(level_db) / 20))


def weighted(x: np.ndarray, sample_rate_hz: float, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`x` (..., time) through a zero-phase filter of that gain, silence assumed around it; float64, same shape."""
    samples = x.shape[-1]
    size = 2 * max(samples, 1)
    spectrum = np.fft.rfft(x, size, axis=-1)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(size, 1 / sample_rate_hz)), size, axis=-1)[..., :samples]
