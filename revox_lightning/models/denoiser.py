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
    With `emphasis` a all of that is about x[n] - a x[n - 1] of the signal x, and what is sampled is summed up again:
    the delay of a transport moves by a hundredth of its rms in 10 ms, so that the noise left in it drowns the flutter,
    while its speed is nearly white. Below (1 - a) rate_hz / 2 pi the sum forgets: no drift grows without end.
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
    stream, sample = random_blocks.stream, random_blocks.sample

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
        emphasis: float = 0.0,
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
        if not 0 <= emphasis < 1:
            raise UserError(f"model.emphasis={emphasis}: give 0 or more and less than 1, such as 0.995.")
        self.net, self.emphasis = net, emphasis
        self.sigma_data, self.sigma_min, self.sigma_max, self.rho = sigma_data, sigma_min, sigma_max, rho
        self.steps, self.churn, self.rate_hz = steps, churn, rate_hz
        self.segment_samples, self.overlap_samples = segment_samples, overlap_samples

    def training_segments(self, x: Tensor) -> Tensor:
        """What is learned of segments x (batch, time): they without their means, or with emphasis, one sample less.

        Means stay in what is emphasised: they are the drift, and one segment hands them to the next.
        """
        return x[:, 1:] - self.emphasis * x[:, :-1] if self.emphasis else x - x.mean(-1, keepdim=True)

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

        Independent of one another, as those of training: of mean 0, or with emphasis.
        """
        z = torch.randn(count, self.segment_samples, generator=generator)
        device = next((p.device for p in self.parameters()), z.device)
        return euler(self.denoise, z.to(device), self.schedule().to(device), self.churn, generator, known)

    def block(self, number: int, seed: int, rows: int, carry: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next piece of `rows` independent signals (random_blocks.RandomBlocks).

        Each segment begins on the last samples of the one before, which `carry` (rows, overlap_samples + 1) holds, and
        is faded in over them, as the two agree only about. The last of `carry` is the signal's last sample.
        """
        known, last = (None, None) if carry is None else (carry[:, :-1], carry[:, -1:])
        y = self.segments(rows, random_blocks.seeded(seed, number), known)
        overlap = self.overlap_samples
        if known is not None:
            fade = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(overlap).to(y) + 0.5) / overlap)
            y = torch.cat(((1 - fade) * known + fade * y[:, :overlap], y[:, overlap:]), dim=1)
        made = summed_up(y[:, :-overlap], self.emphasis, last)
        return made, torch.cat((y[:, -overlap:], made[:, -1:]), dim=1)

    @property
    def block_samples(self) -> int:
        """New samples in a segment."""
        return self.segment_samples - self.overlap_samples

    @property
    def excursion_seconds(self) -> float:
        """How far a trajectory is expected to stray from its mean, at most."""
        return _EXCURSION * self.sigma_data / (1 - self.emphasis)

    @property
    def multiply_adds_per_sample(self) -> int:
        """Of a sample that is made, over all steps."""
        return round(self._net_multiply_adds * self.steps * self.segment_samples / self.block_samples)

    @property
    def _net_multiply_adds(self) -> int:
        return getattr(self.net, "multiply_adds_per_sample", sum(p.numel() for p in self.net.parameters()))


def summed_up(x: Tensor, emphasis: float, last: Tensor | None = None) -> Tensor:
    """y[n] = x[n] + emphasis y[n - 1] of x (batch, time); `last` (batch, 1) is y before it, None: nothing.

    >>> summed_up(torch.ones(1, 3), 0.5)
    tensor([[1.0000, 1.5000, 1.7500]])
    """
    if not emphasis:
        return x
    n = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device)
    kept = (emphasis ** (n[:, None] - n)).tril()  # of each earlier sample (n, m); of what is above, nothing
    y = x.double() @ kept.T
    return (y if last is None else y + emphasis ** (n + 1) * last).to(x)


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
