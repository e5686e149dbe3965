"""Critics of how a signal sounds, from its spectra: Mikkonen et al., DAFx 2023, after MelGAN (Kumar et al., 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from revox_lightning.errors import UserError

_LEAST_POWER = 1e-5
_GROUP_CHANNELS = 16  # of the output, in a grouped convolution
_WIDENING, _WIDEST = 4, 1024


class SpectralCritic(nn.Module):
    """Scores frames of the logarithmic power spectrum, `fft_size` samples each and a quarter apart.

    Five weight-normed convolutions: to 16 channels over 10 frames, twice to four times as many over `kernel` frames in
    groups, over 5 frames, and to one score over 3.

    >>> SpectralCritic(512, 21)(torch.zeros(4, 1, 2048)).shape
    torch.Size([4, 1, 18])
    """

    _window: Tensor

    def __init__(self, fft_size: int, kernel: int) -> None:
        super().__init__()
        self.fft_size = fft_size
        self.register_buffer("_window", torch.hann_window(fft_size), persistent=False)
        layers: list[nn.Module] = [_convolution(fft_size // 2 + 1, 16, 10)]
        channels = 16
        for _ in range(2):
            wider = min(_WIDENING * channels, _WIDEST)
            layers += [nn.LeakyReLU(0.2), _convolution(channels, wider, kernel, wider // _GROUP_CHANNELS)]
            channels = wider
        layers += [nn.LeakyReLU(0.2), _convolution(channels, channels, 5)]
        layers += [nn.LeakyReLU(0.2), _convolution(channels, 1, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, 1, time), at least half an `fft_size` long -> scores (batch, 1, frames)."""
        spectrum = torch.stft(x[:, 0], self.fft_size, self.fft_size // 4, window=self._window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return self.layers(power.clamp(min=_LEAST_POWER).log10())


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Module:
    return weight_norm(nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, groups=groups))


class MultiSpectralCritic(nn.Module):
    """A `SpectralCritic` for each of `fft_sizes`, with a kernel each.

    Published: 128, 256, 512, 1024 with 21, 21, 21, 17, and 512, 1024, 2048 with 21, 17, 7, which is the default there.

    Raises UserError where there are not as many kernels as sizes.

    >>> [score.shape[-1] for score in MultiSpectralCritic()(torch.zeros(1, 1, 4096))]
    [34, 18, 10]
    """

    def __init__(self, fft_sizes: Sequence[int] = (512, 1024, 2048), kernels: Sequence[int] = (21, 17, 7)) -> None:
        super().__init__()
        if not fft_sizes or len(fft_sizes) != len(kernels):
            raise UserError(f"{len(fft_sizes)} FFT sizes and {len(kernels)} kernels of critics: give as many of both")
        self.critics = nn.ModuleList(SpectralCritic(*pair) for pair in zip(fft_sizes, kernels, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (batch, channels, time) -> scores (batch * channels, 1, frames) of each critic."""
        each = x.flatten(0, 1)[:, None]
        return [critic(each) for critic in self.critics]
