"""What the loaders fetch: batches of segments, and takes chunk by chunk."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from revox_lightning import audio
from revox_lightning.data import trajectories
from revox_lightning.data.takes import Reader, Take
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)

Place = tuple[int, int]  # the index of a take, and a position in its dry file


@dataclasses.dataclass
class Batches:
    """Places in batches of ``size``: pairs of where dry comes from and where wet does. Made one batch at a time.

    ``places`` ``(n, 2)`` holds the index of a take and a position in each row; ``order`` and ``targets`` the rows that
    are asked for.
    """

    places: np.ndarray
    order: np.ndarray
    targets: np.ndarray
    size: int

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[list[tuple[Place, Place]]]:
        for i in range(0, len(self.order), self.size):
            both = [self.places[rows[i : i + self.size]].tolist() for rows in (self.order, self.targets)]
            yield [(tuple(dry), tuple(wet)) for dry, wet in zip(*both, strict=True)]


def drawn(takes: Sequence[Take], segment: int, warmup: int, random: np.random.Generator) -> np.ndarray:
    """Places ``(n, 2)`` of segments one after another, from a phase that is drawn for each take.

    Segments that start later than the warm-up before them keep all of it inside the take and its lead.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for index, take in enumerate(takes):
        count = take.frames // segment
        if count:
            phase = int(random.integers(take.frames - count * segment + 1))
            starts = take.start + phase + segment * np.arange(count) - warmup
            found.append(np.stack((np.full(count, index), starts), axis=1))
    return np.concatenate(found)


@dataclasses.dataclass
class Corrupted:
    """Input, target and the truth of a dry segment: the same for one place and draw, in training others every epoch."""

    corruption: Callable[..., tuple[np.ndarray, ...]]
    seed: int
    epoch: int | None
    draw: int = 0

    def __call__(self, x: torch.Tensor, place: Place) -> tuple[torch.Tensor, ...]:
        """x (1, time) of a place -> dry, wet (1, time) and the truth (numbers,)."""
        told = [self.seed, *map(abs, place), *([0, self.draw] if self.epoch is None else [1 + self.epoch])]
        made = self.corruption(x[0].double().numpy(), np.random.default_rng(told), self.epoch is not None)
        dry, wet, truth = (torch.from_numpy(part).float() for part in made)
        return dry[None], wet[None], truth


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
    damaged: set[Path] = dataclasses.field(default_factory=set)

    def __getitems__(self, places: Sequence[tuple[Place, Place]]) -> dict[str, Any]:
        if self.processes == 1:
            return self._batch(places)
        return self._batch(share(places, self.rank, self.processes)) | {"whole": len(places)}

    def _batch(self, places: Sequence[tuple[Place, Place]]) -> dict[str, Any]:
        read = [self._read(*place) for place in places]
        # A place that cannot be read is taken by the next one of its batch that can.
        good = [i for i, one in enumerate(read) if one is not None]
        if not good:
            raise UserError(f"none of a batch can be read: {', '.join(map(str, sorted(self.damaged)))}.")
        taken = [i if one is not None else good[bisect.bisect(good, i) % len(good)] for i, one in enumerate(read)]
        dry, wet, controls = zip(*(read[i] for i in taken), strict=True)  # type: ignore[arg-type]
        return {"dry": torch.stack(dry), "wet": torch.stack(wet), "controls": torch.stack(controls)}

    def _read(self, here: Place, there: Place) -> tuple[torch.Tensor, ...] | None:
        """Dry, wet and controls of one pair of places; None where a file is damaged, which is said once an epoch."""
        (index, start), (other, position) = here, there
        take, target = self.takes[index], self.takes[other]
        try:
            dry = self.read(take.dry, start, self.frames)
            if self.pairs is not None:
                return self.pairs(dry, here)
            wet = self.read(target.wet, position + target.delay, self.frames)
        except audio.DamagedAudio as error:
            say_once(error, self.damaged)
            return None
        return dry, wet, _controls(take, start, self.frames)


def say_once(error: audio.DamagedAudio, damaged: set[Path]) -> None:
    """Notes a damage that was met after all files were looked at; hours of audio are not looked at as a whole."""
    if error.path not in damaged:
        log.warning("%s; what cannot be read of it is left out", error)
    damaged.add(error.path)


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
    delay, and the controls are the knobs. Silence stands on both sides for what turns out to be damaged.
    """

    takes: list[Take]
    read: Reader
    frames: int
    lead: int
    moved: bool = False
    damaged: set[Path] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        counts = [-(-(take.stop - self._first(take)) // self.frames) for take in self.takes]
        self._ends = list(itertools.accumulate(counts))  # how many chunks there are up to the end of each take

    def _first(self, take: Take) -> int:
        return take.start - min(take.lead, self.lead)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, i: int) -> Place:
        """The take of a chunk, and where in its dry file it begins."""
        index = bisect.bisect_right(self._ends, i)
        before = self._ends[index - 1] if index else 0
        return index, self._first(self.takes[index]) + (i - before) * self.frames

    def __getitem__(self, i: int) -> dict[str, Any]:
        if i >= len(self):
            raise IndexError(i)
        index, position = self.place(i)
        take = self.takes[index]
        frames = min(self.frames, take.stop - position)
        dry, wet = self._pair(take, position, frames)
        told = dataclasses.replace(take, follows=take.follows and not self.moved)
        meta = {
            "take": index,
            "name": take.name,
            "first": position == self._first(take),
            "last": position + frames >= take.stop,
            "skip": max(0, min(take.start - position, frames)),
        }
        controls = _controls(told, position, frames)
        return {"dry": dry[None], "wet": wet[None], "controls": controls[None], "meta": meta}

    def _pair(self, take: Take, position: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            if self.moved:
                return trajectories.pair(self.read, take, position, frames)
            return self.read.pair(take, position, frames)
        except audio.DamagedAudio as error:
            say_once(error, self.damaged)
            silence = torch.zeros(self.read.count(take.dry), frames)
            return silence, silence


def as_it_is(batch: Any) -> Any:
    """Nothing is left to collate."""
    return batch
