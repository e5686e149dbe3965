"""1-D U-Net of Mikkonen, Wright, Moliner & Välimäki, "Neural modeling of magnetic tape recorders", DAFx 2023."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu, pad, relu

from revox_lightning.errors import UserError

_FREQUENCIES = 16  # of the noise level's embedding
_LAYERS = 8  # dilated convolutions in a block, their dilation doubling from 1
_TAPS = 5


class UNet1d(nn.Module):
    """Estimates what noise hides in a signal, at several rates at once; free of biases but for the embedding.

    `widths` are the channels of each level, `factors[i]` the ratio between the rates of level i and the next, on the
    way down for i = 0 ... depth - 2 and on the way up for i = depth - 1 ... 1. So `factors` has an entry for each
    level, and the published (2, 2, 4, 4) goes down by 2, 2, 4 and up by 4, 4, 2: its second level is cut back to the
    length it had (x in its middle, the pyramid's output at its start). The top level shares its read-out with the
    level below it. Both as in the published weights, which need them.
    The defaults are the net for trajectories, 76,952 parameters; depth 6, factors of 4 and an embedding of 32 are that
    for noise, 127,832. Raises UserError where widths and factors are not one for each level.

    >>> UNet1d()(torch.zeros(2, 512), torch.zeros(2)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self,
        widths: Sequence[int] = (8, 16, 16, 16),
        factors: Sequence[int] = (2, 2, 4, 4),
        embedding: int = 16,
    ) -> None:
        super().__init__()
        if len(widths) != len(factors) or len(widths) < 2:
            raise UserError(f"a U-Net of widths {list(widths)} and factors {list(factors)}: give both for each level.")
        self.widths, self.factors = tuple(widths), tuple(factors)
        above = (widths[0], *widths[:-1])  # widths of the level above, which is where a level's way up ends
        levels = range(len(widths))
        self.embed = Embedding(embedding)
        self.first = nn.Conv1d(1, widths[0], _TAPS, padding="same", bias=False)
        self.down = nn.ModuleList(Block(above[i], widths[i], embedding) for i in levels)
        self.shrink = nn.ModuleList(Resample(factor, 1) for factor in factors[:-1])
        self.write_in = nn.ModuleList(nn.Conv1d(1, width, 1, bias=False) for width in widths[:-1])
        self.middle = Block(widths[-1], widths[-1], embedding)
        self.up = nn.ModuleList(Block(2 * widths[i], above[i], embedding) for i in levels)
        self.stretch = nn.ModuleList(Resample(1, factor) for factor in factors[1:])
        self.read_out = nn.ModuleList(nn.Conv1d(width, 1, 1, bias=False) for width in above[1:])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x (batch, time) and the noise's level (batch,), ln(sigma) / 4 -> (batch, time), of any length."""
        told = self.embed(level)
        pyramid, x = x[:, None], self.first(x[:, None])  # (batch, 1, time), (batch, width, time)
        x, kept = self._descend(x, pyramid, told)
        return self._ascend(self.middle(x, told), kept, told)[:, 0]

    def _descend(self, x: Tensor, pyramid: Tensor, told: Tensor) -> tuple[Tensor, list[Tensor]]:
        kept = []
        for block, shrink, write_in in zip(self.down, self.shrink, self.write_in, strict=False):
            x = block(x, told)
            kept.append(x)
            pyramid = shrink(pyramid)
            x = (write_in(pyramid) + shrink(x)) / math.sqrt(2)
        x = self.down[-1](x, told)
        return x, [*kept, x]

    def _ascend(self, x: Tensor, kept: list[Tensor], told: Tensor) -> Tensor:
        y: Tensor | None = None
        for i in reversed(range(len(kept))):
            x = self.up[i](torch.cat((_middle(x, kept[i].shape[-1]), kept[i]), dim=1), told)
            seen = self.read_out[max(i, 1) - 1](x)
            y = seen if y is None else (y[..., : seen.shape[-1]] + seen) / math.sqrt(2)
            if i > 0:
                x, y = self.stretch[i - 1](x), self.stretch[i - 1](y)
        assert y is not None
        return y

    @property
    def multiply_adds_per_sample(self) -> int:
        """Of one evaluation, per sample in; the resampling left out."""
        total, rate = float(self.first.weight.numel()), 1.0
        for i, factor in enumerate(self.factors):
            convolutions = [self.down[i], self.up[i]] + ([self.middle] if i == len(self.factors) - 1 else [])
            total += rate * sum(m.weight.numel() for b in convolutions for m in b.modules() if isinstance(m, nn.Conv1d))
            rate /= factor
        return round(total)


class Embedding(nn.Module):
    """Random Fourier features of a number, then two layers (Tancik et al. 2020; the frequencies are not trained).

    >>> Embedding(16)(torch.zeros(3)).shape
    torch.Size([3, 16])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(16 * torch.randn(_FREQUENCIES), requires_grad=False)
        self.layers = nn.ModuleList((nn.Linear(2 * _FREQUENCIES, size), nn.Linear(size, size)))

    def forward(self, level: Tensor) -> Tensor:
        """level (batch,) -> (batch, size)."""
        turn = 2 * math.pi * level[:, None] * self.frequency
        x = torch.cat((turn.sin(), turn.cos()), dim=1)
        for layer in self.layers:
            x = relu(layer(x))
        return x


class Block(nn.Module):
    """Residual dilated convolutions, their input scaled by what is told of the noise."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.scale = nn.Linear(embedding, inputs)
        self.enter = nn.Conv1d(inputs, outputs, 1, bias=False)
        self.around = nn.Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.layers = nn.ModuleList(
            nn.Conv1d(outputs, outputs, _TAPS, dilation=2**j, padding=2 ** (j + 1), bias=False) for j in range(_LAYERS)
        )

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x (batch, inputs, time), told (batch, embedding) -> (batch, outputs, time)."""
        x = x * self.scale(told)[:, :, None]
        y = self.enter(gelu(x))
        for layer in self.layers:
            y = (y + layer(gelu(y))) / math.sqrt(2)
        return (y + self.around(x)) / math.sqrt(2)


class Resample(nn.Module):
    """Windowed-sinc resampling of each channel; the same taps as `torchaudio.transforms.Resample` by default.

    The length becomes ceil(time * up / down). The taps follow from the ratio, so no checkpoint holds them.

    >>> Resample(4, 1)(torch.zeros(2, 8, 100)).shape
    torch.Size([2, 8, 25])
    """

    sinc: Tensor

    def __init__(self, down: int, up: int) -> None:
        super().__init__()
        self.down, self.up = down, up
        self.register_buffer("sinc", windowed_sinc(down, up), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, channel, time)."""
        batch, channels, time = x.shape
        margin = (self.sinc.shape[-1] - self.down) // 2
        x = pad(x.reshape(batch * channels, 1, time), (margin, margin + self.down))
        y = conv1d(x, self.sinc, stride=self.down)  # (batch * channel, phase, time)
        y = y.transpose(1, 2).reshape(batch, channels, -1)
        return y[..., : -(-time * self.up // self.down)]


def windowed_sinc(down: int, up: int, crossings: int = 6, rolloff: float = 0.99) -> Tensor:
    """Taps (up, 1, taps) that resample by `up` / `down`: a sinc of `crossings` zeros on either side, Hann windowed.

    Of Smith, "Digital Audio Resampling" (CCRMA, 2002); the cut-off is `rolloff` of the lower Nyquist frequency.

    >>> windowed_sinc(4, 1).shape, windowed_sinc(1, 4).shape
    (torch.Size([1, 1, 54]), torch.Size([4, 1, 15]))
    """
    cutoff = rolloff * min(down, up)
    margin = math.ceil(crossings * down / cutoff)
    input_time = torch.arange(-margin, margin + down, dtype=torch.float64) / down
    output_time = torch.arange(up, dtype=torch.float64)[:, None] / up
    t = ((input_time - output_time) * cutoff).clamp(-crossings, crossings)  # in zero crossings
    window = torch.cos(math.pi / 2 * t / crossings) ** 2
    return (cutoff / down * window * torch.sinc(t)).float()[:, None]


def _middle(x: Tensor, samples: int) -> Tensor:
    start = (x.shape[-1] - samples) // 2
    return x[..., start : start + samples]
