"""What can be said of models from several seeds and one test: intervals, paired comparisons, ranks."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_DRAWS = 2000
_FEWEST_FILES = 8  # with fewer, stretches of 1.5 s are drawn instead; they never overlap
_CONFIDENCE = 0.95


class Stretches(NamedTuple):
    """Squared errors and energies, (seeds, stretches) each, of one model on one test; `unit` numbers what is drawn."""

    error: np.ndarray
    energy: np.ndarray
    unit: np.ndarray

    @property
    def esr(self) -> np.ndarray:
        """Of each seed, (seeds,)."""
        return self.error.sum(1) / self.energy.sum(1)


class Interval(NamedTuple):
    """A mean over seeds with its interval."""

    mean: float
    low: float
    high: float


def read(paths: Sequence[Path]) -> Stretches:
    """The stretches.csv of each seed of a model; raises ValueError where they are of different tests."""
    tables = []
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [(float(r["file"]), float(r["error"]), float(r["energy"])) for r in csv.DictReader(file)]
        tables.append(np.array(rows).reshape(-1, 3))
    if not tables or any(not np.array_equal(t[:, [0, 2]], tables[0][:, [0, 2]]) for t in tables):
        raise ValueError("the runs were not tested on the same audio")
    files = tables[0][:, 0].astype(int)
    unit = files if len(set(files.tolist())) >= _FEWEST_FILES else np.arange(len(files))
    return Stretches(np.stack([t[:, 1] for t in tables]), np.stack([t[:, 2] for t in tables]), unit)


def bootstrap(found: Stretches, seed: int = 0) -> np.ndarray:
    """ESR of the mean seed over draws of seeds and of stretches (or files), (draws,).

    Both are drawn with replacement (Davison and Hinkley, "Bootstrap methods", 1997, 3.8: nested). The same ``seed``
    draws the same stretches for every model, so that differences are paired.
    """
    units = np.unique(found.unit)
    sums = [np.stack([part[:, found.unit == u].sum(1) for u in units], 1) for part in (found.error, found.energy)]
    which = np.random.default_rng([seed, 0]).integers(0, len(units), (_DRAWS, len(units)))
    weights = np.stack([np.bincount(row, minlength=len(units)) for row in which])  # (draws, units)
    esr = (weights @ sums[0].T) / np.maximum(weights @ sums[1].T, 1e-30)  # (draws, seeds)
    seeds = np.random.default_rng([seed, 1]).integers(0, esr.shape[1], esr.shape)
    return np.take_along_axis(esr, seeds, 1).mean(1)


def interval(found: Stretches) -> Interval:
    """The mean ESR of the seeds and the percentile interval (95 %) of `bootstrap`."""
    low, high = np.quantile(bootstrap(found), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(float(found.esr.mean()), float(low), float(high))


def better(a: Stretches, b: Stretches) -> bool:
    """Whether ``a`` has a smaller error than ``b`` beyond chance: the interval of the paired ratio stays below 1."""
    ratio = np.log(bootstrap(a) + 1e-30) - np.log(bootstrap(b) + 1e-30)
    return bool(np.quantile(ratio, (1 + _CONFIDENCE) / 2) < 0)


def ranks(sets: Sequence[Mapping[str, Stretches]]) -> dict[str, int]:
    """1 + how many models are better than a model beyond chance on every set that both are in; equal ranks are what the
    data cannot separate."""

    def beats(b: str, a: str) -> bool:
        both = [one for one in sets if a in one and b in one]
        return bool(both) and all(better(one[b], one[a]) for one in both)

    names = {name: None for one in sets for name in one}
    return {a: 1 + sum(beats(b, a) for b in names if b != a) for a in names}


def decibels(found: Interval) -> str:
    """An interval of ESR in dB: mean, and from where to where.

    >>> decibels(Interval(0.01, 0.001, 0.1))
    '-20.0 (-30.0 to -10.0)'
    """
    mean, low, high = (10 * math.log10(max(value, 1e-30)) for value in found)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"
