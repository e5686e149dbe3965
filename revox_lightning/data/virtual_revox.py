"""The built-in machine: a dry performance through the virtual tape recorder, rendered once and kept."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio, tape
from revox_lightning.data import instruments, performer
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.dsp import interpolation, oversampling, weighting
from revox_lightning.files import write_atomically
from revox_lightning.tape.machine import TapeMachine

log = logging.getLogger(__name__)


class VirtualRevox:
    """Training, validation and test performances (different material each) played through a ``TapeMachine``.

    The stages named in ``without`` are switched off: the transport and the azimuth for nets that hold no delay line.
    Files lie under ``cache_dir/virtual_revox/<hash of every setting and of the code that renders>``. Besides dry and
    wet each split keeps the machine's noise alone, which sets the floor of what any model of it can reach, and the
    delay of its transport.
    """

    def __init__(
        self,
        machine: TapeMachine,
        without: Sequence[str] = (),
        sample_rate_hz: int = 44100,
        seconds: dict[str, float] | None = None,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        self._machine, self._rate_hz, self._seed = machine.without(*without), sample_rate_hz, seed
        self._seconds = seconds or {"train": 180.0, "val": 30.0, "test": 30.0}
        self._folder = Path(cache_dir) / "virtual_revox" / self._key()
        self.knobs: tuple[str, ...] = ()
        self.zero_vu_dbfs: float | None = machine.zero_vu_dbfs

    def takes(self) -> list[Take]:
        """One take a split; renders what is missing."""
        missing = [split for split in SPLITS if not self._done(split)]
        if missing:
            log.info("rendering %.0f s of the built-in machine (once) ...", sum(self._seconds[s] for s in missing))
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(self._render, missing))
        frames = {split: audio.info(self._path(split, "wet")).frames for split in SPLITS}
        return [
            Take(
                f"virtual_revox_{split}",
                self._path(split, "dry"),
                self._path(split, "wet"),
                0,
                frames[split],
                split=split,
                trajectory=self._trajectory(split),
            )
            for split in SPLITS
        ]

    def floor_energy(self, split: str) -> float:
        """Mean square of the noise in a split's wet signal (full scale 1.0)."""
        noise = audio.read(self._path(split, "noise"))
        return float(noise.double().square().mean())

    def _render(self, split: str) -> None:
        seed = self._seed * len(SPLITS) + SPLITS.index(split)
        dry = performer.perform(self._seconds[split], self._rate_hz, seed)[None]
        playback = self._machine.play(dry, self._rate_hz, seed)
        self._folder.mkdir(parents=True, exist_ok=True)
        if (trajectory := self._trajectory(split)) is not None:
            delay = np.asarray(playback.delay_samples[0])
            write_atomically(trajectory, lambda file: np.savez_compressed(file, delay_samples=delay))
        for name, signal in (("dry", dry), ("noise", playback.noise), ("wet", playback.wet)):  # wet last: it says done
            audio.write(self._path(split, name), torch.as_tensor(signal).float(), self._rate_hz, subtype="FLOAT")

    def _trajectory(self, split: str) -> Path | None:
        """Where the truth about the transport is kept; None for a machine whose tape does not wander."""
        return None if self._machine.transport is None else self._folder / f"{split}-delay.npz"

    def _done(self, split: str) -> bool:
        trajectory = self._trajectory(split)
        return self._path(split, "wet").exists() and (trajectory is None or trajectory.exists())

    def _path(self, split: str, name: str) -> Path:
        return self._folder / f"{split}-{name}.wav"

    def _key(self) -> str:
        sources = [
            Path(str(module.__file__)) for module in (instruments, performer, interpolation, oversampling, weighting)
        ]
        sources += sorted(Path(str(tape.__file__)).parent.glob("*.py"))
        code = "".join(path.read_text(encoding="utf-8") for path in sources)
        settings = [dataclasses.asdict(self._machine), self._rate_hz, self._seconds, self._seed]
        return hashlib.sha256((json.dumps(settings, sort_keys=True) + code).encode()).hexdigest()[:16]
