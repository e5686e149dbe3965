"""Looks at the files before training: what would spoil a night of it is said now."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.data import trajectories
from revox_lightning.data.index import Index, in_parallel, stamp
from revox_lightning.data.takes import Reader, Take
from revox_lightning.dsp.alignment import delay_samples
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)

_FULL_SCALE = 0.9999
_SILENCE = 1e-6
_BLOCK = 1 << 20
_EARLY_SAMPLES = 1  # rounding
_LATE_SECONDS = 0.0005  # group delay of a tape machine's equalisers; more is a cable, a converter or a head gap
_LOOKED_AT_SECONDS = 4 * 3600  # of dry and wet audio together; less is looked at as a whole
_PASSAGE, _MOST_PASSAGES = 1 << 17, 8  # samples; where a part of a longer take is looked at
_HEARD_SECONDS, _HEARD_BRIEFLY_SECONDS = 20, 5  # of a take's beginning, to find its delay
_WARNINGS = 10  # of one kind
_CLIPPED_RUN = 4  # consecutive samples at full scale; programme that only touches it has shorter runs


@dataclasses.dataclass
class Level:
    """Peak and mean square of a file or of several."""

    peak: float = 0.0
    quietest_channel_peak: float = 0.0
    energy: float = 0.0
    samples: int = 0
    clipped_runs: int = 0

    def add(self, x: Tensor) -> None:
        if not x.numel():
            return
        self._peaks = torch.maximum(x.abs().amax(-1), self._peaks) if hasattr(self, "_peaks") else x.abs().amax(-1)
        self.peak, self.quietest_channel_peak = float(self._peaks.max()), float(self._peaks.min())
        self.energy += float(x.double().square().sum())
        self.samples += x.numel()
        # What goes beyond full scale was computed: no converter has clipped it.
        hot = ((x.abs() >= _FULL_SCALE) & (x.abs() <= 2 - _FULL_SCALE)).float().unsqueeze(1)  # (channel, 1, time)
        if hot.shape[-1] >= _CLIPPED_RUN and hot.any():
            runs = -torch.nn.functional.max_pool1d(-hot, _CLIPPED_RUN, 1)
            self.clipped_runs += int((runs.diff(dim=-1) > 0).sum() + runs[..., 0].sum())

    def told(self) -> list[float]:
        """As JSON takes it."""
        return list(dataclasses.astuple(self))

    @classmethod
    def of(cls, told: list[Any]) -> Level:
        """What ``told`` told."""
        peak, quietest, energy, samples, clipped = told
        return cls(float(peak), float(quietest), float(energy), int(samples), int(clipped))

    @property
    def peak_dbfs(self) -> float:
        return 20 * math.log10(max(self.peak, 1e-10))

    @property
    def rms_dbfs(self) -> float:
        return 10 * math.log10(max(self.energy / max(self.samples, 1), 1e-20))


def level(read: Reader, path: Path, start: int, stop: int, most: int | None = None) -> Level:
    """Level of a stretch of a file, read block by block; raises UserError at samples that are not finite.

    Of more than ``most`` samples so many are read, in passages spread over all of it, and then on from its beginning
    as long as a channel has not been heard.
    """
    result, start = Level(), max(start, 0)
    passages = most is not None and stop - start > most
    if most is not None and passages:
        count = min(max(most // _PASSAGE, 2), _MOST_PASSAGES)  # a place in a FLAC file costs as much as seconds of it
        length = max(most // count, 1)
        for i in range(count):
            result.add(read(path, start + i * (stop - start - length) // (count - 1), length))
    for position in range(start, stop, _BLOCK):
        if passages and result.quietest_channel_peak >= _SILENCE:
            break
        result.add(read(path, position, min(_BLOCK, stop - position)))
    return result


@dataclasses.dataclass
class Look:
    """What was found in one take: levels of both sides, and how late the wet one is beside its known delay.

    ``most`` samples of each side were looked at (None: all). With ``damage`` nothing else was found.
    """

    dry: Level
    wet: Level
    late: int | None
    most: int | None = None
    damage: audio.DamagedAudio | None = None


def check(takes: list[Take], read: Reader, index: Index, sample_rate_hz: int) -> tuple[Level, list[audio.DamagedAudio]]:
    """Looks at every take, in parallel; returns the level of the dry training material, and files that are damaged.

    Of hours of audio a part is read, spread over all takes. What was found is kept in the index. Raises UserError for
    silent targets, silent inputs and samples that are not finite; warns of clipping and of late recordings.
    """
    most = _most(takes, sample_rate_hz)
    if most is not None:
        hours = [2 * sum(samples) / sample_rate_hz / 3600 for samples in (
            (min(take.frames, most) for take in takes), (take.frames for take in takes))]  # fmt: skip
        log.info(
            "looking for silence, clipping and delays in %.1f of %.1f hours of audio, spread over all files", *hours
        )
    first = {(take.wet, take.delay): i for i, take in reversed(list(enumerate(takes)))}

    def look(place: tuple[int, Take]) -> Look:
        i, take = place
        heard = _HEARD_SECONDS if most is None else _HEARD_BRIEFLY_SECONDS if first[take.wet, take.delay] == i else 0
        return _kept(take, read, index, most, heard * sample_rate_hz)

    looks = list(in_parallel(look, enumerate(takes), "looking at the recordings"))
    index.save()
    damaged = [one.damage for one in looks if one.damage is not None]
    if damaged:
        return Level(), damaged
    _refuse_silence(takes, looks)
    _warn(takes, looks, sample_rate_hz)
    training = Level()
    for take, one in zip(takes, looks, strict=True):
        if take.split == "train":
            training.peak = max(training.peak, one.dry.peak)
            training.energy += one.dry.energy
            training.samples += one.dry.samples
    return training, []


def _most(takes: list[Take], sample_rate_hz: int) -> int | None:
    """How many samples of each side of a take are looked at; None for all.

    A power of two of seconds, so that another file hardly ever changes it.
    """
    if 2 * sum(take.frames for take in takes) <= _LOOKED_AT_SECONDS * sample_rate_hz:
        return None
    return sample_rate_hz * max(1, 1 << int(math.log2(max(_LOOKED_AT_SECONDS / (2 * len(takes)), 1))))


def _kept(take: Take, read: Reader, index: Index, most: int | None, heard: int) -> Look:
    """A look at a take, or what an earlier one found that was as thorough."""
    files = [take.dry, *([take.trajectory] if take.follows and take.trajectory is not None else [])]
    place = [take.start, take.stop, take.lead, take.delay, take.follows, read.channels, heard > 0]
    key = json.dumps([[str(path), stamp(path)] for path in files] + place)
    with contextlib.suppress(TypeError, ValueError):  # nothing was found, or the file was written by another hand
        looked_at, dry, wet, late = index.finding(take.wet, key)
        if looked_at is None or (most is not None and looked_at >= most):
            return Look(Level.of(dry), Level.of(wet), late, looked_at)
    try:
        seen = _look(take, read, most, heard)
    except audio.DamagedAudio as error:
        return Look(Level(), Level(), None, damage=error)
    index.keep(take.wet, key, [most, seen.dry.told(), seen.wet.told(), seen.late])
    return seen


def _look(take: Take, read: Reader, most: int | None, heard: int) -> Look:
    start, stop = take.start - take.lead, take.stop
    dry = level(read, take.dry, start, stop, most)
    wet = level(read, take.wet, start + take.delay, stop + take.delay, most)
    late = None
    if heard:
        x, y = trajectories.pair(read, take, take.start, min(heard, take.frames))
        late = delay_samples(x[0], y[0], max_delay=read.info(take.dry).sample_rate_hz)
    return Look(dry, wet, late, most)


def _refuse_silence(takes: list[Take], looks: list[Look]) -> None:
    for take, one in zip(takes, looks, strict=True):
        for path, found in ((take.dry, one.dry), (take.wet, one.wet)):
            if found.quietest_channel_peak < _SILENCE:
                raise UserError(
                    f"{path} is silent (or one of its channels is) in its {take.split} part (samples {take.start} to "
                    f"{take.stop}): there is nothing to learn from or to score; check the cabling, or cut it off."
                )


def _warn(takes: list[Take], looks: list[Look], sample_rate_hz: int) -> None:
    """Of clipping, and where the wet signal is later than a machine's own filters explain, or comes before the dry."""
    clipped, late = dict[Path, int](), list[str]()
    for take, one in zip(takes, looks, strict=True):
        for path, found in ((take.dry, one.dry), (take.wet, one.wet)):
            clipped[path] = clipped.get(path, 0) + found.clipped_runs
        if one.late is not None and not -_EARLY_SAMPLES <= one.late <= _LATE_SECONDS * sample_rate_hz:
            late.append(
                f"{take.name} ({take.split}): the wet signal seems to be {abs(one.late)} samples "
                f"{'late' if one.late > 0 else 'early'}; if that is not the machine's doing, set "
                f"data.delay_samples={take.delay + one.late}."
            )
    few(
        f"{path} is clipped in {runs} places: the net would learn the clipping of the converter; record it again with "
        "less gain if you can."
        for path, runs in clipped.items() if runs
    )  # fmt: skip
    few(late)


def few(warnings: Iterable[str]) -> None:
    """Writes the first of some warnings, and how many more there are."""
    warnings = list(warnings)
    for text in warnings[:_WARNINGS]:
        log.warning("%s", text)
    if len(warnings) > _WARNINGS:
        log.warning("... and so it is with %d more.", len(warnings) - _WARNINGS)
