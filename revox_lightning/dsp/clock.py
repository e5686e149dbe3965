"""Two converters' clocks: how much longer a recording is than what was played."""

from dataclasses import dataclass

import numpy as np

from revox_lightning.dsp.tracking import CONFIDENCE_THRESHOLD, track
from revox_lightning.dsp.trajectory import Trajectory, standard_error_of
from revox_lightning.errors import UserError

_LEAST_ERROR = 0.02  # samples
_GROUPS = 40  # parts of the recording, each with one mean delay


@dataclass(frozen=True)
class ClockDrift:
    """`delay(n) = delay_samples + 1e-6 * ppm * n` at wet sample n: positive where the wet file comes out longer.

    `ppm_error` is the standard error; `wander_samples` the rms distance of the local delays from the straight line,
    large where a transport, not a clock, moves the delay.
    """

    ppm: float
    delay_samples: float
    ppm_error: float
    wander_samples: float


def clock_drift(
    dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, *, max_delay_samples: int | None = None
) -> ClockDrift:
    """Drift between the clocks that played `dry` (time,) and recorded `wet` (time,), over the whole of both.

    `max_delay_samples` is that of `tracking.track`, as are the errors raised. Who has a trajectory already takes
    `drift_of`, which is all that is left to do.
    """
    return drift_of(track(dry, wet, sample_rate_hz, max_delay_samples=max_delay_samples))


def drift_of(trajectory: Trajectory) -> ClockDrift:
    """The straight line through a trajectory, where it is sure of itself.

    Raises UserError where it is so nowhere.

    >>> n = np.arange(0.0, 1e6, 1000)
    >>> round(drift_of(Trajectory(n, 500 + 37e-6 * n, np.ones(1000))).ppm, 6)
    37.0
    """
    sure = trajectory.confidence > CONFIDENCE_THRESHOLD
    if sure.sum() < 3:
        raise UserError("the delay between the two recordings is known nowhere well enough to tell their clocks apart")
    times, delays = trajectory.times_samples[sure], trajectory.delay_samples[sure]
    claimed = standard_error_of(trajectory.confidence[sure])
    slope, offset, size = 0.0, float(np.median(delays)), np.inf
    for _ in range(5):  # what lies far off, such as a passage followed wrongly, counts for less
        rest = np.abs(delays - slope * times - offset)
        weights = 1 / np.maximum(np.hypot(claimed, _LEAST_ERROR), rest / size)
        slope, offset = np.polyfit(times, delays, 1, w=weights)
        size = 3 * float(np.median(np.abs(delays - slope * times - offset)) / _LEAST_ERROR + 1)
    rest = delays - slope * times - offset
    groups = [part for part in np.array_split(np.arange(len(times)), _GROUPS) if len(part)]
    middles, means = (np.array([values[part].mean() for part in groups]) for values in (times, rest))
    spread = np.sqrt(np.sum(means**2) / max(len(groups) - 2, 1))
    error = spread / np.sqrt(np.sum((middles - middles.mean()) ** 2) + 1e-30)
    return ClockDrift(float(1e6 * slope), float(offset), float(1e6 * error), float(np.sqrt(np.mean(rest**2))))
