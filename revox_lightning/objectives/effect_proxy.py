"""Learning to stand in for an effect at any setting of its knobs (Steinmetz et al. 2022, section 2.3)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from revox_lightning.losses import mrstft_magnitudes


class EffectProxyObjective:
    """The net is to make of ``dry`` what the effect made of it, ``wet``, told the same knobs, ``controls``.

    ``objective(net, batch, state) -> (terms, None)`` with audio (batch, channel, time) and knobs (batch, knobs). The
    terms are the spectral distance over six resolutions, and 100 times the mean absolute error, as published.
    """

    def __init__(self, mae_weight: float = 100.0) -> None:
        self.mae_weight = mae_weight

    def __call__(self, net: Any, batch: dict[str, Any], state: Any) -> tuple[dict[str, Tensor], None]:
        return self.validate(net, batch), None

    def validate(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms for one batch."""
        y_hat, y = net(batch["dry"], batch["controls"]), batch["wet"]
        return {"mrstft": mrstft_magnitudes(y_hat, y), "mae": (y_hat - y).abs().mean()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return terms["mrstft"] + self.mae_weight * terms["mae"]
