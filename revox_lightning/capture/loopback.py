"""What the converters and cables do: measured once through a cable, and taken out of a machine's recording."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.signal import oaconvolve

from revox_lightning.capture.findings import Finding, note, warning
from revox_lightning.capture.health import first_look
from revox_lightning.capture.layout import Layout
from revox_lightning.capture.markers import find_markers, fit_timeline
from revox_lightning.capture.stretch import read
from revox_lightning.dsp.alignment import fractional_delay
from revox_lightning.errors import UserError

_TAPS = 16_384
_BEFORE_SECONDS, _AFTER_SECONDS = 0.02, 0.4  # of the impulse response that is kept
_LOWEST_HZ, _HIGHEST = 15.0, 0.45  # outside of this band the edge's gain goes on
_REGULARISATION = 1e-3  # no frequency is raised by more than 24 dB
_BLOCK = 1 << 20
_REPORTED_HZ = (20, 31.5, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 12_500, 16_000, 20_000)


@dataclasses.dataclass(frozen=True)
class Loopback:
    """What a cable in the machine's place gave: `inverse` (channels, taps) undoes it, its middle tap is time zero.

    `latency_samples` counts from the files' beginnings, so it means something where both were started together.
    """

    inverse: np.ndarray
    polarity: int
    gain_db: list[float]
    response_db: dict[str, list[float]]
    latency_samples: float
    clock_ppm: float

    def as_dict(self) -> dict[str, object]:
        """For align.json."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name != "inverse"}

    def findings(self) -> list[Finding]:
        """What is worth saying about it."""
        level = ", ".join(f"{gain:+.2f} dB" for gain in self.gain_db)
        said = [
            note(
                "loopback",
                f"converters and cables: gain {level}, taken out with their response; clock {self.clock_ppm:+.2f} ppm.",
            )
        ]
        if self.polarity < 0:
            said.append(warning("loopback_polarity", "the cables or converters turn the polarity over; corrected."))
        if max(abs(gain) for gain in self.gain_db) > 6:
            said.append(
                warning(
                    "loopback_gain", f"the cable changes the level by {level}: were its knobs those of the machine's?"
                )
            )
        return said


def measure(layout: Layout, played: np.ndarray, recorded: np.ndarray, name: str) -> Loopback:
    """Compares the loopback file with its recording, both `(channels, time)`.

    Raises UserError where the recording is silent, clipped or another one.
    """
    rate_hz = layout.sample_rate_hz
    for finding in first_look(recorded, name, [True] * len(recorded)):
        if finding.severity == "fatal":
            raise UserError(finding.sentence)
    starts = [section.start for section in layout.loopback if section.kind == "marker"]
    timeline = fit_timeline(find_markers(recorded[0], rate_hz), starts, rate_hz)
    if timeline is None or not 0.97 < timeline.ratio < 1.03:
        raise UserError(
            f"{name} is not a recording of the loopback file: its markers were not found; play the tape's "
            "_loopback.wav through a cable and record it."
        )
    exact = [_exact(played[0], recorded[0], start, float(timeline.at(start)), rate_hz) for start in starts]
    ratio = (exact[-1] - exact[0]) / (starts[-1] - starts[0])
    sweep = next(section for section in layout.loopback if section.kind == "sweep")
    frames = sweep.stop - sweep.start + round((_AFTER_SECONDS + _BEFORE_SECONDS) * rate_hz)
    x = np.zeros(frames)
    before = round(_BEFORE_SECONDS * rate_hz)
    x[before : before + sweep.stop - sweep.start] = played[0, sweep.start : sweep.stop]
    at = exact[0] + ratio * (np.arange(frames) - before + sweep.start - starts[0])
    responses = np.stack([_response(x, read(channel, at), before, rate_hz) for channel in recorded])
    hz = np.fft.rfftfreq(_fft_size(rate_hz), 1 / rate_hz)
    middle = np.argmin(np.abs(hz - 1000))
    reported = [f for f in _REPORTED_HZ if f < _HIGHEST * rate_hz]
    levels = [[float(20 * np.log10(np.abs(np.interp(f, hz, np.abs(r))) + 1e-12)) for r in responses] for f in reported]
    return Loopback(
        np.stack([_inverse(r, hz, rate_hz) for r in responses]),
        int(np.sign(responses[0][middle].real) or 1),
        [float(20 * np.log10(abs(r[middle]) + 1e-12)) for r in responses],
        {f"{f:g}_hz": level for f, level in zip(reported, levels, strict=True)},
        exact[0] - starts[0],
        1e6 * (ratio - 1),
    )


