"""A prior for the delay of a tape transport, and what it makes of scattered measurements.

The delay's rate of change (the speed error) is taken as an Ornstein-Uhlenbeck process: flat below a corner frequency
and falling above it, as the flutter of real transports roughly is. Its strength and corner come from the
measurements by maximum likelihood; the delay from a Kalman filter and the backward pass of Rauch, Tung and Striebel
(AIAA Journal 3(8), 1965), with Student-t weights for stray measurements.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.ndimage import maximum_filter1d
from scipy.optimize import minimize

_FREEDOM = 4.0  # degrees of freedom of the measurement errors
_SCALE_AT_LEAST = 0.25
_OFFSET_SAMPLES = 5.0  # how large constants may be
_IMPOSSIBLE = 40.0  # squared error over its variance


@dataclass(frozen=True)
class TransportPrior:
    """Speed error with standard deviation `speed` (samples of delay per second) and corner `corner_hz`.

    `error_scale` multiplies the variances claimed for the measurements.
    """

    speed: float
    corner_hz: float
    error_scale: float = 1.0


@dataclass(frozen=True)
class Offsets:
    """Constants (instruments,) by which the instruments that measured a delay are off.

    `shares` (n, instruments) of each in each measurement; `normal` (instruments, instruments) and `right`
    (instruments,) the least squares of what they say of each other.
    """

    shares: np.ndarray
    normal: np.ndarray
    right: np.ndarray


@njit(cache=True, nogil=True)
def _steps(times: np.ndarray, speed: float, corner: float) -> np.ndarray:
    """For each step between times (n,): decay, reach, and the process noise dd, dv, vv; (n, 5), the first row 0."""
    out = np.zeros((times.size, 5))
    power = speed * speed
    for k in range(1, times.size):
        step = times[k] - times[k - 1]
        decay = np.exp(-corner * step)
        lost = -np.expm1(-corner * step)
        reach = lost / corner
        out[k, 0], out[k, 1] = decay, reach
        if corner * step < 0.02:  # the exact sum cancels
            out[k, 2] = 2 * power * corner * step**3 / 3
        else:
            out[k, 2] = 2 * power / corner * (step - 2 * reach + lost * (1 + decay) / (2 * corner))
        out[k, 3] = power * lost * reach
        out[k, 4] = power * lost * (1 + decay)
    return out


@njit(cache=True, nogil=True)
def _filter(times, values, variances, speed, corner, states, covariances, innovations):  # type: ignore[no-untyped-def]
    """Forward pass; fills states (n, 2) and covariances (n, 3), filtered; returns the negative log-likelihood.

    `innovations` (n,) get what each measurement adds to the prediction, over its standard deviation.
    """
    steps = _steps(times, speed, corner)
    d, v = 0.0, 0.0
    dd, dv, vv = 1e8, 0.0, speed * speed
    cost = 0.0
    for k in range(times.size):
        decay, reach = steps[k, 0], steps[k, 1]
        if k > 0:
            d, v = d + reach * v, decay * v
            dd, dv, vv = (
                dd + 2 * reach * dv + reach * reach * vv + steps[k, 2],
                decay * (dv + reach * vv) + steps[k, 3],
                decay * decay * vv + steps[k, 4],
            )
        innovations[k] = 0.0
        if np.isfinite(variances[k]):
            spread = dd + variances[k]
            innovation = values[k] - d
            innovations[k] = innovation / np.sqrt(spread)
            cost += 0.5 * (np.log(spread) + innovation * innovation / spread)
            gain_d, gain_v = dd / spread, dv / spread
            d, v = d + gain_d * innovation, v + gain_v * innovation
            dd, dv, vv = dd * variances[k] / spread, dv * variances[k] / spread, vv - gain_v * dv
        states[k, 0], states[k, 1] = d, v
        covariances[k, 0], covariances[k, 1], covariances[k, 2] = dd, dv, vv
    return cost


@njit(cache=True, nogil=True)
def _smooth(times, speed, corner, states, covariances):  # type: ignore[no-untyped-def]
    """Backward pass over the filtered states, in place; returns the variances (n,) of the delay."""
    steps = _steps(times, speed, corner)
    for k in range(times.size - 2, -1, -1):
        decay, reach = steps[k + 1, 0], steps[k + 1, 1]
        d, v = states[k, 0], states[k, 1]
        dd, dv, vv = covariances[k, 0], covariances[k, 1], covariances[k, 2]
        # the prediction of step k + 1, and its covariance with the state of step k
        ahead_dd = dd + 2 * reach * dv + reach * reach * vv + steps[k + 1, 2]
        ahead_dv = decay * (dv + reach * vv) + steps[k + 1, 3]
        ahead_vv = decay * decay * vv + steps[k + 1, 4]
        det = ahead_dd * ahead_vv - ahead_dv * ahead_dv
        c00, c01, c10, c11 = dd + reach * dv, decay * dv, dv + reach * vv, decay * vv
        g00, g01 = (c00 * ahead_vv - c01 * ahead_dv) / det, (c01 * ahead_dd - c00 * ahead_dv) / det
        g10, g11 = (c10 * ahead_vv - c11 * ahead_dv) / det, (c11 * ahead_dd - c10 * ahead_dv) / det
        off_d, off_v = states[k + 1, 0] - d - reach * v, states[k + 1, 1] - decay * v
        states[k, 0], states[k, 1] = d + g00 * off_d + g01 * off_v, v + g10 * off_d + g11 * off_v
        e00, e01, e11 = (
            covariances[k + 1, 0] - ahead_dd, covariances[k + 1, 1] - ahead_dv, covariances[k + 1, 2] - ahead_vv,
        )  # fmt: skip
        covariances[k, 0] = dd + g00 * g00 * e00 + 2 * g00 * g01 * e01 + g01 * g01 * e11
        covariances[k, 1] = dv + g00 * g10 * e00 + (g00 * g11 + g01 * g10) * e01 + g01 * g11 * e11
        covariances[k, 2] = vv + g10 * g10 * e00 + 2 * g10 * g11 * e01 + g11 * g11 * e11
    return covariances[:, 0].copy()


def likeliest_prior(
    times_seconds: np.ndarray, values: np.ndarray, variances: np.ndarray, *, scale_errors: bool
) -> TransportPrior:
    """The prior under which measurements `values` (n,) with error `variances` (n,) are likeliest.

    `values` are samples of delay with their straight line taken out; an infinite variance marks a missing one.
    """
    work = _room(len(times_seconds))

    def cost(parameters: np.ndarray) -> float:
        speed, corner, scale = np.exp(np.clip(parameters, -12, 12))
        scale = max(scale, _SCALE_AT_LEAST) if scale_errors else 1.0
        likelihood = _filter(times_seconds, values, scale * variances, speed, corner, *work)
        # weak opinions: 0.1 % at 44.1 kHz, a corner of a few hertz, errors as claimed; each within a factor of e^2
        opinions = (parameters - np.log([40.0, 2 * np.pi * 4, 1.0])) / 2
        return likelihood + 0.5 * float(opinions @ opinions)

    start = np.log([40.0, 2 * np.pi * 4, 1.0])
    simplex = start + np.concatenate((np.zeros((1, 3)), np.eye(3)))
    settings = {"maxfev": 150, "xatol": 0.03, "fatol": 0.1, "initial_simplex": simplex}
    best = minimize(cost, start, method="Nelder-Mead", options=settings)
    speed, corner, scale = np.exp(np.clip(best.x, -12, 12))
    return TransportPrior(
        float(speed), float(corner / (2 * np.pi)), float(max(scale, _SCALE_AT_LEAST)) if scale_errors else 1.0
    )


def smoothed_delay(
    times_seconds: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    *,
    scale_errors: bool,
    offsets: Offsets | None = None,
) -> tuple[np.ndarray, np.ndarray, TransportPrior]:
    """`(delay (n,), standard error (n,), prior)` of delays measured as `values` (n,) with error `variances` (n,).

    Samples of delay over seconds, which rise; infinite variances mark missing values (at least three are there).
    `scale_errors` lets the likelihood correct the claimed variances by one common factor. Measurements far from
    their neighbours lose weight. With `offsets`, the constants of the instruments that make the delay most continuous
    and agree best with each other are taken out.

    >>> t = np.arange(400) / 100
    >>> values, variances = np.sin(6 * t), np.full(400, 1e-4)
    >>> values[200], variances[100] = 9.0, np.inf  # one wild, one missing
    >>> bool(np.abs(smoothed_delay(t, values, variances, scale_errors=False)[0] - np.sin(6 * t)).max() < 0.02)
    True
    """
    known = np.isfinite(variances)
    line = _line(times_seconds[known], values[known], variances[known])
    given = np.where(known, values - np.polyval(line, times_seconds), 0.0)
    offsets = offsets or Offsets(np.zeros((len(given), 0)), np.zeros((0, 0)), np.zeros(0))
    columns = offsets.shares
    rest, delay, spread, inverse = given, given, given, np.zeros((0, 0))
    weights, prior, claimed = np.ones(len(rest)), TransportPrior(40.0, 4.0), variances
    for turn in range(6):
        claimed = np.where(weights > 0, variances / np.maximum(weights, 1e-9), np.inf)
        if turn in (1, 3, 5):
            prior = likeliest_prior(times_seconds, rest, claimed, scale_errors=scale_errors)
        claimed = prior.error_scale * claimed
        constants, inverse = _constants(times_seconds, given, claimed, prior, offsets)
        rest = given - columns @ constants
        rest += np.average(given - rest, weights=1 / claimed)  # what all have in common is no affair of theirs
        delay, spread = _both_passes(times_seconds, rest, claimed, prior)
        weights = _weights(rest - delay, prior.error_scale * variances, claimed, spread)
    apart = [np.ascontiguousarray(column) for column in columns.T]
    for_constants = [_both_passes(times_seconds, column, claimed, prior)[0] for column in apart]
    if for_constants:  # but for the common constant, which no delay tells from its own
        moved = np.stack(for_constants, axis=1)
        moved -= np.average(moved, axis=0, weights=1 / (spread + 1e-12))
        spread = spread + ((moved @ inverse) * moved).sum(axis=1)
    return delay + np.polyval(line, times_seconds), np.sqrt(np.maximum(spread, 0)), prior


def _room(samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty((samples, 2)), np.empty((samples, 3)), np.empty(samples)


def _both_passes(
    times: np.ndarray, values: np.ndarray, variances: np.ndarray, prior: TransportPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed delay (n,) and its variance (n,)."""
    work = _room(len(times))
    _filter(times, values, variances, prior.speed, 2 * np.pi * prior.corner_hz, *work)
    spread = _smooth(times, prior.speed, 2 * np.pi * prior.corner_hz, *work[:2])
    return work[0][:, 0], spread


