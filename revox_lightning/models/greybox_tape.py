"""A tape recorder by its parts, learned end to end: record equaliser, hysteresis (Parker et al., DAFx 2019), playback.

The order of the parts is that of Chowdhury, "Real-time physical modelling for analog tape machines", DAFx-19, figure 1.
"""

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.models.stn import STN

_MEMORY_SAMPLES = 1024.0  # a fiftieth of a second: less than any warm-up, more than a period of the lowest tones


class GreyBoxTape(nn.Module):
    """y = playback(trim(r + M(r))), r = record(x): at first exactly playback(x).

    `hysteresis` gives what the magnetisation M has beside the field: how far the tape is from a straight line. Its
    output layer is set to zero here, so that the machine begins as the linear filter that is loaded into `playback`
    (losses, head and equaliser in one). `record` and `trim` are short, trainable filters that begin as a pure delay.
    `field` is the field in the gap for a signal of full scale, at first.
    Raises UserError when the parts differ in channels.

    >>> from revox_lightning.models.greybox_tape import greybox_tape
    >>> net = greybox_tape(playback_taps=1024, lookahead_samples=64)
    >>> net(torch.zeros(4, 1, 100))[0].shape, net.latency_samples
    (torch.Size([4, 1, 100]), 128)
    """

    side_channels = 0
    receptive_field = None

    def __init__(self, record: FIR, hysteresis: STN, trim: FIR, playback: FIR, field: float = 3.0) -> None:
        super().__init__()
        if not record.channels == hysteresis.channels == trim.channels == playback.channels:
            raise UserError("the parts of a grey-box tape recorder need as many channels each")
        self.record, self.hysteresis, self.trim, self.playback = record, hysteresis, trim, playback
        self.channels, self.controls = playback.channels, hysteresis.controls
        self.latency_samples = record.latency_samples + trim.latency_samples + playback.latency_samples
        self.field_nepers = nn.Parameter(torch.tensor(field).log())
        for parameter in hysteresis.output_layer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, controls: Tensor | None = None, state: tuple | None = None) -> tuple[Tensor, tuple]:
        """x (batch, channels, time) -> y (batch, channels, time) and the states of the four parts."""
        recorded, magnetised, trimmed, played = state or (None,) * 4
        r, recorded = self.record(x, state=recorded)
        gain = self.field_nepers.exp()
        m, magnetised = self.hysteresis(gain * r, controls, magnetised)
        y, trimmed = self.trim(r + m / gain, state=trimmed)
        y, played = self.playback(y, state=played)
        return y, (recorded, magnetised, trimmed, played)

    @property
    def fir(self) -> FIR:
        """Where the best linear filter goes: its taps and look-ahead are those of this filter alone."""
        return self.playback

    @property
    def multiply_adds_per_sample(self) -> int:
        parts = (self.record, self.hysteresis, self.trim, self.playback)
        return sum(part.multiply_adds_per_sample for part in parts)


def greybox_tape(
    size: int = 8,
    equaliser_taps: int = 64,
    playback_taps: int = 4096,
    lookahead_samples: int = 512,
    trainable: bool = False,
    channels: int = 1,
    controls: int = 0,
) -> GreyBoxTape:
    """Hysteresis of two layers of `size` units, short equalisers of `equaliser_taps`, half of them ahead.

    `playback_taps` and `lookahead_samples` are those of the linear filter that is loaded; `trainable`: it too.
    """
    hysteresis = STN((size, size), channels, controls, _MEMORY_SAMPLES, drag=0.0)
    record, trim = (FIR(equaliser_taps, equaliser_taps // 2, channels, trainable=True) for _ in range(2))
    return GreyBoxTape(record, hysteresis, trim, FIR(playback_taps, lookahead_samples, channels, trainable))
