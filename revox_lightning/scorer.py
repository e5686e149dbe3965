"""Whole takes through a net, chunk by chunk, and what they score."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from revox_lightning.data.takes import moved
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.stream import Player

_CHUNKS_AHEAD = 8  # of what is played but not scored: enough for one block of the metrics


class Scorer:
    """Plays chunks of takes through a net, one after another, and scores them.

    Scoring runs in a thread beside the playing: most nets play on one core, and both take about as long.
    """

    def __init__(self, net: Net, metrics: EffectMetrics) -> None:
        self._metrics = metrics
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
) -> dict[str, float]:
    """Metrics of a net over takes in chunks; ``heard(estimate (channel, time), meta)`` receives what it played."""
    device = next((p.device for p in [*net.parameters(), *net.buffers()]), torch.device("cpu"))
    training = net.training
    net.eval()
    scorer = Scorer(net, metrics)
    with torch.inference_mode():
        for batch in chunks:
            y_hat = scorer.step(moved(batch, device))
            if heard is not None:
                heard(y_hat.cpu(), batch["meta"])
    net.train(training)
    return scorer.compute()
