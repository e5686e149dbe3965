"""Magnetic hysteresis to learn from: fields, and the magnetisation that the solver of the equation makes of them."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.signal import chirp

from revox_lightning import audio
from revox_lightning.data import instruments, performer
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.dsp import oversampling as rates
from revox_lightning.errors import UserError
from revox_lightning.tape import hysteresis

log = logging.getLogger(__name__)

_LEVELS_DB = (-24.0, 0.0)  # of the peak of the field
_LEAST_DRIVE = 0.05
_FADE_SECONDS = 0.005
_HIGHEST_HZ = 20_000.0  # of a sweep


class Hysteresis:
    """Takes of a few seconds, each by Newton's method of eight steps (`jiles_atherton`) at knobs of its own.

    Dry is the field H, wet the magnetisation M, at ``sample_rate_hz``, which is ``oversampling`` times the rate of the
    music. Training: two thirds music, the rest noise and sweeps, at levels over 24 dB and drive, saturation and width
    (0 to 1) drawn for each take. Validation: likewise, but music. Test: music at each of the ``test_drives``.
    Files lie under ``cache_dir/hysteresis/<hash of every setting and of the code that renders>``. Raises UserError for
    a rate that is no multiple.
    """

    knobs: tuple[str, ...] = ("drive", "saturation", "width")
    zero_vu_dbfs: float | None = None

    def __init__(
        self,
        sample_rate_hz: int = 88_200,
        oversampling: int = 2,
        takes: dict[str, int] | None = None,
        take_seconds: float = 2.0,
        test_drives: Sequence[float] = (0.25, 0.5, 0.75),
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        if oversampling < 1 or sample_rate_hz % oversampling:
            raise UserError(f"{sample_rate_hz} Hz is not {oversampling} times a rate: change data.sample_rate_hz.")
        self._rate_hz, self._factor = sample_rate_hz, oversampling
        self._counts = (takes or {"train": 48, "val": 6}) | {"test": len(test_drives)}
        self._seconds, self._drives, self._seed = take_seconds, tuple(test_drives), seed
        self._folder = Path(cache_dir) / "hysteresis" / self._key()

    def takes(self) -> list[Take]:
        """All takes; renders what is missing."""
        missing = [split for split in SPLITS if not self._wet(split, self._counts[split] - 1).exists()]
        if missing:
            log.info(
                "solving the equation of hysteresis for %d takes (once) ...", sum(self._counts[s] for s in missing)
            )
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(self._render, missing))
        return [
            Take(
                f"hysteresis_{split}_{i}",
                self._dry(split, i),
                self._wet(split, i),
                0,
                audio.info(self._wet(split, i)).frames,
                controls=self.settings(split)[i],
                split=split,
            )
            for split in SPLITS
            for i in range(self._counts[split])
        ]

    def floor_energy(self, split: str) -> None:
        """No noise: a model could be exact."""
        del split

    def settings(self, split: str) -> list[tuple[float, float, float]]:
        """Drive, saturation and width of each take of a split."""
        if split == "test":
            return [(float(drive), 0.5, 0.5) for drive in self._drives]
        random = self._random(split, 0)
        count = self._counts[split]
        # Each knob takes every part of its range once, in an order of its own.
        drive, saturation, width = ((random.permutation(count) + random.random(count)) / count for _ in range(3))
        drive = _LEAST_DRIVE + (1 - _LEAST_DRIVE) * drive
        return list(zip(drive.tolist(), saturation.tolist(), width.tolist(), strict=True))

    def _render(self, split: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        count, rate_hz = self._counts[split], self._rate_hz // self._factor
        length = round(self._seconds * rate_hz)
        seed = self._seed * len(SPLITS) + SPLITS.index(split)
        music = performer.perform(count * self._seconds, rate_hz, seed)[: count * length].reshape(count, length)
        random = self._random(split, 1)
        for i, (drive, saturation, width) in enumerate(self.settings(split)):
            other = split == "train" and i % 3 == 2
            x = _noise_or_sweep(random, length, rate_hz) if other else music[i].astype(np.float64)
            x = x * np.minimum(1.0, np.arange(length) / (_FADE_SECONDS * rate_hz))
            field = rates.change_rate(x, self._factor, up=True)
            level_db = random.uniform(*_LEVELS_DB) if split != "test" else -1.0
            field *= 10 ** (level_db / 20) / max(float(np.abs(field).max()), 1e-9)
            field = field.astype(np.float32)  # what the net will be given
            m = hysteresis.jiles_atherton(
                field, self._rate_hz, drive=drive, saturation=saturation, width=width, solver="nr8"
            )
            for path, signal in ((self._dry(split, i), field), (self._wet(split, i), m)):  # wet last: it says done
                audio.write(path, torch.from_numpy(signal[None]).float(), self._rate_hz, subtype="FLOAT")

    def _random(self, split: str, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, SPLITS.index(split), purpose])

    def _dry(self, split: str, i: int) -> Path:
        return self._folder / f"{split}-{i:02d}-field.wav"

    def _wet(self, split: str, i: int) -> Path:
        return self._folder / f"{split}-{i:02d}-magnetisation.wav"

    def _key(self) -> str:
        modules = (instruments, performer, rates, hysteresis)
        code = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
        code += Path(__file__).read_text(encoding="utf-8")
        settings = [self._rate_hz, self._factor, self._counts, self._seconds, self._drives, self._seed]
        return hashlib.sha256((json.dumps(settings, sort_keys=True) + code).encode()).hexdigest()[:16]


def _noise_or_sweep(random: np.random.Generator, samples: int, rate_hz: int) -> np.ndarray:
    """Noise, white to brown, or a sweep through all octaves; the level swells and sinks: every minor loop is passed."""
    swell = 0.5 - 0.5 * np.cos(
        2 * np.pi * random.uniform(0.5, 3.0) * np.arange(samples) / rate_hz + random.uniform(0, 6.3)
    )
    if random.random() < 0.5:
        spectrum = np.fft.rfft(random.standard_normal(samples))
        spectrum *= np.maximum(np.arange(spectrum.size), samples / rate_hz * 20) ** -random.uniform(0.0, 1.0)
        return swell * np.fft.irfft(spectrum, samples)
    t = np.arange(samples) / rate_hz
    sweep = chirp(t, 30.0, t[-1], min(_HIGHEST_HZ, 0.45 * rate_hz), method="logarithmic")
    return (0.2 + 0.8 * swell) * sweep
