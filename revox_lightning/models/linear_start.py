"""Linear start: a least-squares FIR in place of the skip connection, so that a net learns only what is not linear."""

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.fir import FIR
from revox_lightning.models.history import delay


class LinearStart(nn.Module):
    """y = fir(x) + net([x, fir(x)]), all in time with each other; at first exactly fir(x).

    `net` has no skip of its own and `side_channels` for the filtered signal; its output layer is set to zero here.
    The dry input is delayed by the filter's look-ahead, the linear path by the net's own latency.
    Raises UserError when net and filter do not fit each other.

    >>> from revox_lightning.models.recurrent import Recurrent
    >>> net = LinearStart(Recurrent(skip=False, side_channels=1), FIR(1024, lookahead=64))
    >>> net(torch.zeros(4, 1, 100))[0].shape, net.latency_samples
    (torch.Size([4, 1, 100]), 64)
    """

    side_channels = 0

    def __init__(self, net: Net, fir: FIR) -> None:
        super().__init__()
        if getattr(net, "skip", False):
            raise UserError("the linear start takes the place of the skip connection: set model.skip=false")
        if not net.channels == net.side_channels == fir.channels:
            counts = f"{net.channels} channels, {net.side_channels} side channels and a filter of {fir.channels}"
            raise UserError(f"the linear start needs as many side channels and filters as channels, not {counts}")
        output = getattr(net, "output_layer", None)
        if not isinstance(output, nn.Module):
            raise UserError(f"the linear start needs a net that names its output_layer; {type(net).__name__} does not")
        self.net, self.fir = net, fir
        self.channels, self.controls = fir.channels, net.controls
        self.latency_samples = fir.lookahead + net.latency_samples
        self.receptive_field = None if net.receptive_field is None else net.receptive_field + fir.taps - 1
        for parameter in output.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels, time) -> y (batch, channels, time) and the states of filter, delays and net."""
        fir_state, dry_state, linear_state, net_state = state or (None, None, None, None)
        linear, fir_state = self.fir(x, state=fir_state)
        dry, dry_state = delay(x, self.fir.lookahead, dry_state)
        rest, net_state = self.net(torch.cat([dry, linear], dim=1), controls, net_state)
        linear, linear_state = delay(linear, self.net.latency_samples, linear_state)
        return linear + rest, (fir_state, dry_state, linear_state, net_state)

    @property
    def multiply_adds_per_sample(self) -> int:
        return self.net.multiply_adds_per_sample + self.fir.multiply_adds_per_sample
