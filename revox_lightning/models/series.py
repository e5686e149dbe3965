"""Net, then filter: a linear start whose two halves a guitar player's plugin has places for (Eichas & Zölzer, 2016)."""

from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.fir import FIR


class Series(nn.Module):
    """y = fir(net(x)), a Hammerstein model with a net: the filter goes into a player's cabinet slot.

    A net that has a skip connection is silent beside it at first, so that the pair starts as the filter alone.
    Raises UserError where net and filter are not of as many channels.

    >>> import torch
    >>> from revox_lightning.models.recurrent import Recurrent
    >>> net = Series(Recurrent(), FIR(1024, lookahead=64))
    >>> net(torch.zeros(4, 1, 100))[0].shape, net.latency_samples
    (torch.Size([4, 1, 100]), 64)
    """

    side_channels = 0

    def __init__(self, net: Net, fir: FIR) -> None:
        super().__init__()
        if net.channels != fir.channels or net.side_channels:
            raise UserError(f"a net of {net.channels} channels and a filter of {fir.channels} do not make a series")
        self.net, self.fir = net, fir
        self.channels, self.controls = fir.channels, net.controls
        self.latency_samples = fir.lookahead + net.latency_samples
        self.receptive_field = None if net.receptive_field is None else net.receptive_field + fir.taps - 1
        if getattr(net, "skip", False):
            for parameter in net.output_layer.parameters():  # type: ignore[attr-defined]
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels, time) -> y (batch, channels, time) and the states of net and filter."""
        net_state, fir_state = state or (None, None)
        p, net_state = self.net(x, controls, net_state)
        y, fir_state = self.fir(p, state=fir_state)
        return y, (net_state, fir_state)

    @property
    def multiply_adds_per_sample(self) -> int:
        return self.net.multiply_adds_per_sample + self.fir.multiply_adds_per_sample
