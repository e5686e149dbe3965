"""One stretch of a recording and where each sample of it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from revox_lightning.capture.findings import Finding, fatal
from revox_lightning.dsp import pulses, tracking
from revox_lightning.dsp.alignment import fractional_delay
from revox_lightning.dsp.interpolation import HALF_WIDTH, read_at
from revox_lightning.dsp.trajectory import Trajectory
from revox_lightning.errors import UserError

MARGIN_SECONDS = 0.25
_BLOCK = 1 << 20


def read(recorded: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`recorded` (time,) at `positions` (n,) that lie close together; float64, silence beyond the ends."""
    if not len(positions):
        return np.zeros(0)
    first = max(int(positions.min()) - HALF_WIDTH - 1, 0)
    last = min(int(positions.max()) + HALF_WIDTH + 2, len(recorded))
    return read_at(recorded[first : max(last, first)], positions - first)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A section `dry` (channels, time) that came back along a straight line and a wander around it.

    The straightened recording `s[m] = recorded(first + ratio * (m - margin))` obeys `s[m] = dry(m - margin -
    wander(m))`. `tape_start` is the section's first sample on the tape; `channels` are those that hold programme.
    """

    name: str
    kind: str
    dry: np.ndarray
    tape_start: int
    channels: tuple[int, ...]
    first: float
    ratio: float
    margin: int
    wander: Trajectory
    method: str
    pulses_late_samples: float | None = None  # how much later the pulse channel is than the programme

    @property
    def samples(self) -> int:
        return self.dry.shape[1]

    def positions(self, k: np.ndarray) -> np.ndarray:
        """Recorded positions of the section's samples `k` (n,)."""
        aim = np.asarray(k, dtype=np.float64) + self.margin
        delay = self._delay_near(aim)
        m = aim + delay(aim)
        for _ in range(4):  # a contraction: the wander changes by much less than a sample a sample
            m = aim + delay(m)
        return self.first + self.ratio * (m - self.margin)

    def origins(self, recorded: np.ndarray) -> np.ndarray:
        """The section's samples (n,), fractions included, that came back at `recorded` positions (n,)."""
        m = (np.asarray(recorded, dtype=np.float64) - self.first) / self.ratio + self.margin
        return m - self._delay_near(m)(m) - self.margin

    def _delay_near(self, m: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The wander as a function near `m`: a spline through hours of points is not built for a second of them."""
        times = self.wander.times_samples
        low, high = np.searchsorted(times, (m.min() - 2 * self.margin, m.max() + 2 * self.margin)) if len(m) else (0, 0)
        near = slice(max(int(low) - 8, 0), max(int(high) + 8, 9))
        return Trajectory(times[near], self.wander.delay_samples[near], self.wander.confidence[near]).at

    def confidence(self, recorded: np.ndarray) -> np.ndarray:
        """Confidence at `recorded` positions (n,)."""
        return self.wander.confidence_at((recorded - self.first) / self.ratio + self.margin)

    def demodulated(self, recorded: np.ndarray, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The section's samples `start` to `stop` of a recorded channel (time,), moved back onto the tape's time."""
        k = np.arange(start, self.samples if stop is None else stop)
        return read(recorded, self.positions(k))


def straightened(recorded: np.ndarray, first: float, ratio: float, samples: int, margin: int) -> np.ndarray:
    """`recorded` (time,) along a straight line, `margin` samples before and after the section included."""
    out = np.empty(samples + 2 * margin)
    for start in range(0, len(out), _BLOCK):
        m = np.arange(start, min(start + _BLOCK, len(out)))
        out[m] = read(recorded, first + ratio * (m - margin))
    return out


def follow(
    name: str, kind: str, dry: np.ndarray, recorded: np.ndarray, sample_rate_hz: float, *, tape_start: int,
    first: float, ratio: float, pulse_channel: int | None, pulses_hz: float, resolve: bool = False,
) -> Stretch:  # fmt: skip
    """Finds the wander of a section: by its pulses where it has them, else by its programme.

    `dry` and `recorded` are `(channels, time)`; `first` and `ratio` guess the line. `resolve` looks for the number of
    the first pulse, too. Raises UserError where nothing of the section can be found.
    """
    margin = round(MARGIN_SECONDS * sample_rate_hz)

    def both(channel: int) -> tuple[np.ndarray, np.ndarray]:
        padded = np.pad(dry[channel].astype(np.float64), margin)
        return padded, straightened(recorded[channel], first, ratio, dry.shape[1], margin)

    programme = tuple(c for c in range(len(dry)) if c != pulse_channel)
    if pulse_channel is None:
        found = [_tracked(*both(channel), sample_rate_hz, margin) for channel in programme]
        wander = _joined(found)
        return _on_programme(
            Stretch(name, kind, dry, tape_start, programme, first, ratio, margin, wander, "tracking"),
            recorded,
            sample_rate_hz,
        )
    wander = pulses.pulse_trajectory(*both(pulse_channel), sample_rate_hz, pulses_hz, None if resolve else 0.0)
    if resolve:
        wander = _numbered(wander, *both(programme[0]), sample_rate_hz, pulses_hz, margin)
    stretch = Stretch(name, kind, dry, tape_start, programme, first, ratio, margin, wander, "pulses")
    return _on_programme(stretch, recorded, sample_rate_hz)


def _tracked(dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, margin: int) -> Trajectory:
    return tracking.track(dry, wet, sample_rate_hz, max_delay_samples=margin)


def _numbered(
    wander: Trajectory, dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, pulses_hz: float, reach: int
) -> Trajectory:
    """`pulses.resolve_period`, asked of the loudest half minute: one answer holds for the whole."""
    start, stop = loudest(dry, round(30 * sample_rate_hz))
    near = (wander.times_samples >= start) & (wander.times_samples < stop)
    if near.sum() < 2:
        raise UserError("no pulses stand beside its loudest half minute")
    times = wander.times_samples[near] - start
    part = Trajectory(times, wander.delay_samples[near], wander.confidence[near])
    solved = pulses.resolve_period(part, dry[start:stop], wet[start:stop], sample_rate_hz, pulses_hz, reach)
    return wander.shifted(float(solved.delay_samples[0] - part.delay_samples[0]))


def _joined(found: list[Trajectory]) -> Trajectory:
    """One transport moved all channels: their mean, by confidence."""
    if len(found) == 1:
        return found[0]
    times = found[0].times_samples
    delays = np.stack([one.at(times) for one in found])
    trust = np.stack([one.confidence_at(times) for one in found])
    # What stands between the channels all the time is azimuth; the mean must not jump where the trust does.
    apart = np.average(delays, axis=1, weights=np.maximum(trust.mean(0), 1e-3))
    weights = np.maximum(trust, 1e-3)
    mean = np.average(delays - apart[:, None], axis=0, weights=weights) + apart.mean()
    return Trajectory(times, mean, trust.max(0))


def _on_programme(stretch: Stretch, recorded: np.ndarray, sample_rate_hz: float) -> Stretch:
    """Moves a trajectory by the constant the programme differs by: for pulses, azimuth and what pulses look like."""
    late = []
    for channel in stretch.channels:
        start, stop = loudest(stretch.dry[channel], round(20 * sample_rate_hz))
        dry = stretch.dry[channel, start:stop].astype(np.float64)
        wet = stretch.demodulated(recorded[channel], start, stop)
        late.append(fractional_delay(dry, wet, round(0.002 * sample_rate_hz))[0])
    mean = float(np.mean(late))
    pulses_late = -mean if stretch.method == "pulses" else None
    return dataclasses.replace(stretch, wander=stretch.wander.shifted(mean), pulses_late_samples=pulses_late)


def loudest(x: np.ndarray, samples: int) -> tuple[int, int]:
    """Where the loudest `samples` of `x` (time,) begin and end."""
    if len(x) <= samples:
        return 0, len(x)
    hop = max(samples // 4, 1)
    starts = range(0, len(x) - samples + 1, hop)
    best = max(starts, key=lambda i: float(np.sum(np.square(x[i : i + samples], dtype=np.float64))))
    return best, best + samples


def lost(name: str, error: UserError) -> Finding:
    """A section that cannot be found."""
    return fatal("lost_section", f"section {name} of the tape cannot be found in the recording ({error}).")
