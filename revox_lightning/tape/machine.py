"""A virtual tape recorder: amplifiers, bias and hysteresis, transport, heads, noise - each a stage with its truth."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.signal import lfilter, oaconvolve

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.tape.defects import Dropouts, PrintThrough
from revox_lightning.tape.equalisation import (
    Equalisation,
    Equaliser,
    digital_gain,
    playback_equaliser,
    record_equaliser,
)
from revox_lightning.tape.losses import PlaybackHead, frequency_grid_hz, loss_fir
from revox_lightning.tape.magnetics import Bias, Hysteresis, JilesAtherton, Tape
from revox_lightning.tape.noise import Asperity, Hiss
from revox_lightning.tape.stereo import Azimuth, Crosstalk, Imbalance
from revox_lightning.tape.transport import Transport

log = logging.getLogger(__name__)

STAGES = (
    "equalisation", "hysteresis", "bias", "head", "transport", "azimuth", "crosstalk", "imbalance", "hiss", "asperity",
    "dropouts", "print_through",
)  # fmt: skip
LOW_FIELD = 0.05  # at which the machine is aligned to unity gain
_FIELD_AT_ZERO_VU = 0.22  # where no level gives 3 % of third harmonic: a bare loop distorts more than that everywhere
_NOTHING = np.ones(1)


@dataclass(frozen=True)
class Playback:
    """What comes back from a machine, and the truth behind it. Each array is (channels, time)."""

    wet: np.ndarray  # float32
    noise: np.ndarray  # float32; hiss and asperity as they stand in wet: what no model can predict
    delay_samples: np.ndarray  # float64; wet sample n was recorded at n - delay_samples[n]
    gain: np.ndarray  # float32; of dropouts and imbalance


@dataclass(frozen=True)
class TapeMachine:
    """A recorder aligned to be flat and of unity gain at low level; any stage of `STAGES` may be None.

    `zero_vu_dbfs` is the level of a sine (full-scale sine = 0 dBFS) that reads 0 VU and lays down
    `zero_vu_flux_nwb_per_m` at 1 kHz; `record_level_db` drives the tape harder and is taken back at playback,
    `input_gain_db` is not. `mol_db` is the output re 0 VU at which the third harmonic of 1 kHz reaches 3 %: it fixes
    how strong the field at 0 VU is. The record equaliser suits a bias of `aligned_over_peak_db` where it is not None,
    else the bias that is set. `published` holds figures of the real machine, null where no source gives them.
    """

    speed_ips: float = 7.5
    zero_vu_dbfs: float = -18.0
    input_gain_db: float = 0.0
    record_level_db: float = 0.0
    mol_db: float = 8.0
    oversampling: int = 8
    equalisation: Equalisation | None = field(default_factory=Equalisation)
    hysteresis: Hysteresis | None = field(default_factory=JilesAtherton)
    bias: Bias | None = field(default_factory=Bias)
    aligned_over_peak_db: float | None = None
    head: PlaybackHead | None = field(default_factory=PlaybackHead)
    transport: Transport | None = None
    azimuth: Azimuth | None = None
    crosstalk: Crosstalk | None = None
    imbalance: Imbalance | None = None
    hiss: Hiss | None = None
    asperity: Asperity | None = None
    dropouts: Dropouts | None = None
    print_through: PrintThrough | None = None
    zero_vu_flux_nwb_per_m: float | None = 257.0
    track_format: str | None = None
    tape_type: str | None = None
    published: dict[str, object] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("mol_db", self.mol_db, -10, 30),
            ("zero_vu_dbfs", self.zero_vu_dbfs, -60, 0),
            ("record_level_db", self.record_level_db, -60, 60),
            ("input_gain_db", self.input_gain_db, -100, 100),
        ):
            if not least <= value <= most:
                raise UserError(f"the machine's {name} is {value}: give {least} to {most}.")

    def without(self, *stages: str) -> "TapeMachine":
        """The same machine with these stages switched off; raises UserError for an unknown one."""
        for stage in stages:
            if stage not in STAGES:
                raise UserError(f"the tape machine has no stage {stage!r}: choose among {', '.join(STAGES)}.")
        return replace(self, **dict.fromkeys(stages))

    def only(self, *stages: str) -> "TapeMachine":
        """The same machine with all other stages switched off; raises UserError for an unknown one."""
        self.without(*stages)
        return self.without(*(stage for stage in STAGES if stage not in stages))

    def play(self, x: np.ndarray, sample_rate_hz: float, seed: int) -> Playback:
        """Record and replay `x` (channels, time) at its own rate; the same seed gives the same machine's whims.

        Without a transport the answer has no latency. A signal without time comes back without time. Raises UserError
        where `x` holds NaN or infinities.

        >>> TapeMachine().play(np.zeros((2, 100)), 44_100, seed=0).wet.shape
        (2, 100)
        """
        if x.ndim != 2:
            raise ValueError(f"TapeMachine.play takes (channels, time), not an array of shape {x.shape}")
        if not np.isfinite(x).all():
            raise UserError("the tape machine's input holds NaN or infinite samples: repair the recording first.")
        if x.size == 0:
            return Playback(*[np.zeros(x.shape, np.float32)] * 4)
        channels, samples = x.shape
        with ThreadPoolExecutor(2) as pool:
            flux = np.stack(list(pool.map(lambda channel: self._record(channel, sample_rate_hz), x)))
            positions = self._positions(channels, samples, sample_rate_hz, seed)
            if positions is not None:
                flux = np.stack(list(pool.map(read_at, flux, positions)))
            if self.crosstalk:
                flux = self.crosstalk.mix(flux)
            dips = np.ones_like(flux)
            if self.dropouts:
                dips = self.dropouts.gain(channels, samples, sample_rate_hz, [seed, 3])
            flux *= dips
            noise = np.stack([self._noise(channel, c, sample_rate_hz, seed) for c, channel in enumerate(flux)])
            wet = np.stack(list(pool.map(lambda channel: self._reproduce(channel, sample_rate_hz), flux))) + noise
        levels = self.imbalance.gains(channels)[:, None] if self.imbalance else np.ones((channels, 1))
        wet, noise, gain = ((part * levels).astype(np.float32) for part in (wet, noise, dips))
        return Playback(wet, noise, np.zeros(x.shape) if positions is None else np.arange(samples) - positions, gain)

    def response_db(self, frequency_hz: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """Gain from input to output at low level, re 1 kHz, as the stages' own formulas give it."""
        f = np.append(np.asarray(frequency_hz, dtype=np.float64), 1000.0)
        gain = np.abs(self._recorder(sample_rate_hz).gain(f, sample_rate_hz)) if self.equalisation else np.ones(f.size)
        gain = gain * np.abs(self._playback_gain(f, sample_rate_hz))
        if self.hysteresis is not None:
            small = {hz: np.abs(self._tape().tone(LOW_FIELD, hz)[0]) for hz in (1000.0, 10_000.0)}
            lag = max((small[1000.0] / small[10_000.0]) ** 2 - 1, 0.0) / 10_000.0**2
            gain = gain / np.sqrt(1 + lag * f**2)
        return 20 * np.log10(gain[:-1] / gain[-1])

    @property
    def field_gain(self) -> float:
        """Field of the record head per unit of input at the record amplifier."""
        return self._field_at_zero_vu() * 10 ** ((self.record_level_db - self.zero_vu_dbfs) / 20)

    def _record(self, x: np.ndarray, rate_hz: float) -> np.ndarray:
        """One channel (time,) onto tape; flux in units of the input."""
        x = 10 ** (self.input_gain_db / 20) * np.asarray(x, dtype=np.float64)
        if self.equalisation:
            x = self._recorder(rate_hz)(x)
        if self.hysteresis is not None:
            gain, tape = self.field_gain, self._tape()
            x = tape.magnetise(gain * x, rate_hz) / (gain * self._low_level_gain())
        return self.print_through.add(x, rate_hz, self.speed_ips) if self.print_through else x

    def _positions(self, channels: int, samples: int, rate_hz: float, seed: int) -> np.ndarray | None:
        """Where on the recording each output sample lies, (channels, time) in samples."""
        if self.transport is None and self.azimuth is None:
            return None
        positions = np.arange(samples, dtype=np.float64)
        if self.transport is not None:
            positions = self.transport.positions(samples, rate_hz, self.speed_ips, [seed, 1])
        tilt = np.zeros((channels, 1))
        if self.azimuth is not None:
            tilt = rate_hz * self.azimuth.delays_seconds(channels, samples, rate_hz, self.speed_ips, [seed, 2])
        return positions[None] - tilt

    def _noise(self, flux: np.ndarray, channel: int, rate_hz: float, seed: int) -> np.ndarray:
        """What is added to the output of one channel (time,)."""
        noise = np.zeros(flux.size)
        if self.asperity is not None:
            rough = self.asperity.gain(flux.size, rate_hz, [seed, 4, channel])
            noise += self._reproduce(flux * (rough - 1), rate_hz)
        if self.hiss is not None:
            shape = self._player(rate_hz).impulse_response(round(rate_hz / 10)) if self.equalisation else _NOTHING
            noise += self.hiss.noise(flux.size, rate_hz, self.zero_vu_dbfs, shape, [seed, 5, channel])
        return noise

    def _reproduce(self, flux: np.ndarray, rate_hz: float) -> np.ndarray:
        """Playback head and amplifier of one channel (time,)."""
        flux = oaconvolve(flux, self._head_fir(rate_hz))[: flux.size]
        if self.head and self.head.bump_db:
            flux = np.asarray(lfilter(*self.head.bump(rate_hz, self.speed_ips), flux))
        return self._player(rate_hz)(flux) if self.equalisation else flux

    def _head_gain(self, frequency_hz: np.ndarray, zone_um: float) -> np.ndarray:
        """What is lost of short wavelengths, by head and record zone."""
        return self.head.gain(frequency_hz, self.speed_ips, zone_um) if self.head else np.ones(frequency_hz.size)

    def _head_fir(self, rate_hz: float) -> np.ndarray:
        grid_hz = frequency_grid_hz(rate_hz)
        gain = self._head_gain(grid_hz, self._tape().zone_um)
        if self.azimuth:  # a loss that the record equaliser was not set for
            gain = gain * self.azimuth.loss(grid_hz, self.speed_ips)
        return loss_fir(gain, rate_hz)

    def _playback_gain(self, frequency_hz: np.ndarray, rate_hz: float) -> np.ndarray:
        """Complex gain from flux to output, without the scale."""
        gain = digital_gain(self._head_fir(rate_hz), np.ones(1), frequency_hz, rate_hz)
        if self.head and self.head.bump_db:
            gain = gain * digital_gain(*self.head.bump(rate_hz, self.speed_ips), frequency_hz, rate_hz)
        return gain * self._player(rate_hz).gain(frequency_hz, rate_hz) if self.equalisation else gain

    def _recorder(self, rate_hz: float) -> Equaliser:
        assert self.equalisation is not None
        aligned = self._tape(aligned=True)
        head_gain = self._head_gain(frequency_grid_hz(rate_hz), aligned.zone_um)
        eq = self.equalisation
        return record_equaliser(eq.record, self.speed_ips, rate_hz, head_gain, eq.bandwidth_hz)

    def _player(self, rate_hz: float) -> Equaliser:
        assert self.equalisation is not None
        return playback_equaliser(self.equalisation.playback, self.speed_ips, rate_hz)

    def _tape(self, aligned: bool = False) -> Tape:
        """The tape under the record head; with `aligned`, under the bias that the machine was aligned for."""
        bias = self.bias if self.hysteresis is not None else None
        if bias is not None and aligned and self.aligned_over_peak_db is not None:
            bias = replace(bias, over_peak_db=self.aligned_over_peak_db)
        return Tape(self.hysteresis or JilesAtherton(), bias, self.speed_ips, self.oversampling)

    def _low_level_gain(self) -> float:
        """Magnetisation per field at 1 kHz and low level of the aligned tape: what playback takes back."""
        return float(abs(self._tape(aligned=True).tone(LOW_FIELD)[0])) / LOW_FIELD

    def _field_at_zero_vu(self) -> float:
        if self.hysteresis is None:
            return 1.0
        first, third = np.abs(self._playback_gain(np.array([1000.0, 3000.0]), 96_000.0))
        loud = _field_of_three_percent(self._tape(), round(float(third / first), 6))
        if loud is None:
            return _FIELD_AT_ZERO_VU
        output = float(first * abs(self._tape().tone(loud)[0])) / self._low_level_gain()
        return output / 10 ** (self.mol_db / 20)


@lru_cache(maxsize=64)
def _field_of_three_percent(tape: Tape, playback_ratio: float) -> float | None:
    """Peak field of a 1 kHz sine whose third harmonic is 3 % at the output; None where it is more at any field.

    `playback_ratio` is the gain of playback at 3 kHz re 1 kHz.
    """

    def third(peak: float) -> float:
        first, harmonic, _ = np.abs(tape.tone(peak))
        return playback_ratio * harmonic / first

    low, high = 0.02, 6.0
    grid = np.geomspace(low, high, 24)
    above = [third(peak) > 0.03 for peak in grid]
    first = next((n for n in range(len(grid)) if all(above[n:])), None)
    if not first:
        log.warning("the tape reaches 3 %% of third harmonic at no one level, so mol_db says nothing of this machine.")
        return None
    low, high = grid[first - 1], grid[first]
    for _ in range(20):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if third(middle) > 0.03 else (middle, high)
    return float(np.sqrt(low * high))
