"""Built-in sounds for the transfer of textures: one instrument alone, and a worn record between songs."""

import numpy as np

from revox_lightning.data import performer
from revox_lightning.data.speech import speak
from revox_lightning.errors import UserError


def _played(section: str, seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix, start_s = np.zeros(round(seconds * sample_rate_hz)), 0.0
    while start_s < seconds:
        song = performer.Song(mix, sample_rate_hz, rng, start_s, bars=2)
        getattr(performer, section)(song)
        start_s += song.beats * song.beat_s
    return mix


def _crackle(seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    """Noise that falls by 3 dB an octave from 50 Hz on, and 30 clicks a second of very different level."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * sample_rate_hz)
    hz = np.fft.rfftfreq(samples, 1 / sample_rate_hz)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) / np.sqrt(np.maximum(hz, 50.0)), samples)
    clicks = rng.standard_normal(samples) * (rng.random(samples) < 30 / sample_rate_hz) * rng.exponential(1, samples)
    ring = rng.standard_normal(samples) * np.exp(-np.arange(samples) / (4e-4 * sample_rate_hz))
    rung = np.fft.irfft(np.fft.rfft(clicks) * np.fft.rfft(ring), samples)
    return noise / noise.std() + 3 * rung


SOUNDS = {
    "speech": speak,
    "guitar": lambda *how: _played("opening", *how),
    "drums": lambda *how: _played("drum_solo", *how),
    "crackle": _crackle,
}


def sound(name: str, seconds: float, sample_rate_hz: int, seed: int = 0) -> np.ndarray:
    """One of `SOUNDS` (time,) float32, peak -6 dBFS; another seed plays something else.

    Raises UserError for another name.

    >>> sound("crackle", 0.5, 8_000).shape
    (4000,)
    """
    if name not in SOUNDS:
        raise UserError(f"{name} is no built-in sound: choose one of {', '.join(SOUNDS)}.")
    x = SOUNDS[name](seconds, sample_rate_hz, seed)
    return (0.5 / max(float(np.abs(x).max(initial=0.0)), 1e-9) * x).astype(np.float32)
