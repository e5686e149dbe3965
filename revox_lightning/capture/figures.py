"""The figures of an alignment, ready for align.json: units in the keys, null where nothing can be known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from revox_lightning.capture.align import Alignment
from revox_lightning.capture.gain import Gain
from revox_lightning.capture.loopback import Loopback
from revox_lightning.capture.stretch import Stretch
from revox_lightning.capture.verdicts import trusted_share

UNKNOWN = ("speed_error_percent", "flux_nwb_per_m", "azimuth_microseconds", "record_response_db", "replay_response_db")


def figures(
    alignment: Alignment, loopback: Loopback | None, mode: str | None, calibration: dict[str, Any] | None
) -> dict[str, Any]:
    """One JSON-ready dict.

    `clock_ppm` is the converters' own where a loopback was recorded, or the recording's where the tape was monitored;
    after a rewind `time_ratio_ppm` holds clock and speed together and nothing can tell them apart.
    """
    line = alignment.line
    clock_ppm = loopback.clock_ppm if loopback else line.ratio_ppm if mode == "monitor" else None
    start = float(alignment.timeline.at(0))
    return {
        "sample_rate_hz": alignment.sample_rate_hz,
        "mode": mode,
        "findings": [dataclasses.asdict(finding) for finding in alignment.findings],
        "polarity": alignment.polarity,
        "start_seconds": start / alignment.sample_rate_hz,
        "time_ratio_ppm": line.ratio_ppm,
        "time_ratio_error_ppm": line.ratio_error_ppm,
        "time_ratio_removed": line.trend,
        "wander_std_ms": 1000 * line.wander_std_samples / alignment.sample_rate_hz,
        "clock_ppm": clock_ppm,
        **(dict.fromkeys(UNKNOWN) | (calibration or {})),
        "noise_dbfs": alignment.noise_dbfs,
        "hum": None if alignment.hum is None else [h and dataclasses.asdict(h) for h in alignment.hum],
        "leak_db": alignment.leak_db,
        "loopback": loopback.as_dict() if loopback else None,
        "sections": [
            _section(stretch, gains, alignment.sample_rate_hz)
            for stretch, gains in zip(alignment.stretches, alignment.gains, strict=True)
        ],
        "floor": alignment.floor.as_dict() if alignment.floor else None,
    }


def delay_curve(stretch: Stretch, step: int, line_ratio: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Tape samples and the delay there, in samples, of every `step`-th sample; the clock's ratio taken out."""
    k = np.arange(0, stretch.samples, step)
    tape = k + stretch.tape_start
    return tape, stretch.positions(k) - line_ratio * tape


def _section(stretch: Stretch, gains: list[Gain], rate_hz: int) -> dict[str, Any]:
    _, delay = delay_curve(stretch, max(rate_hz // 1000, 1))
    ms = 1000 / rate_hz
    late = stretch.pulses_late_samples
    return {
        "name": stretch.name,
        "kind": stretch.kind,
        "channels": list(stretch.channels),
        "tape_seconds": stretch.tape_start / rate_hz,
        "recorded_seconds": float(stretch.positions(np.array([0]))[0]) / rate_hz,
        "seconds": stretch.samples / rate_hz,
        "method": stretch.method,
        "trusted_percent": 100 * trusted_share(stretch),
        "delay_mean_samples": float(delay.mean()),
        "delay_mean_ms": ms * float(delay.mean()),
        "delay_std_ms": ms * float(delay.std()),
        "delay_peak_to_peak_ms": ms * float(np.ptp(delay)),
        "pulses_late_samples": late,
        "gain_db": [float(20 * np.log10(abs(gain.gain) + 1e-9)) for gain in gains],
        "gain_drift_db": [gain.drift_db for gain in gains],
        "gain_course": [
            {"seconds": gain.seconds.round(3).tolist(), "gain_db": gain.gain_db.round(3).tolist()} for gain in gains
        ],
        "correlation": [gain.correlation for gain in gains],
        "level_dbfs": [float(10 * np.log10(2 * gain.wet_mean_square + 1e-20)) for gain in gains],
        "response_db": [{f"{hz}_hz": db for hz, db in gain.response_db.items()} for gain in gains],
        "dropouts": [gain.dropouts for gain in gains],
    }
