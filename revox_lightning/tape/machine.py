"""A virtual tape machine: record amplifier, hysteresis, playback head, playback amplifier, hiss."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import oaconvolve

from revox_lightning.errors import UserError
from revox_lightning.tape.equalisation import Equaliser, playback_equaliser, record_equaliser
from revox_lightning.tape.hysteresis import hysteresis, jiles_atherton, makeup_gain
from revox_lightning.tape.losses import frequency_grid_hz, loss_fir, playback_loss

FIELD_AT_ZERO_VU = 0.22  # peak of the normalised field: third harmonic 1 % at 1 kHz with the default hysteresis


@dataclass(frozen=True)
class Playback:
    """What comes back from a machine, and the part of it that no model can predict."""

    wet: np.ndarray  # (channels, time) float32
    hiss: np.ndarray  # (channels, time) float32, the noise alone as it stands in wet


@dataclass(frozen=True)
class TapeMachine:
    """A recorder aligned to be flat and of unity gain at low level, and what its tape adds.

    `zero_vu_dbfs` is the level of a sine (full-scale sine = 0 dBFS) that reads 0 VU at `record_level_db` 0;
    `record_level_db` drives the tape harder and is taken back at playback. `hiss_db` is the unweighted noise in the
    replayed flux, in dB re a sine at 0 VU. `drive`, `width`, `saturation` and `solver` belong to `jiles_atherton`.
    Spacing, coating thickness and gap belong to the playback head (`playback_loss`).
    """

    speed_ips: float = 7.5
    equalisation: str = "nab"
    zero_vu_dbfs: float = -18.0
    record_level_db: float = 6.0
    hiss_db: float = -33.0
    drive: float = 0.5
    width: float = 0.5
    saturation: float = 0.5
    solver: str = "rk4"
    oversampling: int = 8
    spacing_um: float = 1.5
    thickness_um: float = 12.0
    gap_um: float = 2.5
    bandwidth_hz: float = 20_000.0

    def play(self, x: np.ndarray, sample_rate_hz: float, seed: int) -> Playback:
        """Record and replay `x` (channels, time) at its own rate; the same seed gives the same hiss.

        Each channel has its own hysteresis and its own hiss; the answer has no latency. A signal without time comes
        back without time. Raises UserError where `x` holds NaN or infinities.

        >>> TapeMachine().play(np.zeros((2, 100)), 44_100, seed=0).wet.shape
        (2, 100)
        """
        if x.ndim != 2:
            raise ValueError(f"TapeMachine.play takes (channels, time), not an array of shape {x.shape}")
        if not np.isfinite(x).all():
            raise UserError("the tape machine's input holds NaN or infinite samples: repair the recording first.")
        if x.size == 0:
            return Playback(np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32))
        tape = np.stack([self._replay(channel, sample_rate_hz) for channel in x])
        hiss = np.stack([self._hiss(x.shape[1], sample_rate_hz, [seed, c]) for c in range(len(x))])
        return Playback((tape + hiss).astype(np.float32), hiss.astype(np.float32))

    @property
    def field_gain(self) -> float:
        """Normalised field of the record head per unit of input."""
        return FIELD_AT_ZERO_VU * 10 ** ((self.record_level_db - self.zero_vu_dbfs) / 20)

    def _replay(self, x: np.ndarray, sample_rate_hz: float) -> np.ndarray:
        """One channel (time,) to tape and back, without hiss."""
        record = record_equaliser(
            self.equalisation, self.speed_ips, sample_rate_hz, self._head_gain(sample_rate_hz), self.bandwidth_hz
        )
        flux = hysteresis(
            self.field_gain * record(x),
            sample_rate_hz,
            self.oversampling,
            drive=self.drive,
            width=self.width,
            saturation=self.saturation,
            solver=self.solver,
        )
        head = loss_fir(
            sample_rate_hz,
            self.speed_ips,
            spacing_um=self.spacing_um,
            thickness_um=self.thickness_um,
            gap_um=self.gap_um,
        )
        line = self._playback(sample_rate_hz)(oaconvolve(flux, head)[: x.size])
        return line / (self.field_gain * self._flux_per_field())

    def _hiss(self, samples: int, sample_rate_hz: float, seed: list[int]) -> np.ndarray:
        """White tape noise (time,) through the playback amplifier, at `hiss_db` re 0 VU."""
        shape = self._playback(sample_rate_hz)
        energy = np.sum(shape.impulse_response(round(sample_rate_hz / 10)) ** 2)
        rms_at_zero_vu = 10 ** ((self.zero_vu_dbfs - self.record_level_db) / 20) / np.sqrt(2)
        noise = shape(np.random.default_rng(seed).standard_normal(samples))
        return 10 ** (self.hiss_db / 20) * rms_at_zero_vu / np.sqrt(energy) * noise

    def _playback(self, sample_rate_hz: float) -> Equaliser:
        return playback_equaliser(self.equalisation, self.speed_ips, sample_rate_hz)

    def _head_gain(self, sample_rate_hz: float) -> np.ndarray:
        return playback_loss(
            frequency_grid_hz(sample_rate_hz),
            self.speed_ips,
            spacing_um=self.spacing_um,
            thickness_um=self.thickness_um,
            gap_um=self.gap_um,
        )

    def _flux_per_field(self) -> float:
        """Gain of the hysteresis for a 1 kHz sine 20 dB under 0 VU, by which the machine is aligned."""
        rate_hz, cycles = 384_000, 8
        t = np.arange(cycles * rate_hz // 1000) / rate_hz
        field = 0.1 * FIELD_AT_ZERO_VU * np.sin(2 * np.pi * 1000 * t)
        m = jiles_atherton(
            field, rate_hz, drive=self.drive, width=self.width, saturation=self.saturation, solver=self.solver
        )
        last = slice(-rate_hz // 1000, None)
        return makeup_gain(self.width, self.saturation) * float(m[last] @ field[last] / (field[last] @ field[last]))
