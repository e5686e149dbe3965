"""Trajectories as a Gaussian process of measured spectrum: what diffusion models of wow and flutter must beat."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from revox_lightning.models import random_blocks
from revox_lightning.models.shaped_noise import ShapedNoise

_EXCURSION = 1.5  # re the largest deviation that was measured: another stretch strays further


class GaussianProcess(nn.Module):
    """Stationary Gaussian deviation of a delay, in seconds at `rate_hz`, with the spectrum of what it was fitted on.

    The spectrum is the mean of periodograms (Welch 1967) of half of `taps`, 82 s by default, for a drift of some ten
    seconds. Its standard deviation is exactly the measured one. Lines, such as the capstan's, become narrow bands, and
    whatever is not Gaussian becomes so. Fitted in closed form by `fit`, not trained: a state dict holds the filter.

    >>> process = GaussianProcess(taps=64).fit([torch.randn(5000)])
    >>> process.sample(1000, torch.Generator().manual_seed(0)).shape
    torch.Size([1, 1000])
    """

    channels = 1
    largest: Tensor
    stream, sample = random_blocks.stream, random_blocks.sample

    def __init__(self, taps: int = 16384, rate_hz: float = 100) -> None:
        super().__init__()
        self.rate_hz = rate_hz
        self.noise = ShapedNoise(1, taps, rate_hz)
        self.register_buffer("largest", torch.zeros(()))

    def fit(self, takes: Iterable[Tensor]) -> "GaussianProcess":
        """Measures trajectories (time,) or (1, time); raises UserError where there are none."""
        rows = [take.reshape(1, -1) for take in takes]
        self.noise.fit(rows)
        self.largest.copy_(torch.stack([(row - row.mean()).abs().max() for row in rows if row.numel()]).max())
        return self

    def block(self, number: int, seed: int, rows: int, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next piece of `rows` independent trajectories (random_blocks.RandomBlocks)."""
        return self.noise.block(number, seed, rows, carry)

    @property
    def block_samples(self) -> int:
        return self.noise.block_samples

    @property
    def excursion_seconds(self) -> float:
        """How far a trajectory is expected to stray from its mean, at most."""
        return _EXCURSION * float(self.largest)
