"""A pulse train beside the programme, and the delay of a tape read off it.

Mikkonen et al. (DAFx 2023, section 3) take the delay from the largest samples of such pulses. Here each pulse is
placed between the samples, by least squares against the mean of all pulses of its own recording, so that neither the
shape that a tape gives them nor its hiss matters much.

What the constant part of such a delay means: the lag at which the mean recorded pulse correlates best with the mean
played one. It holds, beside the transport, the delay of the machine's filters over the band of the pulses.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt

from revox_lightning.dsp.alignment import peak_of
from revox_lightning.dsp.correlation import lagged_products
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.dsp.kalman import smoothed_delay
from revox_lightning.dsp.trajectory import Trajectory, confidence_of, demodulate
from revox_lightning.errors import UserError

_FLAT_HZ, _STOP_HZ = 4_000.0, 12_000.0  # spectrum of a pulse: flat to the first, a cosine down to the second
_RUMBLE_HZ = 200.0  # hum and the programme's bass lie below
_REACH_SECONDS = 1.2e-3  # of a pulse to either side of its peak
_MOST_HZ = 270.0  # pulses a second
_ALIKE = 0.6  # least correlation of a pulse with the mean pulse
_FEWEST = 5
_POINTS_PER_SECOND = 1000.0
_AZIMUTH_SECONDS = 5e-4  # most that programme and pulses may lie apart
_PREEMPHASIS = 0.95
_AGREEMENT = 0.2


def pulse_train(samples: int, sample_rate_hz: float, pulses_hz: float = 100.0, level: float = 0.4) -> np.ndarray:
    """Band-limited pulses `(samples,)` of peak `level`, `pulses_hz` of them a second, the first one period in.

    Raises UserError for pulses closer together than three times their width.

    >>> train = pulse_train(4000, 44_100)
    >>> train.shape, int(train.argmax()) % 441
    ((4000,), 0)
    """
    period = sample_rate_hz / pulses_hz
    reach = int(min(2 * _REACH_SECONDS * sample_rate_hz, 0.45 * period))
    if not 0 < pulses_hz <= _MOST_HZ:
        raise UserError(f"{pulses_hz} pulses a second are too many or too few: take 1 to {_MOST_HZ:.0f}")
    out = np.zeros(samples)
    places = period * np.arange(1, int((samples - reach - 1) / period) + 1)
    nearest = np.round(places).astype(int)
    around = np.arange(-reach, reach + 1)
    window = np.cos(0.5 * np.pi * around / (reach + 1)) ** 0.25
    shape = _raised_cosine((around - (places - nearest)[:, None]) / sample_rate_hz, sample_rate_hz)
    out[nearest[:, None] + around] = level * window * shape
    return out


def _raised_cosine(seconds: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """The pulse, 1 at its peak, whose spectrum is flat and then a cosine (Proakis, Digital Communications, 9.2)."""
    stop = min(_STOP_HZ, 0.45 * sample_rate_hz)
    middle, half = (stop + min(_FLAT_HZ, stop / 3)) / 2, (stop - min(_FLAT_HZ, stop / 3)) / 2
    below = 1 - (4 * half * seconds) ** 2
    below = np.where(np.abs(below) < 1e-9, 1e-9, below)
    return np.sinc(2 * middle * seconds) * np.cos(2 * np.pi * half * seconds) / below


@dataclass(frozen=True)
class _Found:
    """Pulses at `positions` (n,), known to `variances` (n,); their mean `shape` (2 reach + 1,), its peak at `peak`.

    `peak` counts from the middle of the shape, which is what stands at the positions.
    """

    positions: np.ndarray
    variances: np.ndarray
    shape: np.ndarray
    peak: float


def find_pulses(x: np.ndarray, sample_rate_hz: float, pulses_hz: float = 100.0) -> np.ndarray:
    """Positions `(n,)` in samples of the pulses found in `x` (time,), to a few thousandths of a sample, rising.

    Only pulses that are there: none is invented in a gap. The position is that of the peak of the mean pulse, which
    may point up or down. Raises UserError where no pulses of that rate are found.

    >>> find_pulses(pulse_train(44_100, 44_100), 44_100)[:3].round(3)
    array([ 441.,  882., 1323.])
    """
    found = _find(x, sample_rate_hz, pulses_hz)
    return found.positions + found.peak


def _find(x: np.ndarray, sample_rate_hz: float, pulses_hz: float) -> _Found:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(f"pulses are looked for in finite audio (time,), not in an array of shape {x.shape}")
    missing = UserError(
        f"no train of {pulses_hz:g} pulses a second was found in {x.size / sample_rate_hz:.1f} s of audio: check that "
        "this is the pulse channel and that it was recorded"
    )
    period = sample_rate_hz / pulses_hz
    if x.size < _FEWEST * period:
        raise missing
    x = sosfiltfilt(butter(2, _RUMBLE_HZ, "highpass", fs=sample_rate_hz, output="sos"), x)
    reach = int(min(_REACH_SECONDS * sample_rate_hz, 0.3 * period))
    positions = _rough(x, sample_rate_hz, period, reach)
    if len(positions) < _FEWEST:
        raise missing
    positions, shape = _mean_pulse(x, positions, reach)
    windows = _windows(x, positions, reach)
    alike = windows @ shape / np.sqrt((windows**2).sum(axis=1) * (shape @ shape) + 1e-30)
    positions = positions[alike > _ALIKE]
    near = np.abs(np.diff(positions) / period - 1) < 0.04
    if len(positions) < _FEWEST or near.mean() < 0.5:
        raise missing
    return _placed(x, positions, reach)


def _rough(x: np.ndarray, sample_rate_hz: float, period: float, reach: int) -> np.ndarray:
    """Bursts of energy that have another one about a period away."""
    energy = uniform_filter1d(x**2, 2 * int(2e-4 * sample_rate_hz) + 1)
    blocks = energy[: int(x.size // period * period)]
    loud = np.maximum.reduceat(blocks, (np.arange(int(x.size // period)) * period).astype(int))
    peaks, _ = find_peaks(energy, height=max(0.05 * float(np.quantile(loud, 0.9)), 1e-14), distance=int(0.7 * period))
    peaks = peaks[(peaks > reach + 1) & (peaks < x.size - reach - 1)]
    if len(peaks) < _FEWEST:
        return np.zeros(0)
    paired = np.abs(np.diff(peaks) / period - 1) < 0.06
    return peaks[np.append(paired, False) | np.append(False, paired)].astype(np.float64)


def _windows(x: np.ndarray, positions: np.ndarray, reach: int) -> np.ndarray:
    """`(n, 2 reach + 1)` samples of `x` around each position, read between its samples."""
    around = np.arange(-reach, reach + 1)
    return read_at(x, (positions[:, None] + around).ravel()).reshape(len(positions), len(around))


def _mean_pulse(x: np.ndarray, positions: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions moved until the pulses match their mean, to some tenths of a sample, and that mean."""
    shape = np.zeros(2 * reach + 1)
    size = 1 << (4 * reach + 1).bit_length()
    for _ in range(6):
        windows = _windows(x, positions, reach)
        shape = np.median(windows, axis=0)
        positions = positions + (peak_of(shape) - reach)  # the mean pulse stays in the middle
        cross = np.fft.irfft(np.fft.rfft(windows, size) * np.conj(np.fft.rfft(shape, size)), size)
        cross = np.concatenate((cross[:, -reach:], cross[:, : reach + 1]), axis=1)
        positions = positions + np.argmax(cross, axis=1) - reach
        positions = positions[np.append(True, np.diff(positions) > reach)]
    return positions, np.median(_windows(x, positions, reach), axis=0)


