"""Descent by simultaneous perturbation, for benchmarks/parameter_recovery.py: two renderings a step, no derivative.

J. C. Spall, IEEE Trans. Automatic Control 37(3), 1992; directions from a Hadamard matrix as in S. Bhatnagar, M. C. Fu,
S. I. Marcus, I.-J. Wang, ACM TOMACS 13(2), 2003: after 32 of them what they say of one knob holds nothing of another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.linalg import hadamard
from torch import Tensor

from revox_lightning.dsp import effects
from revox_lightning.measure.style_spectra import stft_distance

KNOBS = len(effects.PARAMETERS)
_ORDER = 32
_LEAST_POWER = 1e-8  # of a bin, as in stft_distance


class Distance:
    """What is made small, of rows at once: the STFT distance plus ten times the mean absolute error.

    x, y (rows, 1, time) dry and wet; both the estimate and y are told by the peak of y. The exact chain renders.
    """

    def __init__(self, x: Tensor, y: Tensor, sample_rate_hz: int, sizes: Sequence[int]) -> None:
        self.x, self.scale = x, 1 / y.abs().amax((1, 2), keepdim=True)
        self.y, self.sample_rate_hz = (y * self.scale)[:, 0], sample_rate_hz
        self.windows = [torch.hann_window(size) for size in sizes]
        self.wanted = [self._magnitude(self.y, window) for window in self.windows]

    def __call__(self, p: Tensor) -> Tensor:
        """Of p (tries, rows, 24) between 0 and 1 the distances (tries, rows)."""
        tries = len(p)
        y_hat = effects.render_exactly(self.x.repeat(tries, 1, 1), p.flatten(0, 1), self.sample_rate_hz)
        y_hat = (y_hat * self.scale.repeat(tries, 1, 1))[:, 0]
        found = 10 * (y_hat.unflatten(0, p.shape[:2]) - self.y).abs().mean(2)
        for window, wanted in zip(self.windows, self.wanted, strict=True):
            magnitude = self._magnitude(y_hat, window).unflatten(0, p.shape[:2])
            apart = (magnitude - wanted).abs().mean((2, 3)) + (magnitude.log() - wanted.log()).abs().mean((2, 3))
            found = found + apart / len(self.windows)
        return found

    @staticmethod
    def _magnitude(x: Tensor, window: Tensor) -> Tensor:
        spectrum = torch.stft(x, len(window), len(window) // 2, window=window, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).clamp(min=_LEAST_POWER).sqrt()


def distance(y_hat: Tensor, y: Tensor, sizes: Sequence[int]) -> Tensor:
    """The same of one estimate and one target (..., time), to be trained on."""
    return stft_distance(y_hat, y, sizes=sizes) + 10 * (y_hat - y).abs().mean()


def directions(rows: int, random: torch.Generator) -> Tensor:
    """(32, rows, 24) of -1 and 1: the mean over the 32 of the products of two knobs is 0, in every row."""
    balanced = torch.from_numpy(hadamard(_ORDER)[:, 1 : KNOBS + 1]).float()
    signs = torch.randint(0, 2, (rows, KNOBS), generator=random) * 2.0 - 1
    return balanced[torch.randperm(_ORDER, generator=random)][:, None] * signs


def descended(
    of: Distance, z: Tensor, steps: int, rate: float, widths: tuple[float, float], random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Logits (rows, 24) after so many steps of Adam, or the best on the way, and their distances (rows,).

    ``widths``: how far the first and the last perturbation go, in logits; they shrink geometrically, the rate along a
    cosine to a twentieth.
    """
    z = z.clone()
    adam = torch.optim.Adam([z], lr=rate, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: 0.05 + 0.95 * (1 + math.cos(math.pi * n / steps)) / 2)
    best, least = z.clone(), torch.full(z.shape[:1], math.inf)
    ways = directions(len(z), random)
    for n in range(steps):
        if n and n % _ORDER == 0:
            ways = directions(len(z), random)
        way, width = ways[n % _ORDER], widths[0] * (widths[1] / widths[0]) ** (n / steps)
        up, down = of(torch.sigmoid(torch.stack([z + width * way, z - width * way])))
        middle = (up + down) / 2
        better = middle < least
        best[better], least[better] = z[better], middle[better]
        z.grad = ((up - down) / (2 * width))[:, None] * way
        adam.step()
        decay.step()
    ends = of(torch.sigmoid(torch.stack([z, best])))
    return torch.where((ends[0] < ends[1])[:, None], z, best), ends.amin(0)
