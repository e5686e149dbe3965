"""A temporal convolutional network in the place of an effect, told its knobs (Steinmetz et al. 2022, section 2.3).

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022: the conditional nets behind "neural proxy" and "cTCN", with the authors' code's sizes.
"""

from __future__ import annotations

from torch import Tensor, nn

from revox_lightning.dsp import effects

_DILATIONS = (1, 8, 64, 512)
_KERNEL = 13


class _Block(nn.Module):
    """Dilated convolution, batch norm, gain and offset of every channel from the knobs, PReLU; plus a 1 x 1 path."""

    def __init__(self, inputs: int, width: int, dilation: int, knobs: int) -> None:
        super().__init__()
        self._past = (_KERNEL - 1) * dilation
        self.convolution = nn.Conv1d(inputs, width, _KERNEL, dilation=dilation)
        self.norm, self.told = nn.BatchNorm1d(width, affine=False), nn.Linear(knobs, 2 * width)
        self.activation = nn.PReLU(width)
        self.residual = nn.Conv1d(inputs, width, 1, groups=inputs, bias=False)

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        gain, offset = self.told(p)[..., None].chunk(2, dim=1)  # each (batch, width, 1)
        z = self.norm(self.convolution(nn.functional.pad(x, (self._past, 0))))
        return self.activation(gain * z + offset) + x * self.residual.weight[:, 0]  # far faster than as a convolution


class EffectTCN(nn.Module):
    """Four blocks, causal, 7,021 samples of receptive field; 174,209 parameters for 24 knobs, 171,137 for 18.

    The authors' crop leaves the residual path a sample late in every block; here it is in time.
    """

    receptive_field = 1 + (_KERNEL - 1) * sum(_DILATIONS)

    def __init__(self, knobs: int, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(width if n else 1, width, dilation, knobs) for n, dilation in enumerate(_DILATIONS)
        )
        self.output = nn.Conv1d(width, 1, 1)

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        """x (batch, channels, time) with knobs p (batch, knobs) in 0 to 1 -> the same shape, channel by channel."""
        batch, channels, time = x.shape
        y, told = x.reshape(-1, 1, time), p.repeat_interleave(channels, 0)
        for block in self.blocks:
            y = block(y, told)
        return self.output(y).view(batch, channels, time)


class EndToEnd(nn.Module):
    """No effects at all: one net (cTCN1) or two, of 18 and 6 of the knobs (cTCN2), that learn with the controller.

    They know one sample rate, that of their training.
    """

    def __init__(self, nets: int = 1, width: int = 64) -> None:
        super().__init__()
        knobs = (len(effects.PARAMETERS),) if nets == 1 else (len(effects.EQUALISER), len(effects.COMPRESSOR))
        self._knobs = knobs
        self.nets = nn.ModuleList(EffectTCN(number, width) for number in knobs)

    def forward(self, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
        """x (batch, channels, time) with p (batch, 24) -> the same shape."""
        for net, told in zip(self.nets, p.split(self._knobs, dim=1), strict=True):
            x = net(x, told)
        return x
