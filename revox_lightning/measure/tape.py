"""The measuring tape: all test signals of the data sheet on one recording, and the layout that says where each is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.measure.aliasing import coherent_tone_hz
from revox_lightning.measure.signals import Sweep, tone, two_tones

GUARD_SECONDS = 0.5  # silence around every section: a wander of tens of milliseconds does no harm
HIGHEST_DBFS = -0.5  # of any sine on the tape
SPEED_EDGES_SECONDS = 0.5  # of the speed tone that the demodulator needs beyond what counts
SLOWEST = 0.01  # part of the tape's length that is left at its end for a machine that runs slow
BAND = 0.45  # of the sample rate: the highest frequency on the tape
LEAST_RATE_HZ = 8000
_FADE_SECONDS = 0.01


@dataclass(frozen=True)
class Section:
    """One test signal: samples `start` to `stop` of the tape on `channels`; `kind` says what `parameters` it has.

    Kinds: `tone` (frequency_hz, level_vu), `steps` (frequency_hz, levels_vu, step_samples), `two_tones`
    (frequencies_hz, ratio, level_vu), `sweep` (start_hz, stop_hz, level_vu), `noise` (level_vu, seed), `silence`.
    """

    name: str
    kind: str
    start: int
    stop: int
    channels: tuple[int, ...]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class MeasuringTape:
    """The test signal `(channels, time)` float32 and its sections; 0 VU is a sine of `zero_vu_dbfs`."""

    signal: np.ndarray
    sample_rate_hz: int
    zero_vu_dbfs: float
    sections: tuple[Section, ...]

    def layout(self) -> dict[str, Any]:
        """Everything but the samples, ready for JSON."""
        return {
            "sample_rate_hz": self.sample_rate_hz,
            "zero_vu_dbfs": self.zero_vu_dbfs,
            "channels": self.signal.shape[0],
            "samples": self.signal.shape[1],
            "sections": [dataclasses.asdict(s) | {"channels": list(s.channels)} for s in self.sections],
        }

    @classmethod
    def from_layout(cls, layout: dict[str, Any], signal: np.ndarray) -> MeasuringTape:
        """The tape again, from its layout and its signal (channels, time).

        Raises UserError where the layout lacks something, or a section lies outside of the signal.
        """
        try:
            sections = tuple(_section(entry) for entry in layout["sections"])
            rate_hz, zero_vu_dbfs = int(layout["sample_rate_hz"]), float(layout["zero_vu_dbfs"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the layout of the measuring tape is damaged ({type(error).__name__}: {error}): write the tape again."
            ) from error
        for section in sections:
            inside = 0 <= section.start < section.stop <= signal.shape[1]
            if not inside or any(not 0 <= channel < signal.shape[0] for channel in section.channels):
                raise UserError(
                    f"section {section.name} of the layout (samples {section.start} to {section.stop}, channels "
                    f"{list(section.channels)}) lies outside of the recording of {signal.shape[0]} channel(s) and "
                    f"{signal.shape[1]} samples: the layout belongs to another file."
                )
        return cls(signal, rate_hz, zero_vu_dbfs, sections)


def excerpt(tape: MeasuringTape, names: Iterable[str]) -> MeasuringTape:
    """A shorter tape of some sections, with a guard silence around each."""
    guard, wanted = round(GUARD_SECONDS * tape.sample_rate_hz), set(names)
    parts, sections, start = [np.zeros((len(tape.signal), guard), np.float32)], [], guard
    for section in [s for s in tape.sections if s.name in wanted]:
        sections += shifted([section], start - section.start)
        parts += [tape.signal[:, section.start : section.stop], parts[0]]
        start = sections[-1].stop + guard
    return dataclasses.replace(tape, signal=np.concatenate(parts, axis=1), sections=tuple(sections))


def _section(entry: dict[str, Any]) -> Section:
    return Section(
        str(entry["name"]),
        str(entry["kind"]),
        int(entry["start"]),
        int(entry["stop"]),
        tuple(int(channel) for channel in entry["channels"]),
        dict(entry.get("parameters") or {}),
    )


def shifted(sections: Iterable[Section], samples: int) -> tuple[Section, ...]:
    """The same sections `samples` later, as where the tape stands inside a longer one.

    >>> shifted([Section("silence", "silence", 0, 10, (0,), {})], 5)[0].stop
    15
    """
    return tuple(dataclasses.replace(s, start=s.start + samples, stop=s.stop + samples) for s in sections)


def measuring_tape(
    sample_rate_hz: int, zero_vu_dbfs: float = -18.0, speed_seconds: float = 60.0, channels: int = 2
) -> MeasuringTape:
    """All test signals of the data sheet, with guard silences between them: about 90 s and the speed tone.

    `zero_vu_dbfs` is the level of a sine that reads 0 VU (a full-scale sine is 0 dBFS); frequencies above 0.45 of the
    rate and levels above -0.5 dBFS are left out, and with one channel the stereo sections. Raises UserError for a rate
    under 8 kHz, a 0 VU without 6 dB of room, and a speed tone under 5 s (AES6-2008).

    >>> tape = measuring_tape(16_000, speed_seconds=5, channels=1)
    >>> tape.signal.shape[0], tape.sections[0].name
    (1, 'alignment')
    """
    if sample_rate_hz < LEAST_RATE_HZ:
        raise UserError(f"sample_rate_hz={sample_rate_hz}: the measuring tape needs {LEAST_RATE_HZ} or more.")
    if not -60 <= zero_vu_dbfs <= HIGHEST_DBFS - 6:
        raise UserError(f"zero_vu_dbfs={zero_vu_dbfs:g}: give -60 to {HIGHEST_DBFS - 6:g}, so that +6 VU fits.")
    if not 5 <= speed_seconds <= 3600:
        raise UserError(f"speed_seconds={speed_seconds:g}: give 5 to 3600; a two-sigma wow and flutter needs 5 s.")
    if channels not in (1, 2):
        raise UserError(f"channels={channels}: the measuring tape has 1 or 2.")
    guard = round(GUARD_SECONDS * sample_rate_hz)
    everywhere = tuple(range(channels))
    parts, sections, start = [np.zeros((channels, guard))], [], guard
    for name, kind, only, seconds, parameters in _plan(sample_rate_hz, zero_vu_dbfs, speed_seconds, channels):
        x = _signal(kind, seconds, parameters, sample_rate_hz, zero_vu_dbfs)
        on = everywhere if only is None else (only,)
        part = np.zeros((channels, len(x) + guard))
        part[list(on), : len(x)] = x
        parts.append(part)
        sections.append(Section(name, kind, start, start + len(x), on, parameters))
        start += len(x) + guard
    parts.append(np.zeros((channels, round(guard + SLOWEST * start))))
    signal = np.concatenate(parts, axis=1).astype(np.float32)
    return MeasuringTape(signal, sample_rate_hz, zero_vu_dbfs, tuple(sections))


_Planned = tuple[str, str, "int | None", float, dict[str, Any]]  # name, kind, the only channel, seconds, parameters


def _plan(rate_hz: int, zero_vu_dbfs: float, speed_seconds: float, channels: int) -> list[_Planned]:
    """What stands on the tape, in order; broad-band sections at both ends show how far a machine drifts."""
    stop_hz = min(20_000.0, BAND * rate_hz)
    plan: list[_Planned] = [("alignment", "tone", None, 2.0, {"frequency_hz": 1000.0, "level_vu": -20.0})]
    for level_vu in (-20.0, -30.0, -10.0, 0.0):  # softest early: the tape's end of a loud sweep is nobody's guard
        sweep = {"start_hz": 20.0, "stop_hz": stop_hz, "level_vu": level_vu}
        plan.append((f"sweep_{level_vu:g}", "sweep", None, 6.0, sweep))
    plan.append(("silence", "silence", None, 6.0, {}))
    for name, hz, seconds, most_vu in (
        ("steps_1k", 1000.0, 0.6, 14),
        ("steps_10k", 10_000.0, 0.5, 20),
        ("steps_16k", 16_000.0, 0.5, 20),
    ):
        levels_vu = _levels_vu(zero_vu_dbfs, most_vu)
        step_samples = round(seconds * rate_hz)
        steps = {"frequency_hz": hz, "levels_vu": levels_vu, "step_samples": step_samples}
        plan.append((name, "steps", None, seconds * len(levels_vu), steps))
    for name, pair, ratio, level_vu in (
        ("intermodulation_smpte", [60.0, 7000.0], 4.0, 0.0),
        ("intermodulation_difference", [10_000.0, 11_000.0], 1.0, -10.0),
    ):
        tones = {"frequencies_hz": pair, "ratio": ratio, "level_vu": level_vu}
        plan.append((name, "two_tones", None, 2.0, tones))
    aliasing_hz = coherent_tone_hz(min(5000.0, stop_hz / 2), aliasing_samples(rate_hz), rate_hz)
    for name, hz, level_vu, seconds in (
        ("loop_100hz_0", 100.0, 0.0, 1.5),
        ("loop_100hz_6", 100.0, 6.0, 1.5),
        ("loop_1k_0", 1000.0, 0.0, 1.0),
        ("loop_1k_6", 1000.0, 6.0, 1.0),
        ("aliasing_0", aliasing_hz, 0.0, 2.0),
        ("aliasing_6", aliasing_hz, 6.0, 2.0),
        ("modulation_noise", 1000.0, 0.0, 5.0),
        ("speed", 3150.0, 0.0, speed_seconds + SPEED_EDGES_SECONDS),
    ):
        plan.append((name, "tone", None, seconds, {"frequency_hz": hz, "level_vu": level_vu}))
    if channels == 2:
        for hz, written, level_vu in ((1000.0, "1k", 0.0), (10_000.0, "10k", -10.0)):
            for channel, side in enumerate(("left", "right")):
                one = {"frequency_hz": hz, "level_vu": level_vu}
                plan.append((f"crosstalk_{written}_{side}", "tone", channel, 1.5, one))
    plan.append(("noise", "noise", None, 4.0, {"level_vu": -20.0, "seed": 0}))
    return [planned for planned in plan if _highest_hz(planned[4]) <= stop_hz]


def _levels_vu(zero_vu_dbfs: float, most_vu: float) -> list[float]:
    """-20 VU and up in steps of 2 dB, as far as the file's full scale allows, and that limit itself."""
    limit = min(most_vu, HIGHEST_DBFS - zero_vu_dbfs)
    levels = [float(level) for level in range(-20, 21, 2) if level <= limit]
    return levels if limit - levels[-1] < 0.1 else [*levels, float(limit)]


