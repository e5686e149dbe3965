"""Gaussian noise with the spectrum of a recording: what diffusion models of hiss must beat (Welch 1967 to measure it).

The cross-spectral matrix S(f) of all channels is measured, and white noise goes through FIR filters whose matrix of
gains is the Hermitian square root of S(f): so levels, spectra, and what channels have in common, come out as measured.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models import random_blocks

_HOP_TAPS = 3  # a block is so many filter lengths long: the transform, of one more, is then well used


class ShapedNoise(nn.Module):
    """Stationary noise of `channels` through filters of `taps`; silent until it is fitted, in closed form.

    Not trained: `fit` sets its one buffer `h` (channels out, channels in, taps), which a state dict carries.
    Raises UserError for fewer than 16 taps.

    >>> noise = ShapedNoise(channels=2, taps=64).fit([torch.randn(2, 5000)])
    >>> noise.sample(1000, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1000])
    """

    h: Tensor
    stream, sample = random_blocks.stream, random_blocks.sample

    def __init__(self, channels: int = 1, taps: int = 8192, rate_hz: float = 44100) -> None:
        super().__init__()
        if taps < 16:
            raise UserError(f"shaped noise with filters of {taps} taps: give at least 16.")
        self.channels, self.taps, self.rate_hz = channels, taps, rate_hz
        self.register_buffer("h", torch.zeros(channels, channels, taps))

    def fit(self, takes: Iterable[Tensor]) -> "ShapedNoise":
        """Measures takes (channels, time), at least one of two samples or more; the mean of each is taken out.

        Long takes are better than many: what repeats more slowly than half of `taps`, or than the longest take, is not
        seen.
        The rms of each channel becomes exactly that of all takes together. Raises UserError for takes of other
        channels, and where there is nothing to measure.
        """
        found = [take.double() - take.double().mean(-1, keepdim=True) for take in takes if take.shape[-1] > 1]
        if not found or any(take.ndim != 2 or take.shape[0] != self.channels for take in found):
            shapes = ", ".join(str(tuple(take.shape)) for take in found[:3]) or "none"
            raise UserError(f"shaped noise is measured on takes (channels={self.channels}, time); there are {shapes}.")
        # Of windows half as long as the filter, whose taps then fade out by themselves towards both ends: a window over
        # them would cost the narrowest bands power, and the scale below would raise all others for it.
        roots = hermitian_root(_on_grid(cross_spectra(found, self.taps // 2), self.taps))
        h = torch.fft.irfft(roots.permute(1, 2, 0), self.taps).roll(self.taps // 2, dims=-1)
        mean_square = torch.cat(found, dim=-1).square().mean(-1)
        made = h.square().sum((1, 2))
        if not torch.isfinite(mean_square).all():
            raise UserError("the noise to measure holds samples that are not finite: cut them off.")
        scale = torch.where(made > 0, mean_square / made.clamp(min=1e-300), 0.0).sqrt()
        self.h.copy_(scale[:, None, None] * h)
        return self

    @torch.no_grad()
    def block(self, number: int, seed: int, rows: int, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next piece (rows, block_samples) of white noise through the filters, by overlap-save (RandomBlocks).

        `carry` (rows, taps) is the end of the white noise before it. Row r is channel r % channels; rows that stand
        for other sets of channels are independent. Raises UserError for rows that are no such sets.
        """
        if rows % self.channels:
            raise UserError(f"noise of {self.channels} channels cannot make {rows}: ask for a multiple.")
        generator = random_blocks.seeded(seed, number)
        if carry is None:
            carry = torch.randn(rows, self.taps, generator=generator)
        white = torch.cat((carry, torch.randn(rows, self.block_samples, generator=generator)), dim=1)
        gains = torch.fft.rfft(self.h.to(white.device), white.shape[1])  # (out, in, bins)
        spectra = torch.fft.rfft(white).unflatten(0, (-1, self.channels))  # (sets, in, bins)
        y = torch.fft.irfft(torch.einsum("oif,sif->sof", gains, spectra), white.shape[1])
        return y[..., self.taps :].flatten(0, 1), white[:, -self.taps :]

    @property
    def block_samples(self) -> int:
        return _HOP_TAPS * self.taps


def cross_spectra(takes: list[Tensor], size: int) -> Tensor:
    """Mean cross-spectral matrices (bins, channels, channels) of takes (channels, time), Hann windows half overlapped.

    Scaled so that the mean over all (two-sided) bins is the covariance. Windows are `size` samples long, or as long as
    the longest take; shorter takes stand as one window with silence around them.
    """
    size = min(size, max(take.shape[-1] for take in takes))
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    total, weight = torch.zeros(1), 0.0
    for take in takes:
        samples = take.shape[-1]
        if samples < size:
            take = torch.nn.functional.pad(take, (0, size - samples))
        spectra = torch.fft.rfft(take.unfold(-1, size, max(size // 2, 1)) * window)  # (channels, frames, bins)
        total = total + torch.einsum("cfb,dfb->bcd", spectra, spectra.conj())
        weight += spectra.shape[1] * float(window.square().sum()) * min(samples / size, 1.0)
    return total / weight


def hermitian_root(matrices: Tensor) -> Tensor:
    """Positive roots A of Hermitian matrices (..., n, n) without negative eigenvalues: A A^H is the matrix."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0).sqrt()[..., None, :].to(vectors.dtype)) @ vectors.mH


def _on_grid(spectra: Tensor, taps: int) -> Tensor:
    """Matrices (bins, n, n) read linearly at the frequencies of a filter of so many taps, (taps // 2 + 1, n, n)."""
    at = torch.linspace(0, len(spectra) - 1, taps // 2 + 1, dtype=torch.float64)
    below = at.floor().long().clamp(max=max(len(spectra) - 2, 0))
    above = (below + 1).clamp(max=len(spectra) - 1)
    share = (at - below)[:, None, None]
    return (1 - share) * spectra[below] + share * spectra[above]
