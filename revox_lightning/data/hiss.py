"""Noise to learn from: what a machine adds to silence."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.data import sources
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.dsp import oversampling, weighting
from revox_lightning.errors import UserError
from revox_lightning.tape.machine import TapeMachine

log = logging.getLogger(__name__)

_FRAME_SECONDS = 0.05
_ABOVE_QUIETEST_DB = 6.0  # that a frame of hiss alone may lie: its own level hardly wavers
_QUIETEST = 0.05  # share of all frames
_DIGITAL_SILENCE = 1e-7
_EDGE_SECONDS = 0.1  # a note that is dying away, or about to start
_INPUT_MARKS = ("-input", ".input", "_input")
_SHARES = (0.8, 0.9)  # of the stretches' time: where train ends, and val


class Hiss:
    """Stretches of noise alone; dry and wet of a take are one file.

    Of ``machine`` playing silence, ``seconds`` of each split and ``channels`` of it. Or, with ``root``, the stretches
    of at least ``least_seconds`` where the recordings in a folder hold nothing but hiss: where their level stays within
    6 dB of their quietest 5 %. Dry files of pairs (NAME-input.*) are left out. A folder train, val or test on the way
    names the split; else the stretches are shared out in order.
    Rendered files lie under ``cache_dir/hiss``. Raises UserError for a machine without noise and for a folder without
    quiet stretches.
    """

    knobs: tuple[str, ...] = ()
    zero_vu_dbfs: float | None = None

    def __init__(
        self,
        machine: TapeMachine | None = None,
        root: str | None = None,
        sample_rate_hz: int = 44100,
        seconds: dict[str, float] | None = None,
        channels: int = 2,
        least_seconds: float = 2.0,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        self._root = None if root is None else Path(root).expanduser()
        self._rate_hz, self._channels, self._least, self._seed = sample_rate_hz, channels, least_seconds, seed
        self._seconds = seconds or {"train": 120.0, "val": 20.0, "test": 30.0}
        if self._root is None:
            if machine is None or machine.hiss is None:
                raise UserError("the machine has no hiss to learn from: choose another machine, or give data.root.")
            # Silence does not move the tape's magnetisation, so these stages, the slow ones, have nothing to do.
            self._machine = machine.without("hysteresis", "bias", "transport", "azimuth")
            self._folder = Path(cache_dir) / "hiss" / self._key()
            self.zero_vu_dbfs = machine.zero_vu_dbfs

    def takes(self) -> list[Take]:
        """One take for each rendered split or each stretch; renders what is missing."""
        if self._root is not None:
            return _shared_out([take for path in _recordings(self._root) for take in self._quiet(path)], self._root)
        missing = [split for split in SPLITS if not self._path(split).exists()]
        if missing:
            log.info("letting %.0f s of silent tape run (once) ...", sum(self._seconds[s] for s in missing))
            self._folder.mkdir(parents=True, exist_ok=True)
        for split in missing:
            silence = np.zeros((self._channels, round(self._seconds[split] * self._rate_hz)))
            noise = self._machine.play(silence, self._rate_hz, self._seed * len(SPLITS) + SPLITS.index(split)).wet
            audio.write(self._path(split), torch.from_numpy(noise), self._rate_hz, subtype="FLOAT")
        return [_take(self._path(split), 0, audio.info(self._path(split)).frames, split) for split in SPLITS]

    def floor_energy(self, split: str) -> float | None:
        """None: here the noise is the signal."""
        return None

    def _quiet(self, path: Path) -> list[Take]:
        rate_hz = audio.info(path).sample_rate_hz
        found = quiet_stretches(audio.read(path), rate_hz, self._least)
        return [_take(path, piece.start, piece.stop, sources.named_split(path)) for piece in found]

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}.wav"

    def _key(self) -> str:
        settings = [dataclasses.asdict(self._machine), self._rate_hz, self._seconds, self._channels, self._seed]
        return sources.key(settings, (oversampling, weighting), __file__)


def quiet_stretches(x: Tensor, rate_hz: int, least_seconds: float) -> list[slice]:
    """Stretches of x (channel, time) of at least so long whose level stays within 6 dB of its quietest 5 %.

    >>> x = 0.01 * torch.randn(1, 4000)
    >>> x[:, 1500:2000] += 1
    >>> [(s.start, s.stop) for s in quiet_stretches(x, 1000, 1.0)]
    [(0, 1400), (2100, 4000)]
    """
    frame, edge = max(round(_FRAME_SECONDS * rate_hz), 1), round(_EDGE_SECONDS * rate_hz)
    frames = x.shape[-1] // frame
    if not frames:
        return []
    power = x[:, : frames * frame].double().unflatten(-1, (frames, frame)).square().mean((0, 2))
    heard = power[power > _DIGITAL_SILENCE**2]
    if not len(heard):
        return []
    most = torch.quantile(heard, _QUIETEST) * 10 ** (_ABOVE_QUIETEST_DB / 10)
    quiet = ((power > _DIGITAL_SILENCE**2) & (power <= most)).int()
    turns = torch.diff(quiet, prepend=quiet.new_zeros(1), append=quiet.new_zeros(1))
    starts, stops = (turns == 1).nonzero()[:, 0] * frame, (turns == -1).nonzero()[:, 0] * frame
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        start, stop = start + edge * (start > 0), stop - edge * (stop < frames * frame)
        if stop - start >= least_seconds * rate_hz:
            found.append(slice(start, stop))
    return found


def _take(path: Path, start: int, stop: int, split: str | None) -> Take:
    return Take(f"{path.stem}_{start}" if start else path.stem, path, path, start, stop, split=split)


def _recordings(root: Path) -> list[Path]:
    return [path for path in sources.files(root, SUFFIXES) if not path.stem.endswith(_INPUT_MARKS)]


def _shared_out(takes: list[Take], root: Path) -> list[Take]:
    """Gives stretches a split, in order, where there are enough of them and none has one; else as they are."""
    if not takes:
        raise UserError(
            f"data.root={root} holds no stretch of hiss alone: record some seconds of silent tape, or ask for shorter "
            "ones with data.source.least_seconds."
        )
    if len(takes) < len(SPLITS) or any(take.split for take in takes):
        return takes
    total, position, out = sum(take.frames for take in takes), 0, []
    for i, take in enumerate(takes):
        middle = (position + take.frames / 2) / total
        number = sum(middle > share for share in _SHARES)
        # The last two are held out, however long they are.
        number = max(number, i - (len(takes) - len(SPLITS)))
        out.append(dataclasses.replace(take, split=SPLITS[min(number, i)]))
        position += take.frames
    return out