def _placed(x: np.ndarray, positions: np.ndarray, reach: int) -> _Found:
    """Least squares for the place and height of each pulse against the mean pulse (Gauss-Newton)."""
    shape, scale = np.zeros(2 * reach + 1), np.zeros(len(positions))
    residual, steepness = np.zeros((1, 1)), 1.0
    for turn in range(6):
        windows = _windows(x, positions, reach)
        if turn < 3:
            shape = windows[scale > 0.5 * np.median(scale)].mean(axis=0) if turn else np.median(windows, axis=0)
        slope = np.gradient(read_at(shape, np.arange(0, 2 * reach + 1e-9, 1 / 16)), 1 / 16)[::16]
        steepness = slope @ slope
        scale = np.maximum(windows @ shape / (shape @ shape), 0.05)
        residual = windows - scale[:, None] * shape
        positions = positions - np.clip(residual @ slope / (scale * steepness), -1, 1)
    variances = residual.var(axis=1) / (scale**2 * steepness) + 1e-8
    return _Found(positions, np.maximum(variances, 0.3 * np.median(variances)), shape, peak_of(shape) - reach)


def pulse_trajectory(
    dry_pulses: np.ndarray,
    wet_pulses: np.ndarray,
    sample_rate_hz: float,
    pulses_hz: float = 100.0,
    delay_hint_samples: float | None = None,
) -> Trajectory:
    """Delay over wet time from the pulse channels themselves, `dry_pulses` and `wet_pulses` AUDIO (time,).

    The first pulse of wet is taken for the first of dry, unless `delay_hint_samples` (within half a pulse period)
    says otherwise; `resolve_period` settles the numbering of excerpts. Points lie 1 ms apart; where pulses are
    missing the transport's habit bridges the gap, with little confidence. Raises UserError where there are no pulses.
    """
    dry, wet = (_find(x, sample_rate_hz, pulses_hz) for x in (dry_pulses, wet_pulses))
    lag = _lag(dry.shape, wet.shape)
    start = wet.positions[0] - dry.positions[0] + lag if delay_hint_samples is None else delay_hint_samples
    partner = _numbered(dry.positions, wet.positions + lag, start)
    if (partner >= 0).sum() < _FEWEST:
        raise UserError(
            f"the pulses of the recording do not follow those that were played at a delay of {start:.0f} samples: "
            "check that both belong to the same take"
        )
    matched = partner >= 0
    played = dry.positions[partner[matched]]
    places = _without_gaps(dry.positions[partner[matched][0] : partner[matched][-1] + 1], sample_rate_hz / pulses_hz)
    index = np.searchsorted(places, played - 1e-6)
    delay, variance = np.zeros(len(places)), np.full(len(places), np.inf)
    delay[index] = wet.positions[matched] + lag - played
    variance[index] = wet.variances[matched]
    delay, error, _ = smoothed_delay(places / sample_rate_hz, delay, variance, scale_errors=False)
    return _dense(places, delay, error, sample_rate_hz)


