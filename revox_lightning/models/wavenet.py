"""Wright, Damskägg, Juvela & Välimäki, "Real-time guitar amplifier emulation with deep learning", Appl. Sci. 2020."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.kernels import wavenet as fused
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import with_knobs

# dilations and width of the published nets
SIZES = {
    1: ([2**n for n in range(10)], 16),
    2: ([2**n for n in range(9)] * 2, 8),
    3: ([2**n for n in range(9)] * 2, 16),
}


class WaveNet(nn.Module):
    """Feed-forward WaveNet: gated dilated convolutions whose outputs a linear mixer adds up.

    Per layer p = tanh(z_1) sigmoid(z_2) with (z_1, z_2) = conv(x), then x <- x + W p; y mixes the p of all layers.
    Knobs are concatenated to the input of the first 1x1 layer.

    >>> y, state = WaveNet([1, 2, 4], width=8)(torch.zeros(4, 1, 100))
    >>> y.shape, len(state), state[2].shape
    (torch.Size([4, 1, 100]), 3, torch.Size([4, 8, 8]))
    """

    kernel = "wavenet"
    latency_samples = 0
    gated: Any  # module lists, of a convolution for each dilation
    residual: Any

    def __init__(
        self,
        dilations: Sequence[int],
        width: int,
        kernel: int = 3,
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        self.receptive_field = 1 + (kernel - 1) * sum(dilations)
        self.past_samples = [(kernel - 1) * dilation for dilation in dilations]
        self.input = nn.Conv1d(channels + side_channels + controls, width, 1)
        self.gated = nn.ModuleList(nn.Conv1d(width, 2 * width, kernel, dilation=dilation) for dilation in dilations)
        # The last one leads nowhere; the published files and parameter counts contain it.
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.mixer = nn.Conv1d(width * len(dilations), channels, 1)

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), last inputs of each layer."""
        u = with_knobs(x, controls, self.controls)  # (batch, inputs, time)
        library = backend.fused("wavenet", u, self.mixer.weight, *(state or ()))
        if library is not None and fused.fits(net := self.description, u, state):
            return fused.play(library, net, u, state)
        x = self.input(u)  # (batch, width, time)
        outputs, carried = [], []
        for n, history in enumerate(state or [None] * len(self.gated)):
            window, history = prepend(x, self.past_samples[n], history)
            z_1, z_2 = self.gated[n](window).chunk(2, dim=1)
            p = torch.tanh(z_1) * torch.sigmoid(z_2)
            if n < len(self.gated) - 1:
                x = x + self.residual[n](p)
            outputs.append(p)
            carried.append(history)
        return self.mixer(torch.cat(outputs, dim=1)), tuple(carried)

    def fused_stream(self, controls: Tensor | None = None) -> fused.Stream | None:
        """A player of audio blocks whose knobs (1, knobs) stand still, None where there is no kernel for it."""
        library = backend.fused("wavenet", self.mixer.weight)
        return None if library is None else fused.stream(library, self.description, self.channels, controls)

    @property
    def description(self) -> fused.Net:
        """What the fused kernel computes."""
        inputs, width, kernel = self.input.in_channels, self.input.out_channels, self.gated[0].kernel_size[0]
        dilations = [layer.dilation[0] for layer in self.gated]
        parameters = [self.input.weight, self.input.bias, self.mixer.weight, self.mixer.bias]
        for gated, residual in zip(self.gated, self.residual, strict=True):
            parameters += [gated.weight, gated.bias, None, residual.weight, residual.bias]
        array = fused.Array(inputs, width, self.channels, kernel, True, False, dilations, parameters)
        return fused.Net(inputs, self.channels, True, 1.0, [array])

    @property
    def output_layer(self) -> nn.Conv1d:
        return self.mixer

    @property
    def multiply_adds_per_sample(self) -> int:
        """Weights of the convolutions that reach the output."""
        width = self.input.out_channels
        return sum(weight.numel() for weight in self.parameters() if weight.ndim == 3) - width * width


def wavenet(size: int = 2, **others) -> WaveNet:
    """WaveNet1, WaveNet2 or WaveNet3 of the paper. Raises UserError for another size.

    >>> wavenet(1).receptive_field
    2047
    """
    if size not in SIZES:
        raise UserError(f"unknown WaveNet size {size!r}: choose one of {', '.join(map(str, SIZES))}")
    dilations, width = SIZES[size]
    return WaveNet(**{"dilations": dilations, "width": width, **others})
