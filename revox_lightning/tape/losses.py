"""What the playback head loses of a short wavelength: spacing, thickness of the coating, and gap."""

from dataclasses import dataclass

import numpy as np
from numpy.fft import irfft, rfft
from scipy.signal import bilinear

from revox_lightning.errors import UserError

METRES_PER_INCH = 0.0254


def playback_loss(
    frequency_hz: np.ndarray, speed_ips: float, *, spacing_um: float, thickness_um: float, gap_um: float
) -> np.ndarray:
    """Gain of the playback head at each frequency; sign included, beyond the gap's null it turns.

    With the wavenumber k = 2 pi f / v: exp(-k d) (1 - exp(-k delta)) / (k delta) sin(k g / 2) / (k g / 2).
    Source: Kadis, "The Science of Sound Recording"; Chowdhury, DAFx-19, section 2.3.

    >>> playback_loss(np.array([0.0]), 7.5, spacing_um=1.0, thickness_um=10.0, gap_um=2.5)
    array([1.])
    """
    if speed_ips <= 0:
        raise UserError(f"the tape speed is {speed_ips} ips: give a speed above 0, such as 7.5.")
    k_per_um = 2e-6 * np.pi * np.asarray(frequency_hz, dtype=np.float64) / (speed_ips * METRES_PER_INCH)
    depth = np.maximum(k_per_um * thickness_um, 1e-9)
    return np.exp(-k_per_um * spacing_um) * -np.expm1(-depth) / depth * np.sinc(k_per_um * gap_um / (2 * np.pi))


@dataclass(frozen=True)
class PlaybackHead:
    """The playback head: what it loses of short wavelengths, and its bump at long ones.

    Where the wavelength grows as long as the head's face, its edges pick up flux of their own and the response
    undulates; the first and largest of these bumps is kept, at `bump_wavelength_mm` (Jorgensen, "The Complete
    Handbook of Magnetic Recording", on long-wavelength response). A bump of 0 dB is none.
    """

    spacing_um: float = 1.0
    thickness_um: float = 12.0
    gap_um: float = 2.5
    bump_db: float = 1.0
    bump_wavelength_mm: float = 4.0

    def gain(self, frequency_hz: np.ndarray, speed_ips: float, zone_um: float = 0.0) -> np.ndarray:
        """`playback_loss` of this head; the record zone's distance `zone_um` acts as further spacing."""
        return playback_loss(
            frequency_hz,
            speed_ips,
            spacing_um=self.spacing_um + zone_um,
            thickness_um=self.thickness_um,
            gap_um=self.gap_um,
        )

    def bump(self, sample_rate_hz: float, speed_ips: float) -> tuple[np.ndarray, np.ndarray]:
        """(b, a) of the bump: a resonance of Q 1.5."""
        omega = 2 * np.pi * 1e3 * speed_ips * METRES_PER_INCH / self.bump_wavelength_mm
        lift, width = 10 ** (self.bump_db / 20), omega / 1.5
        b, a = bilinear([1.0, lift * width, omega**2], [1.0, width, omega**2], sample_rate_hz)
        return np.asarray(b), np.asarray(a)


def loss_fir(gain: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Minimum-phase FIR (taps,) with the magnitude of a head's `gain` on `frequency_grid_hz`.

    A head averages the tape evenly before and behind its gap, so the true loss is symmetrical around the moment the
    tape passes the gap. Counted from that moment it would answer before it is asked; with minimum phase the machine
    is causal and has no latency, and its record equaliser can undo the loss exactly.
    """
    return minimum_phase_fir(gain, treble_taps(sample_rate_hz))


def frequency_grid_hz(sample_rate_hz: float) -> np.ndarray:
    """Even grid (4,097,) from 0 Hz to half the rate, on which the machine's treble filters are designed."""
    return np.arange(4097) * (sample_rate_hz / 8192)


def treble_taps(sample_rate_hz: float) -> int:
    """Length of the machine's treble filters: 4.4 ms, long past the slowest treble time constant."""
    return round(192 * sample_rate_hz / 44_100)


def minimum_phase_fir(gain: np.ndarray, taps: int) -> np.ndarray:
    """Causal FIR (taps,) whose magnitude is `gain`, given on an even grid from 0 Hz to half the rate, both included.

    Its phase follows from the magnitude through the cepstrum (Oppenheim and Schafer, "Discrete-Time Signal
    Processing", 3rd edition, section 13.4). Nulls are filled at 120 dB under the largest gain.

    >>> minimum_phase_fir(np.full(513, 0.5), 4).round(6).tolist()
    [0.5, 0.0, 0.0, 0.0]
    """
    magnitude = np.abs(gain)
    cepstrum = irfft(np.log(np.maximum(magnitude, 1e-6 * magnitude.max())))
    half = cepstrum.size // 2
    cepstrum[1:half] *= 2
    cepstrum[half + 1 :] = 0
    return irfft(np.exp(rfft(cepstrum)))[:taps]
