"""What a recording sounds like in some hundred numbers: encoders of production style.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revox_lightning.dsp import style_bands
from revox_lightning.dsp.drift import drift
from revox_lightning.models.efficient_net import CHANNELS, EfficientNetB2

MEAN, SPREAD = 0.322970, 0.278452  # of the published training's spectrograms
_FLOOR = 0.01  # of a band's compressed magnitude, which a logarithm is taken of
_GRAIN = 120  # samples that the level is taken over: 5 ms at 24 kHz
_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class SmallEncoder(nn.Module):
    """For a CPU: what the spectrogram's bands and the level in grains of 5 ms do in time, by statistics.

    ``STATISTICS`` numbers of each of ``style_bands.BANDS`` bands, in units of the logarithm of an amplitude: of the
    mean power, then mean, deviation, maximum and the tenth that is lowest over time. Then ``envelope`` numbers of
    the level: what three convolutions find in it, its quantiles, its mean, the peak, how fast it changes; where the
    sample rate ``wavers_hz`` is given, how far the speed drifts, too.
    """

    STATISTICS = 5

    def __init__(self, channels: int = 32, wavers_hz: float | None = None) -> None:
        super().__init__()
        self._wavers_hz = wavers_hz
        self.bands: Tensor
        self.register_buffer("bands", style_bands.bands(), persistent=False)
        sizes = ((1, channels), (channels, channels), (channels, channels))
        self.convolutions = nn.Sequential(
            *(
                layer
                for inside, out in sizes
                for layer in (nn.Conv1d(inside, out, 9, stride=2, padding=4), nn.PReLU(out))
            )
        )
        self.envelope = 2 * channels + len(_SHARES) + 4 + (0 if wavers_hz is None else 3)
        self.embedding = self.STATISTICS * style_bands.BANDS + self.envelope

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time) -> (batch, embedding)."""
        told = [self._of_bands(x).flatten(1), self._of_level(x)]
        if self._wavers_hz is not None:
            told.append(2 * torch.log(drift(x, self._wavers_hz) + 0.01) + 5)  # of the order of one, as the rest
        return torch.cat(told, 1)

    def _of_bands(self, x: Tensor) -> Tensor:
        """(batch, statistics, bands)."""
        magnitudes = style_bands.spectrogram(x)[:, 1:-1]  # (batch, frames, 2049); the first and last hear an edge
        power = magnitudes.pow(2 / style_bands.EXPONENT).mean(1) @ self.bands
        level = torch.log(magnitudes @ self.bands + _FLOOR) / style_bands.EXPONENT  # (batch, frames, bands)
        lowest = torch.quantile(level, 0.1, dim=1)
        return torch.stack((torch.log(power + 1e-7) / 2, level.mean(1), level.std(1), level.amax(1), lowest), 1)

    def _of_level(self, x: Tensor) -> Tensor:
        """(batch, envelope)."""
        grains = x[:, : x.shape[1] // _GRAIN * _GRAIN].unflatten(1, (-1, _GRAIN)).square().mean(2)
        level = torch.log(grains + 1e-7) / 2  # (batch, grains)
        found = self.convolutions(_about_one(level[:, None]))
        quantiles = torch.quantile(level, level.new_tensor(_SHARES), dim=1).T
        peak, mean = torch.log(x.abs().amax(1) + 1e-4), torch.log(grains.mean(1) + 1e-7) / 2
        levels = torch.cat((quantiles, torch.stack((level.mean(1), mean, peak), 1)), 1)
        change = level.diff(dim=1).abs().mean(1, keepdim=True)
        return torch.cat((found.mean(2), found.std(2), _about_one(levels), change), 1)


class PublishedEncoder(nn.Module):
    """EfficientNet-B2 on the spectrogram, its mean, 1,024 numbers of length 1: 9,147,330 parameters.

    The 4,096 samples of the window are parameters too, as in the authors' code.
    """

    embedding = 1024

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Parameter(torch.hann_window(style_bands.FFT_SIZE))
        self.net, self.project = EfficientNetB2(), nn.Conv2d(CHANNELS, self.embedding, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time) -> (batch, 1024)."""
        found = self.net(((style_bands.spectrogram(x, self.window) - MEAN) / SPREAD)[:, None])
        return nn.functional.normalize(self.project(found.mean((2, 3), keepdim=True))[..., 0, 0], dim=1)


def _about_one(level: Tensor) -> Tensor:
    """Levels of music, in nepers re full scale, as numbers of the order of one."""
    return level / 2 + 2
