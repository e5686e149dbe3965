"""The one LightningModule: truncated back-propagation through time around any net and objective."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from revox_lightning import distributed
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.models.random_blocks import mixed
from revox_lightning.objectives.supervised import Supervised
from revox_lightning.scorer import Scorer
from revox_lightning.stream import detach
from revox_lightning.weight_average import WeightAverage


class System(pl.LightningModule):
    """Trains ``net`` by ``objective`` in hops of ``hop_samples`` with carried, detached state.

    Each training segment is ``warmup_samples`` long that only fill the state, then hops; after every hop the
    optimiser steps (Wright et al. 2019, section 3). With ``warmup_gradient`` (convolutional nets) the warm-up runs
    with gradient as part of the first hop, so that a segment of one hop is trained as one whole.
    The published ``latency_samples`` of a net are respected: output ``n`` is compared with wet ``n - latency``.
    In the first ``lr_warmup_iterations`` steps the learning rate grows to its value. With ``ema``, below 1, what is
    validated, kept and played is the moving average of the weights (WeightAverage). An objective with a method
    ``validate(net, batch) -> terms`` is validated by it, on segments; any other by how the net plays whole takes.
    What is drawn at random in a step (torch's own generators) depends on ``seed``, the epoch and the batch alone, so
    that a training that was interrupted goes on as it would have.
    """

    def __init__(
        self,
        net: Net,
        objective: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        *,
        sample_rate_hz: int,
        warmup_samples: int,
        hop_samples: int,
        warmup_gradient: bool = False,
        clip_norm: float | None = None,
        lr_warmup_iterations: int = 0,
        ema: float | None = None,
        monitor: str = "val/esr",
        seed: int = 0,
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
        self.sample_rate_hz, self._seed = sample_rate_hz, seed
        self._warmup, self._hop, self._warmup_gradient = warmup_samples, hop_samples, warmup_gradient
        self._clip_norm, self._monitor, self._lr_warmup = clip_norm, monitor, lr_warmup_iterations
        self._average = None if ema is None else WeightAverage(net, ema)
        self.audio_seconds_trained = self.train_seconds = 0.0
        self._scorer: Scorer | None = None

    @property
    def validates_segments(self) -> bool:
        """Whether validation takes batches like those of training instead of whole takes in chunks."""
        return hasattr(self.objective, "validate")

    @property
    def rounds(self) -> tuple[str, ...]:
        """Who learns from a batch, one after another: the net, and critics of the objective before it."""
        return getattr(self.objective, "rounds", ("net",))

    def _learners(self) -> list[nn.Module]:
        return [self.net if name == "net" else getattr(self.objective, name) for name in self.rounds]  # type: ignore

    def configure_optimizers(self) -> Any:
        made = []
        for learner in self._learners():
            try:
                optimizer = self._make_optimizer([p for p in learner.parameters() if p.requires_grad], **self._fused())
            except ValueError as error:
                raise UserError(f"optim: {error}.") from error
            how = (
                {} if self._make_scheduler is None else {"lr_scheduler": {"scheduler": self._make_scheduler(optimizer)}}
            )
            made.append({"optimizer": optimizer} | how)
        return made

    def _schedulers(self) -> list[Any]:
        found: Any = self.lr_schedulers()
        return found if isinstance(found, list) else [] if found is None else [found]

    def _fused(self) -> dict[str, bool]:
        """One kernel for all weights where the optimiser has one: with many small ones half a step goes into Python.

        Not beside a loss scale, which such an optimiser takes out itself, after the clipping.
        """
        make: Any = self._make_optimizer
        told = {"fused", "foreach"} & set(getattr(make, "keywords", {}))
        able = "fused" in inspect.signature(getattr(make, "func", make)).parameters
        return {"fused": True} if able and not told and not self._scaled() else {}

    def _scaled(self) -> bool:
        return self.trainer.precision == "16-mixed"

    def on_train_start(self) -> None:
        """A run that goes on with another number of epochs goes on along the cosine of that length."""
        wanted: Any = getattr(self._make_scheduler, "keywords", {}).get("T_max")
        for scheduler in self._schedulers():
            if wanted is None or scheduler.T_max == wanted:
                continue
            scheduler.T_max = wanted
            fall = (1 + math.cos(math.pi * scheduler.last_epoch / wanted)) / 2
            for group, base in zip(scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True):
                group["lr"] = scheduler.eta_min + (base - scheduler.eta_min) * fall

    def on_train_epoch_start(self) -> None:
        if hasattr(self.objective, "begin_epoch"):
            self.objective.begin_epoch(self.current_epoch, self.trainer.max_epochs)
        self._mark = time.monotonic()
        self._sums: dict[str, Tensor] = {}  # of the terms, over the segments of the epoch
        self._segments = 0

    def on_fit_start(self) -> None:
        """Lets several processes train as one would, where that is how the objective can be shared."""
        self._shared = None
        if not isinstance(self.trainer.strategy, distributed.Together):
            return
        if not isinstance(self.objective, Supervised):
            name = type(self.objective).__name__
            raise UserError(
                f"{name} trains in one process: leave trainer.devices=1 and trainer.strategy=auto, and train several "
                "runs at once."
            )
        self._shared = distributed.Shared(self.net)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        torch.manual_seed(mixed(self._seed, self.current_epoch, batch_index))
        size, frames = batch.get("whole", len(batch["dry"])), batch["dry"].shape[-1]
        share = size / len(range(self._warmup, frames, self._hop))
        optimizers: Any = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        steps = self.trainer.global_step // len(optimizers)  # it counts those of all optimisers
        for round, optimizer in zip(self.rounds, optimizers, strict=True):
            if len(optimizers) > 1:  # what does not learn now has no gradient
                self.toggle_optimizer(optimizer)
            hops = self._hops(batch, {"round": round} if len(optimizers) > 1 else {})
            for step, (terms, total) in enumerate(hops, steps + 1):
                if not math.isfinite(total.item()):
                    self._stop("loss", total.item())
                optimizer.zero_grad()
                self.manual_backward(total)
                if self._shared is not None:
                    distributed.sum_gradients(self._shared.weights)
                self._step(optimizer, round, step)
                for name, value in (terms | ({"loss": total} if round == "net" else {})).items():
                    self._sums[name] = self._sums.get(name, 0.0) + share * value.detach()
            if len(optimizers) > 1:
                self.untoggle_optimizer(optimizer)
        self._segments += size
        self.audio_seconds_trained += size * (frames - self._warmup) / self.sample_rate_hz
        now = time.monotonic()
        self.train_seconds += now - self._mark
        self._mark = now
        if self.trainer.is_last_batch:  # logging every batch costs more than a small net
            means = {f"train/{name}": value / self._segments for name, value in self._sums.items()}
            means["audio_seconds_trained"] = torch.tensor(self.audio_seconds_trained, dtype=torch.float64)
            self.told = set(means)
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)

    def _step(self, optimizer: Any, round: str, step: int) -> None:
        share = min(step / self._lr_warmup, 1.0) if self._lr_warmup else 1.0
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate
        optimizer.step()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if self._average is not None and round == "net":
            self._average.update()

    def _hops(self, batch: dict[str, Any], how: dict[str, str]) -> Iterable[tuple[dict[str, Tensor], Tensor]]:
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
            terms, state = self._compared(hop, state, batch.get("whole"), how)
            yield terms, self.objective.total(terms)
            state, start = detach(state), end

    def _compared(self, hop: dict[str, Tensor], state: Any, whole: int | None, how: dict[str, str]) -> tuple[Any, Any]:
        """Terms of the objective for a hop; where it is a share, of that of all processes."""
        if self._shared is None:
            return self.objective(self.net, hop, state, **how)
        net = self.net
        if whole is not None:
            for norm in self._shared.norms:
                norm.rows = max(min(whole - distributed.rank() * len(hop["dry"]), len(hop["dry"])), 0)
            hop = hop | {"wet": distributed.whole(hop["wet"], whole)}
            net = distributed.gathering(net, whole)
        with self._shared.computing():
            return self.objective(net, hop, state, **how)

    def _stop(self, what: str, value: float) -> None:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"the {what} became {value} in epoch {self.current_epoch}: training stopped before the weights were "
            f"spoilt; train again with a lower optim.lr (now {lr:g}) or system.clip_norm (now {self._clip_norm})."
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips here, where mixed precision has taken its loss scale out of the gradients."""
        if self._clip_norm is None:
            return
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if not math.isfinite(norm.item()) and not self._scaled():  # there the scaler skips such steps
            self._stop("gradient", norm.item())
        if not norm.item() + 1e-6 <= self._clip_norm:
            torch.nn.utils.clip_grads_with_norm_(weights, self._clip_norm, norm)

    def on_train_epoch_end(self) -> None:
        for scheduler in self._schedulers():
            if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step()

    def on_validation_epoch_start(self) -> None:
        if self._average is not None:
            self._average.swap()
        self._scorer = None if self.validates_segments else Scorer(self.net, EffectMetrics(self.sample_rate_hz))
        self._val_sums, self._val_segments = {}, 0

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        if distributed.rank() > 0 and distributed.processes() > 1:
            return
        if self._scorer is not None:
            self._scorer.step(batch)
            return
        size = len(batch["wet"])
        terms = self.objective.validate(self.net, batch)
        for name, value in (terms | {"loss": self.objective.total(terms)}).items():
            self._val_sums[name] = self._val_sums.get(name, 0.0) + size * float(value)
        self._val_segments += size

    def on_validation_epoch_end(self) -> None:
        if self._average is not None:
            self._average.swap()
        if distributed.processes() > 1:
            leads = distributed.rank() == 0
            found = self.trainer.strategy.broadcast(self._scorer.compute() if leads and self._scorer else {})
        elif self._scorer is not None:
            found = self._scorer.compute()
        else:
            found = {name: value / self._val_segments for name, value in self._val_sums.items()}
        results = {f"val/{name}": torch.tensor(value) for name, value in found.items()}
        if self._monitor not in results:
            raise UserError(f"monitor={self._monitor} is not measured: choose one of {', '.join(sorted(results))}.")
        self.log_dict(results, batch_size=1)
        for scheduler in self._schedulers():
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                scheduler.step(results[self._monitor])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["counters"] = {"audio_seconds": self.audio_seconds_trained, "train_seconds": self.train_seconds}
        if self._average is not None:
            self._average.save(checkpoint, "net.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.audio_seconds_trained = checkpoint["counters"]["audio_seconds"]
        self.train_seconds = checkpoint["counters"]["train_seconds"]
        if self._average is not None:
            self._average.load(checkpoint, "net.")


def _during(controls: Tensor, start: int, end: int) -> Tensor:
    """Knobs of a stretch: those that move with time are cut like the audio."""
    return controls[..., start:end] if controls.dim() == 3 else controls
