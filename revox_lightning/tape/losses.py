"""What the playback head loses of a short wavelength: spacing, thickness of the coating, and gap."""

import numpy as np
from numpy.fft import irfft, rfft

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


def loss_fir(
    sample_rate_hz: float, speed_ips: float, *, spacing_um: float, thickness_um: float, gap_um: float
) -> np.ndarray:
    """Minimum-phase FIR (taps,) with the magnitude of `playback_loss`.

    A head averages the tape evenly before and behind its gap, so the true loss is symmetrical around the moment the
    tape passes the gap. Counted from that moment it would answer before it is asked; with minimum phase the machine
    is causal and has no latency, and its record equaliser can undo the loss exactly.
    """
    gain = playback_loss(
        frequency_grid_hz(sample_rate_hz), speed_ips, spacing_um=spacing_um, thickness_um=thickness_um, gap_um=gap_um
    )
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
