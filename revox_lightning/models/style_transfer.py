"""Imposes the production style of a reference recording: encoder, controller, effects (Steinmetz et al. 2022).

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022: figure 1, sections 2 and 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.dsp import effects
from revox_lightning.dsp.loudness import loudness
from revox_lightning.errors import UserError
from revox_lightning.models.style_controller import Controller, SmallController
from revox_lightning.models.style_encoder import PublishedEncoder, SmallEncoder

_STUDIO = len(effects.PARAMETERS)
_MAKEUP = effects.PARAMETERS.index(effects.MAKEUP)


class Automatic(nn.Module):
    """Gradients through the effects themselves: the recursions know their own."""

    def forward(self, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
        """x (batch, channels, time) with knobs p (batch, 24) -> the same shape."""
        return effects.render(x, p, sample_rate_hz)


class SPSA(nn.Module):
    """Gradients of the knobs by simultaneous perturbation: two more renderings, all knobs moved at once (section 2.2).

    J. C. Spall, IEEE Trans. Automatic Control 37(3), 1992. Of the audio there is none: nothing before it learns.
    """

    def __init__(self, epsilon: float = 5e-4) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
        """x (batch, channels, time) with knobs p (batch, 24) -> the same shape."""
        return _Perturbed.apply(x, p, sample_rate_hz, self.epsilon)  # type: ignore[return-value]


class _Perturbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: Tensor, sample_rate_hz: float, epsilon: float) -> Tensor:
        ctx.save_for_backward(x, p)
        ctx.how = sample_rate_hz, epsilon
        return effects.render_exactly(x, p, sample_rate_hz)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, p = ctx.saved_tensors
        sample_rate_hz, epsilon = ctx.how
        sign = torch.randint(0, 2, p.shape).to(p) * 2 - 1
        up, down = ((p + way * epsilon * sign).clamp(0, 1) for way in (1, -1))
        difference = effects.render_exactly(x, up, sample_rate_hz) - effects.render_exactly(x, down, sample_rate_hz)
        slope = (gradients[0] * difference).sum((1, 2)) / (2 * epsilon)
        return None, slope[:, None] * sign, None, None


class StyleTransfer(nn.Module):
    """``net(x, reference) -> (y, p)``: x with the knobs that make it sound like the reference.

    The encoder hears both at its own rate, mixed to mono; the effects run at any rate, the same on all channels.
    ``chain`` is one of `effects.CHAINS`: a tape has gradients of its own, whatever the processor. With
    ``equal_loudness`` the controller's make-up is put right by what remains between the loudness (ITU-R BS.1770) of
    the reference and that of what comes out of the compressor.
    """

    def __init__(
        self,
        encoder: nn.Module,
        controller: nn.Module,
        processor: nn.Module,
        sample_rate_hz: int = 24_000,
        equal_loudness: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.controller, self.processor = encoder, controller, processor
        self.sample_rate_hz, self.equal_loudness = sample_rate_hz, equal_loudness
        self.channels, self.controls, self.side_channels = 1, 0, 0
        self.receptive_field: int | None = None
        self.latency_samples = self.multiply_adds_per_sample = 0

    def forward(self, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, channels, time), reference (batch, channels, other time) at the net's rate -> y like x, and p."""
        p = self.guess(x, reference)
        y = self.processor(x, p[:, :_STUDIO], self.sample_rate_hz)
        if self.equal_loudness:
            y, p = self._as_loud(y, p, reference)
        return (effects.taped(y, p[:, _STUDIO:], self.sample_rate_hz) if p.shape[1] > _STUDIO else y), p

    def guess(self, x: Tensor, reference: Tensor) -> Tensor:
        """The controller's knobs (batch, knobs), between 0 and 1, before anything is played."""
        return self.controller(self.encoder(x.mean(1)), self.encoder(reference.mean(1)))

    def _as_loud(self, y: Tensor, p: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """y as loud as the reference, as far as the make-up goes, and its knobs."""
        low, high = effects.MAKEUP.low, effects.MAKEUP.high
        makeup_db = low + p[:, _MAKEUP] * (high - low)
        wanted_db = makeup_db + loudness(reference, self.sample_rate_hz) - loudness(y, self.sample_rate_hz)
        wanted_db = wanted_db.clamp(low, high)
        told = (wanted_db - low) / (high - low)
        p = torch.cat((p[:, :_MAKEUP], told[:, None], p[:, _MAKEUP + 1 :]), 1)
        return y * 10 ** ((wanted_db - makeup_db) / 20)[:, None, None], p


def style_transfer(
    size: str, processor: nn.Module, sample_rate_hz: int = 24_000, chain: str = "studio"
) -> StyleTransfer:
    """The net: ``size`` small for few examples and a CPU, efficientnet_b2 as published; its chain may end with a tape.

    Raises UserError for another size or chain, and for nets in the place of effects, which know no tape.
    """
    if chain not in effects.CHAINS:
        raise UserError(f"chain={chain}: choose one of {', '.join(effects.CHAINS)}.")
    if chain != "studio" and not isinstance(processor, Automatic | SPSA):
        raise UserError(f"chain={chain} needs effects, Automatic or SPSA: {type(processor).__name__} has nets instead.")
    if size == "small":
        encoder = SmallEncoder(wavers_hz=sample_rate_hz if chain == "tape" else None)
        return StyleTransfer(encoder, SmallController(encoder, chain), processor, sample_rate_hz, equal_loudness=True)
    if size == "efficientnet_b2":
        encoder = PublishedEncoder()
        return StyleTransfer(encoder, Controller(encoder.embedding, chain=chain), processor, sample_rate_hz)
    raise UserError(f"size={size}: choose one of small, efficientnet_b2.")
