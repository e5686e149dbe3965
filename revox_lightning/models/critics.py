"""Critics of how a signal sounds: Mikkonen et al., DAFx 2023, after MelGAN (Kumar et al., NeurIPS 2019).

Three to choose from, each of several scales: of the spectrum (`MultiSpectralCritic`), of the mel spectrum
(`MultiMelCritic`) and of the waveform (`MultiRateCritic`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, pad
from torch.nn.utils.parametrizations import weight_norm

from revox_lightning.errors import UserError

_LEAST_POWER = 1e-5
_HISS_MARGIN_DB = 10.0  # random peaks stand higher in 5 of 100,000 bins
_WIDENING, _WIDEST = 4, 1024
_GROUP_OUTPUTS, _GROUP_INPUTS = 16, 4  # channels of a group, over spectra and over the waveform
_LOG_STEP = math.log(6.4)


class SpectralCritic(nn.Module):
    """Scores frames of the logarithmic power spectrum, `fft_size` samples each and a quarter apart.

    Five weight-normed convolutions: to 16 channels over 10 frames, twice to four times as many over `kernel` frames in
    groups, over 5 frames, and to one score over 3. They are padded, which the published ones are not: those need
    longer hops. `bands` (bands, fft_size / 2 + 1), where given, sum up the power spectrum before the logarithm. With
    `noise_floor_db`, the RMS in dBFS of white noise as dense as the target's hiss, what lies less than 10 dB above it
    counts as lying there: a net that makes no hiss is else told apart by nothing but that.

    >>> SpectralCritic(512, 21)(torch.zeros(4, 1, 2048)).shape
    torch.Size([4, 1, 18])
    """

    _window: Tensor
    _bands: Tensor | None
    _least_power: Tensor

    def __init__(
        self, fft_size: int, kernel: int, bands: Tensor | None = None, noise_floor_db: float | None = None
    ) -> None:
        super().__init__()
        self.fft_size = fft_size
        self.register_buffer("_window", torch.hann_window(fft_size), persistent=False)
        self.register_buffer("_bands", bands, persistent=False)
        self.register_buffer("_least_power", self._floor(noise_floor_db), persistent=False)
        layers: list[nn.Module] = [_convolution(fft_size // 2 + 1 if bands is None else len(bands), 16, 10)]
        channels = 16
        for _ in range(2):
            wider = min(_WIDENING * channels, _WIDEST)
            layers += [nn.LeakyReLU(0.2), _convolution(channels, wider, kernel, wider // _GROUP_OUTPUTS)]
            channels = wider
        layers += [nn.LeakyReLU(0.2), _convolution(channels, channels, 5)]
        layers += [nn.LeakyReLU(0.2), _convolution(channels, 1, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, 1, time) -> scores (batch, 1, frames). Silence follows what is shorter than half a frame."""
        x = _at_least(x, self.fft_size // 2 + 1)[:, 0]
        spectrum = torch.stft(x, self.fft_size, self.fft_size // 4, window=self._window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (batch, bins, frames)
        power = power if self._bands is None else self._bands @ power
        return self.layers(power.maximum(self._least_power).log10())

    def _floor(self, noise_floor_db: float | None) -> Tensor:
        """The least power of each bin or band, (1 or bands, 1)."""
        if noise_floor_db is None:
            return torch.full((1, 1), _LEAST_POWER)
        hiss = 10 ** ((noise_floor_db + _HISS_MARGIN_DB) / 10) * self._window.square().sum()
        width = torch.ones(1) if self._bands is None else self._bands.sum(dim=1)
        return (hiss * width[:, None]).clamp(min=_LEAST_POWER)


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1, stride: int = 1) -> nn.Module:
    return weight_norm(nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups))


def _at_least(x: Tensor, samples: int) -> Tensor:
    """x, with silence after it up to `samples`: the last hop of a segment may be of any length."""
    return pad(x, (0, max(samples - x.shape[-1], 0)))


def mel_bands(fft_size: int, bands: int, sample_rate_hz: float) -> Tensor:
    """Triangles (bands, fft_size / 2 + 1) of area one, evenly spaced in mel between 0 Hz and the highest frequency.

    Mel as in Slaney's Auditory Toolbox (1998): 15 to 1 kHz, and from there 27 to each factor of 6.4. Where bins are
    wider than bands some hold no bin: they are zero, as in the published critics.

    >>> mel_bands(512, 160, 44_100).shape
    torch.Size([160, 257])
    """
    top_hz = sample_rate_hz / 2
    top_mel = 0.015 * top_hz if top_hz < 1000 else 15 + 27 * math.log(top_hz / 1000) / _LOG_STEP
    mel = torch.linspace(0, top_mel, bands + 2, dtype=torch.float64)
    edges_hz = torch.where(mel < 15, mel / 0.015, 1000 * torch.exp((mel - 15) * _LOG_STEP / 27))
    low_hz, centre_hz, high_hz = (edges_hz[i : bands + i, None] for i in range(3))
    bins_hz = torch.linspace(0, top_hz, fft_size // 2 + 1, dtype=torch.float64)
    rising, falling = (bins_hz - low_hz) / (centre_hz - low_hz), (high_hz - bins_hz) / (high_hz - centre_hz)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (high_hz - low_hz)).float()


