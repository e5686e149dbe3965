"""Preisach hysteresis: a second law of magnetisation, that shares nothing with the differential equation of the first.

The tape is a crowd of elementary switches with a coercivity r and a shift s by their neighbours' field. Switches of
equal r act together as a play operator, so the magnetisation is an integral over plays: Brokate and Sprekels,
"Hysteresis and Phase Transitions", 1996, section 2.4; Visintin, "Differential Models of Hysteresis", 1994,
chapter IV.
"""

import numpy as np
from numba import njit

from revox_lightning.errors import UserError

REACH = 3.5  # standard deviations of the spread of coercivities that are kept
FIELD_LIMIT = 1e6  # saturated to the last digits; keeps squares finite
# Sums may be reordered, so that the switches are worked on several at a time; the field holds no NaN or infinity.
_compiled = njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz", "nnan", "ninf"}
)


@_compiled
def _plays(x: np.ndarray, radius: np.ndarray, weight: np.ndarray, spread: float) -> np.ndarray:
    out = np.empty_like(x)
    play = np.zeros_like(radius)  # demagnetised by a slowly fading alternating field
    spread_squared = spread * spread
    for n in range(x.size):
        h = min(max(x[n], -FIELD_LIMIT), FIELD_LIMIT)
        total = 0.0
        for k in range(radius.size):
            p = min(max(play[k], h - radius[k]), h + radius[k])
            play[k] = p
            total += weight[k] * p / np.sqrt(spread_squared + p * p)
        out[n] = total
    return out


def preisach(
    x: np.ndarray,
    *,
    coercivity: float = 0.5,
    coercivity_spread: float = 0.35,
    interaction: float = 0.25,
    reversible: float = 0.1,
    hysterons: int = 32,
) -> np.ndarray:
    """Magnetisation (time,) float64 for the field `x` (time,), starting demagnetised; saturates at -1 and 1.

    M = sum over r of w(r) g(play_r(x)) with g(s) = s / sqrt(interaction^2 + s^2): a density of switches that is
    nowhere negative. The coercivities r are log-normal, with median `coercivity` and standard deviation
    `coercivity_spread` of the logarithm, at `hysterons` even steps of the logarithm (32 are within -50 dB of the whole
    integral); the share `reversible` of the tape has r = 0 and follows at once. Fields are in the
    units of `jiles_atherton`. The law knows no time: only the field's extremes count.
    Raises UserError for parameters out of range and for a field with NaN or infinities.

    >>> preisach(np.array([0.0, 1e9, 0.0])).round(2).tolist()
    [0.0, 1.0, 0.79]
    """
    x = np.ascontiguousarray(x, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"preisach takes one channel (time,), not an array of shape {x.shape}")
    if not np.isfinite(x).all():
        raise UserError("the field of the Preisach model holds NaN or infinite samples: repair the recording first.")
    _check(coercivity, coercivity_spread, interaction, reversible, hysterons)
    step = np.linspace(-REACH, REACH, hysterons)
    density = np.exp(-0.5 * step**2)
    radius = coercivity * np.exp(coercivity_spread * step)
    weight = (1 - reversible) * density / density.sum()
    return _plays(x, np.append(0.0, radius), np.append(reversible, weight), interaction)


def _check(coercivity: float, spread: float, interaction: float, reversible: float, hysterons: int) -> None:
    for name, value in (("coercivity", coercivity), ("interaction", interaction)):
        if not 1e-3 <= value <= 1e3:
            raise UserError(f"the Preisach model's {name} is {value}: give a number from 0.001 to 1000.")
    for name, value, most in (("coercivity_spread", spread, 2.0), ("reversible", reversible, 1.0)):
        if not 0.0 <= value <= most:
            raise UserError(f"the Preisach model's {name} is {value}: give a number from 0 to {most:g}.")
    if hysterons < 8:
        raise UserError(f"the Preisach model's hysterons are {hysterons}: give a whole number of at least 8.")
