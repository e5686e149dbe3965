"""What the loaders fetch: batches of segments, and takes chunk by chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from revox_lightning.data import trajectories
from revox_lightning.data.takes import Reader, Take

Place = tuple[int, int]  # the index of a take, and a position in its dry file


@dataclasses.dataclass
class Corrupted:
    """Input, target and knobs made of a dry segment: the same for the same place, in training others every epoch."""

    corruption: Callable[..., tuple[np.ndarray, ...]]
    seed: int
    epoch: int | None

    def __call__(self, x: torch.Tensor, place: Place) -> tuple[torch.Tensor, ...]:
        """x (1, time) of a place -> dry, wet (1, time) and knobs (knobs,)."""
        told = [self.seed, *map(abs, place), *([] if self.epoch is None else [1 + self.epoch])]
        made = self.corruption(x[0].double().numpy(), np.random.default_rng(told), self.epoch is not None)
        dry, wet, *knobs = (torch.from_numpy(part).float() for part in made)
        return dry[None], wet[None], knobs[0] if knobs else torch.zeros(0)


@dataclasses.dataclass
class Segments(Dataset):
    """Training segments, fetched a batch at a time: dicts ``dry, wet (batch, channel, time), controls``.

    A batch is asked for as pairs of places: where dry and controls come from, and where wet does. With ``pairs`` all
    three are made of the dry file's segment and its place. Of several ``processes`` each gets its share of the batch,
    and beside it as ``whole`` the size of that.
    """

    takes: list[Take]
    read: Reader
    frames: int
    pairs: Callable[[torch.Tensor, Place], tuple[torch.Tensor, ...]] | None = None
    rank: int = 0
    processes: int = 1

    def __getitems__(self, places: Sequence[tuple[Place, Place]]) -> dict[str, Any]:
        if self.processes == 1:
            return self._batch(places)
        return self._batch(share(places, self.rank, self.processes)) | {"whole": len(places)}

    def _batch(self, places: Sequence[tuple[Place, Place]]) -> dict[str, Any]:
        if self.pairs is not None:
            return self._made([place for place, _ in places])
        dry = [self.read(self.takes[index].dry, start, self.frames) for (index, start), _ in places]
        wet = [
            self.read(self.takes[index].wet, start + self.takes[index].delay, self.frames)
            for _, (index, start) in places
        ]
        controls = [_controls(self.takes[index], start, self.frames) for (index, start), _ in places]
        return {"dry": torch.stack(dry), "wet": torch.stack(wet), "controls": torch.stack(controls)}

    def _made(self, places: list[Place]) -> dict[str, Any]:
        made = [
            self.pairs(self.read(self.takes[index].dry, start, self.frames), (index, start))  # type: ignore[misc]
            for index, start in places
        ]
        dry, wet, controls = (torch.stack(part) for part in zip(*made, strict=True))
        return {"dry": dry, "wet": wet, "controls": controls}


def share(places: Sequence[Any], rank: int, processes: int) -> list[Any]:
    """What one of several processes takes of a batch: equally many each, in order, the last place again where they end.

    One after another the shares are the batch and, at its end, what was repeated.

    >>> [share("abcde", rank, 2) for rank in range(2)]
    [['a', 'b', 'c'], ['d', 'e', 'e']]
    """
    rows = -(-len(places) // processes)
    return [places[min(i, len(places) - 1)] for i in range(rank * rows, (rank + 1) * rows)]


def _controls(take: Take, start: int, frames: int) -> torch.Tensor:
    """Knobs ``(knobs,)``; with a delay to follow ``(knobs + 1, frames)``."""
    knobs = torch.tensor(take.controls)
    if not take.follows:
        return knobs
    return torch.cat((knobs[:, None].expand(-1, frames), trajectories.handed(take, start, frames)))


@dataclasses.dataclass
class Chunks(Dataset):
    """Whole takes, one after another, in chunks: items are dicts with a batch axis of one.

    ``meta`` holds ``take``, ``name``, ``first`` and ``last`` (of its take) and ``skip``, the number of leading
    samples that are history and not scored. With ``moved`` dry is moved along the
    delay, and the controls are the knobs.
    """

    takes: list[Take]
    read: Reader
    frames: int
    lead: int
    moved: bool = False

    def __post_init__(self) -> None:
        self._places = [
            (i, position)
            for i, take in enumerate(self.takes)
            for position in range(take.start - min(take.lead, self.lead), take.stop, self.frames)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= len(self):
            raise IndexError(i)
        index, position = self._places[i]
        take = self.takes[index]
        frames = min(self.frames, take.stop - position)
        if self.moved:
            dry, wet = trajectories.pair(self.read, take, position, frames)
        else:
            dry, wet = self.read.pair(take, position, frames)
        told = dataclasses.replace(take, follows=take.follows and not self.moved)
        meta = {
            "take": index,
            "name": take.name,
            "first": i == 0 or self._places[i - 1][0] != index,
            "last": position + frames >= take.stop,
            "skip": max(0, min(take.start - position, frames)),
        }
        controls = _controls(told, position, frames)
        return {"dry": dry[None], "wet": wet[None], "controls": controls[None], "meta": meta}


def as_it_is(batch: Any) -> Any:
    """Nothing is left to collate."""
    return batch
