"""Which generator comes closest to what it was trained on, and what it costs: trajectories and noise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from scipy.signal import welch
from scipy.stats import wasserstein_distance
from torch import Tensor

from revox_lightning.data.module import PairData
from revox_lightning.errors import UserError
from revox_lightning.measure.noise import noise_level_dbfs
from revox_lightning.measure.speed import SHORTEST_SECONDS, Speed, wow_and_flutter
from revox_lightning.models.gaussian_process import GaussianProcess
from revox_lightning.models.shaped_noise import ShapedNoise
from revox_lightning.report import table

TASKS = ("trajectory", "noise")
PLAIN = {"trajectory": "Gaussian process", "noise": "shaped noise"}
_WINDOW_SAMPLES = {"trajectory": 2048, "noise": 4096}  # of Welch's spectra: 20 s, and 11 Hz at 44.1 kHz
_BAND_HZ = {"trajectory": (0.05, 45.0), "noise": (20.0, 20_000.0)}  # of the spectral distance
_NAMES = {
    "std_db": "level dB",
    "values": "W1 values",
    "increments": "W1 increments",
    "spectrum_db": "spectrum dB",
    "wow_flutter_percent": "wow, flutter %",
    "a_dbfs": "A-weighted dBFS",
    "itu_r_468_dbfs": "ITU-R 468 dBFS",
    "cpu_seconds_per_second": "CPU s per s",
}
_DIGITS = {"cpu_seconds_per_second": 5, "values": 3, "increments": 3, "wow_flutter_percent": 4}


class Generator(Protocol):
    """What can be compared: a Denoiser, a GaussianProcess, ShapedNoise."""

    def sample(self, samples: int, generator: torch.Generator, rows: int = 1) -> Tensor:
        """Signals (rows, samples)."""
        ...


def material(data: PairData, split: str, seconds: float | None = None) -> list[Tensor]:
    """The signals (channel, time) of a split as they are learned, in whole takes; its first `seconds` if given."""
    left = None if seconds is None else round(seconds * data.sample_rate_hz)
    out = []
    for take in data.takes(split):
        frames = take.frames if left is None else min(take.frames, left)
        if frames > 0:
            out.append(data.beginning(take, frames)[1])
            left = None if left is None else left - frames
    return out


def rival(data: PairData, task: str) -> GaussianProcess | ShapedNoise:
    """The plain generator of the same statistics to second order, fitted on the training split in closed form."""
    _check(task)
    takes = material(data, "train")
    if task == "trajectory":
        return GaussianProcess(rate_hz=data.sample_rate_hz).fit(takes)
    return ShapedNoise(len(takes[0]), rate_hz=data.sample_rate_hz).fit(takes)


def against(
    data: PairData,
    task: str,
    generators: dict[str, Generator],
    seconds: float | None = None,
    seed: int = 0,
    plain: Generator | None = None,
) -> list[dict[str, Any]]:
    """Rows: the test split, the training split as if it had been made, the plain rival, and each generator.

    `plain` is the rival, where it is fitted already.
    """
    _check(task)
    real = material(data, "test", seconds)
    rate_hz = data.sample_rate_hz
    training = material(data, "train", sum(x.shape[-1] for x in real) / rate_hz)
    rows = [row("test split", task, real, real, rate_hz), row("training split", task, real, training, rate_hz)]
    contenders = {PLAIN[task]: plain or rival(data, task)} | generators
    return rows + compare(task, real, contenders, rate_hz, seed)


def compare(
    task: str, real: Sequence[Tensor], generators: dict[str, Generator], rate_hz: float, seed: int = 0
) -> list[dict[str, Any]]:
    """A row for each generator, of samples as long as `real`, takes of one length (channel, time) at once."""
    rows = []
    for name, source in generators.items():
        started = time.process_time()
        made = _made(source, real, seed)
        spent = time.process_time() - started
        signals_seconds = sum(x.shape[0] * x.shape[-1] for x in real) / rate_hz
        rows.append(row(name, task, real, made, rate_hz) | {"cpu_seconds_per_second": spent / signals_seconds})
    return rows


def row(
    name: str, task: str, real: Sequence[Tensor], made: Sequence[Tensor], rate_hz: float
) -> dict[str, str | float | None]:
    """How far made takes (channel, time) are from real ones; the means of takes are taken out.

    `std_db`: level re the real one. `values`, `increments`: Wasserstein-1 distance between the distributions of
    samples, and of differences between neighbours, in the real one's standard deviations. `spectrum_db`: rms distance
    of Welch spectra over the logarithm of the frequency. Then the figures of the made signal itself, None where it is
    too short: weighted wow and flutter (AES6 two-sigma) of a trajectory in seconds; A-weighted and ITU-R 468
    quasi-peak level of noise. Raises UserError for another task, and where a side is empty or the real one silent.
    """
    _check(task)
    a, b = _channels(real), _channels(made)
    if not a or not b:
        raise UserError(f"{name}: there is nothing to compare; give takes of at least 2 samples on both sides.")
    deviation = np.concatenate(a).std()
    if not deviation > 0:
        raise UserError(f"{name}: the real signal is silent, so nothing can be measured in its terms.")
    out: dict[str, str | float | None] = {
        "row": name,
        "std": float(np.concatenate(b).std()),
        "std_db": _db(np.concatenate(b).std() / deviation),
        "values": float(wasserstein_distance(np.concatenate(a), np.concatenate(b)) / deviation),
        "increments": _increments(a, b),
        "spectrum_db": spectral_distance_db(a, b, rate_hz, _WINDOW_SAMPLES[task], _BAND_HZ[task]),
    }
    if task == "trajectory":
        return out | {"wow_flutter_percent": _mean(_wow_flutter_percent(x, rate_hz) for x in b)}
    return out | {
        "a_dbfs": _mean(_level_dbfs(x, rate_hz, "a", "rms", 0.5) for x in b),
        "itu_r_468_dbfs": _mean(_level_dbfs(x, rate_hz, "itu_r_468", "quasi_peak", 2.0) for x in b),
    }


def spectral_distance_db(
    real: Sequence[np.ndarray], made: Sequence[np.ndarray], rate_hz: float, window: int, band_hz: tuple[float, float]
) -> float:
    """Rms distance in dB between the mean Welch spectra of signals (time,), every octave of the band weighing alike.

    >>> x = np.random.default_rng(0).standard_normal(5000)
    >>> round(spectral_distance_db([x], [10 * x], 1000.0, 256, (10.0, 400.0)), 3)
    20.0
    """
    size = min(window, *(x.size for x in (*real, *made)))
    frequency_hz = np.fft.rfftfreq(size, 1 / rate_hz)
    a, b = (np.mean([welch(x, rate_hz, nperseg=size)[1] for x in side], axis=0) for side in (real, made))
    inside = (frequency_hz > 0) & (frequency_hz >= band_hz[0]) & (frequency_hz <= band_hz[1])
    floor = 1e-30 * a.max()
    gap_db = 10 * np.log10(np.maximum(b[inside], floor) / np.maximum(a[inside], floor))
    weight = 1 / frequency_hz[inside]
    return float(np.sqrt(np.sum(weight * gap_db**2) / np.sum(weight)))


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows of one task as a table."""
    names = [name for name in _NAMES if any(name in row for row in rows)]
    cells = [[str(r["row"]), *(table.number(r.get(name), _DIGITS.get(name, 2)) for name in names)] for r in rows]
    table.show(title, ["", *(_NAMES[name] for name in names)], cells)


