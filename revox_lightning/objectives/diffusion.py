"""Denoising score matching in the weighting of Karras et al., NeurIPS 2022 (equation 8, lambda = 1 / c_out^2)."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.denoiser import Denoiser

log = logging.getLogger(__name__)

_SEED = 0  # of the noise of validation
_FAR = 2.0  # from the data's rms: a denoiser set for another one learns and samples badly


class Diffusion(nn.Module):
    """Teaches a ``Denoiser`` to take noise of any strength out of segments of the signal it is to make.

    ``objective(net, batch, state) -> ({"denoise": loss}, None)`` on ``batch["wet"]`` (batch, 1, time) alone, without
    the mean of each segment, or with the denoiser's emphasis. Noise levels are spread over the sampler's schedule at
    random; ``validate`` takes the same levels and the same noise at each call, so that validations compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def forward(self, net: Net, batch: dict[str, Any], state: Any) -> tuple[dict[str, Tensor], None]:
        denoiser = _denoiser(net)
        x = denoiser.training_segments(batch["wet"][:, 0])
        if not self._told:
            self._told = True
            _tell(denoiser, x)
        share = torch.rand(len(x), device=x.device)
        return {"denoise": _loss(denoiser, x, denoiser.noise_levels(share), torch.randn_like(x))}, None

    def validate(self, net: Net, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss with noise that is the same each time, its levels spread evenly over the batch."""
        denoiser = _denoiser(net)
        x = denoiser.training_segments(batch["wet"][:, 0])
        share = (torch.arange(len(x), device=x.device) + 0.5) / len(x)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(_SEED)).to(x)
        return {"denoise": _loss(denoiser, x, denoiser.noise_levels(share), noise)}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The one term there is."""
        return terms["denoise"]


def _loss(denoiser: Denoiser, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Mean square error of what the net itself says of x (batch, time) + sigma (batch,) noise."""
    noisy = x + sigma[:, None] * noise
    c = denoiser.preconditioning(sigma)
    target = (x - c.skip * noisy) / c.out
    return (denoiser.net(c.inner * noisy, c.level) - target).square().mean()


def _denoiser(net: Net) -> Denoiser:
    if not isinstance(net, Denoiser):
        raise UserError(
            f"the diffusion objective trains a Denoiser and was given {type(net).__name__}: let model be one, and take "
            "one channel of the data (data.channels=left)."
        )
    return net


def _tell(denoiser: Denoiser, x: Tensor) -> None:
    rms = float(x.square().mean().sqrt())
    if not denoiser.sigma_data / _FAR <= rms <= denoiser.sigma_data * _FAR:
        log.warning(
            "the first segments have an rms of %.2g and the denoiser is set for %.2g: set model.sigma_data=%.2g, and "
            "model.sigma_min and model.sigma_max in proportion.",
            rms,
            denoiser.sigma_data,
            rms,
        )
