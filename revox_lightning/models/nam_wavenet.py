"""Atkinson, "Neural Amp Modeler" (2023), github.com/sdatkinson/neural-amp-modeler: its WaveNet, architecture A1."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import wavenet as fused
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import with_knobs

# widths of the two arrays, and the dilations of each
_LONG, _SHORT = [2**n for n in range(10)], [2**n for n in range(7)]
SIZES = {
    "standard": ((16, 8), (_LONG, _LONG)),
    "lite": ((12, 6), (_SHORT, [128, 256, 512, *_LONG])),
    "feather": ((8, 4), (_SHORT, [128, 256, 512, *_LONG])),
    "nano": ((4, 2), (_SHORT, [128, 256, 512, *_LONG])),
}
ACTIVATIONS = {"Tanh": torch.tanh, "ReLU": torch.relu}


class LayerArray(nn.Module):
    """Dilated layers of one width: p = act(conv(x) + mixin(c)), x <- x + residual(p); the p of all layers add up.

    With `gated` the convolution has twice the width and p = act(z_1) sigmoid(z_2).
    """

    conv: Any  # module lists, of a convolution for each dilation
    mixin: Any
    residual: Any

    def __init__(
        self, inputs: int, condition: int, width: int, head: int, kernel: int, dilations: Sequence[int],
        activation: str, gated: bool, head_bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        sums = 2 * width if gated else width
        self.gated, self.activation = gated, activation
        self.past_samples = [(kernel - 1) * dilation for dilation in dilations]
        self.rechannel = nn.Conv1d(inputs, width, 1, bias=False)
        self.conv = nn.ModuleList(nn.Conv1d(width, sums, kernel, dilation=dilation) for dilation in dilations)
        self.mixin = nn.ModuleList(nn.Conv1d(condition, sums, 1, bias=False) for _ in dilations)
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.head = nn.Conv1d(width, head, 1, bias=head_bias)

    def forward(
        self, x: Tensor, condition: Tensor, total: Tensor | None, state: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x (batch, inputs, time), condition (batch, its channels, time), total (batch, width, time) of the p so far.

        Returns x (batch, width, time), the head's output (batch, head, time) and the last inputs of each layer.
        """
        x = self.rechannel(x)  # (batch, width, time)
        carried = []
        for n, history in enumerate(state):
            window, history = prepend(x, self.past_samples[n], history)
            z = self.conv[n](window) + self.mixin[n](condition)  # (batch, width or 2 width, time)
            z, *gate = z.chunk(2, dim=1) if self.gated else (z,)
            p = ACTIVATIONS[self.activation](z)
            if gate:
                p = p * torch.sigmoid(gate[0])
            total = p if total is None else total + p
            x = x + self.residual[n](p)
            carried.append(history)
        assert total is not None
        return x, self.head(total), carried

    def published_order(self) -> Iterator[Tensor]:
        """The weights in the order of a .nam file."""
        yield self.rechannel.weight
        for conv, mixin, residual in zip(self.conv, self.mixin, self.residual, strict=True):
            yield from (*conv.parameters(), mixin.weight, *residual.parameters())
        yield from self.head.parameters()


