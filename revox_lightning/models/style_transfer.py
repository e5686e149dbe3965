"""Imposes the production style of a reference recording: encoder, controller, effects (Steinmetz et al. 2022).

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022: figure 1, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.dsp import effects
from revox_lightning.errors import UserError
from revox_lightning.models.style_encoder import PublishedEncoder, SmallEncoder

# Where training starts: broad bands without gain, a mild compressor. The published net starts in the middle of every
# range, which is a threshold of -40 dB and a ratio of 10.5.
_START = {"threshold_db": -12.0, "ratio": 2.0, "attack_seconds": 0.01, "release_seconds": 0.1}
_TAPE_START = {"drive_db": 0.5, "spacing_um": 1.0, "wow_percent": 0.1, "hiss_dbfs": -75.0}


class Controller(nn.Module):
    """From the embeddings of input and reference to the knobs, between 0 and 1 (section 3.2; 596,504 for 1,024)."""

    def __init__(self, embedding: int, hidden: int = 256, chain: str = "studio") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * embedding, hidden), nn.LeakyReLU(0.01),
            nn.Linear(hidden, hidden), nn.LeakyReLU(0.01),
            nn.Linear(hidden, len(effects.CHAINS[chain])),
        )  # fmt: skip
        last: Any = self.layers[-1]
        with torch.no_grad():
            last.weight *= 0.1
            last.bias.copy_(torch.logit(_start(effects.CHAINS[chain]), eps=0.01)[0])

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """Embeddings (batch, embedding) of both -> (batch, knobs)."""
        return torch.sigmoid(self.layers(torch.cat((x, reference), 1)))


def _start(knobs: Sequence[effects.Parameter]) -> Tensor:
    usual = {knob.name: 1.0 if knob.name.endswith("_q") else (knob.low + knob.high) / 2 for knob in knobs}
    return effects.normalised(usual | _START | _TAPE_START, knobs)


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

    The encoder hears both at ``encoder_rate_hz``, mixed to mono; the effects run at any rate, the same on all channels.
    ``chain`` is one of `effects.CHAINS`.
    """

    def __init__(
        self, encoder: nn.Module, processor: nn.Module, sample_rate_hz: int = 24_000, chain: str = "studio"
    ) -> None:
        super().__init__()
        embedding: Any = encoder.embedding
        self.encoder, self.controller, self.processor = encoder, Controller(embedding, chain=chain), processor
        self.sample_rate_hz = sample_rate_hz
        self.channels, self.controls, self.side_channels = 1, 0, 0
        self.receptive_field: int | None = None
        self.latency_samples = self.multiply_adds_per_sample = 0

    def knobs(self, x: Tensor, reference: Tensor) -> Tensor:
        """p (batch, knobs) between 0 and 1, of x and reference (batch, channels, time) at the encoder's own rate."""
        return self.controller(self.encoder(x.mean(1)), self.encoder(reference.mean(1)))

    def forward(self, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, channels, time), reference (batch, channels, other time) at the net's rate -> y like x, and p."""
        p = self.knobs(x, reference)
        return self.processor(x, p, self.sample_rate_hz), p


def style_transfer(
    size: str, processor: nn.Module, sample_rate_hz: int = 24_000, chain: str = "studio"
) -> StyleTransfer:
    """The net with one of the encoders; its chain may end with a tape.

    Raises UserError for another size or chain, and for nets in the place of effects, which know no tape.
    """
    encoders = {"small": SmallEncoder, "efficientnet_b2": PublishedEncoder}
    if size not in encoders:
        raise UserError(f"size={size}: choose one of {', '.join(encoders)}.")
    if chain not in effects.CHAINS:
        raise UserError(f"chain={chain}: choose one of {', '.join(effects.CHAINS)}.")
    if chain != "studio" and not isinstance(processor, Automatic | SPSA):
        raise UserError(f"chain={chain} needs effects, Automatic or SPSA: {type(processor).__name__} has nets instead.")
    return StyleTransfer(encoders[size](), processor, sample_rate_hz, chain)
