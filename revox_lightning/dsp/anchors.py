"""Where about a recording runs beside what was played: a rough path of the delay, found from nothing.

Short pieces of the recording are searched for in what was played, over the whole range allowed; of the places where
each might lie, dynamic programming takes those that one tape could have passed through.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter
from scipy.signal import oaconvolve, resample_poly
from scipy.stats import theilslopes

from revox_lightning.dsp.correlation import excerpt, lagged_products
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError

_RATE_HZ = 11_025.0  # enough for a rough place
_PIECE_SECONDS = 0.37
_SLOT_SECONDS = 0.8  # one piece is taken from each
_FEWEST_PIECES, _PLACES = 12, 8
_STEEPEST, _STEEPEST_THEN = 0.012, 0.004  # change of delay over time: a speed error of 1.2 %, then the wander about it
_SLACK_SECONDS = 1e-3
_SLOPES = (0.0, 0.005, -0.005)
_SECOND_SEARCH_SECONDS = 0.05
_FLOOR = 1e-4  # of the loudest part of the spectrum, below which nothing is lifted
_AT_LEAST = 40.0  # score of a path that is none


@dataclass(frozen=True)
class Path:
    """Delay `delays` (n,) at wet `times` (n,), both in samples, and the polarity +1 or -1 of the recording."""

    times: np.ndarray
    delays: np.ndarray
    polarity: int

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Delay at wet `positions` (n,), in straight lines; the end values beyond the ends."""
        return np.interp(positions, self.times, self.delays)


def rough_path(dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, max_delay_samples: int) -> Path:
    """Path of the delay of `wet` (time,) after `dry` (time,), to a millisecond or so, within `max_delay_samples`.

    Raises UserError where the two agree nowhere.
    """
    factor = max(1, int(sample_rate_hz / _RATE_HZ))
    x, y = (whitened(resample_poly(part, 1, factor)) for part in (dry, wet))
    rate, most = sample_rate_hz / factor, int(np.ceil(max_delay_samples / factor))
    score, path = 0.0, None
    for slope in _SLOPES:  # pieces of a tape that runs fast or slow blur, until that is taken out
        score, path = _searched(x, y, rate, np.array([slope, 0.0]), most, _STEEPEST)
        if score >= _AT_LEAST:
            break
    if path is None or score < _AT_LEAST:
        raise UserError(
            f"no delay within {max_delay_samples} samples ({max_delay_samples / sample_rate_hz:.2f} s) makes the "
            "recording follow what was played: check that both belong to the same take, or allow a longer delay"
        )
    _, again = _searched(x, y, rate, _line(path), int(_SECOND_SEARCH_SECONDS * rate), _STEEPEST_THEN)
    path = again or path
    line = _line(path)
    wander = median_filter(path.delays - np.polyval(line, path.times), 5, mode="mirror")  # a wrong octave is alone
    times = np.concatenate(([0.0], path.times, [float(len(y))]))
    delays = np.polyval(line, times) + np.pad(wander, 1, mode="edge")
    return Path(times * factor, delays * factor, path.polarity)


