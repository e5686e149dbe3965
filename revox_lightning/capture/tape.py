"""The test tape: everything a machine has to play once, one after another, and where each thing stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from revox_lightning.capture.layout import Layout
from revox_lightning.capture.markers import marker
from revox_lightning.capture.programme import Piece, excerpt
from revox_lightning.dsp.pulses import pulse_train
from revox_lightning.errors import UserError
from revox_lightning.measure.signals import tone
from revox_lightning.measure.tape import GUARD_SECONDS, Section, measuring_tape, shifted, sweep_of

PULSES_HZ = 100.0
_MARKER_VU, _PULSE_PEAK_VU = -6.0, 10.0
_LEAD_SECONDS = 1.0  # silence before the first marker and after the last
_PULSES_AROUND_SECONDS = 0.3  # pulses begin before the programme and outlast it
_BURST_EVERY_SECONDS, _BURST_SECONDS, _PAUSE_SECONDS = 10.0, 0.25, 0.03
_FADE_SECONDS = 0.005
PLAYS = 3


class _Reel:
    """Grows a tape `(channels, time)` section by section."""

    def __init__(self, sample_rate_hz: int, channels: int, zero_vu_dbfs: float) -> None:
        self.rate, self.channels, self.zero_vu_dbfs = sample_rate_hz, channels, zero_vu_dbfs
        self.parts: list[np.ndarray] = []
        self.sections: list[Section] = []
        self.samples = 0

    def silence(self, seconds: float) -> None:
        self._append(np.zeros((self.channels, round(seconds * self.rate)), np.float32))

    def add(self, name: str, kind: str, x: np.ndarray, **parameters: Any) -> None:
        """A section of `x` (channels, time) or, for all channels alike, (time,), and the guard after it."""
        x = np.broadcast_to(x, (self.channels, x.shape[-1]))
        everywhere = tuple(range(self.channels))
        self.sections.append(Section(name, kind, self.samples, self.samples + x.shape[-1], everywhere, parameters))
        self._append(x.astype(np.float32))
        self.silence(GUARD_SECONDS)

    def marker(self) -> None:
        count = sum(section.kind == "marker" for section in self.sections) + 1
        self.add(f"marker_{count}", "marker", marker(self.rate, self.zero_vu_dbfs + _MARKER_VU))

    def measuring(self, speed_seconds: float) -> None:
        tape = measuring_tape(self.rate, self.zero_vu_dbfs, speed_seconds, self.channels)
        self.sections += shifted(tape.sections, self.samples)
        self._append(tape.signal)

    def pulses(self, samples: int) -> np.ndarray:
        peak = min(10 ** ((self.zero_vu_dbfs + _PULSE_PEAK_VU) / 20), 0.9)
        return pulse_train(samples, self.rate, PULSES_HZ, peak)

    def beside_pulses(self, name: str, kind: str, x: np.ndarray, **parameters: Any) -> None:
        """Programme (time,) in the left channel, pulses in the right; or on a mono tape, bursts of them in between."""
        if self.channels == 1:
            mixed, bursts = self._interleaved(x)
            self.add(name, kind, mixed, pulses=None, bursts_samples=bursts, **parameters)
            return
        around = np.zeros(round(_PULSES_AROUND_SECONDS * self.rate))
        left = np.concatenate((around, _faded(x, self.rate), around))
        both = np.stack((left, self.pulses(len(left))))
        self.add(name, kind, both, pulses=1, bursts_samples=[], **parameters)

    def _interleaved(self, x: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
        pause = np.zeros(round(_PAUSE_SECONDS * self.rate))
        burst = self.pulses(round(_BURST_SECONDS * self.rate))
        parts, bursts, at = [], [], 0
        pieces = np.array_split(x, max(round(len(x) / self.rate / _BURST_EVERY_SECONDS), 1))
        for piece in [x[:0], *pieces]:  # a burst at both ends and in between
            for part in (_faded(piece, self.rate), pause, burst, pause):
                if part is burst:
                    bursts.append([at, at + len(burst)])
                parts.append(part)
                at += len(part)
        return np.concatenate(parts), bursts

    def _append(self, x: np.ndarray) -> None:
        self.parts.append(x)
        self.samples += x.shape[1]


def _faded(x: np.ndarray, rate: int) -> np.ndarray:
    """Soft ends, so that a cut is not a click."""
    ramp = np.clip(np.minimum(np.arange(len(x)), np.arange(len(x))[::-1]) / (_FADE_SECONDS * rate), 0, 1)
    return x * ramp


def compose(
    pieces: list[Piece], sample_rate_hz: int, *, channels: int = 2, zero_vu_dbfs: float = -18.0,
    speed_seconds: float | None = 60.0, level_seconds: float = 10.0, leak_seconds: float = 5.0,
    floor_seconds: float = 20.0,
) -> tuple[Layout, np.ndarray, np.ndarray]:  # fmt: skip
    """The layout, the tape and the loopback file, both `(channels, time)` float32; 0 VU is a sine of `zero_vu_dbfs`.

    `speed_seconds` is the length of the 3,150 Hz tone; None leaves the measuring signals out. The same arguments give
    the same samples. Raises UserError as `measuring_tape` does, and without any piece.
    """
    if not pieces or any(len(piece.signal) != channels for piece in pieces):
        raise UserError(f"a test tape of {channels} channel(s) needs programme of as many channels.")
    reel = _Reel(sample_rate_hz, channels, zero_vu_dbfs)
    reel.silence(_LEAD_SECONDS)
    reel.marker()
    for name, hz, level_vu in (("level_1k", 1000.0, 0.0), ("level_10k", 10_000.0, -20.0)):
        if hz < 0.45 * sample_rate_hz:
            x = tone(hz, level_seconds, sample_rate_hz, zero_vu_dbfs + level_vu)
            reel.add(name, "level", x, frequency_hz=hz, level_vu=level_vu)
    reel.marker()
    if speed_seconds is not None:
        reel.measuring(speed_seconds)
        reel.marker()
    _leak(reel, leak_seconds)
    for piece in pieces:
        reel.marker()
        mono = piece.signal.astype(np.float64).mean(0)
        reel.beside_pulses(piece.name, "programme", mono, source=piece.source, gain_db=piece.gain_db)
    for piece in pieces if channels == 2 else []:
        reel.marker()
        stereo = np.stack([_faded(channel, sample_rate_hz) for channel in piece.signal])
        described = {"source": piece.source, "gain_db": piece.gain_db}
        reel.add(f"{piece.name}_stereo", "programme", stereo, pulses=None, bursts_samples=[], **described)
    block = excerpt(pieces, floor_seconds, sample_rate_hz, zero_vu_dbfs).astype(np.float64)
    for play in range(1, PLAYS + 1):
        reel.marker()
        reel.beside_pulses(f"floor_{play}", "floor", block, play=play)
    reel.marker()
    reel.silence(_LEAD_SECONDS)
    loopback = _loopback(sample_rate_hz, channels, zero_vu_dbfs)
    layout = Layout(
        sample_rate_hz, channels, reel.samples, zero_vu_dbfs, PULSES_HZ, tuple(reel.sections),
        loopback.samples, tuple(loopback.sections),
    )  # fmt: skip
    return layout, np.concatenate(reel.parts, axis=1), np.concatenate(loopback.parts, axis=1)


def _leak(reel: _Reel, seconds: float) -> None:
    """Silence in the programme's channel, with and without pulses beside it."""
    samples = round(seconds * reel.rate)
    silent = np.zeros((reel.channels, samples))
    if reel.channels == 2:
        pulses = silent.copy()
        pulses[1] = reel.pulses(samples)
        reel.add("leak_pulses", "leak", pulses, pulses=True)
    reel.add("leak_silence", "leak", silent, pulses=False)


def _loopback(sample_rate_hz: int, channels: int, zero_vu_dbfs: float) -> _Reel:
    """Marker, sweep, marker: what is played through a cable in the machine's place."""
    reel = _Reel(sample_rate_hz, channels, zero_vu_dbfs)
    reel.silence(_LEAD_SECONDS)
    reel.marker()
    parameters = {"start_hz": 10.0, "stop_hz": 0.46 * sample_rate_hz, "level_vu": 0.0}
    reel.add("sweep", "sweep", sweep_of(parameters, 6.0, sample_rate_hz, zero_vu_dbfs).signal(), **parameters)
    reel.marker()
    reel.silence(_LEAD_SECONDS)
    return reel
