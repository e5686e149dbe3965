"""What a digital model adds that is not harmonic."""

from math import gcd

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked, decibels

_HIDDEN_FROM = 10  # aliases of fewer than about so many times rate / tone must not fall onto harmonics


def aliasing_db(x: np.ndarray, fundamental_hz: float, sample_rate_hz: float) -> float:
    """Energy of `x` (time,) away from DC and from the harmonics of its tone, in dB re the fundamental.

    `x` is the steady answer of a deterministic model to a tone; the tone has a whole number of periods in `x`, so
    that every harmonic is one line. Nothing there reads -400 dB. Raises UserError where the number of periods is not
    whole, or so chosen that aliases would fall onto harmonics, and where `x` is silent or not finite.
    """
    x = checked(x, "the answer of the model", sample_rate_hz)
    periods = fundamental_hz * x.size / sample_rate_hz
    whole = round(periods)
    if abs(periods - whole) > 1e-6 * max(periods, 1) or not 0 < whole < x.size / 2:
        raise UserError(
            f"{fundamental_hz:g} Hz has {periods:g} periods in {x.size} samples; take a whole number of them, such as "
            f"a tone of {coherent_tone_hz(fundamental_hz, x.size, sample_rate_hz):.9g} Hz"
        )
    if whole < _HIDDEN_FROM * gcd(whole, x.size):
        raise UserError(
            f"{whole} periods in {x.size} samples let aliases fall onto harmonics; take a tone of "
            f"{coherent_tone_hz(fundamental_hz, x.size, sample_rate_hz):.9g} Hz, or more samples"
        )
    power = np.abs(np.fft.rfft(x)) ** 2
    if power.size * 2 - 2 == x.size:
        power[-1] /= 2  # the line at half the rate has no twin at negative frequency
    fundamental = power[whole]
    if fundamental <= 1e-24 * power.max():
        raise UserError(f"the answer of the model holds no tone at {fundamental_hz:g} Hz; check what it was fed")
    power[0::whole] = 0.0
    return float(decibels(np.sqrt(power.sum() / fundamental)))


def coherent_tone_hz(near_hz: float, samples: int, sample_rate_hz: float) -> float:
    """The frequency nearest to `near_hz` that `aliasing_db` can be asked about with so many samples.

    >>> coherent_tone_hz(1000.0, 48_000, 48_000)
    1001.0
    """
    if samples < 64 or not 0 < near_hz < sample_rate_hz / 2:
        raise UserError(f"{samples} samples at {sample_rate_hz:g} Hz hold no tone of {near_hz:g} Hz; give more")
    near = near_hz * samples / sample_rate_hz
    candidates = range(max(_HIDDEN_FROM, round(near) - 1000), min(samples // 2, round(near) + 1000))
    fits = [k for k in candidates if gcd(k, samples) == 1]
    if not fits:
        raise UserError(f"{samples} samples at {sample_rate_hz:g} Hz are too few for {near_hz:g} Hz; give more")
    return min(fits, key=lambda k: abs(k - near)) * sample_rate_hz / samples
