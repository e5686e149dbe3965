"""Where the sections of a measuring tape stand in a recording of it, whose speed is off and wanders."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from revox_lightning.dsp.alignment import delay_samples
from revox_lightning.errors import UserError
from revox_lightning.measure.tape import Section

_STEP_SECONDS = 0.001  # of the envelope
_REACH_SECONDS = 0.45  # a beginning is looked for so far around where the one before it says it should be
_LEAST_STEP = 3.0  # the envelope rises at least by this factor where a section begins
_SHORTEST_SECONDS = 1.0
_LOCATED = ("tone", "noise", "steps", "sweep")


class Places:
    """Maps positions on the tape `dry` to positions in the recording `wet`, both (channels, time).

    The beginnings of tones and noises are found by the envelope, which neither a speed error of some percent nor
    wow disturbs, the sweeps by correlation; between them the delay is interpolated. The recording is to be aligned
    within 0.4 s at its start. Raises UserError where fewer than half of the beginnings are found: another recording;
    where `known` says that it is none (a net that may be silent), they are taken to stand where the tape has them.
    """

    def __init__(
        self,
        sections: Iterable[Section],
        dry: np.ndarray,
        wet: np.ndarray,
        sample_rate_hz: float,
        known: bool = False,
    ) -> None:
        self._step = max(round(_STEP_SECONDS * sample_rate_hz), 1)
        self._reach = round(_REACH_SECONDS * sample_rate_hz / self._step)
        shortest = _SHORTEST_SECONDS * sample_rate_hz
        found: list[tuple[int, float]] = []
        steady = seen = 0
        for section in [s for s in sections if s.stop - s.start >= shortest and s.kind in _LOCATED]:
            channel, expected = section.channels[0], self._expected(found, section.start)
            if section.kind == "sweep":
                if section.stop + expected <= wet.shape[1]:
                    found.append((section.stop, self._sweep(section, dry[channel], wet[channel], expected)))
                continue
            steady += 1
            ideal = self._beginning(dry[channel], section.start)
            begins = self._beginning(wet[channel], section.start + expected)
            if ideal is not None and begins is not None:
                found.append((section.start, begins - ideal))
                seen += 1
        if seen < steady / 2 and known:
            found = []
        elif seen < steady / 2:
            raise UserError(
                f"only {seen} of the {steady} tones of the measuring tape were found in the recording: it is a "
                "recording of something else, of another channel, or was started far too late."
            )
        self.starts = np.array([start for start, _ in found] or [0], dtype=float)
        self.delays = np.array([delay for _, delay in found] or [0], dtype=float)

    def __call__(self, position: float) -> int:
        """The sample of the recording where this sample of the tape came back."""
        return round(position + float(np.interp(position, self.starts, self.delays)))

    def _expected(self, found: list[tuple[int, float]], start: int) -> int:
        """The delay to look around: that of the last beginning, going on as it drifted since the first."""
        if len(found) < 3:
            return round(found[-1][1]) if found else 0
        (first, delay), (last, latest) = found[0], found[-1]
        return round(latest + (latest - delay) / (last - first) * (start - last))

    def _sweep(self, section: Section, dry: np.ndarray, wet: np.ndarray, expected: int) -> float:
        """The delay of a sweep by its correlation, that is at its end, where the high frequencies are."""
        within = self._reach * self._step
        first = max(section.start + expected - within, 0)
        part = wet[first : max(section.stop + expected + within, first + 1)]
        return float(delay_samples(dry[section.start : section.stop], part, 2 * within) - (section.start - first))

    def _beginning(self, x: np.ndarray, near: int) -> float | None:
        """Where the envelope rises to half of what follows; None where nothing begins there."""
        reach = self._reach
        first = near // self._step - reach
        part = x[max(first, 0) * self._step : (first + 3 * reach) * self._step]
        steps = len(part) // self._step
        if first + 2 * reach < 0 or steps < 2 * reach:
            return None
        part = part[: steps * self._step].astype(float)
        envelope = np.sqrt(np.mean((part - np.median(part)).reshape(steps, self._step) ** 2, axis=1))
        window = 2 * reach + min(first, 0)
        plateau, floor = np.median(envelope[window:]), np.percentile(envelope[:window], 10)
        if not plateau > _LEAST_STEP * floor:
            return None
        at = int(np.argmax(envelope >= (plateau + floor) / 2))
        return float((max(first, 0) + at) * self._step)


def coarse_delay(
    sections: Iterable[Section], dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, reach_seconds: float = 20.0
) -> int:
    """How late the recording is at the tape's first sweep, in samples: a sweep survives any tape, and its hiss.

    dry, wet (channels, time). All sweeps together tell which is which (a louder one looks more like the first than
    the first itself); the first alone, within a second, sets the delay. Without sweeps that of the whole programme.
    """
    sweeps = [section for section in sections if section.kind == "sweep"]
    reach = round(reach_seconds * sample_rate_hz)
    if not sweeps:
        return delay_samples(dry[0], wet[0], max_delay=reach)
    channel, late = sweeps[0].channels[0], 0
    for last, within in ((sweeps[-1], reach), (sweeps[0], round(sample_rate_hz))):
        start, stop = sweeps[0].start, last.stop
        first = max(start + late - within, 0)
        part = wet[channel, first : max(stop + late + within, first + 1)]
        late = delay_samples(dry[channel, start:stop], part, max_delay=2 * within + start) - (start - first)
    return late
