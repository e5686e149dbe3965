"""The one LightningModule: truncated back-propagation through time around any net and objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.objectives.supervised import Supervised
from revox_lightning.stream import Player, detach


class System(pl.LightningModule):
    """Trains ``net`` by ``objective`` in hops of ``hop_samples`` with carried, detached state.

    Each training segment is ``warmup_samples`` long that only fill the state, then hops; after every hop the
    optimiser steps (Wright et al. 2019, section 3). With ``warmup_gradient`` (convolutional nets) the warm-up runs
    with gradient as part of the first hop, so that a segment of one hop is trained as one whole.
    The published ``latency_samples`` of a net are respected: output ``n`` is compared with wet ``n - latency``.
    """

    def __init__(
        self,
        net: Net,
        objective: Supervised,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        *,
        sample_rate_hz: int,
        warmup_samples: int,
        hop_samples: int,
        warmup_gradient: bool = False,
        clip_norm: float | None = None,
        monitor: str = "val/esr",
    ) -> None:
        super().__init__()
        if warmup_samples < net.latency_samples:
            raise UserError(
                f"system.warmup_samples={warmup_samples} is shorter than the net's latency of {net.latency_samples} "
                "samples: make it at least as long."
            )
        self.automatic_optimization = False
        self.net, self.objective = net, objective
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self.sample_rate_hz = sample_rate_hz
        self._warmup, self._hop, self._warmup_gradient = warmup_samples, hop_samples, warmup_gradient
        self._clip_norm, self._monitor = clip_norm, monitor
        self.audio_seconds_trained = self.train_seconds = 0.0
        self._scorer: Scorer | None = None

    def configure_optimizers(self) -> Any:
        try:
            optimizer = self._make_optimizer([p for p in self.net.parameters() if p.requires_grad])
        except ValueError as error:
            raise UserError(f"optim: {error}.") from error
        if self._make_scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._make_scheduler(optimizer)}}

    def on_train_start(self) -> None:
        """A run that goes on with another number of epochs goes on along the cosine of that length."""
        scheduler: Any = self.lr_schedulers()
        wanted: Any = getattr(self._make_scheduler, "keywords", {}).get("T_max")
        if wanted is not None and scheduler.T_max != wanted:
            scheduler.T_max = wanted
            fall = (1 + math.cos(math.pi * scheduler.last_epoch / wanted)) / 2
            for group, base in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = scheduler.eta_min + (base - scheduler.eta_min) * fall

    def on_train_epoch_start(self) -> None:
        self._mark = time.monotonic()

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        optimizer: Any = self.optimizers()
        sums: dict[str, Tensor] = {}
        hops = 0
        for terms, total in self._hops(batch):
            if not torch.isfinite(total):
                self._stop("loss", total)
            optimizer.zero_grad()
            self.manual_backward(total)
            optimizer.step()
            hops += 1
            for name, value in (terms | {"loss": total}).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        size, _, frames = batch["dry"].shape
        self.audio_seconds_trained += size * (frames - self._warmup) / self.sample_rate_hz
        now = time.monotonic()
        self.train_seconds += now - self._mark
        self._mark = now
        means = {f"train/{name}": value / hops for name, value in sums.items()}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=size)

    def _hops(self, batch: dict[str, Any]) -> Iterable[tuple[dict[str, Tensor], Tensor]]:
        frames, state, start = batch["dry"].shape[-1], None, 0
        if not self._warmup_gradient and self._warmup:
            with torch.no_grad():
                _, state = self.net(
                    batch["dry"][..., : self._warmup], _during(batch["controls"], 0, self._warmup), None
                )
            start = self._warmup
        for begin in range(self._warmup, frames, self._hop):
            end = min(begin + self._hop, frames)
            latency = self.net.latency_samples
            hop = {
                "dry": batch["dry"][..., start:end],
                "wet": batch["wet"][..., begin - latency : end - latency],
                "controls": _during(batch["controls"], start, end),
            }
            terms, state = self.objective(self.net, hop, state)
            yield terms, self.objective.total(terms)
            state, start = detach(state), end

    def _stop(self, what: str, value: Tensor) -> None:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"the {what} became {value.item()} in epoch {self.current_epoch}: training stopped before the weights were "
            f"spoilt; train again with a lower optim.lr (now {lr:g}) or system.clip_norm (now {self._clip_norm})."
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips here, where mixed precision has taken its loss scale out of the gradients."""
        if self._clip_norm is None:
            return
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self._clip_norm)
        if not torch.isfinite(norm) and self.trainer.precision != "16-mixed":  # there the scaler skips such steps
            self._stop("gradient", norm)

    def on_train_epoch_end(self) -> None:
        scheduler: Any = self.lr_schedulers()
        if scheduler is not None and not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step()

    def on_validation_epoch_start(self) -> None:
        self._scorer = Scorer(self.net, EffectMetrics(self.sample_rate_hz))

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        assert self._scorer is not None
        self._scorer.step(batch)

    def on_validation_epoch_end(self) -> None:
        assert self._scorer is not None
        results = {f"val/{name}": torch.tensor(value) for name, value in self._scorer.metrics.compute().items()}
        if self._monitor not in results:
            raise UserError(f"monitor={self._monitor} is not measured: choose one of {', '.join(sorted(results))}.")
        self.log_dict(results, batch_size=1)
        scheduler: Any = self.lr_schedulers()
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(results[self._monitor])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counters"] = {"audio_seconds": self.audio_seconds_trained, "train_seconds": self.train_seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.audio_seconds_trained = checkpoint["counters"]["audio_seconds"]
        self.train_seconds = checkpoint["counters"]["train_seconds"]


class Scorer:
    """Plays chunks of takes through a net, one after another, and scores them."""

    def __init__(self, net: Net, metrics: EffectMetrics) -> None:
        self.net, self.metrics = net, metrics
        self._player = Player(net)
        self._skip = 0

    def step(self, batch: dict[str, Any]) -> Tensor:
        """Scores one chunk; returns the estimates of its scored samples ``(channel, time)``."""
        meta = batch["meta"]
        if meta["first"]:
            self.metrics.start_file()
            self._skip = 0
        y_hat, y = self._player.step(batch["dry"], batch["wet"], batch["controls"], first=meta["first"])
        assert y is not None
        # History is fed but not scored; a net's latency may carry part of it into the next chunk.
        self._skip += meta["skip"]
        skip = min(self._skip, y.shape[-1])
        self._skip -= skip
        y_hat, y = y_hat[0, :, skip:], y[0, :, skip:]
        self.metrics.update(y_hat, y)
        if meta["last"]:
            self.metrics.end_file()
        return y_hat


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
            moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            y_hat = scorer.step(moved)
            if heard is not None:
                heard(y_hat.cpu(), batch["meta"])
    net.train(training)
    return metrics.compute()


def _during(controls: Tensor, start: int, end: int) -> Tensor:
    """Knobs of a stretch: those that move with time are cut like the audio."""
    return controls[..., start:end] if controls.dim() == 3 else controls
