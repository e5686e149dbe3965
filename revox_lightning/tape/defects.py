"""What ails a tape: dropouts, and the print of one turn on the reel onto the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.fft import irfft, rfftfreq
from scipy.signal import oaconvolve

from revox_lightning.tape.fluctuation import check_range, check_speed
from revox_lightning.tape.losses import METRES_PER_INCH

SHARED = 0.5  # share of a track's dropouts that its neighbours have too: wide flaws against small ones
DURATION_SPREAD = 0.5  # standard deviation of the logarithm of a dropout's duration
PRINT_SECONDS = 0.05  # half the length of the print-through filter


@dataclass(frozen=True)
class Dropouts:
    """Moments in which dirt or a flaw of the coating lifts the tape off the head.

    Each channel loses its signal `per_minute` times a minute on average (a Poisson process); half of the places are
    common to all channels. A dip of the gain is a raised cosine, between 0 and `depth_db` deep and about `duration_ms`
    long from edge to edge (the median of a log-normal spread); where two meet, the deeper one counts. Defaults: a tape
    that has seen use.
    """

    per_minute: float = 2.0
    depth_db: float = 12.0
    duration_ms: float = 20.0

    def __post_init__(self) -> None:
        check_range("the dropouts' per_minute", self.per_minute, 0, 10_000)
        check_range("the dropouts' depth_db", self.depth_db, 0, 120)
        check_range("the dropouts' duration_ms", self.duration_ms, 0.1, 10_000)

    def gain(self, channels: int, samples: int, sample_rate_hz: float, seed: int | Sequence[int]) -> np.ndarray:
        """Factor (channels, samples) float64 on the flux, 1 where the tape is whole.

        >>> Dropouts().gain(2, 100, 44_100, seed=0).shape
        (2, 100)
        """
        rng = np.random.default_rng(seed)
        out = np.ones((channels, samples))
        minutes = samples / sample_rate_hz / 60
        for _ in range(rng.poisson(SHARED * self.per_minute * minutes)):
            centre, width = self._place(samples, sample_rate_hz, rng)
            for gain in out:
                self._dip(gain, centre, width, rng)
        for gain in out:
            for _ in range(rng.poisson((1 - SHARED) * self.per_minute * minutes)):
                self._dip(gain, *self._place(samples, sample_rate_hz, rng), rng)
        return out

    def _place(self, samples: int, sample_rate_hz: float, rng: np.random.Generator) -> tuple[float, float]:
        """Centre and width of a dropout, in samples."""
        seconds = self.duration_ms / 1000 * np.exp(DURATION_SPREAD * rng.standard_normal())
        return samples * rng.random(), seconds * sample_rate_hz

    def _dip(self, gain: np.ndarray, centre: float, width: float, rng: np.random.Generator) -> None:
        """Lower `gain` (time,) in place around `centre`."""
        lost = 1 - 10 ** (-self.depth_db * rng.random() / 20)
        first, last = max(0, int(np.ceil(centre - width / 2))), min(gain.size, int(centre + width / 2) + 1)
        phase = 2 * np.pi * (np.arange(first, last) - centre) / width
        dip = 1 - lost * (0.5 + 0.5 * np.cos(phase))
        gain[first:last] = np.minimum(gain[first:last], dip)


@dataclass(frozen=True)
class PrintThrough:
    """Echoes one turn of the reel before and after the signal, magnetised from layer to layer in storage.

    The wavelength response is k t exp(1 - k t), with the wavenumber k = 2 pi f / v and the thickness t of the tape;
    it is largest (1) where the wavelength is 2 pi t. It is a simple model: the field of a thin coating, proportional
    to k, reaches the next layer through t. The thickness of the coating, the phase of its field and the growth of the
    turns are left out; Daniel, "Accidental printing in magnetic recording", BBC Quarterly 1950, and Bertram, Stafford
    and Mills, "The print-through phenomenon", JAES 1980, treat the whole matter.

    `level_db` is the stronger echo at its best wavelength re the signal; `difference_db` is how much stronger the
    echo before is than the one after (tape stored head out; negative for tail out). Defaults: plausible for long-play
    tape of 35 um after a while on the shelf.
    """

    level_db: float = -55.0
    difference_db: float = 4.0
    reel_radius_mm: float = 60.0
    tape_thickness_um: float = 35.0

    def __post_init__(self) -> None:
        check_range("the print-through's level_db", self.level_db, -300, 0)
        check_range("the print-through's difference_db", self.difference_db, -60, 60)
        check_range("the print-through's reel_radius_mm", self.reel_radius_mm, 10, 1000)
        check_range("the print-through's tape_thickness_um", self.tape_thickness_um, 1, 1000)

    def add(self, flux: np.ndarray, sample_rate_hz: float, speed_ips: float) -> np.ndarray:
        """`flux` (time,) with its echoes, float64 and of the same length.

        >>> PrintThrough().add(np.zeros(100), 44_100, 7.5).shape
        (100,)
        """
        check_speed(speed_ips)
        turn = round(2e-3 * np.pi * self.reel_radius_mm / (speed_ips * METRES_PER_INCH) * sample_rate_hz)
        out = np.array(flux, dtype=np.float64)
        if turn >= out.size:
            return out
        printed = oaconvolve(flux, self._fir(sample_rate_hz, speed_ips), mode="same")
        strong = 10 ** (self.level_db / 20)
        weak = strong * 10 ** (-abs(self.difference_db) / 20)
        before, after = (strong, weak) if self.difference_db >= 0 else (weak, strong)
        out[:-turn] += before * printed[turn:]
        out[turn:] += after * printed[:-turn]
        return out

    def _fir(self, sample_rate_hz: float, speed_ips: float) -> np.ndarray:
        """Zero-phase FIR (odd taps,) of the wavelength response."""
        half = round(PRINT_SECONDS * sample_rate_hz)
        frequency_hz = rfftfreq(4 * half, 1 / sample_rate_hz)
        depth = 2e-6 * np.pi * frequency_hz * self.tape_thickness_um / (speed_ips * METRES_PER_INCH)
        response = np.roll(irfft(depth * np.exp(1 - depth)), half)[: 2 * half + 1]
        return response * np.hanning(2 * half + 3)[1:-1]
