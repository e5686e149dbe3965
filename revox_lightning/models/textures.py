"""Two ways to say what the texture of a sound is, as losses that move a signal towards it.

McDermott & Simoncelli (Neuron 71(5), 2011): statistics of the ear's envelopes. Ulyanov & Lebedev (2016): Gram matrices
of a random network. Grinstein et al. (ICASSP 2018) start from the content and use the style's loss alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from revox_lightning.dsp import texture as ear
from revox_lightning.models import shallow_random as net

_GRIFFIN_LIM = 32  # iterations


class Problem(Protocol):
    """What is optimised, for windows of one length: signals (samples,) at the problem's own rate and RMS.

    ``begin`` turns a signal into what moves, ``aim`` a content into what the content term compares with; ``loss`` is
    the sum over the classes of statistics of their squared error relative to the style's, plus the content term.
    """

    rate_hz: int
    rms: float

    def begin(self, x: Tensor) -> Tensor: ...
    def aim(self, content: Tensor) -> Any: ...
    def loss(self, z: Tensor, aim: Any) -> Tensor: ...
    def audio(self, z: Tensor, content: Tensor) -> Tensor: ...


class Ear:
    """The signal at 20 kHz, moved until the statistics of McDermott & Simoncelli are the style's."""

    rate_hz, rms = ear.RATE_HZ, ear.RMS

    def __init__(self, style: Tensor, samples: int, bands: int, content_weight: float) -> None:
        self._of = ear.Statistics(samples, bands)
        self._wanted = style_statistics(style, samples, bands)
        self._weight = content_weight

    def begin(self, x: Tensor) -> Tensor:
        return x / self.rms

    def aim(self, content: Tensor) -> Tensor:
        return content / self.rms

    def loss(self, z: Tensor, aim: Tensor) -> Tensor:
        total = torch.stack(list(ear.errors(self._of(z[None] * self.rms), self._wanted).values())).sum()
        if not self._weight:
            return total
        return total + self._weight * (z - aim).square().mean() / aim.square().mean().clamp_min(1e-12)

    def audio(self, z: Tensor, content: Tensor) -> Tensor:
        return z * self.rms


class Network:
    """The log-magnitude spectrogram at 22.05 kHz; the phase starts from the content's and is made to fit."""

    rate_hz, rms = net.RATE_HZ, net.RMS

    def __init__(self, style: Tensor, samples: int, filters: int, seed: int, content_weight: float) -> None:
        self._net = net.ShallowRandom(filters, seed)
        with torch.no_grad():
            self._wanted = self._net(_log_magnitude(style))
        self._weight, self._samples = content_weight, samples

    def begin(self, x: Tensor) -> Tensor:
        return _log_magnitude(x).contiguous()

    def aim(self, content: Tensor) -> Tensor | None:
        if not self._weight:
            return None
        with torch.no_grad():
            return self._net(_log_magnitude(content))

    def loss(self, z: Tensor, aim: Tensor | None) -> Tensor:
        features = self._net(z)
        error = net.gram_error(features, self._wanted)
        if aim is None:
            return error
        return error + self._weight * (features - aim).square().mean() / aim.square().mean().clamp_min(1e-12)

    def audio(self, z: Tensor, content: Tensor) -> Tensor:
        magnitude = torch.expm1(z.clamp_min(0))
        return net.griffin_lim(magnitude, net.spectrum(content).angle(), self._samples, _GRIFFIN_LIM)


def _log_magnitude(x: Tensor) -> Tensor:
    return torch.log1p(net.spectrum(x).abs())


def style_statistics(style: Tensor, samples: int, bands: int) -> dict[str, Tensor]:
    """The mean statistics (1, ...) of as many windows as a style (time,) at 20 kHz and ``ear.RMS`` holds.

    Windows have the length of those that are compared with it, as a longer one has slower modulations; a shorter style
    is one window.
    """
    samples = min(samples, len(style) // ear.STEP_SAMPLES * ear.STEP_SAMPLES)
    count = len(style) // samples
    with torch.no_grad():
        found = ear.Statistics(samples, bands)(style[: count * samples].reshape(count, samples))
    return {name: value.mean(0, keepdim=True) for name, value in found.items()}