def _searched(
    x: np.ndarray, y: np.ndarray, rate: float, line: np.ndarray, most: int, steepest: float
) -> tuple[float, Path | None]:
    """Score and path, within `most` samples of a straight line (slope, offset) of delay."""
    piece = min(int(_PIECE_SECONDS * rate), len(y) // 3)
    starts = _loud_starts(y, piece, rate)
    if line.any():
        n = np.arange(len(y) + most)
        x = read_at(x, n - np.polyval(line, n))
    places = [_places(x, y, start, piece, most) for start in starts]
    centres = starts + piece / 2
    score, chosen, sign = max((*_passage(centres, places, sign, rate, steepest), sign) for sign in (1, -1))
    used = [k for k, place in enumerate(chosen) if place >= 0]
    if not used:
        return 0.0, None
    delays = np.array([places[k][0][chosen[k]] for k in used])
    return score, Path(centres[used], delays + np.polyval(line, centres[used] - delays), sign)


def _line(path: Path) -> np.ndarray:
    """Straight line (slope, offset) through a path, whatever a few of its points say (Theil and Sen)."""
    if len(path.times) < 3:
        return np.array([0.0, float(np.median(path.delays))])
    slope, offset, _, _ = theilslopes(path.delays, path.times)
    return np.array([slope, offset])


def power_spectrum(x: np.ndarray, size: int) -> np.ndarray:
    """Mean power `(size // 2 + 1,)` of Hann-windowed pieces of `x` (time,), 256 of them or fewer."""
    starts = np.arange(0, max(len(x) - size, 0) + 1, size // 2)
    starts = starts[:: -(-len(starts) // 256)]
    pieces = np.pad(x, (0, max(0, size - len(x))))[starts[:, None] + np.arange(size)]
    return (np.abs(np.fft.rfft(pieces * np.hanning(size))) ** 2).mean(axis=0) / size


def whitened(x: np.ndarray) -> np.ndarray:
    """`x` (time,) with its long-term spectrum made flat, as far as it stands out, without a change of phase."""
    size = min(2048, len(x))
    power = power_spectrum(x, size)
    gain = 1 / np.sqrt(power + _FLOOR * power.max() + 1e-30)
    gain[:2] = 0.0
    taps = np.roll(np.fft.irfft(gain), size // 2) * np.hanning(len(power) * 2 - 2)
    return oaconvolve(x, taps, mode="same")


def _loud_starts(y: np.ndarray, piece: int, rate: float) -> np.ndarray:
    """Where the loudest piece of each slot begins."""
    starts = np.arange(0, len(y) - piece + 1, max(1, piece // 2))
    energy = np.add.reduceat(y**2, starts)
    energy = energy + np.append(energy[1:], 0.0)
    slots = int(min(max(_FEWEST_PIECES, len(y) / rate / _SLOT_SECONDS), len(starts)))
    parts = np.array_split(np.arange(len(starts)), slots)
    return np.unique([starts[part[np.argmax(energy[part])]] for part in parts])


def _places(x: np.ndarray, y: np.ndarray, start: int, piece: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Delays (places,) at which a piece of `y` may lie in `x`, and the correlation there, with its sign."""
    part = y[start : start + piece]
    products = lagged_products(x, part, start, -most, most)
    around = excerpt(x, start - most, piece + 2 * most)
    energy = np.cumsum(np.append(0.0, around**2))
    local = (energy[piece:] - energy[:-piece])[::-1]  # of x under the piece, for each lag
    floor = 1e-3 * piece / max(len(x), 1) * float((x**2).sum()) + 1e-30
    correlation = products / np.sqrt((local + floor) * (float(part @ part) + 1e-30))
    found_lags, found = [], []
    for signed in (correlation, -correlation):
        peaks = np.flatnonzero((signed >= maximum_filter1d(signed, 9)) & (signed > 0))
        best = peaks[np.argsort(signed[peaks])[: -_PLACES - 1 : -1]]
        found_lags.append(best - most)
        found.append(correlation[best])
    return np.concatenate(found_lags), np.concatenate(found)


def _passage(
    centres: np.ndarray, places: list[tuple[np.ndarray, np.ndarray]], sign: int, rate: float, steepest: float
) -> tuple[float, list[int]]:
    """`(score, place of each piece)` of the likeliest passage of one tape through the places; -1: not passed through.

    A piece scores its log-likelihood ratio, held down (music is no white noise), and nothing where passed over.
    """
    piece = _PIECE_SECONDS * rate
    nodes = [
        (k, i, float(lag), -0.1 * piece * np.log(1 - min(sign * rho, 0.999) ** 2))
        for k, (lags, rhos) in enumerate(places)
        for i, (lag, rho) in enumerate(zip(lags, rhos, strict=True))
        if sign * rho > 0
    ]
    if not nodes:
        return 0.0, [-1] * len(places)
    piece_of, lag = np.array([node[0] for node in nodes]), np.array([node[2] for node in nodes])
    total, before = np.array([node[3] for node in nodes]), np.full(len(nodes), -1)
    for n in range(len(nodes)):
        earlier = np.flatnonzero(piece_of[:n] < piece_of[n])[-40 * _PLACES :]
        gap = centres[piece_of[n]] - centres[piece_of[earlier]]
        steepness = np.maximum(np.abs(lag[n] - lag[earlier]) - _SLACK_SECONDS * rate, 0) / gap
        reachable = np.where(steepness < steepest, total[earlier] - 6 * steepness / steepest, -np.inf)
        if len(earlier) and reachable.max() > 0:
            before[n] = earlier[np.argmax(reachable)]
            total[n] += reachable.max()
    chosen, n = [-1] * len(places), int(np.argmax(total))
    score = float(total[n])
    while n >= 0:
        chosen[nodes[n][0]] = nodes[n][1]
        n = int(before[n])
    return score, chosen
