"""Second-order equaliser sections, differentiable in signal and parameters, and their exact recursive twin.

R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients" (W3C note, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import sosfilt
from torch import Tensor

KINDS = ("low_shelf", "peak", "high_shelf")


def coefficients(kind: str, gain_db: Tensor, frequency_hz: Tensor, q: Tensor, sample_rate_hz: float) -> Tensor:
    """Six numbers b0, b1, b2, a0, a1, a2 in the last dimension, for parameters of any common shape; a0 is 1.

    Raises ValueError for another kind of section.

    >>> coefficients("peak", torch.zeros(4, 2), torch.full((4, 2), 1e3), torch.ones(4, 2), 44_100).shape
    torch.Size([4, 2, 6])
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}")
    amplitude = 10 ** (gain_db / 40)
    omega = 2 * math.pi * frequency_hz / sample_rate_hz
    cosine, alpha = torch.cos(omega), torch.sin(omega) / (2 * q)
    if kind == "peak":
        b = [1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude]
        a = [1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude]
    else:
        cosine = cosine if kind == "low_shelf" else -cosine
        up, down, edge = amplitude + 1, amplitude - 1, 2 * amplitude.sqrt() * alpha
        b = [up - down * cosine + edge, 2 * (down - up * cosine), up - down * cosine - edge]
        b = [amplitude * part for part in b]
        a = [up + down * cosine + edge, -2 * (down + up * cosine), up + down * cosine - edge]
        if kind == "high_shelf":
            b[1], a[1] = -b[1], -a[1]
    return torch.stack([part / a[0] for part in (*b, *a)], -1)


def response(sections: Tensor, frequency_hz: Tensor, sample_rate_hz: float) -> Tensor:
    """Complex gain (..., frequencies) of sections (..., number, 6) one after another."""
    z = torch.exp(-2j * math.pi * frequency_hz / sample_rate_hz)
    powers = torch.stack([torch.ones_like(z), z, z * z])
    return _quotient(sections, powers.to(sections.dtype.to_complex()))


def filtered(x: Tensor, sections: Tensor, tail_samples: int | None = None) -> Tensor:
    """x (batch, channels, time) through sections (batch, number, 6), from silence; differentiable in both.

    By sampling the frequency response. What rings longer than ``tail_samples`` (by default as long as the slowest pole
    needs to fall by 120 dB, at most 2^17) folds back.
    """
    tail = _tail_samples(sections) if tail_samples is None else tail_samples
    samples = x.shape[-1]
    size = 1 << (samples + tail - 1).bit_length()
    z = torch.exp(-2j * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64, device=x.device) / size)
    powers = torch.stack([torch.ones_like(z), z, z * z])
    # In double precision: near 0 Hz a section is a quotient of differences that single precision does not hold.
    gain = _quotient(sections.double(), powers).to(x.dtype.to_complex())
    return torch.fft.irfft(torch.fft.rfft(x, size) * gain[:, None], size)[..., :samples]


def filtered_exactly(x: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """x (channels, time) through sections (number, 6), recursively in double precision."""
    return np.asarray(sosfilt(np.asarray(sections, dtype=np.float64), x, axis=-1))


def chain(kinds: Sequence[str], gain_db: Tensor, frequency_hz: Tensor, q: Tensor, sample_rate_hz: float) -> Tensor:
    """Sections (batch, number, 6) of an equaliser whose parameters are (batch, number) each."""
    parts = [
        coefficients(kind, gain_db[:, n], frequency_hz[:, n], q[:, n], sample_rate_hz) for n, kind in enumerate(kinds)
    ]
    return torch.stack(parts, 1)


def _quotient(sections: Tensor, powers: Tensor) -> Tensor:
    b, a = (part.to(powers.dtype) @ powers for part in (sections[..., :3], sections[..., 3:]))
    return (b / a).prod(-2)


def _tail_samples(sections: Tensor) -> int:
    a1, a2 = sections[..., 4].detach().double(), sections[..., 5].detach().double()
    root = torch.sqrt((a1 * a1 / 4 - a2).to(torch.complex128))
    radius = torch.maximum((-a1 / 2 + root).abs(), (-a1 / 2 - root).abs()).max().item()
    if radius <= 0:
        return 2
    return min(max(math.ceil(math.log(1e-6) / math.log(min(radius, 1 - 1e-9))), 2), 1 << 17)