def _made(source: Generator, real: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Signals of the shapes of `real`; takes of one shape are drawn side by side, which nets like."""
    shapes = [tuple(x.shape) for x in real]
    drawn = {}
    for i, (channels, samples) in enumerate(dict.fromkeys(shapes)):
        rows = channels * shapes.count((channels, samples))
        made = source.sample(samples, torch.Generator().manual_seed(seed + i), rows)
        drawn[channels, samples] = iter(made.cpu().split(channels))
    return [next(drawn[shape]) for shape in shapes]


def _channels(takes: Sequence[Tensor]) -> list[np.ndarray]:
    signals = [channel for take in takes for channel in take.double().numpy() if channel.size > 1]
    return [x - x.mean() for x in signals]


def _increments(real: list[np.ndarray], made: list[np.ndarray]) -> float:
    a, b = (np.concatenate([np.diff(x) for x in side]) for side in (real, made))
    return float(wasserstein_distance(a, b) / max(a.std(), 1e-30))


def _wow_flutter_percent(delay_seconds: np.ndarray, rate_hz: float) -> float | None:
    if delay_seconds.size <= SHORTEST_SECONDS * rate_hz:
        return None
    return wow_and_flutter(Speed(-np.diff(delay_seconds) * rate_hz, rate_hz))


def _level_dbfs(x: np.ndarray, rate_hz: float, weighting: str, detector: str, least_seconds: float) -> float | None:
    if x.size < least_seconds * rate_hz or not x.any():
        return None
    return noise_level_dbfs(x, rate_hz, weighting, detector)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _db(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-10)))


def _check(task: str) -> None:
    if task not in TASKS:
        raise UserError(f"generators of {task!r} cannot be compared: choose one of {', '.join(TASKS)}.")
