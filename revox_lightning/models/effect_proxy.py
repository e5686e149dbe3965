"""Trained nets that stand in for effects, so that gradients pass where effects have none (Steinmetz et al. 2022).

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 2.3: neural proxies (NP), half hybrid (NP-HH) and full hybrid (NP-FH).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.dsp import effects
from revox_lightning.errors import UserError
from revox_lightning.models.effect_tcn import EffectTCN


class EffectProxy(nn.Module):
    """``net(x, p) -> y``: what an equaliser (171,137 parameters) or a compressor (164,993) would make of x.

    It knows one sample rate, that of its training. Make-up gain is not learned but applied, as published.
    Raises UserError for another effect.

    >>> EffectProxy("compressor", width=4)(torch.zeros(2, 1, 100), torch.rand(2, 6)).shape
    torch.Size([2, 1, 100])
    """

    def __init__(self, effect: str, width: int = 64, sample_rate_hz: int = 24_000) -> None:
        super().__init__()
        if effect not in effects.EFFECTS:
            raise UserError(f"model.effect={effect}: choose one of {', '.join(effects.EFFECTS)}.")
        self.effect, self.sample_rate_hz = effect, sample_rate_hz
        self.net = EffectTCN(len(effects.EFFECTS[effect][0]), width)
        self.channels, self.controls, self.side_channels = 1, 0, 0
        self.receptive_field = EffectTCN.receptive_field
        self.latency_samples = 0
        # Of the convolutions; knobs that stand still cost nothing.
        self.multiply_adds_per_sample = sum(weight.numel() for weight in self.net.parameters() if weight.dim() == 3)

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        """x (batch, channels, time) with the effect's knobs p (batch, 18 or 6) in 0 to 1 -> the same shape."""
        if self.effect == "equaliser":
            return self.net(x, p)
        makeup = effects.COMPRESSOR[-1]
        gain = 10 ** ((makeup.low + p[:, -1] * (makeup.high - makeup.low)) / 20)
        told = torch.cat((p[:, :-1], torch.full_like(p[:, -1:], effects.NO_MAKEUP)), 1)
        return gain[:, None, None] * self.net(x, told)


class NeuralProxy(nn.Module):
    """NP: frozen proxies in the place of the effects, in training and when it plays.

    A training takes them from ``equaliser_run`` and ``compressor_run``; a trained net has them among its own weights.
    """

    def __init__(
        self,
        equaliser: EffectProxy | None = None,
        compressor: EffectProxy | None = None,
        equaliser_run: str | None = None,
        compressor_run: str | None = None,
    ) -> None:
        super().__init__()
        self.equaliser = (equaliser or EffectProxy("equaliser")).requires_grad_(False)
        self.compressor = (compressor or EffectProxy("compressor")).requires_grad_(False)
        self.runs = {"equaliser": equaliser_run, "compressor": compressor_run}

    def train(self, mode: bool = True) -> NeuralProxy:
        """The proxies stay as they play: their normalisation goes by what it learned with them."""
        super().train(mode)
        self.equaliser.eval()
        self.compressor.eval()
        return self

    def forward(self, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
        """x (batch, channels, time) with knobs p (batch, 24) -> the same shape; at the proxies' own rate alone."""
        for net, told in zip((self.equaliser, self.compressor), p.split((len(effects.EQUALISER), 6), 1), strict=True):
            if net.sample_rate_hz != sample_rate_hz:
                raise UserError(f"the proxy of the {net.effect} knows {net.sample_rate_hz} Hz, not {sample_rate_hz:g}.")
            x = self._through(net, x, told)
        return x

    def _through(self, net: EffectProxy, x: Tensor, p: Tensor) -> Tensor:
        return net(x, p)


class HalfHybrid(NeuralProxy):
    """NP-HH: proxies in training, the exact effects when it plays; these at any rate."""

    def forward(self, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
        """x (batch, channels, time) with knobs p (batch, 24) -> the same shape."""
        return super().forward(x, p, sample_rate_hz) if self.training else effects.render_exactly(x, p, sample_rate_hz)


class FullHybrid(HalfHybrid):
    """NP-FH: what is heard is always the exact effects'; only the gradients are the proxies', effect by effect."""

    def _through(self, net: EffectProxy, x: Tensor, p: Tensor) -> Tensor:
        return _InPlaceOf.apply(net(x, p), effects.one_exactly(net.effect, x, p, net.sample_rate_hz))  # type: ignore[return-value]


class _InPlaceOf(torch.autograd.Function):
    """The second signal forwards; backwards its gradient goes to the first."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, exact: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
