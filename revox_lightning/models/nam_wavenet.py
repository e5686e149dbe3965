"""Atkinson, "Neural Amp Modeler" (2023), github.com/sdatkinson/neural-amp-modeler: its WaveNets, A1 and A2."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import wavenet as fused
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import knob_signals, with_knobs

_LONG, _SHORT = [2**n for n in range(10)], [2**n for n in range(7)]
_MIDDLE = [128, 256, 512, *_LONG]
_A2_PRIMES = [1, 3, 7, 17, 41, 101, 239]
_A2 = {
    "dilations": [[*_A2_PRIMES, *_A2_PRIMES, 1, 13, *_A2_PRIMES]],
    "kernel": [[6] * 14 + [15, 15] + [6] * 7],
    "activation": "LeakyReLU",
    "head_kernel": 16,
    "head_scale": 0.01,
}
SIZES: dict[str, dict[str, Any]] = {
    "standard": {"widths": (16, 8), "dilations": (_LONG, _LONG)},
    "lite": {"widths": (12, 6), "dilations": (_SHORT, _MIDDLE)},
    "feather": {"widths": (8, 4), "dilations": (_SHORT, _MIDDLE)},
    "nano": {"widths": (4, 2), "dilations": (_SHORT, _MIDDLE)},
    "a2": {"widths": (8,), **_A2},
    "a2_lite": {"widths": (3,), **_A2},
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Tanh": torch.tanh, "ReLU": torch.relu, "LeakyReLU": nn.functional.leaky_relu,
}  # fmt: skip
CONDITIONINGS = ("concatenate", "bias")


class LayerArray(nn.Module):
    """Dilated layers of one width: p = act(conv(x) + mixin(c)), x <- x + residual(p); the p of all layers add up.

    With `gated` the convolution has twice the width and p = act(z_1) sigmoid(z_2). With `knobs` each layer has a
    linear map of them, with a bias, that adds to z.
    """

    conv: Any  # module lists, of a convolution for each dilation
    mixin: Any
    residual: Any
    knobs: Any  # or None

    def __init__(
        self, inputs: int, condition: int, width: int, head: int, kernels: Sequence[int], dilations: Sequence[int],
        activation: str, gated: bool, head_bias: bool, head_kernel: int = 1, knobs: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        sums = 2 * width if gated else width
        self.gated, self.activation = gated, activation
        self.past_samples = [(k - 1) * dilation for k, dilation in zip(kernels, dilations, strict=True)]
        self.head_past_samples = head_kernel - 1
        self.rechannel = nn.Conv1d(inputs, width, 1, bias=False)
        self.conv = nn.ModuleList(
            nn.Conv1d(width, sums, k, dilation=dilation) for k, dilation in zip(kernels, dilations, strict=True)
        )
        self.mixin = nn.ModuleList(nn.Conv1d(condition, sums, 1, bias=False) for _ in dilations)
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.knobs = nn.ModuleList(nn.Conv1d(knobs, sums, 1) for _ in dilations) if knobs else None
        self.head = nn.Conv1d(width, head, head_kernel, bias=head_bias)

    def forward(
        self, x: Tensor, condition: Tensor, knobs: Tensor | None, total: Tensor | None, state: Iterator[Tensor | None]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x (batch, inputs, time), condition (batch, its channels, time), knobs (batch, knobs, time or 1), total
        (batch, width, time) of the p so far; takes its histories from `state`.

        Returns x (batch, width, time), the head's output (batch, head, time) and the last inputs of each layer.
        """
        x = self.rechannel(x)  # (batch, width, time)
        carried = []
        for n, past_samples in enumerate(self.past_samples):
            window, history = prepend(x, past_samples, next(state))
            z = self.conv[n](window) + self.mixin[n](condition)  # (batch, width or 2 width, time)
            if self.knobs is not None:
                z = z + self.knobs[n](knobs)
            z, *gate = z.chunk(2, dim=1) if self.gated else (z,)
            p = ACTIVATIONS[self.activation](z)
            if gate:
                p = p * torch.sigmoid(gate[0])
            total = p if total is None else total + p
            x = x + self.residual[n](p)
            carried.append(history)
        assert total is not None
        if self.head_past_samples:
            total, history = prepend(total, self.head_past_samples, next(state))
            carried.append(history)
        return x, self.head(total), carried

    def published_order(self) -> Iterator[Tensor]:
        """The weights in the order of a .nam file, which knows no knobs."""
        yield self.rechannel.weight
        for conv, mixin, residual in zip(self.conv, self.mixin, self.residual, strict=True):
            yield from (*conv.parameters(), mixin.weight, *residual.parameters())
        yield from self.head.parameters()


