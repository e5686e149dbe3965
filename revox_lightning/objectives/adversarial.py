"""Learning from recordings that are no pairs: a net against critics, by hinge losses (Mikkonen et al., DAFx 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.models.contract import Net


class Adversarial(nn.Module):
    """Lets critics tell what the net makes from the wet signal, and the net deceive them.

    ``objective(net, batch, state, round) -> (terms, state)``, where ``batch`` has ``dry`` (batch, channel, time),
    ``wet`` (batch, channel, scored time) from elsewhere (data.unpaired) and ``controls``. In the round "critics" they
    learn, by the sum over scales of mean max(0, 1 + D(made)) + mean max(0, 1 - D(real)); in the round "net" the net
    does, by that of mean -D(made). Each of the two has an optimiser of its own.
    """

    rounds = ("critics", "net")

    def __init__(self, critics: nn.Module) -> None:
        super().__init__()
        self.critics = critics

    def forward(self, net: Net, batch: dict[str, Any], state: Any, round: str = "net") -> tuple[dict[str, Tensor], Any]:
        with torch.set_grad_enabled(round == "net" and torch.is_grad_enabled()):
            made, state = net(batch["dry"], batch["controls"], state)
        real = batch["wet"]
        made = made[..., -real.shape[-1] :]
        if round == "net":
            return {"deceived": torch.stack([-score.mean() for score in self.critics(made)]).sum()}, state
        scales = zip(self.critics(made), self.critics(real), strict=True)
        return {"critics": torch.stack([hinge(*scores) for scores in scales]).sum()}, state

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The one term of the round."""
        (term,) = terms.values()
        return term


def hinge(made: Tensor, real: Tensor) -> Tensor:
    """Mean max(0, 1 + made) + mean max(0, 1 - real) of scores: 0 where critics are right by a margin of 1.

    >>> hinge(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 3.0])).item()
    0.5
    """
    return torch.relu(1 + made).mean() + torch.relu(1 - real).mean()
