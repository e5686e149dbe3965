"""Whole takes through a net, chunk by chunk, and what they score."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from revox_lightning.data.takes import moved
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.stream import Player

_NEARLY_SILENT_DB = 40.0
_CHUNKS_AHEAD = 8  # of what is played but not scored: enough for one block of the metrics


class Setting(NamedTuple):
    """What a net reaches at one position of its knobs; the level of the target in dBFS rms."""

    knobs: tuple[float, ...]
    esr: float
    level_dbfs: float


class BySetting:
    """Error and signal energies for each setting of the knobs, over any number of takes.

    >>> by = BySetting(1)
    >>> by.update(torch.tensor([[0.5]]), torch.zeros(1, 10), torch.ones(1, 10))
    >>> by.worst()
    [Setting(knobs=(0.5,), esr=1.0, level_dbfs=0.0)]
    """

    def __init__(self, knobs: int) -> None:
        self._knobs = knobs
        self._sums: dict[tuple[float, ...], Tensor] = {}

    def update(self, controls: Tensor, y_hat: Tensor, y: Tensor) -> None:
        """controls (1, knobs or more) or (1, knobs or more, time), y_hat and y (channels, time)."""
        if not self._knobs:
            return
        still = controls[0, : self._knobs].reshape(self._knobs, -1)[:, 0]
        error, signal = (part.double().square().sum().cpu() for part in (y_hat - y, y))
        now = torch.stack([error, signal, torch.tensor(y.numel(), dtype=torch.float64)])
        key = tuple(round(value, 6) for value in still.tolist())
        self._sums[key] = self._sums.get(key, torch.zeros(3, dtype=torch.float64)) + now

    def worst(self) -> list[Setting]:
        """All settings, those with the largest error-to-signal ratio first; silent ones, which have none, left out."""
        found = []
        for knobs, sums in self._sums.items():
            error, signal, samples = sums.tolist()
            if signal > 0:
                found.append(Setting(knobs, error / signal, 10 * math.log10(signal / samples)))
        return sorted(found, key=lambda setting: -setting.esr)

    def summary(self) -> dict[str, float]:
        """Mean, median and largest ESR over the settings, and the mean over those that can be heard.

        A setting more than 40 dB below the loudest cannot: its ratio says nothing, and would rule the mean.
        """
        found = self.worst()
        if not found:
            return {}
        loudest = max(setting.level_dbfs for setting in found)
        heard = [setting.esr for setting in found if setting.level_dbfs > loudest - _NEARLY_SILENT_DB]
        esr = [setting.esr for setting in found]
        return {
            "settings": len(found), "esr_mean_of_settings": sum(esr) / len(esr), "esr_worst_setting": esr[0],
            "esr_median_of_settings": statistics.median(esr), "settings_heard": len(heard),
            "esr_mean_of_settings_heard": sum(heard) / len(heard),
        }  # fmt: skip


class Scorer:
    """Plays chunks of takes through a net, one after another, and scores them.

    Scoring runs in a thread beside the playing: most nets play on one core, and both take about as long.
    """

    def __init__(self, net: Net, metrics: EffectMetrics, settings: BySetting | None = None) -> None:
        self._metrics, self._settings = metrics, settings
        self._player = Player(net)
        self._skip = 0
        self._beside = ThreadPoolExecutor(1)
        self._handed: deque[Future[None]] = deque()

    def step(self, batch: dict[str, Any]) -> Tensor:
        """Scores one chunk; returns the estimates of its scored samples ``(channel, time)``."""
        meta = batch["meta"]
        if meta["first"]:
            self._skip = 0
        y_hat, y = self._player.step(batch["dry"], batch["wet"], batch["controls"], first=meta["first"])
        assert y is not None
        # History is fed but not scored; a net's latency may carry part of it into the next chunk.
        self._skip += meta["skip"]
        skip = min(self._skip, y.shape[-1])
        self._skip -= skip
        y_hat, y = y_hat[0, :, skip:], y[0, :, skip:]
        if self._settings is not None:
            self._settings.update(batch["controls"], y_hat, y)
        self._handed.append(self._beside.submit(self._score, y_hat, y, meta["first"], meta["last"]))
        if len(self._handed) > _CHUNKS_AHEAD:
            self._handed.popleft().result()
        return y_hat

    @torch.inference_mode()  # as the caller's, which holds for its own thread only
    def _score(self, y_hat: Tensor, y: Tensor, first: bool, last: bool) -> None:
        if first:
            self._metrics.start_file()
        self._metrics.update(y_hat, y)
        if last:
            self._metrics.end_file()

    def compute(self) -> dict[str, float]:
        """The scores of all takes; nothing can be scored after it."""
        for job in self._handed:
            job.result()
        self._beside.shutdown()
        return self._metrics.compute()


def score(
    net: Net,
    chunks: Iterable[dict[str, Any]],
    metrics: EffectMetrics,
    heard: Callable[[Tensor, dict[str, Any]], None] | None = None,
    settings: BySetting | None = None,
) -> dict[str, float]:
    """Metrics of a net over takes in chunks; ``heard(estimate (channel, time), meta)`` receives what it played.

    ``settings`` collects errors by the positions of the knobs.
    """
    device = next((p.device for p in [*net.parameters(), *net.buffers()]), torch.device("cpu"))
    training = net.training
    net.eval()
    scorer = Scorer(net, metrics, settings)
    with torch.inference_mode():
        for batch in chunks:
            y_hat = scorer.step(moved(batch, device))
            if heard is not None:
                heard(y_hat.cpu(), batch["meta"])
    net.train(training)
    return scorer.compute()
