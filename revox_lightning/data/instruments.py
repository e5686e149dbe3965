"""Sounds of the built-in performer: every function returns one note or stroke (time,) float64, peak near 1."""

import numpy as np
from numba import njit
from scipy.signal import butter, lfilter, sosfilt

VOWELS_HZ = {  # first three formants (Peterson and Barney 1952, men)
    "a": (730.0, 1090.0, 2440.0),
    "e": (530.0, 1840.0, 2480.0),
    "i": (270.0, 2290.0, 3010.0),
    "o": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
}


@njit(cache=True, nogil=True)
def _string(excitation: np.ndarray, samples: int, delay: float, damping: float, decay: float) -> np.ndarray:
    """Karplus-Strong loop: a delay line with a two-point average and linear interpolation for the pitch."""
    whole = int(delay)
    fraction = delay - whole
    out = np.zeros(samples)
    low = 0.0
    for n in range(samples):
        back = n - whole
        y = excitation[n] if n < excitation.size else 0.0
        if back >= 1:
            late = (1.0 - fraction) * out[back] + fraction * out[back - 1]
            low = (1.0 - damping) * late + damping * low
            y += decay * low
        out[n] = y
    return out


@njit(cache=True, nogil=True)
def _saw(step: np.ndarray) -> np.ndarray:
    """Sawtooth with its jump rounded over two samples (polynomial band-limited step); step = f0 / rate."""
    out = np.empty_like(step)
    phase = 0.0
    for n in range(step.size):
        d = step[n]
        y = 2.0 * phase - 1.0
        if phase < d:
            t = phase / d
            y -= t + t - t * t - 1.0
        elif phase > 1.0 - d:
            t = (phase - 1.0) / d
            y -= t * t + t + t + 1.0
        out[n] = y
        phase += d
        if phase >= 1.0:
            phase -= 1.0
    return out


