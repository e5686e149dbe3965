"""Diffusion as in Karras, Aittala, Aila & Laine, "Elucidating the design space of diffusion-based generative models",
NeurIPS 2022, for the delay of a transport and for hiss (Mikkonen et al., DAFx 2023).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models import random_blocks

_EXCURSION = 10.0  # of a trajectory, in rms values of a segment: what lasts longer than a segment comes on top
_MOST_CHURN = math.sqrt(2) - 1  # of a step: more noise than that is not taken out again


class Preconditioning(NamedTuple):
    """D(x) = skip x + out F(inner x, level) (Karras et al. 2022, table 1); each (batch, 1), `level` (batch,)."""

    skip: Tensor
    out: Tensor
    inner: Tensor
    level: Tensor


class Denoiser(nn.Module):
    """A net that takes noise of known strength out of a signal, and the signals that come of it from noise alone.

    `net` maps (batch, time) and a noise level (batch,) to (batch, time). `sigma_data` is the rms of a training
    segment, `sigma_min` and `sigma_max` the range of the noise, in the units of the signal: seconds for trajectories,
    full scale 1.0 for noise. Sampling takes `steps` of Euler's method, with `churn`, in segments of
    `segment_samples`, the next one painted on to the last `overlap_samples` of the one before.
    It has the attributes of a model in this house, but makes signals instead of playing them: `forward` denoises.
    Raises UserError where the noise or the overlap has no room.

    >>> from revox_lightning.models.unet_1d import UNet1d
    >>> denoiser = Denoiser(UNet1d(), 1e-4, 1e-5, 1e-2, steps=4, rate_hz=100, segment_samples=512, overlap_samples=100)
    >>> denoiser.sample(1000, torch.Generator().manual_seed(0)).shape
    torch.Size([1, 1000])
    """

    channels = 1
    controls = 0
    side_channels = 0
    receptive_field = None
    latency_samples = 0

    def __init__(
        self,
        net: nn.Module,
        sigma_data: float,
        sigma_min: float,
        sigma_max: float,
        rho: float = 10.0,
        *,
        steps: int,
        churn: float = 0.0,
        rate_hz: float,
        segment_samples: int,
        overlap_samples: int,
    ) -> None:
        super().__init__()
        if not (0 < sigma_min < sigma_max and sigma_data > 0 and steps > 1):
            raise UserError(
                f"noise of sigma_min={sigma_min} to sigma_max={sigma_max} in {steps} steps about data of "
                f"sigma_data={sigma_data}: give 0 < sigma_min < sigma_max, sigma_data > 0 and at least 2 steps."
            )
        if not 0 < overlap_samples <= segment_samples // 2:
            raise UserError(
                f"an overlap of {overlap_samples} samples does not fit segments of {segment_samples}: at most half."
            )
        self.net = net
        self.sigma_data, self.sigma_min, self.sigma_max, self.rho = sigma_data, sigma_min, sigma_max, rho
        self.steps, self.churn, self.rate_hz = steps, churn, rate_hz
        self.segment_samples, self.overlap_samples = segment_samples, overlap_samples

    def forward(self, x: Tensor, controls: Tensor | None = None, state: Any = None) -> tuple[Tensor, None]:
        """x (batch, 1, time) without the noise in it, of strength exp(controls (batch, 1)) or else `sigma_min`."""
        least = x.new_full((x.shape[0],), math.log(self.sigma_min))
        log_sigma = least if controls is None or not controls.shape[1] else controls[:, 0]
        return self.denoise(x[:, 0], log_sigma.exp())[:, None], None

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Expected signal behind x (batch, time), which holds white noise of rms sigma (batch,)."""
        c = self.preconditioning(sigma)
        return c.skip * x + c.out * self.net(c.inner * x, c.level)

    def preconditioning(self, sigma: Tensor) -> Preconditioning:
        """Keeps what the net sees and says at rms 1 for any sigma (batch,)."""
        total = (sigma**2 + self.sigma_data**2)[:, None]
        return Preconditioning(
            self.sigma_data**2 / total, sigma[:, None] * self.sigma_data / total.sqrt(), total.rsqrt(), sigma.log() / 4
        )

    def noise_levels(self, share: Tensor) -> Tensor:
        """Sigma at `share` of the way from `sigma_max` (0) to `sigma_min` (1): denser towards the end by `rho`."""
        first, last = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return (first + share * (last - first)) ** self.rho

    def schedule(self) -> Tensor:
        """Sigma (steps + 1,) before each step of sampling, and 0 after the last (equation 5)."""
        sigma = self.noise_levels(torch.linspace(0, 1, self.steps, dtype=torch.float64))
        return torch.cat((sigma, sigma.new_zeros(1))).float()

    @torch.no_grad()
    def segments(self, count: int, generator: torch.Generator, known: Tensor | None = None) -> Tensor:
        """Signals (count, segment_samples) out of noise; their beginning is `known` (count, overlap) where it is given.

        Independent of one another. Without `known` all have a mean about 0, as the segments of training.
        """
        z = torch.randn(count, self.segment_samples, generator=generator)
        device = next((p.device for p in self.parameters()), z.device)
        return euler(self.denoise, z.to(device), self.schedule().to(device), self.churn, generator, known)

    def block(self, number: int, seed: int, rows: int, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next piece of `rows` independent signals (random_blocks.RandomBlocks).

        Each segment begins on the last samples of the one before, `carry` (rows, overlap_samples), and is faded in
        over them, as the two agree only about.
        """
        overlap = self.overlap_samples
        y = self.segments(rows, random_blocks.seeded(seed, number), carry)
        if carry is not None:
            fade = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(overlap).to(y) + 0.5) / overlap)
            y = torch.cat(((1 - fade) * carry + fade * y[:, :overlap], y[:, overlap:]), dim=1)
        return y[:, :-overlap], y[:, -overlap:]

    def stream(self, generator: torch.Generator, rows: int = 1) -> Callable[[int], Tensor]:
        """A function that hands out the next n samples (rows, n) of independent signals; any cuts give the same."""
        return random_blocks.stream(self, generator, rows)

    def sample(self, samples: int, generator: torch.Generator, rows: int = 1) -> Tensor:
        """Independent signals (rows, samples)."""
        return self.stream(generator, rows)(samples)

    @property
    def block_samples(self) -> int:
        """New samples in a segment."""
        return self.segment_samples - self.overlap_samples

    @property
    def excursion_seconds(self) -> float:
        """How far a trajectory is expected to stray from its mean, at most."""
        return _EXCURSION * self.sigma_data

    @property
    def multiply_adds_per_sample(self) -> int:
        """Of a sample that is made, over all steps."""
        return round(self._net_multiply_adds * self.steps * self.segment_samples / self.block_samples)

    @property
    def _net_multiply_adds(self) -> int:
        return getattr(self.net, "multiply_adds_per_sample", sum(p.numel() for p in self.net.parameters()))


def euler(
    denoise: Callable[[Tensor, Tensor], Tensor],
    z: Tensor,
    sigma: Tensor,
    churn: float = 0.0,
    generator: torch.Generator | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Signals (batch, time) from white noise `z` of rms 1, along sigma (steps + 1,), by Euler's method.

    Karras et al. 2022, algorithm 2 to first order: `churn` of all steps adds that much fresh noise before each.
    Before every step the first samples are `known` (batch, overlap) with as much noise as the rest has: Lugmayr et
    al., "RePaint", CVPR 2022, equation 8, without its resampling. Always the same noise, so that they lie on one path.
    """
    x = sigma[0] * z
    gamma = min(churn / (len(sigma) - 1), _MOST_CHURN)
    for now, after in pairwise(sigma):
        if gamma:
            fresh = torch.randn(z.shape, generator=generator).to(z)
            x = x + ((1 + gamma) ** 2 - 1) ** 0.5 * now * fresh
            now = (1 + gamma) * now
        if known is not None:
            x = torch.cat((known + now * z[:, : known.shape[1]], x[:, known.shape[1] :]), dim=1)
        slope = (x - denoise(x, now.expand(len(x)))) / now
        x = x + (after - now) * slope
    return x
