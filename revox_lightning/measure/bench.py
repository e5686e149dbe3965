"""A recording of the measuring tape on the bench: cut into its sections, each channel handed to an instrument."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.measure import speed
from revox_lightning.measure.locate import Places
from revox_lightning.measure.tape import Section

TRIM_SECONDS = 0.1  # off both ends of a tone: fades and what is left of the wander


class Bench:
    """The tape and its recording, section by section, and what could not be measured (`missing`: why)."""

    def __init__(
        self,
        sections: Sequence[Section],
        dry: np.ndarray,
        wet: np.ndarray,
        rate_hz: float,
        zero_vu_dbfs: float,
        known: bool = False,
    ) -> None:
        self.sections: dict[str, Section] = {}
        for section in sections:
            self.sections.setdefault(section.name, section)
        self.dry, self.wet, self.rate_hz, self.zero_vu_dbfs = dry, wet, rate_hz, zero_vu_dbfs
        self.place = Places(sections, dry, wet, rate_hz, known)
        self.missing: dict[str, str] = {}
        found = self.each("speed", lambda x: speed.demodulate(x, rate_hz), before=-0.05, after=-0.05)
        self.heard_speed = found[0] if found else None
        self.speed_error, self.wavers_percent = 0.0, 0.0
        if self.heard_speed is not None:
            self.speed_error = speed.speed_error_percent(self.heard_speed) / 100
            self.wavers_percent = 200 * float(np.std(self.heard_speed.deviation))
        if known:
            self.speed_error, self.wavers_percent = 0.0, 0.0  # what a net adds to a tone is no wander

    def read(self, name: str, channel: int, before: float = -TRIM_SECONDS, after: float = -TRIM_SECONDS) -> np.ndarray:
        """One section of the recording (time,), from `before` seconds ahead of it to `after` seconds past it."""
        section = self.sections[name]
        return self.cut(channel, section.start, section.stop, before, after)

    def cut(self, channel: int, start: int, stop: int, before: float, after: float) -> np.ndarray:
        first = self.place(start) - round(before * self.rate_hz)
        return self.wet[channel, max(first, 0) : max(self.place(stop) + round(after * self.rate_hz), 0)]

    def original(self, name: str, channel: int) -> np.ndarray:
        section, trim = self.sections[name], round(TRIM_SECONDS * self.rate_hz)
        return self.dry[channel, section.start + trim : section.stop - trim]

    def attempt(self, what: str, instrument: Callable[[], Any]) -> Any:
        """What the instrument says; None, with its reason in `missing`, where it cannot."""
        try:
            return instrument()
        except UserError as error:
            self.missing[what] = str(error)
            return None

    def each(self, name: str, instrument: Callable[[np.ndarray], Any], **cut: float) -> list[Any] | None:
        """The instrument's answer for each channel of a section; None where the tape has no such section."""
        if name not in self.sections:
            return None
        channels = self.sections[name].channels
        return [self.attempt(name, lambda c=c: instrument(self.read(name, c, **cut))) for c in channels]


def plain(value: Any) -> Any:
    """Arrays as lists, numbers with six digits as Python's own, what is no number as None: ready for JSON."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
