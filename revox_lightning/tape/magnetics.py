"""What the record head's field leaves on the tape: two models of hysteresis, with or without an AC bias."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import lfilter

from revox_lightning.dsp.oversampling import change_rate
from revox_lightning.errors import UserError
from revox_lightning.tape.hysteresis import jiles_atherton
from revox_lightning.tape.losses import METRES_PER_INCH
from revox_lightning.tape.preisach import preisach

LEAST_BIAS_OVERSAMPLING = 24
_BIAS_CYCLE_SAMPLES = 10  # at least, and exactly where the bench below measures
_SMALL_FIELD = 0.05
_BLOCK_SAMPLES, _EDGE_SAMPLES = 1 << 19, 256  # at the signal's rate
_LARGEST_FIELD = 8.0


class Hysteresis(Protocol):
    """A hysteresis without bias: hashable, memory from the first sample on."""

    def magnetise(self, field: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Magnetisation (time,) for the field (time,)."""
        ...


@dataclass(frozen=True)
class JilesAtherton:
    """Hysteresis by Jiles and Atherton (`jiles_atherton`); a width of 0.968 is the c = 0.17 of DAFx-19, table 1."""

    drive: float = 0.5
    width: float = 0.968
    saturation: float = 0.5
    solver: str = "rk4"

    def magnetise(self, field: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        return jiles_atherton(
            field, sample_rate_hz, drive=self.drive, width=self.width, saturation=self.saturation, solver=self.solver
        )


@dataclass(frozen=True)
class Preisach:
    """Hysteresis by Preisach (`preisach`): a machine that shares no equation with `JilesAtherton`."""

    coercivity: float = 0.5
    coercivity_spread: float = 0.35
    interaction: float = 0.25
    reversible: float = 0.1
    hysterons: int = 32

    def magnetise(self, field: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        del sample_rate_hz  # rate independent
        return preisach(
            field,
            coercivity=self.coercivity,
            coercivity_spread=self.coercivity_spread,
            interaction=self.interaction,
            reversible=self.reversible,
            hysterons=self.hysterons,
        )


@dataclass(frozen=True)
class Bias:
    """The AC bias of the record head, set as a technician sets it: so many dB over the peak of a 10 kHz tone.

    `mode` is "ac" (the oscillator itself, at 24-fold oversampling or more) or "anhysteretic" (its effect alone: the
    bias keeps the tape near one curve, which `anhysteretic_curve` measures on the former). `zone_um` is how far the
    record zone moves off the gap for each unit of bias: the trailing edge of the bubble in which the bias exceeds the
    coercivity recedes as the bias grows, and short wavelengths are lost as by a spacing.
    """

    over_peak_db: float = 3.0
    mode: str = "anhysteretic"
    frequency_hz: float = 120_000.0
    zone_um: float = 1.5

    def __post_init__(self) -> None:
        if self.mode not in ("ac", "anhysteretic"):
            raise UserError(f"bias.mode is {self.mode!r}: choose ac or anhysteretic.")


@dataclass(frozen=True)
class BiasCurves:
    """Output against bias, each array (n,): what a technician reads while turning the bias up."""

    amplitude: np.ndarray  # peak field
    sensitivity_db: np.ndarray  # 1 kHz at a small field
    output_10khz_db: np.ndarray  # likewise at 10 kHz, with the loss of the record zone
    thd_percent: np.ndarray  # 1 kHz at a field of 0.5


def bias_curves(hysteresis: Hysteresis, bias: Bias, speed_ips: float) -> BiasCurves:
    """Measures a hysteresis under growing bias at one tape speed; levels re the magnetisation of a unit of field."""
    amplitude = np.concatenate([[0.0], np.geomspace(0.05, 2.0, 48)])
    small = np.array([_biased_tone(hysteresis, bias.frequency_hz, b, _SMALL_FIELD, 1000) for b in amplitude])
    treble = np.array([_biased_tone(hysteresis, bias.frequency_hz, b, _SMALL_FIELD, 10_000) for b in amplitude])
    loud = np.abs([_biased_tone(hysteresis, bias.frequency_hz, b, 0.5, 1000) for b in amplitude])
    wavenumber_per_um = 2e-6 * np.pi * 10_000 / (speed_ips * METRES_PER_INCH)
    zone = np.exp(-wavenumber_per_um * bias.zone_um * amplitude)
    return BiasCurves(
        amplitude,
        20 * np.log10(np.abs(small[:, 0]) / _SMALL_FIELD),
        20 * np.log10(np.abs(treble[:, 0]) / _SMALL_FIELD * zone),
        100 * np.sqrt(np.sum(loud[:, 1:] ** 2, axis=1)) / loud[:, 0],
    )


@lru_cache(maxsize=64)
def bias_amplitude(hysteresis: Hysteresis, bias: Bias, speed_ips: float) -> float:
    """Peak field of the bias at which a 10 kHz tone has fallen `over_peak_db` below its highest output.

    Raises UserError where the output never falls so far.
    """
    curves = bias_curves(hysteresis, bias, speed_ips)
    peak = int(np.argmax(curves.output_10khz_db))
    fall = curves.output_10khz_db[peak] - curves.output_10khz_db[peak:]
    past = int(np.argmax(fall >= bias.over_peak_db))
    if bias.over_peak_db < 0 or fall[past] < bias.over_peak_db:
        raise UserError(
            f"bias.over_peak_db is {bias.over_peak_db}: at {speed_ips:g} ips give 0 to {fall.max():.1f} dB."
        )
    return float(np.interp(bias.over_peak_db, fall[: past + 1], curves.amplitude[peak : peak + past + 1]))


@dataclass(frozen=True)
class Anhysteretic:
    """A biased tape as one odd curve and a lag of a few microseconds, the time a cycle of the bias takes to act."""

    curve: CubicSpline
    lag_seconds: float

    def magnetise(self, field: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Magnetisation (time,) for the field (time,), the bias not included."""
        m = self.curve(np.clip(field, -_LARGEST_FIELD, _LARGEST_FIELD))
        pole = 2 * self.lag_seconds * sample_rate_hz
        return np.asarray(lfilter([1 / (1 + pole)] * 2, [1.0, (1 - pole) / (1 + pole)], m))


@lru_cache(maxsize=64)
def anhysteretic_curve(hysteresis: Hysteresis, frequency_hz: float, amplitude: float) -> Anhysteretic:
    """Measures the biased hysteresis: the mean magnetisation at steady fields, and its lag on a small 10 kHz tone."""
    half = np.concatenate([np.linspace(0, 2, 81), np.linspace(2.1, _LARGEST_FIELD, 60)])
    grid = np.concatenate([-half[:0:-1], half])
    cycles, read = 24, 8  # at each field; the mean is taken over the last ones
    rate_hz = frequency_hz * _BIAS_CYCLE_SAMPLES
    field = np.repeat(grid, cycles * _BIAS_CYCLE_SAMPLES)
    m = _under_bias(hysteresis, frequency_hz, amplitude)(field, rate_hz)
    mean = m.reshape(grid.size, -1)[:, -read * _BIAS_CYCLE_SAMPLES :].mean(axis=1)
    curve = CubicSpline(grid, (mean - mean[::-1]) / 2)
    tone = _biased_tone(hysteresis, frequency_hz, amplitude, _SMALL_FIELD, 10_000)[0]
    lag_seconds = max(-float(np.tan(np.angle(tone))) / (2 * np.pi * 10_000), 0.0)
    return Anhysteretic(curve, lag_seconds)


@dataclass(frozen=True)
class Tape:
    """The tape under the record head: hysteresis with its bias, at one speed. `bias` None: the bare loop."""

    hysteresis: Hysteresis
    bias: Bias | None
    speed_ips: float
    oversampling: int = 8

    @property
    def bias_amplitude(self) -> float:
        return bias_amplitude(self.hysteresis, self.bias, self.speed_ips) if self.bias else 0.0

    @property
    def zone_um(self) -> float:
        """How far the record zone lies off the gap, which acts as a spacing."""
        return self.bias.zone_um * self.bias_amplitude if self.bias else 0.0

    def magnetise(self, field: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Magnetisation (time,) for the signal's field (time,) at its own rate, oversampled within."""
        if self.bias is None:
            return self._oversampled(self.hysteresis.magnetise, field, sample_rate_hz, self.oversampling)
        amplitude, frequency_hz = self.bias_amplitude, self.bias.frequency_hz
        if self.bias.mode == "anhysteretic":
            biased = anhysteretic_curve(self.hysteresis, frequency_hz, amplitude)
            edge = _EDGE_SAMPLES  # one curve without a memory: what lies further away does not count
            out = np.empty(field.size)
            for start in range(0, field.size, _BLOCK_SAMPLES):
                first = max(start - edge, 0)
                part = field[first : start + _BLOCK_SAMPLES + edge]
                m = self._oversampled(biased.magnetise, part, sample_rate_hz, self.oversampling)
                out[start : start + _BLOCK_SAMPLES] = m[start - first : start - first + _BLOCK_SAMPLES]
            return out

        least = int(np.ceil(0.9 * _BIAS_CYCLE_SAMPLES * frequency_hz / sample_rate_hz))
        factor = max(self.oversampling, LEAST_BIAS_OVERSAMPLING, least)
        stage = _under_bias(self.hysteresis, frequency_hz, amplitude)
        return self._oversampled(stage, field, sample_rate_hz, factor)

    def tone(self, field: float, hz: float = 1000.0) -> np.ndarray:
        """Complex amplitudes (3,) of the 1st, 3rd and 5th harmonic of a sine of that peak field."""
        if self.bias is not None and self.bias.mode == "anhysteretic":
            stage = anhysteretic_curve(self.hysteresis, self.bias.frequency_hz, self.bias_amplitude).magnetise
            return _tone(stage, field, hz, 384.0 * hz)
        if self.bias is not None:
            return _biased_tone(self.hysteresis, self.bias.frequency_hz, self.bias_amplitude, field, hz)
        return _tone(self.hysteresis.magnetise, field, hz, 384.0 * hz)

    @staticmethod
    def _oversampled(stage, field: np.ndarray, sample_rate_hz: float, factor: int) -> np.ndarray:
        m = stage(change_rate(field, factor, up=True), sample_rate_hz * factor)
        return change_rate(m, factor, up=False)


def _biased_tone(hysteresis: Hysteresis, bias_hz: float, amplitude: float, field: float, hz: float) -> np.ndarray:
    return _tone(_under_bias(hysteresis, bias_hz, amplitude), field, hz, bias_hz * _BIAS_CYCLE_SAMPLES)


def _under_bias(hysteresis: Hysteresis, bias_hz: float, amplitude: float) -> Callable[[np.ndarray, float], np.ndarray]:
    """The hysteresis with the oscillator's field added to the signal's."""

    def stage(field: np.ndarray, rate_hz: float) -> np.ndarray:
        return hysteresis.magnetise(field + amplitude * _oscillator(bias_hz, field.size, rate_hz), rate_hz)

    return stage


def _tone(stage, field: float, hz: float, rate_hz: float) -> np.ndarray:
    """1st, 3rd and 5th harmonic (3,) of what a stage makes of a sine, after it has settled for 4 ms."""
    period = round(rate_hz / hz)
    settle, read = 4 * max(1, round(hz / 1000)), 2 * max(1, round(hz / 1000))
    turn = 2j * np.pi / period * np.arange((settle + read) * period)
    m = stage(field * np.imag(np.exp(turn)), rate_hz)[-read * period :]
    last = turn[-read * period :]
    return np.array([2j * np.mean(m * np.exp(-k * last)) for k in (1, 3, 5)])


def _oscillator(frequency_hz: float, samples: int, sample_rate_hz: float) -> np.ndarray:
    """Bias of unit amplitude (samples,), switched on over half a millisecond."""
    n = np.arange(samples) + 0.5  # so that the bench's ten samples a cycle touch the crest
    rise = np.minimum(1.0, n / (0.0005 * sample_rate_hz))
    return rise * np.sin(2 * np.pi * frequency_hz / sample_rate_hz * n)
