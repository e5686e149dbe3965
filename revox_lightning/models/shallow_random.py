"""The wide, shallow, random network of Ulyanov & Lebedev (2016), as Grinstein et al. (ICASSP 2018) use it for style.

One layer that is never trained: a convolution over time whose input channels are the bins of a log-magnitude
spectrogram, then a rectifier. What is compared is the Gram matrix of its outputs, which forgets when things happen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE_HZ = 22_050
SIZE, HOP = 2048, 512  # of the short-time Fourier transform
RMS = 0.1  # of a signal: the logarithm makes the features depend on the level
WIDTH = 11  # frames that a filter sees


class ShallowRandom(nn.Module):
    """Features (filters, frames - 10) of a log-magnitude spectrogram (1,025, frames); the seed fixes the weights.

    No audio model: it has no state and gives no audio. 4,096 filters of 11 frames are 46 million weights (185 MB).

    >>> ShallowRandom(filters=16)(torch.rand(1025, 30)).shape
    torch.Size([16, 20])
    """

    weight: Tensor

    def __init__(self, filters: int = 4096, seed: int = 0) -> None:
        super().__init__()
        bins = SIZE // 2 + 1
        scale = math.sqrt(2) * math.sqrt(2 / ((bins + filters) * WIDTH))
        weight = torch.randn(filters, bins, WIDTH, generator=torch.Generator().manual_seed(seed)) * scale
        self.register_buffer("weight", weight, persistent=False)  # the seed says it all

    def forward(self, x: Tensor) -> Tensor:
        """Features of x (bins, frames), at least 11 frames."""
        return F.conv1d(x[None], self.weight)[0].relu()


def gram(features: Tensor) -> Tensor:
    """Gram matrix (filters, filters) of features (filters, frames), a mean over frames."""
    return features @ features.T / features.shape[-1]


def gram_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of two Gram matrices relative to the wanted one's, from features (filters, frames).

    The matrices of thousands of filters are never made: |A'A - B'B|^2 = |AA'|^2 - 2 |AB'|^2 + |BB'|^2, and there are
    fewer frames than filters.
    """
    own = (found.T @ found).square().sum() / found.shape[-1] ** 2
    shared = (found.T @ wanted).square().sum() / (found.shape[-1] * wanted.shape[-1])
    of_wanted = (wanted.T @ wanted).square().sum() / wanted.shape[-1] ** 2
    return (own - 2 * shared + of_wanted) / of_wanted.clamp_min(1e-30)


def spectrum(x: Tensor) -> Tensor:
    """Short-time spectrum (1,025, frames), complex, of x (time,); Hann window, centred frames."""
    return torch.stft(x, SIZE, HOP, window=torch.hann_window(SIZE), return_complex=True, pad_mode="constant")


def griffin_lim(magnitude: Tensor, phase: Tensor, samples: int, iterations: int) -> Tensor:
    """A signal (samples,) of a magnitude (bins, frames), from a start phase in radians (Griffin & Lim, 1984).

    With no iterations the phase is kept as it is.
    """
    estimate = torch.polar(magnitude, phase)
    for _ in range(iterations):
        estimate = torch.polar(magnitude, spectrum(_signal(estimate, samples)).angle())
    return _signal(estimate, samples)


def _signal(spectrum: Tensor, samples: int) -> Tensor:
    return torch.istft(spectrum, SIZE, HOP, window=torch.hann_window(SIZE), length=samples)
