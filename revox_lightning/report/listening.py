"""The audio a run leaves: dry, target, estimate, difference, and level-matched copies that say so."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.data.module import PairData

log = logging.getLogger(__name__)

_MOST_TAKES = 40


class Listening:
    """Collects the estimates of a test, take by take, and writes them beside dry and target as 24-bit WAV.

    ``difference`` is target minus estimate at its true level; ``estimate_level_matched`` is the estimate after the
    best single gain. At most ``seconds`` of every take are kept, and no more than 40 takes, spread over all of them.
    """

    def __init__(self, data: PairData, split: str, folder: Path, seconds: float) -> None:
        self._data, self._takes, self._folder = data, data.takes(split), folder
        self._keep = round(seconds * data.sample_rate_hz)
        self._parts: list[Tensor] = []
        count = len(self._takes)
        self._heard = {i * count // min(count, _MOST_TAKES) for i in range(min(count, _MOST_TAKES))}
        self.written: list[dict[str, Path]] = []

    def __call__(self, y_hat: Tensor, meta: dict[str, Any]) -> None:
        if meta["take"] not in self._heard:
            return
        if meta["first"]:
            self._parts = []
        room = self._keep - sum(part.shape[-1] for part in self._parts)
        self._parts.append(y_hat[:, : max(room, 0)])
        if meta["last"] and self._keep:  # report.audio_seconds=0: nothing is kept
            self._write(self._takes[meta["take"]], torch.cat(self._parts, -1))

    def _write(self, take: Any, y_hat: Tensor) -> None:
        dry, wet = self._data.beginning(take, y_hat.shape[-1])
        gain = float((wet * y_hat).sum() / y_hat.square().sum().clamp_min(1e-12))
        signals = {
            "dry": dry,
            "target": wet,
            "estimate": y_hat,
            "difference": wet - y_hat,
            "estimate_level_matched": gain * y_hat,
        }
        name = re.sub(r"[^\w.-]+", "_", take.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for kind, signal in signals.items():
            paths[kind] = self._folder / f"{len(self.written) + 1:02d}_{name}_{kind}.wav"
            if float(signal.abs().max()) > 1:
                log.warning("%s goes beyond full scale and is clipped in its file", paths[kind])
            audio.write(paths[kind], signal, self._data.sample_rate_hz, subtype="PCM_24")
        self.written.append(paths)
