"""The one DataModule: segments for training, whole takes in chunks for validation and test."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Subset

from revox_lightning import audio
from revox_lightning.data import inspect, resampling, trajectories
from revox_lightning.data.segments import Chunks, Corrupted, Place, Segments, as_it_is
from revox_lightning.data.takes import Reader, Take, moved, split
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)

_REFERENCE_HISTORY = 8192  # the longest linear filter that results stand beside looks back this far


class Source(Protocol):
    """Where takes come from."""

    knobs: tuple[str, ...]
    zero_vu_dbfs: float | None

    def takes(self) -> list[Take]: ...

    def floor_energy(self, split: str) -> float | None: ...


class PairData(pl.LightningDataModule):
    """Aligned dry/wet pairs of any source.

    ``warmup_samples`` before each training segment fill the net's memory and are not learned from; ``history_samples``
    is how far back the net (or the linear filter beside it) looks: gaps between splits are at least that long.
    ``skip_samples`` at the start of every file are history only. An epoch is one pass over the training split with
    segments cut at positions that are drawn anew from (seed, epoch), so a resumed run sees what an uninterrupted one
    would. With ``test_only`` takes that name no split are all scored. ``trajectory`` says what is made of a delay that
    wanders (trajectories.apply); ``train_seconds`` of the training split are learned from, the first part of every take
    alike; ``unpaired`` draws the wet segments of training from other places than the dry ones; ``corruption`` makes
    both of the dry one, and may tell knobs as a third. ``workers`` processes make the segments beside the training;
    batches are the same for any number. ``validate_segments`` makes validation batches like those of
    training, of segments one after another. Raises UserError for data that cannot be used.
    """

    def __init__(
        self,
        source: Source,
        *,
        sample_rate_hz: int = 44100,
        channels: str = "each",
        split_by: str = "time",
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        gap_seconds: float = 0.25,
        skip_samples: int = 0,
        resample: bool = False,
        trajectory: str | None = None,
        train_seconds: float | None = None,
        unpaired: bool = False,
        corruption: Callable[..., tuple[np.ndarray, ...]] | None = None,
        memory_mb: float = 1024.0,
        workers: int = 0,
        cache_dir: str = "outputs/cache",
        seed: int = 0,
        batch_size: int = 32,
        warmup_samples: int = 0,
        segment_samples: int = 22050,
        history_samples: int = 0,
        chunk_samples: int = 16384,
        test_only: bool = False,
    ) -> None:
        super().__init__()
        self.source, self.sample_rate_hz, self.seed, self.batch_size = source, sample_rate_hz, seed, batch_size
        self.knobs, self._read = source.knobs, Reader(channels, memory_mb)
        self._warmup, self._segment, self._chunk = warmup_samples, segment_samples, chunk_samples
        self._unpaired, self._corruption, self.validate_segments = unpaired, corruption, False
        if workers < 0:
            raise UserError(f"data.workers={workers}: give 0 or more.")
        self._workers = workers
        gap = max(round(gap_seconds * sample_rate_hz), history_samples)
        takes = [self._at_rate(take, resample, cache_dir) for take in source.takes()]
        takes = [trajectories.apply(take, trajectory, cache_dir) for take in takes]
        takes = [_skip(take, max(skip_samples - take.start, 0)) for take in takes]
        if test_only:
            self._takes = [dataclasses.replace(take, split=take.split or "test") for take in takes]
            if not self.takes("test"):
                raise UserError("the recordings have no test part: leave their split empty to score all of them.")
        else:
            self._takes = split(takes, split_by, _three(fractions), gap, min(segment_samples, sample_rate_hz // 4))
            _keep_apart(self._takes, history_samples)
            if train_seconds is not None:
                self._takes = _first_part(self._takes, train_seconds, sample_rate_hz)
        self._lead = max(history_samples, _REFERENCE_HISTORY)
        self.audio_channels = self._same_channels(channels)
        longest = max((take.frames for take in self.takes("train")), default=0)
        if longest < segment_samples and not test_only:
            raise UserError(
                f"the training material is shorter than one segment: its longest take has {longest} samples and "
                f"system.segment_samples={segment_samples}; record more, or shorten the segment."
            )

    def takes(self, split: str) -> list[Take]:
        """The takes of one split."""
        return [take for take in self._takes if take.split == split]

    def stretches(self, split: str, lead: int, tail: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """A split in pieces of up to a minute: dry, wet ``(channel, time)``, and which part of them is the piece.

        Up to ``lead`` samples before and ``tail`` samples after the piece come with it, as far as its take has them.
        Where the delay wanders, dry is moved along it.
        """
        for take in self.takes(split):
            for start in range(take.start, take.stop, 60 * self.sample_rate_hz):
                stop = min(start + 60 * self.sample_rate_hz, take.stop)
                first, last = start - min(lead, start - take.start + take.lead), min(stop + tail, take.stop)
                yield *trajectories.pair(self._read, take, first, last - first), slice(start - first, stop - first)

    def beginning(self, take: Take, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first samples of a take: dry (moved along the delay) and wet, each ``(channel, frames)``."""
        return trajectories.pair(self._read, take, take.start, min(frames, take.frames))

    def seconds(self, split: str) -> float:
        """How much audio a split holds."""
        return sum(take.frames for take in self.takes(split)) / self.sample_rate_hz

    def check(self) -> inspect.Level:
        """Reads everything once; the level of the training input. Raises UserError for what cannot be learned from."""
        level = inspect.check(self._takes, self._read)
        for take in self._takes:
            dry, wet = self.beginning(take, 20 * self.sample_rate_hz)
            inspect.check_delay(take, dry[0], wet[0], self.sample_rate_hz)
        short = [take for take in self.takes("train") if take.frames < self._segment]
        if short:
            seconds = sum(take.frames for take in short) / self.sample_rate_hz
            log.warning("%d takes (%.1f s) are shorter than a segment and not trained on", len(short), seconds)
        return level

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader(self.takes("train"), list(self._batches(epoch)), epoch)

    def _loader(
        self, takes: list[Take], batches: list[list[tuple[Place, Place]]], epoch: int | None = None
    ) -> DataLoader:
        pairs = None if self._corruption is None else Corrupted(self._corruption, self.seed, epoch)
        rank, processes = self._process if epoch is not None else (0, 1)
        segments = Segments(takes, self._read, self._warmup + self._segment, pairs, rank, processes)
        return DataLoader(segments, batch_sampler=batches, collate_fn=as_it_is, num_workers=self._workers)  # type: ignore[arg-type]

    @property
    def _process(self) -> tuple[int, int]:
        """Which of how many processes that train together this is."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        """Validation is the first process's; the others are given one chunk, and wait."""
        if self._process[0] > 0:
            first = Subset(Chunks(self.takes("val"), self._read, self._chunk, self._lead), [0])
            return DataLoader(first, batch_size=None)
        return self.segments("val") if self.validate_segments else self.chunks("val")

    def segments(self, split: str) -> DataLoader:
        """A split in batches of segments, one after another."""
        takes = self.takes(split)
        places = [
            (i, start - self._warmup)
            for i, take in enumerate(takes)
            for start in range(take.start, take.stop - self._segment + 1, self._segment)
        ]
        if not places:
            raise UserError(
                f"the {split} part has no take of a whole segment of system.segment_samples={self._segment} samples: "
                "shorten the segment, or give more material."
            )
        return self._loader(takes, [[(place, place) for place in batch] for batch in self._cut(places)])

    def chunks(self, split: str, moved: bool = False) -> DataLoader:
        """The takes of a split in chunks, each with the history that lies before it.

        With ``moved`` dry is moved along a delay that wanders: what nets are given that cannot follow it.
        """
        return DataLoader(Chunks(self.takes(split), self._read, self._chunk, self._lead, moved), batch_size=None)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> Any:
        """Audio and knobs alone: Lightning would look into every number beside them."""
        return moved(batch, device)

    def _batches(self, epoch: int) -> Iterator[list[tuple[Place, Place]]]:
        random = np.random.default_rng(np.random.SeedSequence([self.seed, epoch]))
        places = []
        for index, take in enumerate(self.takes("train")):
            count = take.frames // self._segment
            if count == 0:
                continue
            phase = int(random.integers(take.frames - count * self._segment + 1))
            # Segments that start later than the warm-up before them keep all of it inside the take and its lead.
            starts = take.start + phase + self._segment * np.arange(count)
            places += [(index, int(start) - self._warmup) for start in starts]
        order = [places[j] for j in random.permutation(len(places))]
        targets = [places[j] for j in random.permutation(len(places))] if self._unpaired else order
        yield from self._cut(list(zip(order, targets, strict=True)))

    def _cut(self, places: list[Any]) -> list[list[Any]]:
        return [places[i : i + self.batch_size] for i in range(0, len(places), self.batch_size)]

    def _at_rate(self, take: Take, resample: bool, cache_dir: str) -> Take:
        rate_hz = audio.info(take.dry).sample_rate_hz
        if rate_hz == self.sample_rate_hz:
            return take
        if not resample:
            raise UserError(
                f"{take.dry} has {rate_hz} Hz and data.sample_rate_hz={self.sample_rate_hz}: set data.resample=true to "
                f"convert the files, or train at data.sample_rate_hz={rate_hz}."
            )
        return resampling.at_rate(take, self.sample_rate_hz, cache_dir)

    def _same_channels(self, channels: str) -> int:
        if channels != "each":
            return 1
        counts = {audio.info(take.dry).channels for take in self._takes}
        if len(counts) > 1:
            raise UserError("the recordings are partly mono and partly stereo: choose data.channels=left or mix.")
        return counts.pop()


