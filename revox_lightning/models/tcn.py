"""Steinmetz & Reiss, "Efficient neural networks for real-time modeling of analog dynamic range compression", 2022."""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import tcn as fused
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import knob_signals

# blocks, growth, kernel of the published nets, named by their receptive field in ms at 44.1 kHz
SIZES = {100: (4, 10, 5), 300: (4, 10, 13), 1000: (5, 10, 5)}
CONDITION_WIDTH = 32


class FiLM(nn.Module):
    """Feature-wise linear modulation after batch norm: y = g(c) BN(x) + b(c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.adaptor = nn.Linear(CONDITION_WIDTH, 2 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (batch, width, time), condition (batch, 1 or time, 32)."""
        gain, bias = self.adaptor(condition).transpose(1, 2).chunk(2, dim=1)  # each (batch, width, 1 or time)
        return gain * self.norm(x) + bias


class Block(nn.Module):
    """Dilated convolution, FiLM or batch norm, PReLU, plus a residual 1x1 path."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, late_samples: int, film: bool) -> None:
        super().__init__()
        self.past_samples, self.late_samples = (kernel - 1) * dilation, late_samples
        self.conv = nn.Conv1d(inputs, width, kernel, dilation=dilation, bias=False)
        self.norm = FiLM(width) if film else nn.BatchNorm1d(width)
        self.activation = nn.PReLU(width)
        self.residual = nn.Conv1d(inputs, width, 1, groups=inputs, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None, history: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (batch, inputs, time), history (batch, inputs, past_samples) -> (batch, width, time), history."""
        window, history = prepend(x, self.past_samples, history)
        z = folded(self.conv, window) if backend.wanted(window) else self.conv(window)  # (batch, width, time)
        z = self.norm(z) if condition is None else self.norm(z, condition)
        start = self.past_samples - self.late_samples
        return self.activation(z) + self.residual(window[..., start : start + x.shape[-1]]), history


