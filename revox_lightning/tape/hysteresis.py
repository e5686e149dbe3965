"""Jiles-Atherton hysteresis: how the magnetisation left on a tape follows the field of the record head.

The differential equation is that of Jiles and Atherton (1986); its use for tape, the derivative of the field by a
filter with a pole inside the unit circle, and the solvers follow Chowdhury, "Real-time physical modelling for analog
tape machines", DAFx-19, section 3.
"""

import math

import numpy as np
from numba import njit

from revox_lightning.errors import UserError

COUPLING = 1.6e-3  # mean field parameter alpha
COERCIVITY = 0.47875  # k, in units of the normalised field
INPUT_LIMIT = {"rk2": 8.0, "rk4": 10.0, "nr4": 12.5, "nr8": 12.5}  # beyond it a solver may lose the loop
SOLVERS = tuple(INPUT_LIMIT)
_NEWTON_STEPS = {"rk2": 0, "rk4": 0, "nr4": 4, "nr8": 8}
# error_model: a division by zero gives inf, which the loops catch, in place of an exception and a test per division.
_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def _langevin(q: float) -> tuple[float, float, float]:
    """coth(q) - 1/q and its first two derivatives; a series near zero, where the closed form cancels."""
    if abs(q) < 0.35:
        s = q * q
        value = q * (1 / 3 + s * (-1 / 45 + s * (2 / 945 + s * (-1 / 4725 + s * (2 / 93555 - s * 2.1644e-6)))))
        first = 1 / 3 + s * (-1 / 15 + s * (2 / 189 + s * (-1 / 675 + s * (2 / 10395 - s * 2.38084e-5))))
        second = q * (-2 / 15 + s * (8 / 189 + s * (-6 / 675 + s * (16 / 10395 - s * 2.38084e-4))))
        return value, first, second
    e = math.exp(-2.0 * abs(q))
    coth = math.copysign((1.0 + e) / (1.0 - e), q)
    inverse = 1.0 / q
    return coth - inverse, inverse * inverse - coth * coth + 1, 2 * coth * (coth * coth - 1) - 2 * inverse**3


@_compiled
def _slope(m: float, h: float, dh: float, ms: float, a: float, c: float) -> float:
    """dM/dt (DAFx-19, equation 4)."""
    value, first, _ = _langevin((h + COUPLING * m) / a)
    gap = ms * value - m
    delta = 1.0 if dh >= 0.0 else -1.0
    reversible = (c * ms / a) * first
    rest = 1 - COUPLING * reversible
    if delta * gap > 0.0:
        pinning = (1 - c) * delta * COERCIVITY - COUPLING * gap
        return dh * ((1 - c) * gap + reversible * pinning) / (pinning * rest)
    return dh * reversible / rest


@_compiled
def _slope_and_derivative(m: float, h: float, dh: float, ms: float, a: float, c: float) -> tuple[float, float]:
    """dM/dt and its derivative by M, which Newton's method divides by."""
    value, first, second = _langevin((h + COUPLING * m) / a)
    gap = ms * value - m
    dgap = ms * first * COUPLING / a - 1
    delta = 1.0 if dh >= 0.0 else -1.0
    irreversible = dirreversible = 0.0
    if delta * gap > 0.0:
        pinning = (1 - c) * delta * COERCIVITY
        irreversible = (1 - c) * gap / (pinning - COUPLING * gap)
        dirreversible = (1 - c) * dgap * pinning / (pinning - COUPLING * gap) ** 2
    reversible = c * ms / a * first
    dreversible = c * ms / a * second * COUPLING / a
    total, rest = irreversible + reversible, 1 - COUPLING * reversible
    slope = dh * total / rest
    return slope, dh * ((dirreversible + dreversible) / rest + total * COUPLING * dreversible / rest**2)


@_compiled
def _runge_kutta(x: np.ndarray, period: float, ms: float, a: float, c: float, limit: float, fourth: bool) -> np.ndarray:
    out = np.empty_like(x)
    m = h1 = dh1 = 0.0
    for n in range(x.size):
        h = min(max(x[n], -limit), limit)
        dh = 1.75 / period * (h - h1) - 0.75 * dh1
        h_mid, dh_mid = 0.5 * (h + h1), 0.5 * (dh + dh1)
        k1 = period * _slope(m, h1, dh1, ms, a, c)
        k2 = period * _slope(m + 0.5 * k1, h_mid, dh_mid, ms, a, c)
        if fourth:
            k3 = period * _slope(m + 0.5 * k2, h_mid, dh_mid, ms, a, c)
            k4 = period * _slope(m + k3, h, dh, ms, a, c)
            m += (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0
        else:
            m += k2
        if not abs(m) <= 20.0:  # also true for NaN
            m = dh = 0.0
        out[n] = m
        h1, dh1 = h, dh
    return out


@_compiled
def _newton(x: np.ndarray, period: float, ms: float, a: float, c: float, limit: float, steps: int) -> np.ndarray:
    out = np.empty_like(x)
    m = h1 = dh1 = 0.0
    for n in range(x.size):
        h = min(max(x[n], -limit), limit)
        dh = 1.75 / period * (h - h1) - 0.75 * dh1
        m1, before = m, _slope(m, h1, dh1, ms, a, c)
        for _ in range(steps):
            slope, derivative = _slope_and_derivative(m, h, dh, ms, a, c)
            m -= (m - m1 - period / 1.9 * (slope + before)) / (1 - period / 1.9 * derivative)
        if not abs(m) <= 20.0:  # also true for NaN
            m = dh = 0.0
        out[n] = m
        h1, dh1 = h, dh
    return out


def jiles_atherton(
    x: np.ndarray,
    sample_rate_hz: float,
    *,
    drive: float = 0.5,
    width: float = 0.5,
    saturation: float = 0.5,
    solver: str = "rk4",
) -> np.ndarray:
    """Magnetisation (time,) float64 for the field `x` (time,), without make-up gain, starting demagnetised.

    `sample_rate_hz` is the rate of `x`, which should already be oversampled. `drive`, `width` (of the loop) and
    `saturation` run from 0 to 1. Solvers: midpoint (rk2), Runge-Kutta (rk4), Newton with 4 or 8 steps (nr4, nr8).
    Finite input gives finite output: the field is limited and a diverged state restarts from zero.
    Source: Chowdhury, DAFx-19, section 3; constants as in the ChowTape plug-in (HysteresisProcessing).

    >>> jiles_atherton(np.zeros(5), 96_000).shape
    (5,)
    """
    if solver not in SOLVERS:
        raise UserError(f"unknown hysteresis solver {solver!r}: choose one of {', '.join(SOLVERS)}.")
    for name, value in (("drive", drive), ("width", width), ("saturation", saturation)):
        if not 0.0 <= value <= 1.0:
            raise UserError(f"the tape machine's {name} is {value}: give a number from 0 to 1.")
    x = np.ascontiguousarray(x, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"jiles_atherton takes one channel (time,), not an array of shape {x.shape}")
    ms = 0.5 + 1.5 * (1 - saturation)
    a = ms / (0.01 + 6 * drive)
    c = math.sqrt(1 - width) - 0.01
    limit, period = INPUT_LIMIT[solver], 1.0 / sample_rate_hz
    if _NEWTON_STEPS[solver]:
        return _newton(x, period, ms, a, c, limit, _NEWTON_STEPS[solver])
    return _runge_kutta(x, period, ms, a, c, limit, solver == "rk4")
