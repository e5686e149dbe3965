"""Recordings without a wet side, to learn production styles from: a folder of them, or the built-in performers."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from revox_lightning import audio
from revox_lightning.data import instruments, performer, sources, speech
from revox_lightning.data.index import Index
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)
_MAKERS = {"music": performer.perform, "speech": speech.speak}


class Dry:
    """Dry and wet of a take are one file: a folder's, or ``seconds`` a split of built-in ``kind`` music or speech.

    A folder train, val or test on the way names the split; files that cannot be read are left out and named in a list.
    Rendered files lie under ``cache_dir/dry``. Raises UserError for another kind and for a folder without audio.
    """

    knobs: tuple[str, ...] = ()
    zero_vu_dbfs: float | None = None

    def __init__(
        self,
        root: str | None = None,
        kind: str = "music",
        sample_rate_hz: int = 24_000,
        seconds: dict[str, float] | None = None,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        if kind not in _MAKERS:
            raise UserError(f"data.kind={kind}: choose one of {', '.join(_MAKERS)}, or give data.root.")
        self._root = None if root is None else Path(root).expanduser()
        self._kind, self._rate_hz, self._seed = kind, sample_rate_hz, seed
        self._seconds = seconds or {"train": 600.0, "val": 60.0, "test": 120.0}
        self._folder = Path(cache_dir) / "dry"
        self.index = Index() if root is None else Index(cache_dir, root, skips=True)

    def takes(self) -> list[Take]:
        """One take for each file; renders what is missing."""
        if self._root is None:
            return [self._take(self._rendered(split), split) for split in SPLITS]
        files = sources.files(self._root, SUFFIXES)
        if not files:
            raise UserError(
                f"data.root={self._root} holds no recording: give a folder of {', '.join(sorted(SUFFIXES))}."
            )
        self.index.look_at(files)
        self.index.tell_unreadable(files)
        return [self._take(path, sources.named_split(path)) for path in files if self.index.problem(path) is None]

    def floor_energy(self, split: str) -> float | None:
        """None: there is no machine."""
        return None

    def _rendered(self, split: str) -> Path:
        seed = self._seed * len(SPLITS) + SPLITS.index(split)
        settings = [self._kind, self._rate_hz, self._seconds[split], seed]
        path = (
            self._folder
            / f"{self._kind}_{split}_{sources.key(settings, (instruments, performer), speech.__file__)}.wav"
        )
        if not path.exists():
            log.info("rendering %.0f s of built-in %s (once) ...", self._seconds[split], self._kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            x = _MAKERS[self._kind](self._seconds[split], self._rate_hz, seed)
            audio.write(path, torch.from_numpy(x)[None], self._rate_hz, subtype="FLOAT")
        return path

    def _take(self, path: Path, split: str | None) -> Take:
        return Take(path.stem, path, path, 0, self.index.info(path).frames, split=split)
