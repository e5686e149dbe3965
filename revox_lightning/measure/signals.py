"""Signals that a machine is measured with, and the check every instrument makes of what it is given."""

from dataclasses import dataclass

import numpy as np

from revox_lightning.errors import UserError

_LOW_FADE_OCTAVES, _HIGH_FADE_OCTAVES = 1.0, 1 / 12


def checked(
    x: np.ndarray, what: str, sample_rate_hz: float, *, seconds: float = 0.0, silent: bool = False
) -> np.ndarray:
    """`x` as float64 (time,), once it can be measured; `what` names it in the sentence of the error.

    Raises UserError where it is empty, not one channel, not finite, shorter than `seconds`, or silent (unless
    `silent` allows that), and where the sample rate is not a positive number.
    """
    x = np.asarray(x)
    if not (np.isfinite(sample_rate_hz) and sample_rate_hz > 0):
        raise UserError(f"the sample rate of {what} is {sample_rate_hz}; give it in Hz")
    if x.ndim != 1 or x.dtype.kind not in "fiu":
        raise UserError(f"{what} has shape {x.shape} and type {x.dtype}; give one channel (time,) of real samples")
    x = x.astype(np.float64)
    if x.size == 0:
        raise UserError(f"{what} is empty; give it some samples")
    if not np.isfinite(x).all():
        raise UserError(f"{what} holds {int((~np.isfinite(x)).sum())} samples that are no numbers; read it anew")
    if x.size < seconds * sample_rate_hz:
        raise UserError(f"{what} lasts {x.size / sample_rate_hz:.3g} s; give it at least {seconds:.3g} s")
    if not silent and not x.any():
        raise UserError(f"{what} is silent; check its level and its channel")
    return x


def decibels(ratio: np.ndarray | float) -> np.ndarray:
    """Amplitude ratios in dB, nothing as -400 dB (JSON knows no infinity)."""
    return 20 * np.log10(np.maximum(np.abs(ratio), 1e-20))


def level_dbfs(x: np.ndarray) -> float:
    """Level of `x` by its rms; a full-scale sine is 0 dBFS."""
    return float(decibels(np.sqrt(2 * np.mean(np.square(x)))))


def faded(x: np.ndarray, sample_rate_hz: float, fade_seconds: float) -> np.ndarray:
    """`x` (time,) with a raised cosine over its first and last `fade_seconds`, at most half of it each."""
    samples = min(round(fade_seconds * sample_rate_hz), len(x) // 2)
    rise = np.sin(np.pi / 2 * (np.arange(samples) + 0.5) / max(samples, 1)) ** 2
    out = np.array(x, dtype=np.float64)
    out[:samples] *= rise
    out[len(out) - samples :] *= rise[::-1]
    return out


def _time_seconds(seconds: float, sample_rate_hz: float, highest_hz: float) -> np.ndarray:
    """Moments (time,) of the samples of a signal that reaches `highest_hz`, once both can be had."""
    if not (np.isfinite(sample_rate_hz) and sample_rate_hz > 0 and np.isfinite(seconds) and seconds > 0):
        raise UserError(f"a signal of {seconds} s at {sample_rate_hz} Hz cannot be made; give positive numbers")
    if not 0 < highest_hz < sample_rate_hz / 2:
        raise UserError(f"{highest_hz:g} Hz does not fit a sample rate of {sample_rate_hz:g} Hz; stay below its half")
    return np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz


def tone(
    frequency_hz: float, seconds: float, sample_rate_hz: float, level_dbfs: float, fade_seconds: float = 0.01
) -> np.ndarray:
    """A sine, float64 (time,), faded in and out.

    >>> tone(1000.0, 0.5, 48_000, -20.0).shape
    (24000,)
    """
    t = _time_seconds(seconds, sample_rate_hz, frequency_hz)
    return faded(10 ** (level_dbfs / 20) * np.sin(2 * np.pi * frequency_hz * t), sample_rate_hz, fade_seconds)


def two_tones(
    frequencies_hz: tuple[float, float],
    ratio: float,
    seconds: float,
    sample_rate_hz: float,
    level_dbfs: float,
    fade_seconds: float = 0.01,
) -> np.ndarray:
    """Two sines, the first `ratio` times the second, float64 (time,).

    `level_dbfs` is the level of a single sine with the same peak (SMPTE RP 120; IEC 60268-3).

    >>> two_tones((60.0, 7000.0), 4.0, 0.5, 48_000, -20.0).shape
    (24000,)
    """
    first, second = frequencies_hz
    t = _time_seconds(seconds, sample_rate_hz, max(first, second))
    both = ratio * np.sin(2 * np.pi * first * t) + np.sin(2 * np.pi * second * t)
    return faded(10 ** (level_dbfs / 20) / (ratio + 1) * both, sample_rate_hz, fade_seconds)


@dataclass(frozen=True)
class Sweep:
    """Exponential sine sweep, synchronised: its harmonics are the sweep itself, earlier in time (Novak et al. 2015).

    It passes from `start_hz` to `stop_hz` at full level; an octave below and a twelfth of one above (less where the
    sample rate forbids) hold its fades. `seconds` is its whole length, fades included: 5 or
    more keep the responses of the harmonics apart down to 20 Hz.
    """

    start_hz: float
    stop_hz: float
    seconds: float
    sample_rate_hz: float
    level_dbfs: float

    def __post_init__(self) -> None:
        _time_seconds(self.seconds, self.sample_rate_hz, self.stop_hz)
        if not 0 < self.start_hz < self.stop_hz <= 0.48 * self.sample_rate_hz:
            raise UserError(
                f"a sweep from {self.start_hz:g} to {self.stop_hz:g} Hz at a sample rate of {self.sample_rate_hz:g} Hz "
                "cannot be made; let it rise, and end below 0.48 of the rate"
            )

    def signal(self) -> np.ndarray:
        """The sweep, float64 (time,).

        >>> Sweep(20.0, 20_000.0, 2.0, 48_000, -12.0).signal().shape
        (96000,)
        """
        t = _time_seconds(self.seconds, self.sample_rate_hz, self.stop_hz)
        # No constant is taken off the phase: only so is each harmonic the very sweep, earlier (the paper's section 2).
        x = np.sin(2 * np.pi * self.lowest_hz * self.seconds_per_e * np.exp(t / self.seconds_per_e))
        rise = np.clip(t / self.passes_seconds(self.start_hz), 0, 1)
        before_the_end = self.seconds - self.passes_seconds(self.stop_hz)
        fall = np.clip((self.seconds - t) / before_the_end, 0, 1)
        return 10 ** (self.level_dbfs / 20) * x * np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2

    @property
    def lowest_hz(self) -> float:
        """Where the fade-in begins."""
        return self.start_hz / 2**_LOW_FADE_OCTAVES

    @property
    def highest_hz(self) -> float:
        """Where the fade-out ends."""
        return min(self.stop_hz * 2**_HIGH_FADE_OCTAVES, 0.495 * self.sample_rate_hz)

    @property
    def seconds_per_e(self) -> float:
        """Time the sweep takes to rise by a factor of e: L of Novak et al.."""
        return self.seconds / np.log(self.highest_hz / self.lowest_hz)

    def lead_seconds(self, order: int) -> float:
        """How much earlier than the linear response the response of this harmonic lies: L ln(order)."""
        return self.seconds_per_e * float(np.log(order))

    def passes_seconds(self, frequency_hz: float) -> float:
        """When the sweep passes this frequency."""
        return self.seconds_per_e * float(np.log(frequency_hz / self.lowest_hz))