def _constants(
    times: np.ndarray,
    values: np.ndarray,
    variances: np.ndarray,
    prior: TransportPrior,
    offsets: Offsets,
) -> tuple[np.ndarray, np.ndarray]:
    """Generalised least squares for the constants (instruments,), and their covariance.

    The innovations of the Kalman filter are the measurements made white.
    """
    work, white = _room(len(times)), []
    for part in (values, *offsets.shares.T):
        _filter(times, np.ascontiguousarray(part), variances, prior.speed, 2 * np.pi * prior.corner_hz, *work)
        white.append(work[2].copy())
    design = np.stack(white[1:], axis=1) if len(white) > 1 else np.zeros((len(times), 0))
    normal = design.T @ design + offsets.normal / prior.error_scale
    inverse = np.linalg.inv(normal + np.eye(len(normal)) / _OFFSET_SAMPLES**2)
    return inverse @ (design.T @ white[0] + offsets.right / prior.error_scale), inverse


def _weights(errors: np.ndarray, variances: np.ndarray, claimed: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Student-t weights (n,) by how far each measurement lies from what the others predict; 0 for the worst.

    What the others predict follows from the smoothed value that includes it: their errors stand in the ratio
    1 - spread / variance.
    """
    known = np.isfinite(variances)
    used = np.isfinite(claimed)
    apart = np.where(used, np.maximum(np.where(used, claimed, 1.0) - spread, 1e-6 * spread), variances + spread)
    surprise = np.where(known, errors**2 / np.where(known, apart, 1.0), 0.0)
    # of neighbours that disagree only the worst goes: it may be what makes the others look wrong
    worst = (surprise > _IMPOSSIBLE) & (surprise >= maximum_filter1d(surprise, 5))
    return np.where(worst, 0.0, np.where(known, (_FREEDOM + 1) / (_FREEDOM + np.minimum(surprise, _IMPOSSIBLE)), 0.0))


def _line(times: np.ndarray, values: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Slope and offset of the straight line through the measurements, strays held down."""
    weights = 1 / np.sqrt(variances + np.median(variances))
    line = np.zeros(2)
    bound = np.ones(len(values))
    for _ in range(5):
        line = np.polyfit(times, values, 1, w=weights * bound)
        off = np.abs(values - np.polyval(line, times))
        bound = 1 / np.sqrt(1 + (off / (3 * np.median(off) + 1e-9)) ** 2)
    return line
