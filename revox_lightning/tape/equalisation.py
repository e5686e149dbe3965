"""Record and playback equalisation of a tape machine from the time constants of the standards.

The standards fix the flux on tape: treble falls above 1 / (2 pi t_treble), bass rises below 1 / (2 pi t_bass) (NAB
only). Playback undoes this curve; the record amplifier is then set so that the whole machine is flat. Time constants:
IASA TC-04, table 5.4; NAB 1965; IEC 60094-1.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import bilinear, lfilter, oaconvolve

from revox_lightning.errors import UserError
from revox_lightning.tape.losses import frequency_grid_hz, minimum_phase_fir, treble_taps

# (standard, speed in ips): (bass, treble) in microseconds; 0 stands for no bass time constant (infinite)
TIME_CONSTANTS_US = {
    ("nab", 15.0): (3180.0, 50.0),
    ("nab", 7.5): (3180.0, 50.0),
    ("nab", 3.75): (3180.0, 90.0),
    ("iec", 30.0): (0.0, 17.5),
    ("iec", 15.0): (0.0, 35.0),
    ("iec", 7.5): (0.0, 70.0),
    ("iec", 3.75): (3180.0, 90.0),
}
COUPLING_HZ = 10.0  # the amplifiers' coupling capacitors end the bass rise of the NAB record curve here
LARGEST_LIFT_DB = 24.0  # of the record amplifier's treble


@dataclass(frozen=True)
class Equalisation:
    """The standards a machine is set to: nab or iec, on the record side and on the playback side."""

    record: str = "nab"
    playback: str = "nab"
    bandwidth_hz: float = 20_000.0  # -3 dB of the record amplifier


@dataclass(frozen=True)
class Equaliser:
    """A bass section (b, a) and a treble FIR, both minimum phase, in series."""

    b: np.ndarray
    a: np.ndarray
    treble: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Filter x (..., time) from rest; float64, same shape."""
        bass = np.asarray(lfilter(self.b, self.a, x, axis=-1))
        treble = self.treble.reshape((1,) * (bass.ndim - 1) + (-1,))
        return oaconvolve(bass, treble, axes=-1)[..., : bass.shape[-1]]

    def gain(self, frequency_hz: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Complex gain at each frequency."""
        bass = digital_gain(self.b, self.a, frequency_hz, sample_rate_hz)
        return bass * digital_gain(self.treble, np.ones(1), frequency_hz, sample_rate_hz)

    def impulse_response(self, samples: int) -> np.ndarray:
        """First `samples` of the impulse response (samples,)."""
        return self(np.concatenate([[1.0], np.zeros(samples - 1)]))


def time_constants(standard: str, speed_ips: float) -> tuple[float, float]:
    """Bass and treble time constant in seconds; bass 0 where the standard has none.

    >>> time_constants("nab", 7.5)
    (0.00318, 5e-05)
    """
    try:
        bass_us, treble_us = TIME_CONSTANTS_US[standard.lower(), float(speed_ips)]
    except KeyError:
        known = ", ".join(f"{name} at {speed:g} ips" for name, speed in TIME_CONSTANTS_US)
        raise UserError(f"no equalisation {standard} at {speed_ips:g} ips: choose one of {known}.") from None
    return bass_us / 1e6, treble_us / 1e6


def playback_equaliser(standard: str, speed_ips: float, sample_rate_hz: float) -> Equaliser:
    """From flux on tape to line level: the treble lift, and the bass cut that undoes NAB's rise."""
    bass, treble = time_constants(standard, speed_ips)
    gain = treble_lift(frequency_grid_hz(sample_rate_hz), treble)
    b, a = _digital([bass, 0.0], [bass, 1.0], sample_rate_hz) if bass else (np.ones(1), np.ones(1))
    return Equaliser(b, a, minimum_phase_fir(gain, treble_taps(sample_rate_hz)))


def record_equaliser(
    standard: str, speed_ips: float, sample_rate_hz: float, head_gain: np.ndarray, bandwidth_hz: float
) -> Equaliser:
    """The record amplifier after alignment: with playback and the head's losses the machine is flat.

    The treble correction is 1 / (playback lift x `head_gain`), ended by a fourth-order roll-off at `bandwidth_hz`
    (-3 dB) and by a lift of at most 24 dB; the bass rise of NAB ends at the coupling capacitors.
    """
    bass, treble = time_constants(standard, speed_ips)
    frequency_hz = frequency_grid_hz(sample_rate_hz)
    flat = 1.0 / np.maximum(np.abs(head_gain) * treble_lift(frequency_hz, treble), 10 ** (-LARGEST_LIFT_DB / 20))
    gain = flat / np.sqrt(1 + (frequency_hz / bandwidth_hz) ** 8)
    coupling = 2 * np.pi * COUPLING_HZ
    zero = [1.0, 1.0 / bass] if bass else [1.0, 0.0]
    b, a = _digital(zero, [1.0, coupling], sample_rate_hz)
    return Equaliser(b, a, minimum_phase_fir(gain, treble_taps(sample_rate_hz)))


def treble_lift(frequency_hz: np.ndarray, time_constant_s: float) -> np.ndarray:
    """Magnitude of 1 + s t at each frequency."""
    return np.sqrt(1 + (2 * np.pi * frequency_hz * time_constant_s) ** 2)


def digital_gain(b: np.ndarray, a: np.ndarray, frequency_hz: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Complex gain of a digital filter (b, a) at each frequency."""
    delay = np.exp(-2j * np.pi * frequency_hz / sample_rate_hz)
    return np.polyval(b[::-1], delay) / np.polyval(a[::-1], delay)


def _digital(b: list[float], a: list[float], sample_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear transform of b(s) / a(s); at the bass corners its warping is far below 0.01 dB."""
    digital_b, digital_a = bilinear(b, a, sample_rate_hz)
    return np.asarray(digital_b), np.asarray(digital_a)