def pluck(rate: int, f0: float, seconds: float, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Plucked string (Karplus and Strong 1983); brightness 0 to 1, the harder the pluck the brighter."""
    damping = 0.55 - 0.45 * brightness
    delay = rate / f0 - damping / (1 - damping)
    excitation = rng.uniform(-1, 1, max(4, round(rate / f0)))
    excitation = np.asarray(lfilter([0.25 + 0.7 * brightness], [1, -(0.75 - 0.7 * brightness)], excitation))
    position = max(1, round(0.17 * excitation.size))  # plucked at a sixth of the string: that harmonic is weak
    excitation -= 0.8 * np.roll(excitation, position)
    y = _string(excitation - excitation.mean(), round(seconds * rate), delay, damping, 10 ** (-3 / (f0 * 2.5)))
    return _normalise(_fades(y, rate, 0.0, 0.03))


def bass(rate: int, f0: float, seconds: float, brightness: float) -> np.ndarray:
    """Bass note: a sawtooth under a closing low-pass, with a sine at the fundamental."""
    samples = round(seconds * rate)
    t = np.arange(samples) / rate
    saw = _saw(np.full(samples, f0 / rate))
    dark = _lowpass(saw, rate, 250 + 300 * brightness)
    bright = _lowpass(saw, rate, 900 + 2500 * brightness) * np.exp(-t / 0.12)
    y = (0.7 * dark + 0.6 * bright + 0.6 * np.sin(2 * np.pi * f0 * t)) * np.exp(-t / 0.9)
    return _normalise(_fades(y, rate, 0.004, 0.03))


def electric_piano(rate: int, f0: float, seconds: float, brightness: float) -> np.ndarray:
    """Two-operator FM (Chowning 1973): a bell-like attack over a soft tone."""
    t = np.arange(round(seconds * rate)) / rate
    index = (0.4 + 1.6 * brightness) * np.exp(-t / 0.35)
    tine = 0.12 * brightness * np.exp(-t / 0.06) * np.sin(2 * np.pi * 7.02 * f0 * t)
    y = (np.sin(2 * np.pi * f0 * t + index * np.sin(2 * np.pi * f0 * t)) + tine) * np.exp(-t / 1.2)
    return _normalise(_fades(y, rate, 0.003, 0.06))


def pad(rate: int, f0: float, seconds: float, brightness: float) -> np.ndarray:
    """Three detuned sawtooths under a low-pass, slow in and out."""
    samples = round(seconds * rate)
    y = sum(_saw(np.full(samples, f0 * detune / rate)) for detune in (0.9965, 1.0, 1.0041))
    y = _lowpass(np.asarray(y), rate, 500 + 2500 * brightness)
    return _normalise(_fades(y, rate, 0.25 * seconds, 0.3 * seconds))


def voice(
    rate: int, f0: float, glide_from: float, seconds: float, vowels: tuple[str, str], rng: np.random.Generator
) -> np.ndarray:
    """A sung syllable: breathy consonant, glottal pulses with vibrato, formants moving from one vowel to the next."""
    t = np.arange(round(seconds * rate)) / rate
    vibrato = 1 + 0.006 * np.minimum(t / 0.4, 1) * np.sin(2 * np.pi * rng.uniform(4.8, 6.2) * t + rng.uniform(0, 6))
    pitch = (f0 + (glide_from - f0) * np.exp(-t / 0.05)) * vibrato
    glottis = _lowpass(_saw(pitch / rate), rate, 900, order=1) + 0.015 * rng.standard_normal(t.size)
    sung = [_formants(glottis, rate, VOWELS_HZ[vowel]) for vowel in vowels]
    blend = 0.5 - 0.5 * np.cos(np.pi * np.clip(t / seconds * 1.6 - 0.3, 0, 1))
    y = _normalise(_fades((1 - blend) * sung[0] + blend * sung[1], rate, 0.05, 0.09))
    hiss = _bandpass(rng.standard_normal(round(0.11 * rate)), rate, 3500, 9000)
    consonant = _fades(hiss, rate, 0.03, 0.06)[: y.size]
    y[: consonant.size] += rng.uniform(0.05, 0.3) * _normalise(consonant)
    return y


def kick(rate: int, tune: float, punch: float) -> np.ndarray:
    """Sine falling from a click to its pitch (`tune` about 50 Hz)."""
    t = np.arange(round(0.35 * rate)) / rate
    phase = 2 * np.pi * (tune * t - tune * (2 + 2 * punch) * 0.03 * np.expm1(-t / 0.03))
    return _normalise(_fades(np.sin(phase) * np.exp(-t / 0.11), rate, 0.0008, 0.05))


def tom(rate: int, tune: float) -> np.ndarray:
    """Longer, higher relative of the kick."""
    t = np.arange(round(0.5 * rate)) / rate
    phase = 2 * np.pi * (tune * t - tune * 0.5 * 0.05 * np.expm1(-t / 0.05))
    return _normalise(_fades(np.sin(phase) * np.exp(-t / 0.16), rate, 0.001, 0.1))


def snare(rate: int, tune: float, rattle: float, rng: np.random.Generator) -> np.ndarray:
    """Shell tone (`tune` about 190 Hz) and wires (noise)."""
    t = np.arange(round(0.3 * rate)) / rate
    shell = (np.sin(2 * np.pi * tune * t) + 0.5 * np.sin(2 * np.pi * 1.6 * tune * t)) * np.exp(-t / 0.05)
    wires = _normalise(_bandpass(rng.standard_normal(t.size), rate, 1200, 9500)) * np.exp(-t / (0.05 + 0.06 * rattle))
    return _normalise(_fades(0.6 * shell + 0.9 * wires, rate, 0.0005, 0.05))


def hat(rate: int, ring_seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Bright noise, short when closed and long when open."""
    t = np.arange(round(4 * ring_seconds * rate)) / rate
    y = _bandpass(rng.standard_normal(t.size), rate, 6500, 14_000) * np.exp(-t / ring_seconds)
    return _normalise(_fades(y, rate, 0.0005, 0.01))


def sweep(rate: int, from_hz: float, to_hz: float, seconds: float) -> np.ndarray:
    """Exponential sine sweep."""
    t = np.arange(round(seconds * rate)) / rate
    octaves = np.log(to_hz / from_hz)
    return _fades(np.sin(2 * np.pi * from_hz * seconds / octaves * np.expm1(t / seconds * octaves)), rate, 0.02, 0.02)


def noise_burst(rate: int, low_hz: float, high_hz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Band of noise with a sharp start."""
    y = _bandpass(rng.standard_normal(round(seconds * rate)), rate, low_hz, high_hz)
    return _normalise(_fades(y, rate, 0.002, 0.5 * seconds))


def room(rate: int, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a small room, without the direct sound; unit energy."""
    t = np.arange(round(0.45 * rate)) / rate
    y = _bandpass(rng.standard_normal(t.size), rate, 200, 6000) * np.exp(-t / 0.09)
    y[: round(0.008 * rate)] = 0
    return _fades(y, rate, 0.0, 0.1) / np.sqrt(np.sum(y**2))


def _normalise(x: np.ndarray) -> np.ndarray:
    return x / max(float(np.abs(x).max(initial=0.0)), 1e-9)


def _fades(x: np.ndarray, rate: int, fade_in_s: float, fade_out_s: float) -> np.ndarray:
    first, last = min(round(fade_in_s * rate), x.size), min(round(fade_out_s * rate), x.size)
    x = x.copy()
    x[:first] *= np.arange(first) / max(first, 1)
    x[x.size - last :] *= np.arange(last)[::-1] / max(last, 1)
    return x


def _lowpass(x: np.ndarray, rate: int, corner_hz: float, order: int = 2) -> np.ndarray:
    return np.asarray(sosfilt(butter(order, min(corner_hz, 0.45 * rate), fs=rate, output="sos"), x))


def _bandpass(x: np.ndarray, rate: int, low_hz: float, high_hz: float) -> np.ndarray:
    high_hz = min(high_hz, 0.45 * rate)
    return np.asarray(sosfilt(butter(2, [min(low_hz, 0.5 * high_hz), high_hz], "band", fs=rate, output="sos"), x))


def _formants(x: np.ndarray, rate: int, formants_hz: tuple[float, float, float]) -> np.ndarray:
    """Three resonators in parallel."""
    y = np.zeros_like(x)
    for hz, bandwidth_hz, gain in zip(formants_hz, (80.0, 110.0, 160.0), (1.0, 0.6, 0.35), strict=True):
        radius, angle = np.exp(-np.pi * bandwidth_hz / rate), 2 * np.pi * min(hz, 0.45 * rate) / rate
        y += gain * np.asarray(lfilter([1 - radius, 0, radius - 1], [1, -2 * radius * np.cos(angle), radius**2], x))
    return y
