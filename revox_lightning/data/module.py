"""The one DataModule: segments for training, whole takes in chunks for validation and test."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Subset

from revox_lightning import audio
from revox_lightning.data import inspect, passages, resampling, trajectories
from revox_lightning.data.index import Index
from revox_lightning.data.segments import Batches, Chunks, Corrupted, Segments, as_it_is, drawn, say_once
from revox_lightning.data.takes import Reader, Take, first_part, keep_apart, megabytes, moved, skipped, split
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

    ``warmup_samples`` before each training segment fill the net's memory and are not learned from;
    ``history_samples`` is how far back the net (or the linear filter beside it) looks: gaps between splits are at
    least that long. ``skip_samples`` at the start of every file are history only. An epoch is one pass over the
    training split with segments cut at positions that are drawn anew from (seed, epoch), so a resumed run sees what
    an uninterrupted one would. With ``test_only`` takes that name no split are all scored. ``trajectory`` says what
    is made of a delay that wanders (trajectories.apply); ``train_seconds`` of the training split are learned from,
    the first part of every take alike; an epoch hears ``epoch_seconds`` of it, drawn anew; ``unpaired`` draws the
    wet segments of training from other places than the dry ones; ``corruption`` makes both of the dry one, and
    tells the truth about it as a third, in the place of knobs. ``workers`` processes make the segments beside the
    training; batches are the same for any number. ``validate_segments`` makes validation batches like those of
    training, of segments one after another. Files are kept in memory where all of them fit into ``memory_mb``, else
    read as needed. Raises UserError for data that cannot be used.
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
        epoch_seconds: float | None = None,
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
        self.knobs, self._channels, self._memory_mb = source.knobs, channels, memory_mb
        self._warmup, self._segment, self._chunk = warmup_samples, segment_samples, chunk_samples
        self._unpaired, self.corruption, self.validate_segments = unpaired, corruption, False
        self._history, self._lead = history_samples, max(history_samples, _REFERENCE_HISTORY)
        self._gap = max(round(gap_seconds * sample_rate_hz), history_samples)
        self._split_by, self._fractions, self._test_only = split_by, _three(fractions), test_only
        self._skip, self._resample, self._trajectory, self._cache_dir = skip_samples, resample, trajectory, cache_dir
        self._train_seconds, self._epoch_seconds = train_seconds, epoch_seconds
        if epoch_seconds is not None and not epoch_seconds > 0:
            raise UserError(f"data.epoch_seconds={epoch_seconds}: give more than 0, or null for all there is.")
        if workers < 0:
            raise UserError(f"data.workers={workers}: give 0 or more.")
        self._workers = workers
        # Those who made their files themselves know all about them.
        self._index: Index = getattr(source, "index", None) or Index()
        self._arrange()

    def _arrange(self) -> None:
        """Splits what the source has; made again where files turn out to be damaged."""
        self._takes = self._arranged()
        fits = megabytes(self._takes, self._index.info) <= self._memory_mb
        self._read = Reader(self._channels, self._memory_mb if fits else 0.0, self._index.info)
        self.audio_channels = self._same_channels(self._channels)
        longest = max((take.frames for take in self.takes("train")), default=0)
        if longest < self._segment and not self._test_only:
            raise UserError(
                f"the training material is shorter than one segment: its longest take has {longest} samples and "
                f"system.segment_samples={self._segment}; record more, or shorten the segment."
            )

    def _arranged(self) -> list[Take]:
        takes = [self._at_rate(take) for take in self.source.takes()]
        takes = [trajectories.apply(take, self._trajectory, self._cache_dir) for take in takes]
        takes = [skipped(take, max(self._skip - take.start, 0)) for take in takes]
        if self._test_only:
            takes = [dataclasses.replace(take, split=take.split or "test") for take in takes]
            if not any(take.split == "test" for take in takes):
                raise UserError("the recordings have no test part: leave their split empty to score all of them.")
            return takes
        takes = split(takes, self._split_by, self._fractions, self._gap, min(self._segment, self.sample_rate_hz // 4))
        keep_apart(takes, self._history)
        if self._train_seconds is not None:
            takes = first_part(takes, self._train_seconds, self.sample_rate_hz)
        return takes

    def takes(self, split: str) -> list[Take]:
        """The takes of one split."""
        return [take for take in self._takes if take.split == split]

    def stretches(
        self, split: str, lead: int, tail: int, most_seconds: float | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """A split in pieces of up to a minute: dry, wet ``(channel, time)``, and which part of them is the piece.

        Up to ``lead`` samples before and ``tail`` samples after the piece come with it, as far as its take has them.
        Where the delay wanders, dry is moved along it. Of a split that is longer than ``most_seconds`` about so much
        is drawn, the same every time, in passages from all over it.
        """
        takes, minute, damaged = self.takes(split), 60 * self.sample_rate_hz, set[Path]()
        most = math.inf if most_seconds is None else most_seconds * self.sample_rate_hz
        for take, begin, end in passages.spread(takes, most):
            for start in range(begin, end, minute):
                stop = min(start + minute, end)
                first, last = start - min(lead, start - take.start + take.lead), min(stop + tail, take.stop)
                try:
                    dry, wet = trajectories.pair(self._read, take, first, last - first)
                except audio.DamagedAudio as error:
                    say_once(error, damaged)
                    continue
                yield dry, wet, slice(start - first, stop - first)

    def beginning(self, take: Take, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first samples of a take: dry (moved along the delay) and wet, each ``(channel, frames)``."""
        return trajectories.pair(self._read, take, take.start, min(frames, take.frames))

    def seconds(self, split: str) -> float:
        """How much audio a split holds."""
        return sum(take.frames for take in self.takes(split)) / self.sample_rate_hz

    def check(self) -> inspect.Level:
        """Looks at all files; the level of the training input. Raises UserError for what cannot be learned from.

        Damaged files are left out where the source allows it, and the rest is split anew.
        """
        while True:
            level, damaged = inspect.check(self._takes, self._read, self._index, self.sample_rate_hz)
            if not damaged:
                break
            own = {path for take in self.source.takes() for path in (take.dry, take.wet)}
            for error in damaged:
                if not self._index.skips or error.path not in own:
                    raise error
                self._index.damaged(error.path, str(error))
            self._index.save()
            self._arrange()
        short = [take for take in self.takes("train") if take.frames < self._segment]
        if short:
            seconds = sum(take.frames for take in short) / self.sample_rate_hz
            log.warning("%d takes (%.1f s) are shorter than a segment and not trained on", len(short), seconds)
        return level

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader(self.takes("train"), self._batches(epoch), epoch)

    def _loader(self, takes: list[Take], batches: Batches, epoch: int | None = None, draw: int = 0) -> DataLoader:
        pairs = None if self.corruption is None else Corrupted(self.corruption, self.seed, epoch, draw)
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

    def segments(self, split: str, draw: int = 0) -> DataLoader:
        """A split in batches of segments, one after another; where they are corrupted, another way with every draw."""
        takes = self.takes(split)
        found = [
            (i, start - self._warmup)
            for i, take in enumerate(takes)
            for start in range(take.start, take.stop - self._segment + 1, self._segment)
        ]
        places = np.array(found, dtype=np.int64).reshape(-1, 2)
        if not len(places):
            raise UserError(
                f"the {split} part has no take of a whole segment of system.segment_samples={self._segment} samples: "
                "shorten the segment, or give more material."
            )
        order = np.arange(len(places))
        return self._loader(takes, Batches(places, order, order, self.batch_size), draw=draw)

    def chunks(self, split: str, moved: bool = False) -> DataLoader:
        """The takes of a split in chunks, each with the history that lies before it.

        With ``moved`` dry is moved along a delay that wanders: what nets are given that cannot follow it.
        """
        return DataLoader(Chunks(self.takes(split), self._read, self._chunk, self._lead, moved), batch_size=None)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> Any:
        """Audio and knobs alone: Lightning would look into every number beside them."""
        return moved(batch, device)

    def _batches(self, epoch: int) -> Batches:
        random = np.random.default_rng(np.random.SeedSequence([self.seed, epoch]))
        places = drawn(self.takes("train"), self._segment, self._warmup, random)
        order = random.permutation(len(places))
        targets = random.permutation(len(places)) if self._unpaired else order
        if self._epoch_seconds is not None:
            heard = max(round(self._epoch_seconds * self.sample_rate_hz / self._segment), 1)
            order, targets = order[:heard], targets[:heard]
        return Batches(places, order, targets, self.batch_size)

    def _at_rate(self, take: Take) -> Take:
        rate_hz = self._index.info(take.dry).sample_rate_hz
        if rate_hz == self.sample_rate_hz:
            return take
        if not self._resample:
            raise UserError(
                f"{take.dry} has {rate_hz} Hz and data.sample_rate_hz={self.sample_rate_hz}: set data.resample=true to "
                f"convert the files, or train at data.sample_rate_hz={rate_hz}."
            )
        return resampling.at_rate(take, self.sample_rate_hz, self._cache_dir)

    def _same_channels(self, channels: str) -> int:
        if channels != "each":
            return 1
        counts = {self._index.info(take.dry).channels for take in self._takes}
        if len(counts) > 1:
            raise UserError("the recordings are partly mono and partly stereo: choose data.channels=left or mix.")
        return counts.pop()


def _three(fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3:
        raise UserError(f"data.fractions={list(fractions)}: give three shares (train, val, test).")
    return fractions[0], fractions[1], fractions[2]
