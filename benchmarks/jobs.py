"""The nets that the benchmarks measure, under the names of their jobs, and one training update of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from revox_lightning import losses
from revox_lightning.models.contract import Net
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import tcn
from revox_lightning.models.wavenet import wavenet
from revox_lightning.stream import detach

RATE_HZ = 44_100


def nam_standard() -> Net:
    """NAM's standard WaveNet."""
    from revox_lightning.models.nam_wavenet import nam_wavenet

    return nam_wavenet("standard")


@dataclass(frozen=True)
class Job:
    """A net and what one of its updates is computed on: `batch` signals of `samples` outputs."""

    net: Callable[[], Net]
    batch: int
    samples: int

    def quick(self) -> Job:
        """The same, small enough for a test."""
        return replace(self, batch=2, samples=256)

    @property
    def audio_seconds(self) -> float:
        return self.batch * self.samples / RATE_HZ


def recurrent(unit: str, hidden: int) -> Callable[[], Net]:
    return lambda: Recurrent(unit, hidden, skip=unit == "lstm")


JOBS = {
    "lstm-32": Job(recurrent("lstm", 32), 40, 2048),
    "lstm-64": Job(recurrent("lstm", 64), 40, 2048),
    "lstm-96": Job(recurrent("lstm", 96), 40, 2048),
    "gru-64": Job(recurrent("gru", 64), 40, 2048),
    "nam-standard": Job(nam_standard, 16, 8192),
    "wavenet1": Job(lambda: wavenet(1), 8, 16384),
    "tcn-300": Job(lambda: tcn(300), 2, 65536),
}


def built(job: Job, seed: int = 0) -> Net:
    """The net with the same weights in every process."""
    torch.manual_seed(seed)
    return job.net()


class Update:
    """One update as the training loop computes it, without the optimiser: forward, ESR, backward.

    A recurrent net goes on from the state of the update before; a convolutional one computes its receptive field
    before the outputs, with gradient.
    """

    def __init__(self, job: Job, net: Net, device: str = "cpu") -> None:
        self.net = net.to(device).train()
        warmup = (net.receptive_field or 1) - 1
        torch.manual_seed(1)
        self.x = 0.2 * torch.randn(job.batch, 1, warmup + job.samples, device=device)
        self.y = torch.tanh(2 * self.x[..., warmup:])
        self._carries = net.receptive_field is None
        self._state: Any = None

    def __call__(self) -> None:
        self.net.zero_grad(set_to_none=True)
        y_hat, state = self.net(self.x, None, self._state)
        losses.esr(y_hat[..., -self.y.shape[-1] :], self.y).backward()
        self._state = detach(state) if self._carries else None

    def evaluate(self) -> Tensor:
        """The outputs (batch, 1, samples) of an update from the zero state; the gradients are in the net."""
        self.net.zero_grad(set_to_none=True)
        y_hat = self.net(self.x, None, None)[0][..., -self.y.shape[-1] :]
        losses.esr(y_hat, self.y).backward()
        return y_hat.detach()

    @property
    def flop(self) -> float:
        """Of one update: two for each multiply-add, thrice for output, gradient of the input, of the weights."""
        return 6.0 * getattr(self.net, "multiply_adds_per_sample", 0) * self.x.shape[0] * self.x.shape[-1]
