"""Spectra that production styles are told by: power-compressed magnitudes, and bands that share them out.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.1: spectra of 4,096 samples in hops of 2,048, magnitudes to the power of 0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

FFT_SIZE, HOP = 4096, 2048
EXPONENT = 0.3
BANDS = 96
_BINS = FFT_SIZE // 2 + 1


def spectrogram(x: Tensor, window: Tensor | None = None) -> Tensor:
    """Power-compressed magnitudes (batch, frames, 2049) of x (batch, time).

    The window (4096,) is Hann's where none is given.

    >>> spectrogram(torch.zeros(2, 131_072)).shape
    torch.Size([2, 65, 2049])
    """
    window = torch.hann_window(FFT_SIZE, dtype=x.dtype, device=x.device) if window is None else window
    transform = torch.stft(x, FFT_SIZE, HOP, window=window, return_complex=True)
    return ((transform.abs() + 1e-8) ** EXPONENT).transpose(1, 2)


def bands(number: int = BANDS) -> Tensor:
    """Means over bins (2049, number): a quarter of equal width below, the others of equal ratio, side by side."""
    linear = number // 4
    edges = torch.cat((torch.arange(linear), torch.logspace(0, 1, number - linear + 1).log10()))
    edges[linear:] = linear * (_BINS / linear) ** edges[linear:]
    edges = edges.round().long()
    weights = torch.zeros(_BINS, number)
    for n in range(number):
        weights[edges[n] : max(edges[n + 1], edges[n] + 1), n] = 1
    return weights / weights.sum(0)


def centres_hz(sample_rate_hz: float, number: int = BANDS) -> Tensor:
    """Middles (number,) of the bands, none at 0 nor at half the rate, where responses are extreme.

    >>> centres_hz(24_000)[[0, 20, -1]]
    tensor([   15.0000,   117.1875, 11405.2734])
    """
    middles = (bands(number) * torch.arange(_BINS)[:, None]).sum(0) * sample_rate_hz / FFT_SIZE
    return middles.clamp(15.0, 0.48 * sample_rate_hz)
