"""One training in several processes: each plays its share of a batch, all learn from the loss of the whole one.

Losses are ratios over a batch, so that averages of gradients of its parts would be those of another loss. Here outputs
are gathered, every process takes the loss of the whole batch, and gradients are summed. Lightning's wrapper around the
net, which averages, is left out. Norms take their statistics from the whole batch, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from revox_lightning.errors import UserError


def rank() -> int:
    """The number of this process among those of its training, known before they have found each other; 0 leads."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):  # of Lightning's own, all but one are 0 or unset
        if os.environ.get(name, "0") not in ("", "0"):
            return int(os.environ[name])
    return 0


def environment() -> list[SLURMEnvironment]:
    """Slurm without Lightning's own requeue: a run goes on by its last.ckpt, and by nothing beside it."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Together(DDPStrategy):
    """Lightning's processes, process groups and checkpoints without its wrapper around the net."""

    def configure_ddp(self) -> None:
        """All processes begin with the weights of the first."""
        assert self.model is not None
        for value in self.model.state_dict().values():
            dist.broadcast(value, 0)


class _Gather(torch.autograd.Function):
    """The rows of all processes, in order; the gradient of its own goes back to each.

    It is not summed over processes: each has the loss of the whole batch, and the same one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        start = dist.get_rank() * ctx.rows
        return gradients[0][start : start + ctx.rows]


class _Sum(torch.autograd.Function):
    """A sum over processes, and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def whole(x: Tensor, size: int) -> Tensor:
    """A batch (size, ...) from the shares (rows, ...) of all processes, as ``data.segments.share`` cut it."""
    return _Gather.apply(x)[:size]  # type: ignore[index]


def gathering(net: Callable[..., Any], size: int) -> Callable[..., Any]:
    """The net as its objective sees it: outputs of the whole batch, the state of this process's share."""

    def play(x: Tensor, controls: Tensor | None, state: Any) -> tuple[Tensor, Any]:
        y, state = net(x, controls, state)
        return whole(y, size), state

    return play


def sum_gradients(weights: Iterable[Tensor]) -> None:
    """Adds up the gradients of all processes, in one message."""
    learned = [weight for weight in weights if weight.requires_grad]
    flat = torch.cat([(w.new_zeros(w.shape) if w.grad is None else w.grad).reshape(-1) for w in learned])
    dist.all_reduce(flat)
    for weight, part in zip(learned, flat.split([w.numel() for w in learned]), strict=True):
        weight.grad = part.view_as(weight)


class _SharedNorm(nn.BatchNorm1d):
    """Batch norm over the batch of all processes; of its own share only the first ``rows`` count."""

    rows: int | None = None

    def forward(self, input: Tensor) -> Tensor:
        """input (batch, width, time)"""
        if not self.training:
            return super().forward(input)
        own = input[: self.rows]
        own = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
        count = own.new_tensor([own.shape[0] * own.shape[2]])
        dist.all_reduce(count)
        mean = _Sum.apply(own.sum((0, 2))) / count  # type: ignore[operator]
        variance = _Sum.apply((own - mean[:, None]).square().sum((0, 2))) / count  # type: ignore[operator]
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        gain = torch.rsqrt(variance + self.eps) * (1.0 if self.weight is None else self.weight)
        bias = 0.0 if self.bias is None else self.bias[:, None]
        return ((input - mean[:, None]) * gain[:, None] + bias).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum or 0.0)
        self.running_var.lerp_(variance, self.momentum or 0.0)


def share_norms(net: Any) -> list[_SharedNorm]:
    """Lets the batch norms of a net see the whole batch; returns them. Raises UserError for those of images."""
    found = []
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            raise UserError("this net's batch norm is of one process only: leave trainer.devices=1.")
        if isinstance(module, nn.BatchNorm1d):
            module.__class__ = _SharedNorm  # its weights, its name and its place in the net stay
            found.append(module)
    return found


def settled(devices: Any, nodes: int, strategy: Any) -> Any:
    """The strategy that Lightning is to take for ``trainer.devices`` and ``trainer.num_nodes``.

    Raises UserError for another way of sharing the work than ``ddp``.
    """
    count = len(devices) if not isinstance(devices, (int, str)) else devices
    if str(count) in ("0", "1", "auto") and nodes == 1:
        return strategy
    if strategy not in ("auto", "ddp"):
        raise UserError(f"trainer.strategy={strategy}: several processes train together by trainer.strategy=ddp only.")
    return Together()
