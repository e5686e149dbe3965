"""The one DataModule: segments for training, whole takes in chunks for validation and test."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from revox_lightning import audio
from revox_lightning.data import inspect, resampling
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


@dataclasses.dataclass
class Segments(Dataset):
    """Training segments, fetched a batch at a time: dicts ``dry, wet (batch, channel, time), controls``."""

    takes: list[Take]
    read: Reader
    frames: int

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> dict[str, Any]:
        pairs = [self.read.pair(self.takes[index], start, self.frames) for index, start in places]
        return {
            "dry": torch.stack([dry for dry, _ in pairs]),
            "wet": torch.stack([wet for _, wet in pairs]),
            "controls": torch.tensor([self.takes[index].controls for index, _ in places]),
        }


@dataclasses.dataclass
class Chunks(Dataset):
    """Whole takes, one after another, in chunks: items are dicts with a batch axis of one.

    ``meta`` holds ``take``, ``name``, ``first`` and ``last`` (of its take) and ``skip``, the number of leading
    samples that are history and not scored.
    """

    takes: list[Take]
    read: Reader
    frames: int
    lead: int

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
        dry, wet = self.read.pair(take, position, frames)
        meta = {
            "take": index,
            "name": take.name,
            "first": i == 0 or self._places[i - 1][0] != index,
            "last": position + frames >= take.stop,
            "skip": max(0, min(take.start - position, frames)),
        }
        return {"dry": dry[None], "wet": wet[None], "controls": torch.tensor([take.controls]), "meta": meta}


class PairData(pl.LightningDataModule):
    """Aligned dry/wet pairs of any source.

    ``warmup_samples`` before each training segment fill the net's memory and are not learned from; ``history_samples``
    is how far back the net (or the linear filter beside it) looks: gaps between splits are at least that long.
    ``skip_samples`` at the start of every file are history only. An epoch is one pass over the training split with
    segments cut at positions that are drawn anew from (seed, epoch), so a resumed run sees what an uninterrupted one
    would. With ``test_only`` takes that name no split are all scored. Raises UserError for data that cannot be used.
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
        memory_mb: float = 1024.0,
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
        self.knobs = source.knobs
        self._warmup, self._segment, self._chunk = warmup_samples, segment_samples, chunk_samples
        self._read = Reader(channels, memory_mb)
        gap = max(round(gap_seconds * sample_rate_hz), history_samples)
        takes = [self._at_rate(take, resample, cache_dir) for take in source.takes()]
        takes = [_skip(take, max(skip_samples - take.start, 0)) for take in takes]
        if test_only:
            self._takes = [dataclasses.replace(take, split=take.split or "test") for take in takes]
            if not self.takes("test"):
                raise UserError("the recordings have no test part: leave their split empty to score all of them.")
        else:
            self._takes = split(takes, split_by, _three(fractions), gap, min(segment_samples, sample_rate_hz // 4))
            _keep_apart(self._takes, history_samples)
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
        """
        for take in self.takes(split):
            for start in range(take.start, take.stop, 60 * self.sample_rate_hz):
                stop = min(start + 60 * self.sample_rate_hz, take.stop)
                first, last = start - min(lead, start - take.start + take.lead), min(stop + tail, take.stop)
                yield *self._read.pair(take, first, last - first), slice(start - first, stop - first)

    def beginning(self, take: Take, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first samples of a take: dry and wet, each ``(channel, frames)``."""
        return self._read.pair(take, take.start, min(frames, take.frames))

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
        segments = Segments(self.takes("train"), self._read, self._warmup + self._segment)
        return DataLoader(segments, batch_sampler=list(self._batches(epoch)), collate_fn=_as_is)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return self.chunks("val")

    def chunks(self, split: str) -> DataLoader:
        """The takes of a split in chunks, each with the history that lies before it."""
        return DataLoader(Chunks(self.takes(split), self._read, self._chunk, self._lead), batch_size=None)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> Any:
        """Audio and knobs alone: Lightning would look into every number beside them."""
        return moved(batch, device)

    def _batches(self, epoch: int) -> Iterator[list[tuple[int, int]]]:
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
        order = random.permutation(len(places))
        for i in range(0, len(order), self.batch_size):
            yield [places[j] for j in order[i : i + self.batch_size]]

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


def _as_is(batch: Any) -> Any:
    return batch


def _three(fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3:
        raise UserError(f"data.fractions={list(fractions)}: give three shares (train, val, test).")
    return fractions[0], fractions[1], fractions[2]


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