class TCN(nn.Module):
    """Temporal convolutional network with dilations growth**n (n modulo 10), `width` channels and a tanh output.

    With knobs, an MLP (knobs-16-32-32) feeds a FiLM in each block; without, batch norm has its own gain and bias.
    `paper_exact` takes the authors' crop of the residual path, whose stop is one sample early: each block's residual
    is late by one sample, and their target likewise, so the net looks one sample ahead (`latency_samples` 1).
    Raises UserError when `width` is no multiple of the number of inputs or `kernel` is below 2.

    >>> y, state = TCN(controls=2).eval()(torch.zeros(4, 1, 100), torch.zeros(4, 2))
    >>> y.shape, len(state), state[0].shape
    (torch.Size([4, 1, 100]), 4, torch.Size([4, 1, 12]))
    """

    kernel = "tcn"

    def __init__(
        self,
        blocks: int = 4,
        growth: int = 10,
        kernel: int = 13,
        width: int = 32,
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
        paper_exact: bool = False,
    ) -> None:
        super().__init__()
        inputs = channels + side_channels
        if width % inputs:
            raise UserError(f"the TCN's width {width} is not a multiple of its {inputs} inputs: change model.width")
        if kernel < 2:
            raise UserError(f"the TCN's kernel is {kernel}; it needs at least 2 taps: change model.kernel")
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        self.latency_samples = int(paper_exact)
        dilations = [growth ** (n % 10) for n in range(blocks)]
        self.receptive_field = 1 + (kernel - 1) * sum(dilations)
        self.conditioning = None if controls == 0 else condition_mlp(controls)
        self.blocks = nn.ModuleList(
            Block(width if n else inputs, width, kernel, dilation, self.latency_samples, film=controls > 0)
            for n, dilation in enumerate(dilations)
        )
        self.output = nn.Conv1d(width, channels, 1)
        self._layout = fused.Layout(inputs, width, channels, kernel, self.latency_samples, tuple(dilations))

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), last inputs of each block."""
        knobs = knob_signals(controls, self.controls, x.shape[-1])
        condition = None
        if self.conditioning is not None and knobs is not None:
            condition = self.conditioning(knobs.transpose(1, 2))  # (batch, 1 or time, 32)
        library = self._kernel(x, condition, state)
        if library is not None:
            return self._fused(library, x, condition, state)
        carried = []
        for block, history in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            x, history = block(x, condition, history)
            carried.append(history)
        return torch.tanh(self.output(x)), tuple(carried)

    def _kernel(self, x: Tensor, condition: Tensor | None, state: tuple[Tensor, ...] | None) -> ctypes.CDLL | None:
        """The fused loops, where they apply: not to knobs that move, nor to norms of which only some are frozen."""
        norms = self._norms()
        moving = condition is not None and condition.shape[1] > 1
        single = norms[0].training and x.shape[0] * x.shape[-1] < 2  # torch says what is wrong with that
        if moving or single or x.numel() == 0 or len({norm.training for norm in norms}) > 1:
            return None
        if not self._fits(x, condition, state):
            return None  # torch says what is wrong
        return backend.fused("tcn", x, *self.parameters(), *(state or ()))

    def _fits(self, x: Tensor, condition: Tensor | None, state: tuple[Tensor, ...] | None) -> bool:
        """Whether all shapes are what the kernel, which never looks, will take them for."""
        inputs = [self._layout.inputs, *[self.output.in_channels] * (len(self.blocks) - 1)]
        pasts = [(x.shape[0], i, block.past_samples) for i, block in zip(inputs, self._blocks(), strict=True)]
        return (
            x.ndim == 3
            and x.shape[1] == self._layout.inputs
            and (condition is None or condition.shape[0] in (1, x.shape[0]))
            and (state is None or [tuple(part.shape) for part in state] == pasts)
        )

    def _fused(
        self, library: ctypes.CDLL, x: Tensor, condition: Tensor | None, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        norms = self._norms()
        weights = self._weights(condition, x.shape[0])
        y, carried = fused.play(library, self._layout, weights, x, state, norms[0].training)
        if norms[0].training:
            for norm, statistics in zip(norms, weights.statistics, strict=True):
                follow(norm, *statistics, values=x.shape[0] * x.shape[-1])
        return y, carried

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """The compiled loop for one signal with the present weights; None where there is none. controls (1, knobs)."""
        x = self.output.weight.new_zeros(1, self._layout.inputs, 1)
        with torch.no_grad():
            knobs = knob_signals(controls, self.controls, 1)
            condition = None if self.conditioning is None or knobs is None else self.conditioning(knobs.transpose(1, 2))
            library = None if self.training or self.side_channels else self._kernel(x, condition, None)
            return None if library is None else fused.Stream(library, self._layout, self._weights(condition, 1))

    def _weights(self, condition: Tensor | None, batch: int) -> fused.Weights:
        """The parameters as the kernel takes them; condition (batch or 1, 1, 32)."""
        parameters, films = [], []
        for block in self._blocks():
            parameters += [block.conv.weight, block.activation.weight, block.residual.weight]
            norm = block.norm
            film = torch.cat([norm.weight, norm.bias])[None] if condition is None else norm.adaptor(condition[:, 0])
            films.append(film.expand(batch, -1))
        parameters += [self.output.weight, self.output.bias]
        statistics = [torch.stack([norm.running_mean, norm.running_var]) for norm in self._norms()]
        flat = torch.cat([part.reshape(-1) for part in parameters])
        # Under autocast the adaptors' layers give bfloat16, and the kernel reads floats.
        return fused.Weights(flat, torch.stack(films).float(), torch.stack(statistics))

    def _blocks(self) -> list[Any]:
        return list(self.blocks)

    def _norms(self) -> list[Any]:
        return [block.norm.norm if isinstance(block.norm, FiLM) else block.norm for block in self._blocks()]

    @property
    def output_layer(self) -> nn.Conv1d:
        return self.output

    @property
    def multiply_adds_per_sample(self) -> int:
        """Weights of the convolutions; knobs that stand still cost nothing per sample."""
        return sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Conv1d))


def folded(conv: nn.Conv1d, window: Tensor) -> Tensor:
    """``conv`` of the window, faster: each row of the signal folded by the dilation is one step of it.

    A convolution over rows then has no dilation, for which torch's loops on a CPU are half as fast. Short windows and
    small dilations stay as they are: there the folded form computes more than is asked.
    """
    dilation, frames = conv.dilation[0], window.shape[-1]
    if dilation < 8 or frames < (conv.kernel_size[0] + 4) * dilation:
        return conv(window)
    missing = -frames % dilation
    rows = nn.functional.pad(window, (missing, 0)).unflatten(-1, (-1, dilation))
    return nn.functional.conv2d(rows, conv.weight[..., None]).flatten(-2)[..., missing:]


@torch.no_grad()
def follow(norm: Any, mean: Tensor, variance: Tensor, values: int) -> None:
    """Moves a norm's running statistics, as torch does it: the variance without bias."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (values / (values - 1)), norm.momentum)


def condition_mlp(knobs: int) -> nn.Sequential:
    """Knobs (..., knobs) -> condition (..., 32)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((knobs, 16), (16, 32), (32, CONDITION_WIDTH)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def tcn(size: int = 300, **others) -> TCN:
    """The published nets by the length of their memory in ms: 100, 300 or 1000. Raises UserError for another size.

    >>> tcn(300).receptive_field
    13333
    """
    if size not in SIZES:
        raise UserError(f"unknown TCN size {size!r}: choose one of {', '.join(map(str, SIZES))}")
    blocks, growth, kernel = SIZES[size]
    return TCN(**{"blocks": blocks, "growth": growth, "kernel": kernel, **others})
