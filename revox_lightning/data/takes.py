"""What a data source hands over: takes, i.e. stretches of aligned dry and wet files, and how they are split."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.errors import UserError

SPLITS = ("train", "val", "test")
CHANNELS = ("left", "right", "mix", "each")
_BYTES = 4  # of a sample in memory


@dataclasses.dataclass(frozen=True)
class Take:
    """A contiguous stretch of one pair of files; all positions are samples of the dry file.

    Samples ``start`` to ``stop`` are learned from or scored; the ``lead`` samples before ``start`` belong to no
    split and serve as history only. Dry sample ``n`` corresponds to wet sample ``n + delay``. Where the delay wanders,
    ``trajectory`` is the file that says how; with ``follows`` the net is told of it.
    """

    name: str
    dry: Path
    wet: Path
    start: int
    stop: int
    lead: int = 0
    delay: int = 0
    controls: tuple[float, ...] = ()
    split: str | None = None
    trajectory: Path | None = None
    follows: bool = False

    @property
    def frames(self) -> int:
        return self.stop - self.start


class Reader:
    """Reads stretches of files; each is kept in memory as long as there is room for all of it in ``memory_mb``.

    ``headers`` tells those of files, which are read once; it may be read from in several threads.
    """

    def __init__(
        self,
        channels: str = "each",
        memory_mb: float = 1024.0,
        headers: Callable[[Path], audio.AudioInfo] | None = None,
    ) -> None:
        if channels not in CHANNELS:
            raise UserError(f"data.channels={channels}: choose one of {', '.join(CHANNELS)}.")
        self.channels = channels
        self.info = functools.cache(audio.info) if headers is None else headers
        self._room = memory_mb * 1e6
        self._kept: dict[Path, Tensor] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path, start: int, frames: int) -> Tensor:
        """Samples ``start`` to ``start + frames`` as ``(channel, time)``; zeros where the file has none."""
        info, whole = self.info(path), self._whole(path)
        first, last = max(start, 0), min(start + frames, info.frames)
        if whole is None:
            x = self._pick(audio.read(info, first, max(last - first, 0)), path)
        else:
            x = whole[:, first : max(last, first)]
        return self._pad(x, first - start, frames)

    def _whole(self, path: Path) -> Tensor | None:
        """A file that is kept; None of one for which there is no room."""
        if path in self._kept:
            return self._kept[path]
        info = self.info(path)
        size = info.channels * info.frames * _BYTES
        with self._lock:
            if path not in self._kept and size <= self._room:
                self._kept[path] = self._pick(audio.read(info), path)
                self._room -= size
            return self._kept.get(path)

    def pair(self, take: Take, start: int, frames: int) -> tuple[Tensor, Tensor]:
        """Dry and wet of a take from dry sample ``start`` on, each ``(channel, frames)``."""
        return self(take.dry, start, frames), self(take.wet, start + take.delay, frames)

    def count(self, path: Path) -> int:
        """How many channels are read of a file."""
        return self.info(path).channels if self.channels == "each" else 1

    def _pick(self, x: Tensor, path: Path) -> Tensor:
        if self.channels == "each":
            return x
        if self.channels == "mix":
            return x.mean(0, keepdim=True)
        index = CHANNELS.index(self.channels)
        if index >= x.shape[0]:
            raise UserError(f"{path} is mono and has no right channel: use data.channels=left or mix.")
        return x[index : index + 1].contiguous()

    @staticmethod
    def _pad(x: Tensor, before: int, frames: int) -> Tensor:
        if x.shape[-1] == frames:
            return x
        return torch.nn.functional.pad(x, (before, frames - before - x.shape[-1]))


def megabytes(takes: Iterable[Take], headers: Callable[[Path], audio.AudioInfo]) -> float:
    """What all files of some takes would need in memory, each counted once."""
    infos = [headers(path) for path in {path for take in takes for path in (take.dry, take.wet)}]
    return sum(info.channels * info.frames for info in infos) * _BYTES / 1e6


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on the device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def split(takes: list[Take], by: str, fractions: tuple[float, float, float], gap: int, shortest: int) -> list[Take]:
    """Give every take without one a split, by ``time`` or by ``file``; takes that name their split keep it.

    By time each take becomes train | gap | val | gap | test, contiguous and in this order, where the gap holds at
    least the receptive field, so that no sample of one split is part of the history of another. ``fractions`` are
    the shares of the three. Raises UserError where a part would be shorter than ``shortest`` samples.
    """
    total = sum(fractions)
    if min(fractions) < 0 or total <= 0:
        raise UserError(f"data.fractions={list(fractions)}: give three shares of 0 or more, such as [0.8, 0.1, 0.1].")
    open_takes = [take for take in takes if take.split is None]
    done = [take for take in takes if take.split is not None]
    if by == "file":
        done += _by_file(open_takes, fractions)
    elif by == "time":
        # Several wets of one dry file (knob settings) are cut at the same places.
        stops: dict[Path, int] = {}
        for take in open_takes:
            stops[take.dry] = min(take.stop, stops.get(take.dry, take.stop))
        for take in open_takes:
            take = dataclasses.replace(take, stop=stops[take.dry])
            done += _by_time(take, [share / total for share in fractions], gap, shortest)
    else:
        raise UserError(f"data.split_by={by}: choose time or file.")
    for name in SPLITS:
        if not any(take.split == name for take in done):
            hint = "name one in the manifest, or let data.split_by=time cut the files"
            raise UserError(f"the data has no {name} part: {hint}.")
    return sorted(done, key=lambda take: (str(take.dry), take.start))


def _by_file(takes: list[Take], fractions: tuple[float, float, float]) -> list[Take]:
    files = sorted({take.dry for take in takes})
    if 0 < len(files) < sum(share > 0 for share in fractions):
        raise UserError(
            f"data.split_by=file needs at least three dry files and found {len(files)}: use data.split_by=time."
        )
    held_out = [max(1, round(len(files) * share / sum(fractions))) if share > 0 else 0 for share in fractions[1:]]
    edges = [len(files) - sum(held_out), len(files) - held_out[1]]
    names = {file: "train" if i < edges[0] else "val" if i < edges[1] else "test" for i, file in enumerate(files)}
    return [dataclasses.replace(take, split=names[take.dry]) for take in takes]


def _by_time(take: Take, shares: list[float], gap: int, shortest: int) -> list[Take]:
    used = [(name, share) for name, share in zip(SPLITS, shares, strict=True) if share > 0]
    usable = take.frames - gap * (len(used) - 1)
    parts, start = [], take.start
    for name, share in used:
        frames = int(usable * share)
        if frames < shortest:
            raise UserError(
                f"{take.dry} is too short to split: its {name} part would have {max(frames, 0)} samples, and at least "
                f"{shortest} are needed (beside gaps of {gap}); record more, or give it a split in a manifest."
            )
        lead = take.lead if start == take.start else gap
        parts.append(dataclasses.replace(take, start=start, stop=start + frames, lead=lead, split=name))
        start += frames + gap
    return parts


def first_part(takes: list[Take], train_seconds: float, rate_hz: float) -> list[Take]:
    """The takes, those to train on cut to the same share, so that ``train_seconds`` are left."""
    if not train_seconds > 0:
        raise UserError(f"data.train_seconds={train_seconds}: give more than 0, or null for all there is.")
    whole = sum(take.frames for take in takes if take.split == "train")
    share = min(train_seconds * rate_hz / max(whole, 1), 1.0)
    return [
        dataclasses.replace(take, stop=take.start + round(share * take.frames)) if take.split == "train" else take
        for take in takes
    ]


def skipped(take: Take, samples: int) -> Take:
    """The take without its first samples, which stay as history."""
    if take.frames <= samples:
        raise UserError(f"{take.dry} has {take.frames} samples and data.skip_samples={samples} leaves nothing of it.")
    return dataclasses.replace(take, start=take.start + samples, lead=take.lead + samples)


def keep_apart(takes: list[Take], history: int) -> None:
    """Shortens leads that reach into another split of the same file; raises UserError where splits overlap."""
    of_dry, of_wet = defaultdict[Any, list[int]](list), defaultdict[Any, list[int]](list)
    for i, take in enumerate(takes):
        of_dry[take.dry].append(i)
        of_wet[take.wet, take.delay].append(i)
    for i, take in enumerate(takes):
        for j in sorted({*of_dry[take.dry], *of_wet[take.wet, take.delay]}):
            other = takes[j]
            if other.split == take.split:
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
