"""Atkinson, "Neural Amp Modeler" (2023), github.com/sdatkinson/neural-amp-modeler: ConvNet, plain dilated layers."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.history import prepend
from revox_lightning.models.knobs import with_knobs
from revox_lightning.models.nam_wavenet import ACTIVATIONS


class ConvNet(nn.Module):
    """x <- act(norm(conv(x))) for each dilation, then a linear read-out of the last layer alone.

    Knobs are concatenated to the input. With `batch_norm` the convolutions have no bias. A published capture starts
    settled: its player feeds `preroll_samples` of silence first. Raises UserError for an unknown activation and where
    there are no layers.

    >>> import torch
    >>> y, state = ConvNet(16, [1, 2, 4])(torch.zeros(4, 1, 100))
    >>> y.shape, state[2].shape
    (torch.Size([4, 1, 100]), torch.Size([4, 16, 4]))
    """

    latency_samples = 0
    conv: Any  # module lists, of a convolution and a norm for each dilation
    norm: Any
    head: Any

    def __init__(
        self,
        width: int,
        dilations: Sequence[int],
        kernel: int = 2,
        batch_norm: bool = True,
        activation: str = "Tanh",
        channels: int = 1,
        controls: int = 0,
        side_channels: int = 0,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if not dilations:
            raise UserError("a ConvNet without dilations has no layers: give at least one")
        self.channels, self.controls, self.side_channels = channels, controls, side_channels
        self.activation = activation
        inputs = [channels + side_channels + controls] + [width] * (len(dilations) - 1)
        self.conv = nn.ModuleList(
            nn.Conv1d(before, width, kernel, dilation=dilation, bias=not batch_norm)
            for before, dilation in zip(inputs, dilations, strict=True)
        )
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for _ in dilations) if batch_norm else None
        self.head = nn.Conv1d(width, channels, 1)
        self.past_samples = [(kernel - 1) * dilation for dilation in dilations]
        self.receptive_field = self.preroll_samples = 1 + sum(self.past_samples)

    def forward(
        self, x: Tensor, controls: Tensor | None = None, state: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time), last inputs of each layer."""
        x = with_knobs(x, controls, self.controls)  # (batch, inputs + knobs, time)
        carried = []
        for n, conv in enumerate(self.conv):
            window, history = prepend(x, self.past_samples[n], None if state is None else state[n])
            z = conv(window)  # (batch, width, time)
            x = ACTIVATIONS[self.activation](z if self.norm is None else self.norm[n](z))
            carried.append(history)
        return self.head(x), tuple(carried)

    @property
    def output_layer(self) -> nn.Conv1d:
        return self.head

    @property
    def multiply_adds_per_sample(self) -> int:
        """Weights of the convolutions."""
        return sum(weight.numel() for weight in self.parameters() if weight.ndim == 3)


def conv_net(**others) -> ConvNet:
    """As the trainer's own example has it: 16 channels, twice the dilations 1 to 2,048.

    >>> conv_net().receptive_field
    8191
    """
    return ConvNet(**{"width": 16, "dilations": [2**n for n in range(12)] * 2, **others})
