"""Knobs and switches of a machine: their places in its own units and, for a net, from 0 to 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from revox_lightning.errors import UserError


@dataclass(frozen=True)
class Knob:
    """A knob that turns from ``low`` to ``high``, or a switch of named ``positions``.

    >>> Knob("gain", 0.0, 10.0).value(0.25), Knob("speed", positions=("7.5", "15")).value(1.0)
    (2.5, '15')
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    positions: tuple[str, ...] = ()

    def value(self, control: float) -> float | str:
        """Where it stands, in its own unit, for a control from 0 to 1."""
        if self.positions:
            return self.positions[round(control * (len(self.positions) - 1))]
        return round(self.low + control * (self.high - self.low), 4)

    def control(self, value: float | str) -> float:
        """The control of a place in its own unit; raises UserError for one that it does not have."""
        if self.positions:
            if str(value) not in self.positions:
                raise UserError(f"the switch {self.name} has no position {value!r}: {', '.join(self.positions)}.")
            return self.positions.index(str(value)) / (len(self.positions) - 1)
        try:
            control = (float(value) - self.low) / (self.high - self.low)
        except ValueError:
            control = math.nan
        if not -1e-6 <= control <= 1 + 1e-6:
            raise UserError(f"the knob {self.name} turns from {self.low:g} to {self.high:g}, not to {value}.")
        return min(max(control, 0.0), 1.0)


def read_knob(name: str, text: str) -> Knob:
    """A knob from ``low:high``, a switch from its positions ``a,b``; raises UserError for anything else.

    >>> read_knob("gain", "0:10")
    Knob(name='gain', low=0.0, high=10.0, positions=())
    """
    low, colon, high = text.partition(":")
    try:
        if colon and math.isfinite(float(low)) and math.isfinite(float(high)) and float(low) < float(high):
            return Knob(name, float(low), float(high))
    except ValueError:
        pass
    positions = tuple(part.strip() for part in text.split(","))
    if not colon and len(positions) > 1 and all(positions) and len(set(positions)) == len(positions):
        return Knob(name, positions=positions)
    raise UserError(f"knob.{name}={text}: write LOW:HIGH for a knob (0:10), the positions of a switch (7.5,15).")


def combinations(knobs: Sequence[Knob]) -> list[tuple[float, ...]]:
    """Every combination of the switches' controls, in the order of the knobs; one empty one where there is none."""
    return list(itertools.product(*(np.linspace(0, 1, len(k.positions)).tolist() for k in knobs if k.positions)))


def spread(knobs: Sequence[Knob], count: int, seed: int) -> np.ndarray:
    """Controls (count, knobs) that fill the space evenly: a scrambled Sobol sequence."""
    points = qmc.Sobol(len(knobs), rng=np.random.default_rng(seed)).random_base2(max(math.ceil(math.log2(count)), 0))[
        :count
    ]
    return _on_switches(knobs, points)


def at_random(knobs: Sequence[Knob], count: int, seed: int) -> np.ndarray:
    """Controls (count, knobs), each knob anywhere and each switch at any position."""
    return _on_switches(knobs, np.random.default_rng(seed).random((count, len(knobs))))


def grid(knobs: Sequence[Knob], count: int) -> np.ndarray:
    """Controls (at most count, knobs) of a full grid: each position of each switch, and as many steps of the knobs as
    there is room for, the first knobs the finest. Raises UserError where the switches alone need more.

    >>> len(grid([Knob("gain"), Knob("tone"), Knob("bright", positions=("off", "on"))], 20))
    20
    """
    room = count // math.prod(len(k.positions) for k in knobs if k.positions)
    turning = sum(not k.positions for k in knobs)
    if room < 1 or (turning and room < 2):
        raise UserError(f"a grid of these knobs needs more than {count} recordings: choose another design.")
    choices = itertools.combinations_with_replacement(range(room, 0, -1), turning)
    steps = iter(max((c for c in choices if math.prod(c) <= room), key=lambda c: (math.prod(c), min(c, default=0))))
    axes = [np.linspace(0, 1, len(k.positions)) if k.positions else _steps(next(steps)) for k in knobs]
    return np.array(list(itertools.product(*axes)))


def _steps(count: int) -> np.ndarray:
    return np.linspace(0, 1, count) if count > 1 else np.array([0.5])


def _on_switches(knobs: Sequence[Knob], points: np.ndarray) -> np.ndarray:
    columns = [
        np.minimum(np.floor(column * len(k.positions)), len(k.positions) - 1) / (len(k.positions) - 1)
        if k.positions
        else column
        for k, column in zip(knobs, points.T, strict=True)
    ]
    return np.stack(columns, axis=1)
