"""The exponential moving average of a net's weights, as diffusion models are played (Karras et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net

_RAMP_STEPS = 1000  # in which the memory grows to its length: the first weights are worth nothing


class WeightAverage:
    """Follows the weights of ``net``: average <- d average + (1 - d) weights, d up to ``decay``, after each step.

    Buffers are not averaged. Raises UserError for a decay that is not between 0 and 1.
    """

    def __init__(self, net: Net, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"system.ema={decay}: give 0 or more and less than 1, such as 0.999, or null.")
        self._net, self._decay, self._steps = net, decay, 0
        self._average: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        weights = list(self._net.parameters())
        if not self._average:
            self._average = [weight.detach().clone() for weight in weights]
        self._average = [average.to(weight.device) for average, weight in zip(self._average, weights, strict=True)]
        self._steps += 1
        decay = self._decay * min(self._steps / _RAMP_STEPS, 1.0)
        for average, weight in zip(self._average, weights, strict=True):
            average.lerp_(weight, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Puts the average into the net and keeps the weights, or the other way round."""
        for weight, average in zip(self._net.parameters(), self._average, strict=bool(self._average)):
            kept = weight.detach().clone()
            weight.copy_(average)
            average.copy_(kept)

    def save(self, checkpoint: dict[str, Any], prefix: str) -> None:
        """Makes the average the checkpoint's weights; those that are trained stand beside them."""
        if not self._average:
            return
        state = checkpoint["state_dict"]
        named = [prefix + name for name, _ in self._net.named_parameters()]  # pyright: ignore[reportAttributeAccessIssue]
        checkpoint["trained"] = {name: state[name] for name in named}
        checkpoint["average_steps"] = self._steps
        state.update({name: average.clone() for name, average in zip(named, self._average, strict=True)})

    def load(self, checkpoint: dict[str, Any], prefix: str) -> None:
        """The reverse of ``save``, before the weights are loaded."""
        if "trained" not in checkpoint:
            return
        state, self._steps = checkpoint["state_dict"], checkpoint["average_steps"]
        named = [prefix + name for name, _ in self._net.named_parameters()]  # pyright: ignore[reportAttributeAccessIssue]
        self._average = [state[name].clone() for name in named]
        state.update(checkpoint["trained"])