def _exact(played: np.ndarray, recorded: np.ndarray, start: int, about: float, rate_hz: float) -> float:
    """Where the marker at `start` came back, to a hundredth of a sample."""
    length = round(0.6 * rate_hz)
    dry = played[start : start + length].astype(np.float64)
    wet = read(recorded, round(about) + np.arange(length, dtype=np.float64))
    late, _ = fractional_delay(dry, wet, round(0.02 * rate_hz))
    return round(about) + late


def _fft_size(rate_hz: float) -> int:
    return 1 << int(np.ceil(np.log2((_BEFORE_SECONDS + _AFTER_SECONDS) * rate_hz)))


def _response(x: np.ndarray, y: np.ndarray, before: int, rate_hz: float) -> np.ndarray:
    """Complex gain (bins,) of a converter that answers the sweep `x` with `y` (time,), distortion left out."""
    size = 1 << (2 * len(x) - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    power = np.abs(spectrum) ** 2
    impulse = np.fft.irfft(np.fft.rfft(y, size) * np.conj(spectrum) / (power + 1e-6 * power.max()), size)
    first, last = round(_BEFORE_SECONDS * rate_hz), round(_AFTER_SECONDS * rate_hz)
    kept = np.zeros(_fft_size(rate_hz))
    fade = np.cos(np.pi / 2 * np.arange(last) / last) ** 0.5
    kept[:last] = impulse[:last] * fade
    kept[-first:] = impulse[-first:] * np.sin(np.pi / 2 * np.arange(first) / first)
    return np.fft.rfft(kept)


def _inverse(response: np.ndarray, hz: np.ndarray, rate_hz: float) -> np.ndarray:
    """Taps (n,) of the regularised inverse; below and above the measured band it keeps the edges' real gain."""
    low, high = np.searchsorted(hz, (_LOWEST_HZ, _HIGHEST * rate_hz))
    response = response.copy()
    sign = np.sign(response[np.argmin(np.abs(hz - 1000))].real) or 1.0
    response[:low] = sign * np.abs(response[low])
    response[high:] = sign * np.abs(response[high - 1])
    least = _REGULARISATION * np.max(np.abs(response)) ** 2
    taps = np.fft.irfft(np.conj(response) / (np.abs(response) ** 2 + least))
    taps *= 1 + _REGULARISATION  # a flat response comes out flat
    half = min(_TAPS, len(taps)) // 2
    window = np.hanning(2 * half + 1)[:-1]
    window = np.minimum(1.0, 4 * window)
    return np.roll(taps, half)[: 2 * half] * window


def remove(loopback: Loopback, recorded: np.ndarray) -> np.ndarray:
    """`recorded` (channels, time) without the converters' response, gain and polarity; float32, block by block."""
    out = np.empty(recorded.shape, np.float32)
    for channel, taps in enumerate(loopback.inverse[: len(recorded)]):
        half = len(taps) // 2
        for start in range(0, recorded.shape[1], _BLOCK):
            first, last = start - half, min(start + _BLOCK, recorded.shape[1]) + half
            part = recorded[channel, max(first, 0) : last].astype(np.float64)
            part = np.pad(part, (max(-first, 0), max(last - recorded.shape[1], 0)))
            out[channel, start : last - half] = oaconvolve(part, taps, mode="valid")[1:]
    return out
