"""How unsteady the speed of a recording is, told from its programme alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FFT_SIZE, _HOP = 4096, 1024
_LOWEST_HZ = 150.0
_LOUDEST = 24  # partials of a frame
_FURTHEST = 0.02  # of a partial's frequency, from frame to frame: what moves more is another note
_SHARES = (0.25, 0.5, 0.75)


def drift(x: Tensor, sample_rate_hz: float) -> Tensor:
    """Quartiles (batch, 3) of how far, in percent, all partials of x (batch, time) move together between frames.

    Of the loudest bins of every frame the frequencies are told by how far their phases go in a hop (J. L. Flanagan,
    R. M. Golden, "Phase vocoder", Bell System Technical Journal 45(9), 1966); what they have in common is the median of
    their relative changes: notes begin, but a transport moves all of them. At 24 kHz a hop is 43 ms.

    >>> drift(torch.sin(0.3 * torch.arange(48_000.0))[None], 24_000).max().item() < 0.01
    True
    """
    window = torch.hann_window(_FFT_SIZE, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(x, _FFT_SIZE, _HOP, window=window, center=False, return_complex=True)
    lowest = math.ceil(_LOWEST_HZ * _FFT_SIZE / sample_rate_hz)
    spectrum = spectrum[:, lowest:]
    bins = torch.arange(lowest, lowest + spectrum.shape[1], device=x.device).to(x)[:, None]
    advance = 2 * math.pi * _HOP / _FFT_SIZE * bins  # of the middle of a bin
    turned = torch.angle(spectrum[..., 1:] * spectrum[..., :-1].conj()) - advance
    turned = turned - 2 * math.pi * (turned / (2 * math.pi)).round()
    frequency = bins + turned * _FFT_SIZE / (2 * math.pi * _HOP)  # (batch, bins, hops), in bins
    change = frequency[..., 1:] / frequency[..., :-1] - 1
    level = spectrum.abs()[..., 1:-1]
    level = torch.where(change.abs() < _FURTHEST, level, 0)
    loudest = level.topk(min(_LOUDEST, level.shape[1]), dim=1).indices
    together = change.gather(1, loudest).median(1).values.abs()  # (batch, hops)
    return 100 * torch.quantile(together, together.new_tensor(_SHARES), dim=1).T
