"""The sweeps of a measuring tape: response at each level, its limits, group delay, latency, and harmonics."""

from __future__ import annotations

from typing import Any

import numpy as np

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.measure import response
from revox_lightning.measure.bench import Bench
from revox_lightning.measure.tape import Section, sweep_of

GRID_HZ = 20 * 2 ** (np.arange(120) / 12)  # twelve points an octave, 20 Hz to 20 kHz
LIMITS_VU = -20.0  # the level at which the limits of the response are told
STEADY_PERCENT = 0.01  # wow and flutter up to which a sweep tells delays of fractions of a millisecond
_POLARITY_HZ = (30.0, 150.0)
_BEFORE_SECONDS, _AFTER_SECONDS = 0.1, 0.3


def responses(bench: Bench) -> dict[str, Any]:
    """Response at every level re 1 kHz; at -20 VU its limits, the group delay re 1 kHz, latency and polarity."""
    result: dict[str, Any] = {
        "frequency_hz": GRID_HZ, "gain_db": {}, "gain_1k_db": {}, "measured_hz": None, "lower_minus_3db_hz": None,
        "upper_minus_3db_hz": None, "group_delay_ms": None, "latency": {"milliseconds": None, "polarity": None},
    }  # fmt: skip
    at_hz = np.append(GRID_HZ, 1000.0)
    sections, turned = [s for s in bench.sections.values() if s.kind == "sweep"], 0
    for section in sections:
        level_vu = f"{section.parameters['level_vu']:g}"
        found = [bench.attempt(section.name, lambda c=c, s=section: _read(bench, s, c)) for c in section.channels]
        smooth = [f and response.smoothed(f[0].frequency_hz, f[0].gain[0], 1 / 12) for f in found]
        levels = [
            None if f is None else response.level_at_db(f[0].frequency_hz, gain, at_hz)
            for f, gain in zip(found, smooth, strict=True)
        ]
        result["gain_db"][level_vu] = [[] if db is None else db[:-1] - db[-1] for db in levels]
        turned += _polarity(bench, section) if found[0] else 0
        result["gain_1k_db"][level_vu] = [None if db is None else db[-1] for db in levels]
        if section.parameters["level_vu"] == LIMITS_VU and None not in found:
            result |= _limits(bench, found, smooth)
    result["latency"]["polarity"] = (1 if turned > 0 else -1) if turned else None
    return result


def _limits(
    bench: Bench, found: list[tuple[response.SweepResponses, float]], smooth: list[np.ndarray]
) -> dict[str, Any]:
    """What only the sweep at the alignment level is asked for."""
    hz = found[0][0].frequency_hz
    limits = [response.minus_3db_points(hz, gain) for gain in smooth]
    lower, upper = ([pair[i] for pair in limits] for i in (0, 1))
    delays_ms = None
    if bench.wavers_percent > STEADY_PERCENT:
        bench.missing["group delay"] = "the speed wavers by more than the frequencies come apart"
    else:
        at_hz = np.append(GRID_HZ, 1000.0)
        delays = [response.group_delay_seconds(responses, at_hz) for responses, _ in found]
        delays_ms = [1000 * (delay[:-1] - delay[-1]) for delay in delays]
    return {
        "measured_hz": [hz[0], hz[-1]], "lower_minus_3db_hz": lower, "upper_minus_3db_hz": upper,
        "group_delay_ms": delays_ms,
        "latency": {"milliseconds": 1000 * found[0][1]},
    }  # fmt: skip


def harmonics(bench: Bench) -> dict[str, Any]:
    """Second and third harmonic in percent of the fundamental, along the sweep at 0 VU."""
    section = next((s for s in bench.sections.values() if s.kind == "sweep" and s.parameters["level_vu"] == 0), None)
    if section is None:
        return {}
    curves: dict[str, list[Any]] = {"second_percent": [], "third_percent": []}
    for channel in section.channels:
        found = bench.attempt("harmonics", lambda c=channel: _read(bench, section, c)[0])
        for key, row in (("second_percent", 1), ("third_percent", 2)):
            if found is None:
                curves[key].append([])
                continue
            ratio = response.smoothed(found.frequency_hz, found.harmonic_percent[row], 1 / 6)
            beyond = ~np.isfinite(found.harmonic_percent[row])
            ratio = np.where(beyond, np.nan, ratio)
            curves[key].append(np.interp(GRID_HZ, found.frequency_hz, ratio, np.nan, np.nan))
    return {"frequency_hz": GRID_HZ} | curves


def _wet(bench: Bench, section: Section, channel: int) -> np.ndarray:
    """A sweep as it came back, at the tape's nominal speed: a constant speed error would smear its pulses.

    It begins `_BEFORE_SECONDS` ahead of the sweep.
    """
    before, after = round(_BEFORE_SECONDS * bench.rate_hz), round(_AFTER_SECONDS * bench.rate_hz)
    begins = bench.place(section.start)
    positions = begins + np.arange(-before, section.stop - section.start + after) / (1 + bench.speed_error)
    if positions[0] >= bench.wet.shape[1] or begins < 0:
        raise UserError(f"the recording does not hold the section {section.name}.")
    return read_at(bench.wet[channel], positions)


def _read(bench: Bench, section: Section, channel: int) -> tuple[response.SweepResponses, float]:
    """The responses of a channel, and the latency in seconds at the tape's beginning.

    The lead or lag that a constant speed error has run up by then is no latency.
    """
    rate_hz, speed = bench.rate_hz, 1 + bench.speed_error
    sweep = sweep_of(section.parameters, (section.stop - section.start) / rate_hz, rate_hz, bench.zero_vu_dbfs)
    found = response.sweep_responses(_wet(bench, section, channel), sweep)
    before = round(_BEFORE_SECONDS * rate_hz) / rate_hz
    came = bench.place(section.start) / rate_hz + (found.delay_seconds - before) / speed
    return found, came - section.start / rate_hz / speed


def _polarity(bench: Bench, section: Section) -> int:
    """1 or -1, by the sweep's low frequencies: a wander of milliseconds turns the phase of high ones about."""
    channel, reach = section.channels[0], round(_BEFORE_SECONDS * bench.rate_hz)
    x, y = bench.dry[channel, section.start : section.stop], _wet(bench, section, channel)
    size = len(x) + len(y)
    hz = np.fft.rfftfreq(size, 1 / bench.rate_hz)
    low = (hz > _POLARITY_HZ[0]) & (hz < _POLARITY_HZ[1])
    cross = np.fft.irfft(np.where(low, np.conj(np.fft.rfft(x, size)) * np.fft.rfft(y, size), 0), size)
    lags = cross[: 2 * reach]  # the delays around that of the place
    return 1 if lags[np.argmax(np.abs(lags))] >= 0 else -1