class NAMWaveNet(nn.Module):
    """Arrays of dilated layers; the sum of an array's p, through its head, is where the next array's sum starts.

    The condition of every layer is the input itself and the knobs. The output is `head_scale` times the last head;
    the factor counts as a weight in published figures, but is not learned. A published capture starts settled: its
    player feeds `preroll_samples` of silence first.
    Raises UserError for an unknown activation, or where widths and dilations are not as many.

    >>> y, state = nam_wavenet("nano")(torch.zeros(4, 1, 100))
    >>> y.shape, len(state), state[2].shape
    (torch.Size([4, 1, 100]), 20, torch.Size([4, 4, 8]))
    """

    kernel = "wavenet"
    latency_samples = 0
    arrays: Any  # a module list of LayerArray

    def __init__(
        self,
        widths: Sequence[int],
        dilations: Sequence[Sequence[int]],
        kernel: int = 3,
        activation: str = "Tanh",
        gated: bool = False,
        head_scale: float = 0.02,
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if not widths or len(widths) != len(dilations):
            raise UserError(
                f"{len(widths)} widths and dilations of {len(dilations)} arrays: give one list for each width"
            )
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        signals = channels + side_channels
        sizes = zip([signals, *widths[:-1]], widths, [*widths[1:], channels], dilations, strict=True)
        self.arrays = nn.ModuleList(
            LayerArray(before, signals + controls, width, head, kernel, own, activation, gated, n == len(widths) - 1)
            for n, (before, width, head, own) in enumerate(sizes)
        )
        self.head_scale = nn.Parameter(torch.tensor(head_scale), requires_grad=False)
        self.receptive_field = 1 + sum(past for array in self.arrays for past in array.past_samples)
        self.preroll_samples = self.receptive_field

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), last inputs of each layer."""
        condition = with_knobs(x, controls, self.controls)  # (batch, inputs + knobs, time)
        learned = self.head_scale.requires_grad
        library = None if learned else backend.fused("wavenet", condition, self.head_scale, *(state or ()))
        if library is not None and fused.fits(net := self.description, condition, state):
            return fused.play(library, net, condition, state)
        histories = iter(state or [None] * sum(len(array.conv) for array in self.arrays))
        head, carried = None, []
        for array in self.arrays:
            x, head, now = array(x, condition, head, [next(histories) for _ in array.conv])
            carried += now
        assert head is not None
        return self.head_scale * head, tuple(carried)

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """A player of audio blocks whose knobs (1, knobs) stand still, None where there is no kernel for it."""
        library = backend.fused("wavenet", self.head_scale)
        return None if library is None else fused.stream(library, self.description, self.channels, controls)

    @torch.no_grad()
    def load_weights(self, flat: Tensor) -> None:
        """Take over the weights of a .nam file (count,). Raises UserError when they are not as many as the net's."""
        own = [*(weight for array in self.arrays for weight in array.published_order()), self.head_scale]
        count = sum(weight.numel() for weight in own)
        if flat.shape != (count,):
            raise UserError(f"the net has {count} weights but {tuple(flat.shape)} were given: another size?")
        for weight, values in zip(own, flat.split([weight.numel() for weight in own]), strict=True):
            weight.copy_(values.view_as(weight))

    @property
    def description(self) -> fused.Net:
        """What the fused kernel computes."""
        arrays = []
        for array in self.arrays:
            parameters = [array.rechannel.weight, None, array.head.weight, array.head.bias]
            for conv, mixin, residual in zip(array.conv, array.mixin, array.residual, strict=True):
                parameters += [conv.weight, conv.bias, mixin.weight, residual.weight, residual.bias]
            width, kernel = array.rechannel.out_channels, array.conv[0].kernel_size[0]
            dilations = [conv.dilation[0] for conv in array.conv]
            shape = (array.rechannel.in_channels, width, array.head.out_channels, kernel)
            arrays.append(fused.Array(*shape, array.gated, array.activation == "ReLU", dilations, parameters))
        inputs = self.channels + self.side_channels + self.controls
        return fused.Net(inputs, self.channels, False, self.head_scale.item(), arrays)

    @property
    def output_layer(self) -> nn.Conv1d:
        return self.arrays[-1].head

    @property
    def multiply_adds_per_sample(self) -> int:
        """Weights of the convolutions that reach the output."""
        last = self.arrays[-1].residual[-1].weight.numel()
        return sum(weight.numel() for weight in self.parameters() if weight.ndim == 3) - last


def nam_wavenet(size: str = "standard", **others) -> NAMWaveNet:
    """The published nets: "standard", "lite", "feather" or "nano". Raises UserError for another size.

    >>> nam_wavenet("standard").receptive_field
    4093
    """
    if size not in SIZES:
        raise UserError(f"unknown NAM WaveNet size {size!r}: choose one of {', '.join(SIZES)}")
    widths, dilations = SIZES[size]
    return NAMWaveNet(**{"widths": widths, "dilations": dilations, **others})
