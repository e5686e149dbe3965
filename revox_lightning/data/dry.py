"""Recordings without a wet side, to learn production styles from: a folder of them, or the built-in performers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.data import instruments, performer, sources, speech
from revox_lightning.data.index import Index
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)
PIECE_SECONDS = 24.0
_MOST_PIECES = 10_000  # of a split: each has a seed of its own


def _speak(seconds: float, sample_rate_hz: int, seed: int) -> np.ndarray:
    return speech.speak(seconds, sample_rate_hz, seed, speech.Speaker.drawn(np.random.default_rng((seed, 3))))


MAKERS = {"music": performer.piece, "speech": _speak}


class Dry:
    """Dry and wet of a take are one file: a folder's, or ``seconds`` a split of built-in ``kind`` music or speech.

    Built-in music are pieces that stay what they are, speech speakers in their rooms, 24 s each, none in two
    splits. A folder train, val or test on the way names the split; files that cannot be read are left out and named in
    a list. With ``built_in`` what is built in is trained and validated on beside a folder, and tested on where the
    folder has no test. Rendered files lie under ``cache_dir/dry``. Raises UserError for another kind and for a folder
    without audio.
    """

    knobs: tuple[str, ...] = ()
    zero_vu_dbfs: float | None = None

    def __init__(
        self,
        root: str | None = None,
        kind: str = "music",
        built_in: bool = False,
        sample_rate_hz: int = 24_000,
        seconds: dict[str, float] | None = None,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        if kind not in MAKERS:
            raise UserError(f"data.kind={kind}: choose one of {', '.join(MAKERS)}, or give data.root.")
        self._built_in = built_in
        self._root = None if root is None else Path(root).expanduser()
        self._kind, self._rate_hz, self._seed = kind, sample_rate_hz, seed
        self._seconds = seconds or {"train": 600.0, "val": 60.0, "test": 120.0}
        self._folder = Path(cache_dir) / "dry"
        self.index = Index() if root is None else Index(cache_dir, root, skips=True)

    def takes(self) -> list[Take]:
        """One take for each file; renders what is missing."""
        if self._root is None:
            return [take for split in SPLITS for take in self._pieces(split)]
        files = sources.files(self._root, SUFFIXES)
        if not files:
            raise UserError(
                f"data.root={self._root} holds no recording: give a folder of {', '.join(sorted(SUFFIXES))}."
            )
        self.index.look_at(files)
        self.index.tell_unreadable(files)
        takes = [self._take(path, sources.named_split(path)) for path in files if self.index.problem(path) is None]
        if not self._built_in:
            return takes
        own_test = any(take.split == "test" for take in takes)
        return takes + [take for split in SPLITS if split != "test" or not own_test for take in self._pieces(split)]

    def floor_energy(self, split: str) -> float | None:
        """None: there is no machine."""
        return None

    def _pieces(self, split: str) -> list[Take]:
        """Pieces of a split, rendered where they are missing, one after another in one file."""
        number = max(round(self._seconds[split] / PIECE_SECONDS), 1)
        if number > _MOST_PIECES:
            raise UserError(f"data.source.seconds.{split} asks for {number} pieces: give at most {_MOST_PIECES}.")
        frames = round(min(PIECE_SECONDS, self._seconds[split]) * self._rate_hz)
        seeds = [(self._seed * len(SPLITS) + SPLITS.index(split)) * _MOST_PIECES + n for n in range(number)]
        settings = [self._kind, self._rate_hz, frames, seeds]
        key = sources.key(settings, (instruments, performer), speech.__file__)
        path = self._folder / f"{self._kind}_{split}_{key}.wav"
        if not path.exists():
            log.info("rendering %.0f s of built-in %s (once) ...", self._seconds[split], self._kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            pieces = [MAKERS[self._kind](frames / self._rate_hz, self._rate_hz, seed) for seed in seeds]
            audio.write(path, torch.from_numpy(np.concatenate(pieces))[None], self._rate_hz, subtype="FLOAT")
        return [Take(f"{path.stem}_{n}", path, path, n * frames, (n + 1) * frames, split=split) for n in range(number)]

    def _take(self, path: Path, split: str | None) -> Take:
        return Take(path.stem, path, path, 0, self.index.info(path).frames, split=split)
