"""Looks at every file once before training: what would spoil a night of it is said now."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from revox_lightning.data.takes import Reader, Take
from revox_lightning.dsp.alignment import delay_samples
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)

_FULL_SCALE = 0.9999
_SILENCE = 1e-6
_BLOCK = 1 << 20
_EARLY_SAMPLES = 1  # rounding
_LATE_SECONDS = 0.0005  # group delay of a tape machine's equalisers; more is a cable, a converter or a head gap
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

    @property
    def peak_dbfs(self) -> float:
        return 20 * math.log10(max(self.peak, 1e-10))

    @property
    def rms_dbfs(self) -> float:
        return 10 * math.log10(max(self.energy / max(self.samples, 1), 1e-20))


def level(read: Reader, path: Path, start: int, stop: int) -> Level:
    """Level of a stretch of a file, read block by block; raises UserError at samples that are not finite."""
    result = Level()
    for position in range(max(start, 0), stop, _BLOCK):
        result.add(read(path, position, min(_BLOCK, stop - position)))
    return result


def check(takes: list[Take], read: Reader) -> Level:
    """Reads every take once; returns the level of the dry training material.

    Raises UserError for silent targets, silent inputs and samples that are not finite; warns of clipping.
    """
    training, clipped = Level(), dict[Path, int]()
    for take in takes:
        dry = level(read, take.dry, take.start - take.lead, take.stop)
        wet = level(read, take.wet, take.start - take.lead + take.delay, take.stop + take.delay)
        for path, found in ((take.dry, dry), (take.wet, wet)):
            if found.quietest_channel_peak < _SILENCE:
                raise UserError(
                    f"{path} is silent (or one of its channels is) in its {take.split} part (samples {take.start} to "
                    f"{take.stop}): there is nothing to learn from or to score; check the cabling, or cut it off."
                )
            clipped[path] = clipped.get(path, 0) + found.clipped_runs
        if take.split == "train":
            training.peak = max(training.peak, dry.peak)
            training.energy += dry.energy
            training.samples += dry.samples
    for path, runs in clipped.items():
        if runs:
            log.warning(
                "%s is clipped in %d places: the net would learn the clipping of the converter; record it again with "
                "less gain if you can.",
                path,
                runs,
            )
    return training


def check_delay(take: Take, dry: Tensor, wet: Tensor, sample_rate_hz: int) -> None:
    """Warns where the wet signal ``(time,)`` is later than a machine's own filters explain, or comes before the dry."""
    delay = delay_samples(dry, wet, max_delay=sample_rate_hz)
    if not -_EARLY_SAMPLES <= delay <= _LATE_SECONDS * sample_rate_hz:
        log.warning(
            "%s (%s): the wet signal seems to be %d samples %s; if that is not the machine's doing, set "
            "data.delay_samples=%d.",
            take.name,
            take.split,
            abs(delay),
            "late" if delay > 0 else "early",
            take.delay + delay,
        )
