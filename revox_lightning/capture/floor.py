"""The floor that hiss and modulation noise set: what differs between plays of one block."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from scipy.signal import welch

from revox_lightning.capture.health import level_dbfs
from revox_lightning.capture.stretch import Stretch
from revox_lightning.dsp.alignment import fractional_delay
from revox_lightning.dsp.interpolation import read_at

_OCTAVES_HZ = (31.5, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000)
_EDGE_SECONDS = 0.35
_JITTER_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Floor:
    """Noise that no model can predict, as mean square per channel (None: not measured) and by octave in dBFS."""

    mean_square: list[float | None]
    octave_hz: list[float]
    octave_dbfs: list[list[float]]
    plays: int
    measured_from: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For floor.json."""
        levels = [None if ms is None else level_dbfs(ms) for ms in self.mean_square]
        return dataclasses.asdict(self) | {"dbfs": levels}


def measure(
    stretches: list[Stretch], recorded: np.ndarray, silence_mean_square: list[float], sample_rate_hz: float
) -> Floor | None:
    """The floor from plays of one block `(channels, time)`; other channels than its programme's from their silence."""
    if len(stretches) < 2:
        return None
    channel = stretches[0].channels[0]
    edge = round(_EDGE_SECONDS * sample_rate_hz)
    samples = min(stretch.samples for stretch in stretches)
    plays = [stretch.demodulated(recorded[channel], edge, samples - edge) for stretch in stretches]
    differences = [_difference(a, b, sample_rate_hz) for a, b in itertools.combinations(plays, 2)]
    total = float(np.mean([np.mean(d**2) for d in differences]))
    size = min(8192, len(differences[0]))
    spectra = [welch(d, sample_rate_hz, nperseg=size) for d in differences]
    hz, density = spectra[0][0], np.mean([power for _, power in spectra], axis=0)
    octaves = [f for f in _OCTAVES_HZ if f < sample_rate_hz / 2]  # the last one ends at half the rate
    in_octave = [
        level_dbfs(float(density[(hz >= f / 2**0.5) & (hz < f * 2**0.5)].sum() * (hz[1] - hz[0]))) for f in octaves
    ]
    mean_square: list[float | None] = list(silence_mean_square)
    mean_square[channel] = total
    source = ["hiss in silence (a lower bound)"] * len(mean_square)
    source[channel] = f"{len(plays)} plays of one block"
    return Floor(mean_square, octaves, [in_octave], len(plays), source)


def _difference(a: np.ndarray, b: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Noise (time,) of one play, from two: their difference without constant gain, delay and slow jitter, / sqrt 2.

    What timing the trajectories missed shows as a multiple of the signal's slope; in each 20 ms one such multiple is
    taken out, which costs the noise one part in the number of samples.
    """
    late, _ = fractional_delay(a, b, round(0.001 * sample_rate_hz))
    b = read_at(b, np.arange(len(b)) + late)
    b = b * float(a @ b / max(b @ b, 1e-20))
    keep = slice(64, -64)  # what the shift read from beyond the ends
    difference, mean = (a - b)[keep], (0.5 * (a + b))[keep]
    frame = round(_JITTER_SECONDS * sample_rate_hz)
    frames = len(mean) // frame
    spectrum = np.fft.rfft(mean) * 2j * np.pi * np.fft.rfftfreq(len(mean))
    slope = np.fft.irfft(spectrum, len(mean))[: frames * frame].reshape(frames, frame)
    d = difference[: frames * frame].reshape(frames, frame)
    share = np.sum(d * slope, axis=1) / np.maximum(np.sum(slope**2, axis=1), 1e-20)
    d = (d - share[:, None] * slope) * np.sqrt(frame / (frame - 1))
    return d.ravel() / np.sqrt(2)