def _lag(dry_shape: np.ndarray, wet_shape: np.ndarray) -> float:
    """By how much the middle of the played pulse lies later in the recorded shape than that shape's own middle."""
    reach = len(dry_shape) // 2
    cross = np.correlate(np.pad(wet_shape, reach), dry_shape, "valid")
    return peak_of(cross) - reach


def _numbered(played: np.ndarray, recorded: np.ndarray, delay: float) -> np.ndarray:
    """For each recorded pulse the played one (n,) it is, by following the delay from its first value; -1 for strays."""
    partner = np.full(len(recorded), -1)
    period = float(np.median(np.diff(played)))
    slope, before = 1 - period / float(np.median(np.diff(recorded))), recorded[0]
    for k, at in enumerate(recorded):
        gap = at - before
        expected = delay + slope * gap
        i = int(np.clip(np.searchsorted(played, at - expected), 1, len(played) - 1))
        i -= int(at - expected - played[i - 1] < played[i] - (at - expected))
        off = at - played[i] - expected
        if abs(off) > min(0.02 * period + 0.01 * gap, 0.4 * period) and before > recorded[0]:
            continue
        if abs(off) > 0.5 * period or (partner[:k] == i).any():
            continue
        partner[k], delay, before = i, at - played[i], at
        slope = float(np.clip(slope + 0.1 * off / max(gap, period), -0.06, 0.06))
    return partner


def _without_gaps(places: np.ndarray, period: float) -> np.ndarray:
    """The played pulses with imagined ones in the gaps between them."""
    parts = []
    for start, stop in pairwise(places):
        count = max(1, round((stop - start) / period))
        parts.append(start + (stop - start) / count * np.arange(count))
    return np.append(np.concatenate(parts), places[-1])


def _dense(places: np.ndarray, delay: np.ndarray, error: np.ndarray, sample_rate_hz: float) -> Trajectory:
    """Points over wet time from delays (n,) at the played pulses: splines of degree 7 keep 30 Hz at 100 pulses/s."""
    count = max(2, int((places[-1] - places[0]) / sample_rate_hz * _POINTS_PER_SECOND) + 1)
    fine = np.linspace(places[0], places[-1], count)
    delays = make_interp_spline(places, delay, k=7)(fine)
    return Trajectory(fine + delays, delays, confidence_of(np.interp(fine, places, error)))


def resolve_period(
    trajectory: Trajectory,
    dry: np.ndarray,
    wet: np.ndarray,
    sample_rate_hz: float,
    pulses_hz: float = 100.0,
    max_delay_samples: int | None = None,
) -> Trajectory:
    """`trajectory` plus the whole number of pulse periods with which the programme `dry`, `wet` (time,) agrees best.

    Searches delays up to `max_delay_samples` (default: one second) to either side of the trajectory's. Raises
    UserError where the programmes agree at none.
    """
    period = sample_rate_hz / pulses_hz
    most = int((sample_rate_hz if max_delay_samples is None else max_delay_samples) / period)
    reach, around = int((most + 0.5) * period), max(1, int(_AZIMUTH_SECONDS * sample_rate_hz))
    still = demodulate(np.asarray(wet), trajectory.per_sample(len(wet)))  # dry, but for whole periods
    x, y = (np.append(part[:1], part[1:] - _PREEMPHASIS * part[:-1]) for part in (np.asarray(dry), still))
    power = float((x**2).sum() * (y**2).sum())
    correlation = np.abs(lagged_products(x, y, 0, -reach, reach)) / np.sqrt(power + 1e-30)
    lags = np.round(period * np.arange(-most, most + 1)).astype(int)
    scores = maximum_filter1d(correlation, 2 * around + 1)[lags + reach]
    best = int(np.argmax(scores))
    if scores[best] < _AGREEMENT:
        raise UserError(
            f"the programme of the recording agrees with what was played at none of the delays that the pulses allow "
            f"(correlation {scores[best]:.2f}): check that both belong to the same take, or allow a longer delay"
        )
    return trajectory.shifted((best - most) * period)
