"""One training in several processes: each plays its share of a batch, all learn from the loss of the whole one.

Losses are ratios over a batch, so that averages of gradients of its parts would be those of another loss. Here outputs
are gathered, every process takes the loss of the whole batch, and gradients are summed. Lightning's wrapper around the
net, which averages, is left out. Norms take their statistics from the whole batch, too.

A net with norms learns the same however many processes share its batch: each example goes through each layer by
itself, with the same arithmetic wherever it is, and what is summed over examples is summed in double precision and then
rounded. ``trainer.strategy=ddp`` with one process computes in this way, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend


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
    if not learned:
        return
    flat = torch.cat([(w.new_zeros(w.shape) if w.grad is None else w.grad).reshape(-1) for w in learned])
    dist.all_reduce(flat)
    for weight, part in zip(learned, flat.split([w.numel() for w in learned]), strict=True):
        weight.grad = part.view_as(weight)


class _Wide(torch.autograd.Function):
    """A weight in double precision; its gradient is summed over processes before it is rounded."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return weight.double()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total.to(ctx.dtype)


def _one_by_one(module: Any, x: Tensor, play: Callable[..., Tensor]) -> Tensor:
    """``play(x, weight, bias)`` for each example of x (batch, ...) alone, as kernels round otherwise for other batches.

    Gradients of a weight are the sum of those of all examples in double precision.
    """
    weights = [getattr(module, name, None) for name in ("weight", "bias")]
    if not module.training:
        return play(x, *weights)
    wide = [None if weight is None else _Wide.apply(weight) for weight in weights]
    return torch.cat([
        play(one, *(None if w is None else w.to(weight.dtype) for w, weight in zip(wide, weights, strict=True)))  # type: ignore[union-attr]
        for one in x.split(1)
    ])  # fmt: skip


class _Conv(nn.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        return _one_by_one(self, input, self._conv_forward)


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return _one_by_one(self, input, nn.functional.linear)


class _PReLU(nn.PReLU):
    def forward(self, input: Tensor) -> Tensor:
        return _one_by_one(self, input, lambda x, weight, _: nn.functional.prelu(x, weight))


class _Norm(nn.BatchNorm1d):
    """Batch norm over the batch of all processes; of its own share only the first ``rows`` count."""

    rows: int | None = None

    def forward(self, input: Tensor) -> Tensor:
        """input (batch, width, time)"""
        if not self.training:
            return super().forward(input)
        x = input.double()
        own = x[: self.rows]
        count = own.new_tensor([own.shape[0] * own.shape[2]])
        dist.all_reduce(count)
        mean = _Sum.apply(own.sum((0, 2))) / count  # type: ignore[operator]
        variance = _Sum.apply((own - mean[:, None]).square().sum((0, 2))) / count  # type: ignore[operator]
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        gain = torch.rsqrt(variance + self.eps) * (1.0 if self.weight is None else _Wide.apply(self.weight))
        bias = 0.0 if self.bias is None else _Wide.apply(self.bias)[:, None]  # type: ignore[index]
        return ((x - mean[:, None]) * gain[:, None] + bias).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum or 0.0)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum or 0.0)


_SHARED: dict[type, type] = {nn.BatchNorm1d: _Norm, nn.Conv1d: _Conv, nn.Linear: _Linear, nn.PReLU: _PReLU}


class Shared:
    """A net whose batch several processes share: its ``norms``, and the ``weights`` whose gradients are left to sum.

    Where it has norms, the layers of its training become those of this file; their weights, their names and their
    places in the net stay. Raises UserError for the norms of images.
    """

    def __init__(self, net: Any) -> None:
        if any(isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)) for module in net.modules()):
            raise UserError("this net's batch norm is of one process only: leave trainer.devices=1.")
        layers = [module for module in net.modules() if type(module) in _SHARED]
        if not any(isinstance(module, nn.BatchNorm1d) for module in layers):
            layers = []
        for module in layers:
            module.__class__ = _SHARED[type(module)]
        self.norms = [module for module in layers if isinstance(module, _Norm)]
        summed = {id(weight) for module in layers for weight in module.parameters(recurse=False)}
        self.weights = [weight for weight in net.parameters() if id(weight) not in summed]

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """Around a step: the compiled loops of a net with norms know of no other process."""
        return backend.using("torch") if self.norms else contextlib.nullcontext()


def settled(devices: Any, nodes: int, strategy: Any) -> Any:
    """The strategy that Lightning is to take for ``trainer.devices`` and ``trainer.num_nodes``.

    Raises UserError for another way of sharing the work than ``ddp``.
    """
    count = len(devices) if not isinstance(devices, (int, str)) else devices
    if str(count) in ("0", "1", "auto") and nodes == 1 and strategy != "ddp":
        return strategy
    if strategy not in ("auto", "ddp"):
        raise UserError(f"trainer.strategy={strategy}: several processes train together by trainer.strategy=ddp only.")
    return Together()