class MultiSpectralCritic(nn.Module):
    """A `SpectralCritic` for each of `fft_sizes`, with a kernel each.

    Published: 128, 256, 512, 1024 with 21, 21, 21, 17, and 512, 1024, 2048 with 21, 17, 7, which is the default there.

    Raises UserError where there are not as many kernels as sizes.

    >>> [score.shape[-1] for score in MultiSpectralCritic()(torch.zeros(1, 1, 4096))]
    [34, 18, 10]
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (512, 1024, 2048),
        kernels: Sequence[int] = (21, 17, 7),
        noise_floor_db: float | None = None,
    ) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            SpectralCritic(size, kernel, noise_floor_db=noise_floor_db) for size, kernel in _pairs(fft_sizes, kernels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (batch, channels, time) -> scores (batch * channels, 1, frames) of each critic."""
        each = x.flatten(0, 1)[:, None]
        return [critic(each) for critic in self.critics]


class MultiMelCritic(nn.Module):
    """As `MultiSpectralCritic`, of the power in `bands` mel bands: sizes, kernels and bands as published.

    Raises UserError where there are not as many kernels as sizes.

    >>> [score.shape[-1] for score in MultiMelCritic()(torch.zeros(1, 1, 4096))]
    [130, 66, 34, 18]
    """

    def __init__(
        self,
        fft_sizes: Sequence[int] = (128, 256, 512, 1024),
        kernels: Sequence[int] = (21, 21, 21, 17),
        bands: int = 160,
        sample_rate_hz: float = 44_100,
        noise_floor_db: float | None = None,
    ) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            SpectralCritic(size, kernel, mel_bands(size, bands, sample_rate_hz), noise_floor_db)
            for size, kernel in _pairs(fft_sizes, kernels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (batch, channels, time) -> scores (batch * channels, 1, frames) of each critic."""
        each = x.flatten(0, 1)[:, None]
        return [critic(each) for critic in self.critics]


def _pairs(fft_sizes: Sequence[int], kernels: Sequence[int]) -> list[tuple[int, int]]:
    if not fft_sizes or len(fft_sizes) != len(kernels):
        raise UserError(f"{len(fft_sizes)} FFT sizes and {len(kernels)} kernels of critics: give as many of both")
    return list(zip(fft_sizes, kernels, strict=True))


class WaveformCritic(nn.Module):
    """Scores stretches of `factor ** layers` samples (Kumar et al. 2019, section 2.2 and appendix A).

    Weight-normed convolutions: to `channels` over 15 samples, `layers` times to `factor` times as many, at most 1,024,
    every `factor` samples in groups of four inputs, over 5 and to one score over 3.

    >>> WaveformCritic()(torch.zeros(4, 1, 2048)).shape
    torch.Size([4, 1, 8])
    """

    def __init__(self, channels: int = 16, layers: int = 4, factor: int = 4) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.ReflectionPad1d(7), weight_norm(nn.Conv1d(1, channels, 15)), nn.LeakyReLU(0.2)]
        for _ in range(layers):
            wider = min(factor * channels, _WIDEST)
            stages += [_convolution(channels, wider, 10 * factor + 1, channels // _GROUP_INPUTS, factor)]
            stages += [nn.LeakyReLU(0.2)]
            channels = wider
        widest = min(2 * channels, _WIDEST)
        stages += [_convolution(channels, widest, 5), nn.LeakyReLU(0.2), _convolution(widest, 1, 3)]
        self.layers = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, 1, time) -> scores (batch, 1, frames). Silence follows what is shorter than the first padding."""
        return self.layers(_at_least(x, 8))


class MultiRateCritic(nn.Module):
    """`rates` critics of the waveform, each at half the rate of the one before (Kumar et al. 2019, section 2.2).

    The code of Mikkonen et al. throws the halved signal away, so that their three all hear the full rate.

    >>> [score.shape[-1] for score in MultiRateCritic()(torch.zeros(1, 1, 4096))]
    [16, 8, 4]
    """

    def __init__(self, rates: int = 3, channels: int = 16, layers: int = 4, factor: int = 4) -> None:
        super().__init__()
        self.critics = nn.ModuleList(WaveformCritic(channels, layers, factor) for _ in range(rates))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (batch, channels, time) -> scores (batch * channels, 1, frames) of each critic."""
        x, scores = x.flatten(0, 1)[:, None], []
        for critic in self.critics:
            scores.append(critic(x))
            x = avg_pool1d(_at_least(x, 4), 4, 2, 1, count_include_pad=False)
        return scores
