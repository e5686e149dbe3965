"""Learning a production style from two versions of any recording (Steinmetz et al. 2022, section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revox_lightning.losses import mrstft_magnitudes


class StyleTransferObjective:
    """One half of the corrupted recording is to become like itself before; the other half of that is the reference.

    ``objective(net, batch, state) -> (terms, None)``, where ``batch`` has ``dry`` and ``wet`` (batch, channel, time):
    which half is which is drawn anew. The terms are the spectral distance over six resolutions, and 100 times the mean
    absolute error. In validation the first half is heard, with the second as reference. Where the corruption tells the
    tape's knobs as ``controls`` (batch, 4), the square of their distance is a third term: wow and hiss of another seed
    are not nearer for being alike.
    """

    def __init__(self, mae_weight: float = 100.0, tape_weight: float = 30.0) -> None:
        self.mae_weight, self.tape_weight = mae_weight, tape_weight

    def __call__(self, net: Any, batch: dict[str, Any], state: Any) -> tuple[dict[str, Tensor], None]:
        return self._terms(net, batch, bool(torch.rand(()) < 0.5)), None

    def validate(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The same terms for one batch."""
        return self._terms(net, batch, False)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        told = self.tape_weight * terms["tape"] if "tape" in terms else 0
        return terms["mrstft"] + self.mae_weight * terms["mae"] + told

    def _terms(self, net: Any, batch: dict[str, Any], swapped: bool) -> dict[str, Tensor]:
        half = batch["wet"].shape[-1] // 2
        heard, other = (slice(half, 2 * half), slice(half)) if swapped else (slice(half), slice(half, 2 * half))
        y_hat, p = net(batch["dry"][..., heard], batch["wet"][..., other])
        y = batch["wet"][..., heard]
        terms = {"mrstft": mrstft_magnitudes(y_hat, y), "mae": (y_hat - y).abs().mean()}
        told = batch.get("controls")
        if told is not None and told.numel():
            terms["tape"] = (p[:, -told.shape[1] :] - told).square().mean()
        return terms