def _three(fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3:
        raise UserError(f"data.fractions={list(fractions)}: give three shares (train, val, test).")
    return fractions[0], fractions[1], fractions[2]


def _first_part(takes: list[Take], train_seconds: float, rate_hz: float) -> list[Take]:
    """The takes, those to train on cut to the same share, so that ``train_seconds`` are left."""
    if not train_seconds > 0:
        raise UserError(f"data.train_seconds={train_seconds}: give more than 0, or null for all there is.")
    whole = sum(take.frames for take in takes if take.split == "train")
    share = min(train_seconds * rate_hz / max(whole, 1), 1.0)
    return [
        dataclasses.replace(take, stop=take.start + round(share * take.frames)) if take.split == "train" else take
        for take in takes
    ]


def _skip(take: Take, samples: int) -> Take:
    """The take without its first samples, which stay as history."""
    if take.frames <= samples:
        raise UserError(f"{take.dry} has {take.frames} samples and data.skip_samples={samples} leaves nothing of it.")
    return dataclasses.replace(take, start=take.start + samples, lead=take.lead + samples)


def _keep_apart(takes: list[Take], history: int) -> None:
    """Shortens leads that reach into another split of the same file; raises UserError where splits overlap."""
    for i, take in enumerate(takes):
        for other in takes:
            same_wet = other.wet == take.wet and other.delay == take.delay
            if other.split == take.split or not (other.dry == take.dry or same_wet):
                continue
            if other.start < take.stop and take.start < other.stop:
                raise UserError(
                    f"{take.dry}: its {take.split} part (from {take.start}) and its {other.split} part (from "
                    f"{other.start}) overlap: a split must not leak into another."
                )
            if other.stop <= take.start and take.start - other.stop < history:
                raise UserError(
                    f"{take.dry}: only {take.start - other.stop} samples lie between its {other.split} part and its "
                    f"{take.split} part, and the net looks back {history}: leave a longer gap between them."
                )
            if other.stop <= take.start:
                takes[i] = take = dataclasses.replace(take, lead=min(take.lead, take.start - other.stop))
