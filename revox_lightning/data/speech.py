"""A voice made of arithmetic, to hear a machine with where no recording of speech is at hand: it says nothing.

Formant synthesis in cascade after Klatt (1980), "Software for a cascade/parallel formant synthesizer", section II.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.signal import butter, lfilter, sosfilt

from revox_lightning.data.instruments import VOWELS_HZ
from revox_lightning.errors import UserError

_HIGHER_HZ = (3400.0, 4500.0)  # formants that stay where they are
_BANDWIDTHS_HZ = (70.0, 100.0, 140.0, 220.0, 300.0)
_FRICATIVES_HZ = {"s": (4500.0, 9000.0), "sh": (2000.0, 6000.0), "f": (1200.0, 9500.0), "h": (700.0, 3000.0)}
_GLIDE_SECONDS = 0.06  # from one vowel to the next


@dataclass(frozen=True)
class Speaker:
    """Pitch and formants relative to the usual voice, and how loud the room is, re the peak of the voice."""

    pitch: float = 1.0
    formants: float = 1.0
    room_db: float | None = None

    @staticmethod
    def drawn(rng: np.random.Generator) -> "Speaker":
        """Somebody: from a deep voice to a child's, in a quiet room or not."""
        pitch = float(np.exp(rng.uniform(np.log(0.7), np.log(2.2))))
        return Speaker(pitch, float(rng.uniform(0.9, 1.05) * pitch**0.2), float(rng.uniform(-75, -45)))


def speak(seconds: float, sample_rate_hz: int, seed: int, speaker: Speaker | None = None) -> np.ndarray:
    """Synthetic speech-like babble (time,) float32, peak -6 dBFS; another seed says something else.

    Phrases of three to seven syllables with pauses of dead silence between them: fricatives and plosives of noise, then
    glottal pulses with jitter and shimmer under a falling melody, through five formants of which three move.

    >>> speak(0.5, 16_000, seed=0).shape
    (8000,)
    """
    if not (seconds > 0 and sample_rate_hz >= 8_000):
        raise UserError(f"cannot speak {seconds} s at {sample_rate_hz} Hz: give more than 0 s and at least 8,000 Hz.")
    rng, speaker = np.random.default_rng(seed), speaker or Speaker()
    parts, samples, wanted = [np.zeros(round(0.15 * sample_rate_hz))], 0, round(seconds * sample_rate_hz)
    while samples < wanted:
        parts += [_phrase(sample_rate_hz, rng, speaker), np.zeros(round(rng.uniform(0.25, 0.6) * sample_rate_hz))]
        samples = sum(part.size for part in parts)
    y = np.concatenate(parts)[:wanted]
    if speaker.room_db is not None:
        y += 10 ** (speaker.room_db / 20) * np.abs(y).max(initial=0.0) * _rumble(rng.standard_normal(y.size))
    return (0.5 / max(float(np.abs(y).max()), 1e-9) * y).astype(np.float32)


def _phrase(rate: int, rng: np.random.Generator, speaker: Speaker) -> np.ndarray:
    """Some syllables on one breath: the melody sinks, and the vowels glide into each other."""
    count = int(rng.integers(3, 8))
    lengths = rng.uniform(0.13, 0.26, count)
    starts = np.concatenate(([0.0], np.cumsum(lengths)))
    samples = round((starts[-1] + 0.05) * rate)
    t = np.arange(samples) / rate
    melody = (
        speaker.pitch
        * np.interp(t, starts, rng.uniform(0.9, 1.15, count + 1))
        * np.interp(t, (0, starts[-1]), (125.0, 92.0))
    )
    names = rng.choice(list(VOWELS_HZ), count)
    vowels = speaker.formants * np.array([VOWELS_HZ[str(name)] for name in names])
    # Each vowel stands until shortly before the next begins.
    knots = np.concatenate([(s, s + n - _GLIDE_SECONDS) for s, n in zip(starts, lengths, strict=False)])
    moving = np.stack([np.interp(t, knots, np.repeat(formant, 2)) for formant in vowels.T])
    formants = np.concatenate([moving, np.repeat(np.array(_HIGHER_HZ)[:, None], samples, axis=1)])
    voiced, noise = np.zeros(samples), np.zeros(samples)
    for start, length in zip(starts, lengths, strict=False):
        consonant = rng.uniform(0.03, 0.09)
        voiced += rng.uniform(0.6, 1.0) * _bump(t, start + 0.8 * consonant, start + length, 0.02)
        kind = str(rng.choice(list(_FRICATIVES_HZ)))
        rustle = _band(rng.standard_normal(samples), rate, *_FRICATIVES_HZ[kind])
        noise += rng.uniform(0.05, 0.2) * _bump(t, start, start + consonant, 0.015) * rustle
    breath = 0.02 * rng.standard_normal(samples)
    throat = _pulses(melody / rate, 0.01 * rng.standard_normal(4096), 0.08 * rng.standard_normal(4096)) + breath
    spoken = _cascade(voiced * throat, formants, np.array(_BANDWIDTHS_HZ), float(rate))
    spoken = np.diff(spoken, prepend=0.0)  # of the lips, which radiate the change of flow
    return spoken / max(float(np.abs(spoken).max()), 1e-9) + noise


@njit(cache=True, nogil=True)
def _pulses(step: np.ndarray, jitter: np.ndarray, shimmer: np.ndarray) -> np.ndarray:
    """Glottal flow (time,): t^2 (1 - t) over the open 60 % of each period (Klatt 1980); step = f0 / rate."""
    out = np.zeros_like(step)
    phase, period = 0.0, 0
    for n in range(step.size):
        open_part = phase / 0.6
        if open_part < 1.0:
            out[n] = 6.75 * (1.0 + shimmer[period]) * open_part * open_part * (1.0 - open_part)
        phase += step[n] * (1.0 + jitter[period])
        if phase >= 1.0:
            phase -= 1.0
            period = (period + 1) % jitter.size
    return out


@njit(cache=True, nogil=True)
def _cascade(x: np.ndarray, formants_hz: np.ndarray, bandwidths_hz: np.ndarray, rate: float) -> np.ndarray:
    """x (time,) through two-pole resonators of unit gain at 0 Hz one after another; formants_hz (formants, time)."""
    y = x.copy()
    for k in range(formants_hz.shape[0]):
        radius = np.exp(-np.pi * bandwidths_hz[k] / rate)
        last, before = 0.0, 0.0
        for n in range(y.size):
            hz = min(formants_hz[k, n], 0.45 * rate)
            b, c = 2.0 * radius * np.cos(2.0 * np.pi * hz / rate), -radius * radius
            now = (1.0 - b - c) * y[n] + b * last + c * before
            before, last = last, now
            y[n] = now
    return y


def _rumble(noise: np.ndarray) -> np.ndarray:
    """White noise (time,) as of a room: louder the lower."""
    return np.asarray(lfilter([0.1, 0.1], [1.0, -0.9], noise))


def _bump(t: np.ndarray, start: float, stop: float, edge_seconds: float) -> np.ndarray:
    """0 to 1 and back, with straight edges."""
    return np.clip(np.minimum(t - start, stop - t) / edge_seconds, 0.0, 1.0)


def _band(x: np.ndarray, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    high_hz = min(high_hz, 0.45 * rate)
    return np.asarray(sosfilt(butter(2, [min(low_hz, 0.5 * high_hz), high_hz], "band", fs=rate, output="sos"), x))
