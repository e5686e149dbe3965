"""A production style matched by rules, without learning: one average equaliser, then one compressor.

The baseline "RB-DSP" of C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable
signal processing", JAES 70(9), 2022, section 4.1, and of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.signal import firwin2, oaconvolve, savgol_filter
from torch import Tensor

from revox_lightning.dsp.dynamics import compressor_exactly
from revox_lightning.dsp.loudness import Loudness
from revox_lightning.errors import UserError

PEAK_DBFS = -12.0
TAPS = 63
SPECTRUM_SIZE = 65_536
SMOOTHED_BINS, SMOOTHING_ORDER = 1025, 2
TOLERANCE_DB = 0.5  # louder than this, and the reference asks for compression
STEP_DB, STEPS = 0.5, 160  # thresholds from 0 down to -80 dB
_COARSE = 16  # steps at once
_FRAMES_AT_ONCE = 16
_SILENCE = 1e-6  # peak


def match(x: Tensor, reference: Tensor, sample_rate_hz: int) -> tuple[Tensor, dict[str, object]]:
    """x (channels, time) in the style of a reference (channels, time), of any lengths; and what was chosen.

    The peaks of x, of the reference, and of what comes out lie at -12 dBFS. A linear-phase equaliser of 63 taps (its
    delay taken out) turns one average spectrum into the other. Where the reference is then more than 0.5 dB louder, a
    compressor follows (3:1, attack 1 ms, release 50 ms, knee 6 dB), whose threshold is the highest on a grid of 0.5 dB
    that makes up for it, or -80 dB. What was chosen: `taps` (63,), `threshold_db` (None: no compressor), `input_lufs`
    (behind the equaliser), `reference_lufs` and `output_lufs` (None under 400 ms). Raises ValueError for another shape,
    UserError where either is empty or silent.

    >>> y, chosen = match(torch.eye(1, 5000), torch.eye(2, 900), 44_100)
    >>> y.shape, chosen["threshold_db"]
    (torch.Size([1, 5000]), None)
    """
    dry, wanted = _at_peak(_plain(x, "the input")), _at_peak(_plain(reference, "the reference"))
    taps = equaliser(dry, wanted, sample_rate_hz)
    y = _at_peak(oaconvolve(dry, taps[None], mode="full", axes=1)[:, TAPS // 2 : TAPS // 2 + dry.shape[1]])
    before, goal = _lufs(y, sample_rate_hz), _lufs(wanted, sample_rate_hz)
    threshold_db, after = None, before
    if goal - before > TOLERANCE_DB:  # not where either is unknown
        threshold_db = _threshold_db(lambda t: _lufs(_compressed(y, t, sample_rate_hz), sample_rate_hz), goal)
        y = _compressed(y, threshold_db, sample_rate_hz)
        after = _lufs(y, sample_rate_hz)
    chosen: dict[str, object] = {"taps": taps.tolist(), "threshold_db": threshold_db}
    loudness = {"input_lufs": before, "reference_lufs": goal, "output_lufs": after}
    return torch.from_numpy(y).to(x), chosen | {k: None if math.isnan(v) else v for k, v in loudness.items()}


def equaliser(x: np.ndarray, reference: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Taps (63,) of a linear-phase filter that gives x (channels, time) the average spectrum of the reference."""
    averages = [average_spectrum(part) for part in (reference, x)]
    spectra = [np.asarray(savgol_filter(part, SMOOTHED_BINS, SMOOTHING_ORDER)) for part in averages]
    least = [1e-6 * part.max() for part in spectra]  # the parabolas may dip below 0
    gain = np.maximum(spectra[0], least[0]) / np.maximum(spectra[1], least[1])
    gain[-1] = 0.0
    return np.asarray(firwin2(TAPS, np.linspace(0, sample_rate_hz / 2, gain.size), gain, fs=sample_rate_hz))


def average_spectrum(x: np.ndarray) -> np.ndarray:
    """Mean magnitude (32,769,) over channels and frames of x (channels, time): Hann windows, hops of a quarter.

    Silence stands around the signal, so that any length will do.
    """
    window, hop = torch.hann_window(SPECTRUM_SIZE, dtype=torch.float64), SPECTRUM_SIZE // 4
    padded = torch.nn.functional.pad(torch.from_numpy(x), (SPECTRUM_SIZE // 2, SPECTRUM_SIZE // 2))
    frames = padded.unfold(1, SPECTRUM_SIZE, hop)
    total = torch.zeros(SPECTRUM_SIZE // 2 + 1, dtype=torch.float64)
    for part in frames.split(_FRAMES_AT_ONCE, dim=1):  # hours would not fit
        total += torch.fft.rfft(part * window).abs().sum((0, 1))
    return (total / (frames.shape[0] * frames.shape[1])).numpy()


def _threshold_db(loudness: Callable[[float], float], goal_lufs: float) -> float:
    """The highest threshold of the grid that comes within 0.5 dB of the goal, else the lowest.

    Steps of 8 dB find the first that does, bisection the place before it where that begins: as if all had been tried
    one after another, as long as the loudness rises throughout those 8 dB.
    """

    def reached(step: int) -> bool:
        return goal_lufs - loudness(-STEP_DB * step) <= TOLERANCE_DB

    for high in range(_COARSE, STEPS + 1, _COARSE):
        if reached(high):
            low = high - _COARSE
            if low == 0 and reached(0):
                return 0.0
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if reached(middle) else (middle, high)
            return -STEP_DB * high
    return -STEP_DB * STEPS


def _compressed(x: np.ndarray, threshold_db: float, sample_rate_hz: float) -> np.ndarray:
    y = compressor_exactly(
        x, sample_rate_hz, threshold_db, 3.0, attack_seconds=0.001, release_seconds=0.05, knee_db=6.0, makeup_db=0.0
    )
    return _at_peak(y)


def _at_peak(x: np.ndarray) -> np.ndarray:
    return x * (10 ** (PEAK_DBFS / 20) / max(float(np.abs(x).max()), 1e-12))


def _lufs(x: np.ndarray, sample_rate_hz: int) -> float:
    meter = Loudness(sample_rate_hz, x.shape[0])
    meter.update(x)
    return meter.lufs


def _plain(x: Tensor, what: str) -> np.ndarray:
    """Samples in double precision. Raises ValueError and UserError for what no rule can match."""
    if x.ndim != 2 or x.shape[0] == 0:
        raise ValueError(f"expected {what} of shape (channels, time), got {tuple(x.shape)}")
    samples = x.detach().cpu().double().numpy()
    if samples.size == 0 or not np.abs(samples).max() > _SILENCE:
        raise UserError(f"{what} is silent or empty, so there is no style to match: give audio that sounds")
    return samples
