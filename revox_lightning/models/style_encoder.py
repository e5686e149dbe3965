"""What a recording sounds like in some hundred numbers: encoders of production style.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.1: spectra of 4,096 samples in hops of 2,048, magnitudes to the power of 0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revox_lightning.models.efficient_net import CHANNELS, EfficientNetB2

FFT_SIZE, HOP = 4096, 2048
EXPONENT, MEAN, SPREAD = 0.3, 0.322970, 0.278452


def spectrogram(x: Tensor, window: Tensor | None = None) -> Tensor:
    """Power-compressed magnitudes (batch, frames, 2049) of x (batch, time), about zero mean and unit variance.

    The window (4096,) is Hann's where none is given.

    >>> spectrogram(torch.zeros(2, 131_072)).shape
    torch.Size([2, 65, 2049])
    """
    window = torch.hann_window(FFT_SIZE, dtype=x.dtype, device=x.device) if window is None else window
    transform = torch.stft(x, FFT_SIZE, HOP, window=window, return_complex=True)
    return ((transform.abs() + 1e-8) ** EXPONENT - MEAN).div(SPREAD).transpose(1, 2)


class SmallEncoder(nn.Module):
    """For a CPU: the spectrogram in ``bands``, a quarter of them linear, two convolutions in time, then statistics.

    Of the bands and of what the convolutions find, mean and standard deviation over time; a linear layer makes
    ``embedding`` numbers of them.
    """

    def __init__(self, embedding: int = 256, bands: int = 96, channels: int = 96) -> None:
        super().__init__()
        self.embedding = embedding
        self.bands: Tensor
        self.register_buffer("bands", _bands(bands), persistent=False)
        self.normalise = nn.BatchNorm1d(bands, affine=False)
        self.convolutions = nn.Sequential(
            nn.Conv1d(bands, channels, 3, padding=1), nn.PReLU(channels),
            nn.Conv1d(channels, channels, 3, padding=1), nn.PReLU(channels),
        )  # fmt: skip
        self.project = nn.Linear(2 * (bands + channels), embedding)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time) -> (batch, embedding)."""
        by_band = self.normalise((spectrogram(x) @ self.bands).transpose(1, 2))  # (batch, bands, frames)
        found = torch.cat((by_band, self.convolutions(by_band)), 1)
        return self.project(torch.cat((found.mean(2), found.std(2)), 1))


class PublishedEncoder(nn.Module):
    """EfficientNet-B2 on the spectrogram, its mean, 1,024 numbers of length 1: 9,147,330 parameters.

    The 4,096 samples of the window are parameters too, as in the authors' code.
    """

    embedding = 1024

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Parameter(torch.hann_window(FFT_SIZE))
        self.net, self.project = EfficientNetB2(), nn.Conv2d(CHANNELS, self.embedding, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time) -> (batch, 1024)."""
        found = self.net(spectrogram(x, self.window)[:, None])
        return nn.functional.normalize(self.project(found.mean((2, 3), keepdim=True))[..., 0, 0], dim=1)


def _bands(number: int) -> Tensor:
    """Means over bins (2049, number): bands of equal width below, of equal ratio above, together the whole spectrum."""
    linear = number // 4
    edges = torch.cat((torch.arange(linear), torch.logspace(0, 1, number - linear + 1).log10()))
    ratio = (FFT_SIZE / 2 + 1) / linear
    edges[linear:] = linear * ratio ** edges[linear:]
    edges = edges.round().long()
    weights = torch.zeros(FFT_SIZE // 2 + 1, number)
    for n in range(number):
        weights[edges[n] : max(edges[n + 1], edges[n] + 1), n] = 1
    return weights / weights.sum(0)