class NAMWaveNet(nn.Module):
    """Arrays of dilated layers; the sum of an array's p, through its head, is where the next array's sum starts.

    The condition of every layer is the input itself; knobs are concatenated to it or, with `conditioning` "bias", add
    V g + b to each layer's sum (Grötschla et al., "PANAMA", 2025). The output is `head_scale` times the last head; the
    factor counts as a weight in published figures, but is not learned. `kernel` is one number, or a list of one for
    each dilation in each array. A published capture starts settled: its player feeds `preroll_samples` of silence.
    Raises UserError for an unknown activation or conditioning, or where widths and dilations are not as many.

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
        kernel: int | Sequence[Sequence[int]] = 3,
        activation: str = "Tanh",
        gated: bool = False,
        head_kernel: int = 1,
        head_scale: float = 0.02,
        conditioning: str = "concatenate",
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        kernels = [[kernel] * len(own) for own in dilations] if isinstance(kernel, int) else kernel
        self._check(activation, conditioning, widths, dilations, kernels)
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        signals, knobs = channels + side_channels, controls if conditioning == "bias" else 0
        sizes = zip([signals, *widths[:-1]], widths, [*widths[1:], channels], kernels, dilations, strict=True)
        last = len(widths) - 1
        self.arrays = nn.ModuleList(
            LayerArray(
                before, signals + controls - knobs, width, head, own, steps, activation, gated, n == last,
                head_kernel if n == last else 1, knobs,
            )
            for n, (before, width, head, own, steps) in enumerate(sizes)
        )  # fmt: skip
        self.conditioning = conditioning
        self.head_scale = nn.Parameter(torch.tensor(head_scale), requires_grad=False)
        past = [samples for array in self.arrays for samples in (*array.past_samples, array.head_past_samples)]
        self.receptive_field = self.preroll_samples = 1 + sum(past)
        # One kernel size, and a head without memory, is what the compiled loop computes.
        sizes = {k for own in kernels for k in own}
        self._plain = len(sizes) == 1 and head_kernel == 1 and activation in ("Tanh", "ReLU")

    @staticmethod
    def _check(activation: str, conditioning: str, widths: Sequence, dilations: Sequence, kernels: Sequence) -> None:
        if activation not in ACTIVATIONS:
            raise UserError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if conditioning not in CONDITIONINGS:
            raise UserError(f"unknown conditioning {conditioning!r}: choose one of {', '.join(CONDITIONINGS)}")
        if not widths or len(widths) != len(dilations):
            raise UserError(
                f"{len(widths)} widths and dilations of {len(dilations)} arrays: give one list for each width"
            )
        if [len(own) for own in kernels] != [len(own) for own in dilations]:
            raise UserError("kernel sizes and dilations are not as many: give one for each layer, or one number")

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), last inputs of each layer."""
        condition = with_knobs(x, controls, self.controls)  # (batch, inputs + knobs, time)
        learned = self.head_scale.requires_grad or not self._plain
        library = None if learned else backend.fused("wavenet", condition, self.head_scale, *(state or ()))
        if library is not None and fused.fits(net := self.description, condition, state):
            return fused.play(library, net, condition, state)
        knobs = None
        if self.conditioning == "bias":
            condition, knobs = x, knob_signals(controls, self.controls, x.shape[-1])
        histories = iter(state or [None] * sum(len(a.conv) + bool(a.head_past_samples) for a in self.arrays))
        head, carried = None, []
        for array in self.arrays:
            x, head, now = array(x, condition, knobs, head, histories)
            carried += now
        assert head is not None
        return self.head_scale * head, tuple(carried)

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """A player of audio blocks whose knobs (1, knobs) stand still, None where there is no kernel for it."""
        library = backend.fused("wavenet", self.head_scale) if self._plain else None
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
            for n, (conv, mixin, residual) in enumerate(zip(array.conv, array.mixin, array.residual, strict=True)):
                bias, condition = conv.bias, mixin.weight
                if array.knobs is not None:
                    bias = bias + array.knobs[n].bias
                    condition = torch.cat([condition, array.knobs[n].weight], dim=1)
                parameters += [conv.weight, bias, condition, residual.weight, residual.bias]
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
    """The published nets: "standard", "lite", "feather", "nano", and the newer "a2", "a2_lite".

    Raises UserError for another size.

    >>> nam_wavenet("standard").receptive_field, nam_wavenet("a2").receptive_field
    (4093, 6347)
    """
    if size not in SIZES:
        raise UserError(f"unknown NAM WaveNet size {size!r}: choose one of {', '.join(SIZES)}")
    return NAMWaveNet(**{**SIZES[size], **others})
