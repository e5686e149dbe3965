"""Mikkonen et al., "Neural modeling of magnetic tape recorders", DAFx 2023, section 2: a net, then the transport."""

from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.history import delay, prepend
from revox_lightning.models.knobs import knob_signals


class Delayed(nn.Module):
    """y[n] = p(n - d[n]) where p = core(x): the last control is the delay d in samples, the core has the others.

    d is the delay of the wet signal at n; where the core has a latency, its output and d are late by as much.
    Without the last control (no controls, or only those of the core) it plays p, undelayed.

    >>> import torch
    >>> from revox_lightning.models.recurrent import Recurrent
    >>> net = Delayed(Recurrent("gru", 64, skip=False, bias=False), DelayLine(8192))
    >>> x = torch.zeros(4, 1, 100)
    >>> net(x, torch.full((4, 1, 100), 7056.3))[0].shape, net(x)[0].shape, net.controls
    (torch.Size([4, 1, 100]), torch.Size([4, 1, 100]), 1)
    """

    def __init__(self, core: Net, line: DelayLine) -> None:
        super().__init__()
        self.core, self.line = core, line
        self.channels, self.controls = core.channels, core.controls + 1
        self.side_channels, self.latency_samples = core.side_channels, core.latency_samples
        field = core.receptive_field
        self.receptive_field = None if field is None else field + line.reach_samples

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels + side_channels, time) -> y (batch, channels, time).

        controls (batch, knobs + 1) or (batch, knobs + 1, time). The state is the core's, the line's, and the delays
        (batch, 1, latency_samples) that are still to come.
        """
        knobs, d = self._parted(controls, x.shape[-1])
        core_state, line_state, coming = state or (None, None, None)
        p, core_state = self.core(x, knobs, core_state)
        if d is None:
            _, line_state = prepend(p, self.line.history_samples, line_state)
            return p, (core_state, line_state, p.new_zeros(p.shape[0], 1, self.latency_samples))
        d = d.to(x.dtype).expand(-1, -1, x.shape[-1])
        # Before the start the delay was what it is then: nought might be less than the line can do.
        coming = d[..., :1].expand(-1, -1, self.latency_samples) if coming is None else coming
        d, coming = delay(d, self.latency_samples, coming)
        y, line_state = self.line(p, d, line_state)
        return y, (core_state, line_state, coming)

    def _parted(self, controls: Tensor | None, time: int) -> tuple[Tensor | None, Tensor | None]:
        """The core's knobs and the delay (batch, 1, time or 1); None where there is none."""
        given = 0 if controls is None else controls.shape[1]
        if given == self.core.controls:
            return controls, None
        if given != self.controls:
            knobs = f"{self.core.controls} knobs" if self.core.controls else "no knobs"
            raise UserError(f"the model takes {knobs} and a delay, as its last control, but {given} were given")
        signals = knob_signals(controls, self.controls, time)
        assert controls is not None and signals is not None
        return (controls[:, :-1] if self.core.controls else None), signals[:, -1:]

    def fused_stream(self, controls: Tensor | None = None):
        """The core's compiled loop, where nothing is delayed."""
        make = getattr(self.core, "fused_stream", None)
        if make is None or (0 if controls is None else controls.shape[1]) != self.core.controls:
            return None
        return make(controls)

    @property
    def knobs(self) -> int:
        """How many of the controls a player sets: all but the delay."""
        return self.core.controls

    @property
    def preroll_samples(self) -> int:
        return getattr(self.core, "preroll_samples", 0)

    @property
    def multiply_adds_per_sample(self) -> int:
        return self.core.multiply_adds_per_sample + self.channels * self.line.multiply_adds_per_sample
