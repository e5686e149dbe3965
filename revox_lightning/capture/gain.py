"""Gain, polarity, dropouts and bandwidth of a stretch once its timing is known."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import median_filter
from scipy.signal import butter, csd, sosfiltfilt, welch

from revox_lightning.capture.stretch import Stretch, loudest

_WINDOW_SECONDS, _FRAME_SECONDS, _BLOCK_WINDOWS = 1.0, 0.02, 20
_QUIET_DB, _DROP_DB = -30.0, -10.0
_BAND_HZ = (200.0, 2000.0)
_OCTAVES_HZ = (63, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000)


@dataclasses.dataclass(frozen=True)
class Gain:
    """One channel of a stretch against what was played, its timing mended.

    `gain` is the least-squares factor, with its sign; `correlation` 1 for a machine that only changes level;
    `seconds` and `gain_db` (n,) how the gain moves; `response_db` by octave; `dropouts` how often the level fell by
    10 dB for 20 ms.
    """

    gain: float
    correlation: float
    wet_mean_square: float
    seconds: np.ndarray
    gain_db: np.ndarray
    dropouts: int
    response_db: dict[int, float]

    @property
    def drift_db(self) -> float:
        """Range of the gain over the stretch, the outermost tenths left out."""
        return float(np.subtract(*np.percentile(self.gain_db, (90, 10)))) if len(self.gain_db) > 2 else 0.0


def measure(stretch: Stretch, recorded: np.ndarray, sample_rate_hz: float, channel: int) -> Gain:
    """Compares one channel of a stretch with `recorded` (time,), block by block."""
    frame = round(_FRAME_SECONDS * sample_rate_hz)
    window = frame * round(_WINDOW_SECONDS / _FRAME_SECONDS)
    products, levels = [], []
    for start in range(0, stretch.samples, _BLOCK_WINDOWS * window):
        stop = min(start + _BLOCK_WINDOWS * window, stretch.samples)
        x = stretch.dry[channel, start:stop].astype(np.float64)
        y = stretch.demodulated(recorded, start, stop)
        products.append([x @ x, x @ y, y @ y])
        levels.append(_levels(x, y, sample_rate_hz, frame))
    xx, xy, yy = np.sum(products, axis=0)
    in_band = np.concatenate(levels, axis=1)
    gain = float(xy / max(xx, 1e-20))
    correlation = float(abs(xy) / np.sqrt(max(xx * yy, 1e-20)))
    moments, moving_db = _moving(in_band, window // frame, frame / sample_rate_hz)
    dropouts = _dropouts(*in_band)
    response = _response(stretch, recorded, channel, sample_rate_hz)
    return Gain(gain, correlation, float(yy / stretch.samples), moments, moving_db, dropouts, response)


def _levels(x: np.ndarray, y: np.ndarray, sample_rate_hz: float, frame: int) -> np.ndarray:
    """Energies of dry and wet `(2, frames)` in the band where both tape and programme are strong."""
    low, high = _BAND_HZ
    band = butter(2, [low, min(high, 0.4 * sample_rate_hz)], "bandpass", fs=sample_rate_hz, output="sos")
    frames = len(x) // frame
    if frames < 2:
        return np.zeros((2, 0))
    a, b = sosfiltfilt(band, np.stack((x, y)))[:, : frames * frame].reshape(2, frames, frame)
    return np.stack([np.sum(a * a, axis=-1), np.sum(b * b, axis=-1)])


def _moving(in_band: np.ndarray, per_window: int, frame_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Moments (n,) in seconds and gain (n,) in dB there, of the windows in which dry is loud enough to tell."""
    windows = in_band.shape[1] // per_window
    summed = in_band[:, : windows * per_window].reshape(2, windows, per_window).sum(-1)
    loud = summed[0] > 10 ** (_QUIET_DB / 10) * summed[0].max(initial=1e-20)
    moments = (np.arange(windows) + 0.5) * per_window * frame_seconds
    gains_db = 10 * np.log10(np.maximum(summed[1, loud], 1e-12) / summed[0, loud])
    return moments[loud], gains_db


def _dropouts(dry: np.ndarray, wet: np.ndarray) -> int:
    """How often wet's energy (frames,) falls 10 dB under what it is around that moment, where dry is loud."""
    if len(dry) < 25:
        return 0
    ratio_db = 10 * np.log10((wet + 1e-12) / (dry + 1e-12))
    loud = dry > 10 ** (_QUIET_DB / 10) * np.quantile(dry, 0.95)
    usual = median_filter(np.where(loud, ratio_db, np.median(ratio_db[loud])), 51)
    dropped = loud & (ratio_db < usual + _DROP_DB)
    return int(np.sum(np.diff(dropped.astype(np.int8), prepend=0) == 1))


def _response(stretch: Stretch, recorded: np.ndarray, channel: int, sample_rate_hz: float) -> dict[int, float]:
    """Gain in dB by octave, where the programme has enough in it to tell."""
    start, stop = loudest(stretch.dry[channel], round(20 * sample_rate_hz))
    x = stretch.dry[channel, start:stop].astype(np.float64)
    y = stretch.demodulated(recorded, start, stop)
    size = min(4096, len(x) // 4)
    hz, xx = welch(x, sample_rate_hz, nperseg=size)
    xy, yy = csd(x, y, sample_rate_hz, nperseg=size)[1], welch(y, sample_rate_hz, nperseg=size)[1]
    found = {}
    for centre in _OCTAVES_HZ:
        inside = (hz >= centre / 2**0.5) & (hz < centre * 2**0.5)
        if not inside.any() or centre * 2**0.5 > sample_rate_hz / 2 or xx[inside].sum() < 1e-7 * xx.sum():
            continue
        coherence = np.sum(np.abs(xy[inside]) ** 2) / max(np.sum(xx[inside] * yy[inside]), 1e-40)
        if coherence > 0.3:
            found[centre] = float(20 * np.log10(np.abs(xy[inside]).sum() / xx[inside].sum()))
    return found
