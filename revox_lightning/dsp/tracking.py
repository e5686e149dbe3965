"""The delay of a tape followed through the programme itself, where no pulses were recorded.

Three steps. A rough path (`anchors`); a walk beside it by local correlation, whole samples, the likeliest by dynamic
programming (Viterbi); then Gauss-Newton steps on the waveform: dry is read at the current delay and given the
machine's linear response (least squares), and what is left over, whitened, tells through the slope of the waveform
how much the delay is off in each few milliseconds, and with what variance. The transport's habit ties these together
(`kalman`). Bands that do not fit yet are in the residual, so that its whitening keeps them out until they do.

The constant part of the delay is that of the largest peak of the machine's response: beside the transport it holds
the delay of the filters, as that of `pulses` does.
"""

import numpy as np
from numba import njit

from revox_lightning.dsp.anchors import Path, rough_path, whitened
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.dsp.kalman import smoothed_delay
from revox_lightning.dsp.shifts import filter_delay, measured_shifts
from revox_lightning.dsp.trajectory import Trajectory, confidence_of
from revox_lightning.errors import UserError

CONFIDENCE_THRESHOLD = 0.5  # above it the standard error that `track` expects is under a quarter of a sample

_SHORTEST_SECONDS = 0.5
_WINDOW_SECONDS, _HOP_SECONDS = 0.045, 0.0116  # of the walk
_STRIDE = 6  # samples of delay per hop, at most
_REACH = 128
_LEAST_SCORE = 3.0  # of a window; noise alone reaches 1
_RESPONSE_SECONDS = (0.006, 0.006, 0.006, 0.023, 0.023)  # of the machine, in each step


def track(
    dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, *, max_delay_samples: int | None = None
) -> Trajectory:
    """Delay over wet time of `wet` (time,) after `dry` (time,), with a confidence at each point.

    `max_delay_samples` (default: one second) bounds the delay to either side. Points lie about 6 ms apart. Raises
    UserError where either is silent or shorter than half a second, or where no delay makes the two agree.
    """
    path, x, y = start(dry, wet, sample_rate_hz, max_delay_samples)
    times, delays = walk(x, y, path, sample_rate_hz)
    error, constant = np.zeros(0), 0.0
    for seconds in _RESPONSE_SECONDS:
        taps = 4 * round(seconds * sample_rate_hz / 4)
        shifts = measured_shifts(x, y, sample_rate_hz, times, delays, taps)
        times, constant = shifts.times, filter_delay(shifts)
        if np.isfinite(shifts.variances).sum() < 3:
            raise UserError("nothing in the recording follows what was played closely enough to read a delay off it")
        delays, error, _ = smoothed_delay(
            times / sample_rate_hz, shifts.delays, shifts.variances, scale_errors=True, offsets=shifts.offsets
        )
    return Trajectory(times, delays + constant, confidence_of(error))


def start(
    dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, max_delay_samples: int | None
) -> tuple[Path, np.ndarray, np.ndarray]:
    """`(rough path, dry, wet)`, both in float64 and of the polarity of dry."""
    x, y = (np.asarray(part, dtype=np.float64) for part in (dry, wet))
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"expected dry and wet as (time,), got {x.shape} and {y.shape}")
    for name, part in (("played", x), ("recorded", y)):
        if len(part) < _SHORTEST_SECONDS * sample_rate_hz:
            raise UserError(f"the {name} audio lasts {len(part) / sample_rate_hz:.2f} s: a delay takes half a second")
        if not np.isfinite(part).all() or np.ptp(part) < 1e-6:
            raise UserError(f"the {name} audio is silent or not finite, so no delay can be read off it")
    most = int(sample_rate_hz if max_delay_samples is None else max_delay_samples)
    path = rough_path(x, y, sample_rate_hz, most)
    return path, x, path.polarity * y


def walk(x: np.ndarray, y: np.ndarray, path: Path, sample_rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """`(times, delays)` in samples along the path, by correlation of short windows."""
    n = np.arange(len(y))
    played, recorded = whitened(read_at(x, n - path.at(n))), whitened(y)
    size, hop = round(_WINDOW_SECONDS * sample_rate_hz), round(_HOP_SECONDS * sample_rate_hz)
    starts = np.arange(0, len(y) - size + 1, hop)
    scores = np.concatenate([_scores(played, recorded, starts[k : k + 256], size) for k in range(0, len(starts), 256)])
    lags = _likeliest_lags(scores) - _REACH
    times = starts + size / 2
    return times, lags + path.at(times - lags)


def _scores(played: np.ndarray, recorded: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Log-likelihood ratio `(n, 2 _REACH + 1)` of each lag of each window, held down as music is no white noise."""
    fft_size = 1 << (size + 2 * _REACH).bit_length()
    padded = np.pad(played, _REACH)
    around = padded[starts[:, None] + np.arange(size + 2 * _REACH)]
    window = recorded[starts[:, None] + np.arange(size)] * np.hanning(size)
    products = np.fft.irfft(np.fft.rfft(around, fft_size) * np.conj(np.fft.rfft(window, fft_size)), fft_size)
    products = products[:, 2 * _REACH :: -1]
    energy = np.cumsum(np.pad(around**2, ((0, 0), (1, 0))), axis=1)
    local = (energy[:, size:] - energy[:, :-size])[:, ::-1] * np.mean(np.hanning(size) ** 2)
    power = local * (window**2).sum(axis=1, keepdims=True) / np.mean(np.hanning(size) ** 2)
    correlation = products / np.sqrt(power + 1e-12 * power.max() + 1e-30)
    scores = 0.05 * size * np.clip(correlation, 0, 1) ** 2
    return np.maximum(scores - _LEAST_SCORE, 0)


@njit(cache=True, nogil=True)
def _likeliest_lags(scores: np.ndarray) -> np.ndarray:
    """Index (n,) of the lag in each row of scores (n, lags) along the path of the largest sum (Viterbi)."""
    frames, lags = scores.shape
    before = np.zeros((frames, lags), np.int64)
    total = scores[0].copy()
    for k in range(1, frames):
        new = np.empty(lags)
        for i in range(lags):
            best, at = -np.inf, i
            for j in range(max(0, i - 6), min(lags, i + 7)):
                value = total[j] - 6.0 * (i - j) * (i - j)
                if value > best:
                    best, at = value, j
            new[i], before[k, i] = best + scores[k, i], at
        total = new
    out = np.empty(frames, np.int64)
    out[-1] = np.argmax(total)
    for k in range(frames - 1, 0, -1):
        out[k - 1] = before[k, out[k]]
    return out
