"""Supervised learning from aligned pairs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from revox_lightning.losses import Losses
from revox_lightning.models.contract import Net


class Supervised(nn.Module):
    """Compares the net's output with the wet signal.

    ``objective(net, batch, state) -> (terms, state)`` where ``batch`` has ``dry`` (batch, channel, time), ``wet``
    (batch, channel, scored time) and ``controls``; where ``wet`` is shorter, only the last outputs are scored.
    """

    def __init__(self, losses: Losses) -> None:
        super().__init__()
        self.losses = losses

    def forward(self, net: Net, batch: dict[str, Any], state: Any) -> tuple[dict[str, Tensor], Any]:
        y_hat, state = net(batch["dry"], batch["controls"], state)
        return self.losses(y_hat[..., -batch["wet"].shape[-1] :], batch["wet"]), state

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        return self.losses.total(terms)