def _highest_hz(parameters: dict[str, Any]) -> float:
    return max([parameters.get("frequency_hz", 0.0), *parameters.get("frequencies_hz", ())])


def aliasing_samples(sample_rate_hz: float) -> int:
    """How many samples of an aliasing tone are read: a power of two within its 2 s."""
    return 2 ** math.floor(math.log2(1.5 * sample_rate_hz))


def _signal(kind: str, seconds: float, parameters: dict[str, Any], rate_hz: int, zero_vu_dbfs: float) -> np.ndarray:
    """One section's samples (time,)."""
    if kind == "silence":
        return np.zeros(round(seconds * rate_hz))
    if kind == "steps":
        each = parameters["step_samples"] / rate_hz
        levels = [zero_vu_dbfs + level for level in parameters["levels_vu"]]
        steps = [tone(parameters["frequency_hz"], each, rate_hz, level, _FADE_SECONDS) for level in levels]
        return np.concatenate(steps)
    level_dbfs = zero_vu_dbfs + parameters["level_vu"]
    if kind == "tone":
        return tone(parameters["frequency_hz"], seconds, rate_hz, level_dbfs, _FADE_SECONDS)
    if kind == "two_tones":
        return two_tones(tuple(parameters["frequencies_hz"]), parameters["ratio"], seconds, rate_hz, level_dbfs)
    if kind == "sweep":
        return sweep_of(parameters, seconds, rate_hz, zero_vu_dbfs).signal()
    return _pink_noise(round(seconds * rate_hz), rate_hz, level_dbfs, parameters["seed"])


def sweep_of(parameters: dict[str, Any], seconds: float, rate_hz: float, zero_vu_dbfs: float) -> Sweep:
    """The sweep that a section of that kind holds."""
    level_dbfs = zero_vu_dbfs + parameters["level_vu"]
    return Sweep(parameters["start_hz"], parameters["stop_hz"], seconds, rate_hz, level_dbfs)


def _pink_noise(samples: int, rate_hz: float, level_dbfs: float, seed: int) -> np.ndarray:
    """Equal power in every octave from 30 Hz to 0.45 of the rate; its rms is that of a sine of `level_dbfs`."""
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    white = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    inside = (hz >= 30) & (hz <= min(20_000, BAND * rate_hz))
    noise = np.fft.irfft(white * np.where(inside, 1 / np.sqrt(np.maximum(hz, 1)), 0), samples)
    fade = np.clip(np.minimum(np.arange(samples), np.arange(samples)[::-1]) / (_FADE_SECONDS * rate_hz), 0, 1)
    return 10 ** (level_dbfs / 20) / math.sqrt(2) * noise / np.sqrt(np.mean(noise**2)) * fade
