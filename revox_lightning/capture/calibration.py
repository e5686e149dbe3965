"""What a bought calibration tape tells of a machine's replay side: speed, level, azimuth and response."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from revox_lightning.capture.health import level_dbfs, mean_square
from revox_lightning.errors import UserError

# Tones of calibration tapes (DIN, IEC 60094-2, NAB).
_NOMINAL_HZ = (
    31.5, 40, 63, 80, 125, 250, 315, 400, 500, 630, 700, 1000, 2000, 3000, 3150, 4000, 5000, 6300, 7500, 8000,
    10_000, 12_000, 12_500, 14_000, 15_000, 16_000, 18_000, 20_000,
)  # fmt: skip
_SPEED_TONES_HZ = (3150, 3000, 1000, 700)
_FRAME_SECONDS, _SHORTEST_SECONDS = 0.25, 1.0
_PURE, _SAME, _NEAR = 0.8, 0.01, 0.024
_LOW_DBFS = -60.0


@dataclasses.dataclass(frozen=True)
class Tone:
    """A steady tone: what it should be and is, its level per channel, and how much later the right channel is."""

    nominal_hz: float
    hz: float
    seconds: float
    dbfs: list[float]
    right_late_microseconds: float | None


def tones(x: np.ndarray, sample_rate_hz: float) -> list[Tone]:
    """The steady tones in a recording `(channels, time)`, in order."""
    frame = round(_FRAME_SECONDS * sample_rate_hz)
    seen = [_frequency(x[0, i : i + frame], sample_rate_hz) for i in range(0, x.shape[1] - frame + 1, frame)]
    found, start = [], 0
    for i in range(1, len(seen) + 1):
        here = seen[start]
        if i < len(seen) and here and seen[i] and abs(seen[i] / here - 1) < _SAME:
            continue
        if here and (i - start - 1) * _FRAME_SECONDS >= _SHORTEST_SECONDS:
            inside = x[:, start * frame + frame // 2 : i * frame - frame // 2].astype(np.float64)
            tone = _tone(inside, here, sample_rate_hz)
            found += [tone] if tone is not None else []
        start = i
    return found


def _frequency(x: np.ndarray, sample_rate_hz: float) -> float:
    """Of the tone that is nearly all there is in `x` (time,); 0 where there is none."""
    x = x.astype(np.float64)
    if level_dbfs(mean_square(x)) < _LOW_DBFS:
        return 0.0
    power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    top = int(np.argmax(power))
    if top < 2 or top > len(power) - 3 or power[max(top - 4, 0) : top + 5].sum() < _PURE * power.sum():
        return 0.0
    a, b, c = np.log(power[top - 1 : top + 2] + 1e-300)
    return (top + 0.5 * (a - c) / (a - 2 * b + c)) * sample_rate_hz / len(x)


def _tone(x: np.ndarray, about_hz: float, sample_rate_hz: float) -> Tone | None:
    nominal = min(_NOMINAL_HZ, key=lambda hz: abs(np.log(hz / about_hz)))
    if abs(about_hz / nominal - 1) > _NEAR:
        return None
    carrier = np.exp(-2j * np.pi * about_hz / sample_rate_hz * np.arange(x.shape[1]))
    hop = max(round(10 * sample_rate_hz / about_hz), round(0.02 * sample_rate_hz))
    steps = x.shape[1] // hop
    slow = (x * carrier)[:, : steps * hop].reshape(len(x), steps, hop).mean(-1)
    turns = np.polyfit(np.arange(steps) * hop / sample_rate_hz, np.unwrap(np.angle(slow[0])), 1)[0] / (2 * np.pi)
    late = None
    if len(x) == 2:
        late = -1e6 * float(np.angle(np.sum(slow[1] * np.conj(slow[0])))) / (2 * np.pi * about_hz)
    levels = [level_dbfs(mean_square(channel)) for channel in x]
    return Tone(nominal, about_hz + float(turns), x.shape[1] / sample_rate_hz, levels, late)


def read(
    x: np.ndarray, sample_rate_hz: float, name: str, flux_nwb_per_m: float | None, zero_vu_dbfs: list[float] | None
) -> dict[str, Any]:
    """Figures of the replay side from a recording `(channels, time)` of a calibration tape; null what it lacks.

    `flux_nwb_per_m` is the reference flux printed on the tape, of its 1 kHz (or lowest speed) tone; `zero_vu_dbfs` how
    loud the test tape's 0 VU came back. Raises UserError where there is no steady tone.
    """
    found = tones(x, sample_rate_hz)
    if not found:
        raise UserError(
            f"{name} holds no steady tone of a calibration tape: record its tones for a second or more each."
        )
    speed = next(
        (t for hz in _SPEED_TONES_HZ for t in found if t.nominal_hz == hz), max(found, key=lambda t: t.seconds)
    )
    reference = next((t for hz in (1000, 700, 400, 315) for t in found if t.nominal_hz == hz), speed)
    highest = max(found, key=lambda t: t.nominal_hz)
    figures: dict[str, Any] = {
        "speed_error_percent": 100 * (speed.hz / speed.nominal_hz - 1),
        "calibration_level_dbfs": reference.dbfs,
        "azimuth_microseconds": highest.right_late_microseconds if highest.nominal_hz >= 6000 else None,
        "replay_response_db": {
            f"{t.nominal_hz:g}_hz": [a - b for a, b in zip(t.dbfs, reference.dbfs, strict=True)]
            for t in sorted(found, key=lambda t: t.nominal_hz)
        },
    }
    if flux_nwb_per_m is not None and zero_vu_dbfs is not None:
        above = np.mean([a - b for a, b in zip(zero_vu_dbfs, reference.dbfs, strict=True)])
        figures["flux_nwb_per_m"] = flux_nwb_per_m * 10 ** (float(above) / 20)
    return figures


def record_response(replay_db: dict[str, list[float]], whole_db: dict[int, float]) -> dict[str, float]:
    """The record side (left channel, re 1 kHz): the whole machine's response by octave less the replay side's."""
    if 1000 not in whole_db or "1000_hz" not in replay_db:
        return {}
    return {
        f"{hz}_hz": level - whole_db[1000] - replay_db[f"{hz}_hz"][0]
        for hz, level in whole_db.items()
        if f"{hz}_hz" in replay_db
    }
