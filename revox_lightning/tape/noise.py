"""What the tape adds of its own: hiss, which is always there, and asperity noise, which comes with the signal."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.fft import irfft, rfft, rfftfreq
from scipy.signal import lfilter, oaconvolve

from revox_lightning.dsp.weighting import NOISE_WEIGHTINGS
from revox_lightning.errors import UserError
from revox_lightning.tape.fluctuation import check_range, quick_size

SPECTRUM_TAPS = 16_384  # of the filter that gives hiss a measured spectrum: lines of 3 Hz at 44.1 kHz


@dataclass(frozen=True)
class Hiss:
    """Stationary Gaussian noise at the machine's output, calibrated to a signal-to-noise ratio.

    The ratio holds for an rms detector behind the `weighting` ("a", "itu_r_468", or "unweighted": 20 Hz to 20 kHz),
    and for a signal `reference_db` above 0 VU: data sheets refer to full modulation, often 6 dB up. ITU-R 468 asks for
    a quasi-peak detector, which reads Gaussian noise a few dB higher; a figure taken with one has to be lowered first.
    `spectrum` replaces the shape of white tape noise behind the playback chain: pairs of frequency in Hz and level in
    dB per hertz (of any reference), as measured at the output; between them the level runs straight over the logarithm
    of the frequency, beyond them it is held.
    Default: 60 dB, A-weighted; the A77's 58 dB (7.5 ips) is published without its weighting.
    """

    signal_to_noise_db: float = 60.0
    weighting: str = "a"
    reference_db: float = 0.0
    spectrum: list[list[float]] | None = None

    def __post_init__(self) -> None:
        if self.weighting not in NOISE_WEIGHTINGS:
            raise UserError(
                f"unknown weighting {self.weighting!r} of the hiss: choose one of {', '.join(NOISE_WEIGHTINGS)}."
            )
        check_range("the hiss's signal_to_noise_db", self.signal_to_noise_db, 0, 300)
        check_range("the hiss's reference_db", self.reference_db, -60, 60)
        if self.spectrum is not None:
            _spectrum_pairs(self.spectrum)

    def noise(
        self,
        samples: int,
        sample_rate_hz: float,
        zero_vu_dbfs: float,
        shape_impulse_response: np.ndarray,
        seed: int | Sequence[int],
    ) -> np.ndarray:
        """Noise (samples,) float64, stationary from the first sample on.

        Its weighted rms level is, in expectation, zero_vu_dbfs + reference_db - signal_to_noise_db, where 0 dBFS is a
        full-scale sine (rms 1 / sqrt 2). `shape_impulse_response` (taps,) is what white noise on the tape passes
        through; a measured `spectrum` takes its place.

        >>> Hiss().noise(100, 44_100, -18.0, np.ones(1), seed=0).shape
        (100,)
        """
        fir = np.asarray(shape_impulse_response, dtype=np.float64)
        if self.spectrum is not None:
            fir = _spectrum_fir(self.spectrum, sample_rate_hz)
        level_dbfs = zero_vu_dbfs + self.reference_db - self.signal_to_noise_db
        weighted_rms = _weighted_rms(fir, sample_rate_hz, self.weighting)
        if not weighted_rms > 0:
            raise UserError(f"the hiss cannot be set to a level: the weighting {self.weighting!r} hears nothing of it.")
        white = np.random.default_rng(seed).standard_normal(samples + fir.size - 1)
        noise = oaconvolve(white, fir, mode="valid")[:samples] if samples else np.zeros(0)
        return 10 ** (level_dbfs / 20) / np.sqrt(2) / weighted_rms * noise


@dataclass(frozen=True)
class Asperity:
    """Modulation noise: the rough tape lets the flux tremble, by a factor 1 + n(t).

    `level_db` is the unweighted rms of the noise beside a steady tone, re that tone (both sidebands together).
    n is Gaussian; its spectrum is flat to `bandwidth_hz` and falls with 6 dB an octave above, so the noise is densest
    around the tone, as the contact of tape and head varies over long stretches. The corner is a wavelength: 1 kHz at
    7.5 ips is 2 kHz at 15 ips. Level and corner are plausible values, not the A77's.
    """

    level_db: float = -50.0
    bandwidth_hz: float = 1000.0

    def __post_init__(self) -> None:
        check_range("the asperity's level_db", self.level_db, -300, -10)
        check_range("the asperity's bandwidth_hz", self.bandwidth_hz, 1, 20_000)

    def gain(self, samples: int, sample_rate_hz: float, seed: int | Sequence[int]) -> np.ndarray:
        """Factor (samples,) float64 on the flux of one channel, of mean 1.

        >>> Asperity().gain(100, 44_100, seed=0).shape
        (100,)
        """
        rng = np.random.default_rng(seed)
        pole = np.exp(-2 * np.pi * self.bandwidth_hz / sample_rate_hz)
        before = pole * rng.standard_normal(1)  # a filter long at work
        n, _ = lfilter([np.sqrt(1 - pole**2)], [1.0, -pole], rng.standard_normal(samples), zi=before)
        return 1 + 10 ** (self.level_db / 20) * n


def _weighted_rms(fir: np.ndarray, sample_rate_hz: float, weighting: str) -> float:
    """Expected rms behind the weighting of white noise of rms 1 through `fir` (taps,)."""
    size = quick_size(max(4 * fir.size, 65_536))
    gain = np.abs(rfft(fir, size)) * NOISE_WEIGHTINGS[weighting](rfftfreq(size, 1 / sample_rate_hz))
    return float(np.sqrt(np.mean(gain**2)))


def _spectrum_pairs(spectrum: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and levels (pairs,) of a measured spectrum; UserError where they cannot be one."""
    sizes = {len(pair) for pair in spectrum}
    if sizes != {2}:
        raise UserError("the hiss's spectrum must be a list of pairs [frequency_hz, level_db], at least one.")
    frequency_hz, level_db = np.array([[float(number) for number in pair] for pair in spectrum]).T
    if not (np.isfinite(level_db).all() and frequency_hz[0] > 0 and (np.diff(frequency_hz) > 0).all()):
        raise UserError("the hiss's spectrum needs finite levels at frequencies above 0 Hz in rising order.")
    return frequency_hz, level_db


def _spectrum_fir(spectrum: list[list[float]], sample_rate_hz: float) -> np.ndarray:
    """Linear-phase FIR (SPECTRUM_TAPS,) with the shape of a measured spectrum."""
    frequency_hz, level_db = _spectrum_pairs(spectrum)
    grid_hz = np.maximum(rfftfreq(SPECTRUM_TAPS, 1 / sample_rate_hz), 1e-3)
    gain = 10 ** (np.interp(np.log(grid_hz), np.log(frequency_hz), level_db - level_db.max()) / 20)
    return np.fft.fftshift(irfft(gain)) * np.hanning(SPECTRUM_TAPS + 1)[:-1]
