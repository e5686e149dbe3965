"""One net per channel: left and right of a tape have their own heads, so each gets its own model."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net


class EachChannel(nn.Module):
    """Net i plays channel i; all nets are mono, see the same knobs and have the same latency.

    Raises UserError when they are not.

    >>> from revox_lightning.models.recurrent import Recurrent
    >>> y, state = EachChannel([Recurrent(), Recurrent()])(torch.zeros(4, 2, 100))
    >>> y.shape, len(state)
    (torch.Size([4, 2, 100]), 2)
    """

    side_channels = 0

    def __init__(self, nets: Sequence[Net]) -> None:
        super().__init__()
        if not nets or any(net.channels != 1 or net.side_channels for net in nets):
            raise UserError("one net per channel needs at least one net, and each built for one channel")
        if len({(net.latency_samples, net.controls) for net in nets}) > 1:
            raise UserError("one net per channel needs nets of equal latency and equal knobs")
        self.nets = nn.ModuleList(nets)  # pyright: ignore[reportArgumentType]
        self.channels, self.controls = len(nets), nets[0].controls
        self.knobs = getattr(nets[0], "knobs", nets[0].controls)
        self.latency_samples = nets[0].latency_samples
        self.multiply_adds_per_sample = sum(net.multiply_adds_per_sample for net in nets)
        fields = [net.receptive_field for net in nets]
        self.receptive_field = None if None in fields else max(field or 0 for field in fields)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels, time) -> y (batch, channels, time) and the states of all nets."""
        if x.shape[1] != self.channels:
            raise UserError(
                f"the model has one net for each of {self.channels} channels but the audio has {x.shape[1]}"
            )
        states = state or (None,) * self.channels
        played = [net(x[:, i : i + 1], controls, states[i]) for i, net in enumerate(self.nets)]
        return torch.cat([y for y, _ in played], dim=1), tuple(carried for _, carried in played)
