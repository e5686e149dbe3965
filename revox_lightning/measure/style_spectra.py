"""Spectral distances between two production styles: STFT, mel, centroid, and a Frechet distance on log-mel frames.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 4 and the authors' code. All take (channels, time); those of two signals can be trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from revox_lightning.errors import UserError

STFT_SIZES = (32, 128, 512, 2048, 8192, 32768)
MEL_SIZE, MEL_BANDS = 65_536, 128
CENTROID_SIZE, CENTROID_HOP = 2048, 512
FRECHET_SIZE, FRECHET_HOP, FRECHET_BANDS = 2048, 1024, 64
_LEAST_POWER = 1e-8  # of a bin, as in auraloss
_HEARD = 1e-3  # mean magnitude of a bin, over which a frame has a centroid
_FRAMES_PER_DIMENSION = 10


def stft_distance(
    y_hat: Tensor,
    y: Tensor,
    sample_rate_hz: float | None = None,
    limit_hz: float | None = None,
    sizes: Sequence[int] = STFT_SIZES,
) -> Tensor:
    """Mean absolute difference of the magnitudes plus that of their natural logs, mean over resolutions; a scalar.

    The MRSTFT of section 3.4: Hann windows of `sizes`, hops of half a window, no spectral convergence. Both signals are
    (..., time). Sizes that do not fit (time <= size / 2) are left out. Bins above `limit_hz` do not count. Raises
    ValueError for shapes that differ, UserError where no size fits.

    >>> stft_distance(torch.zeros(2, 1, 900), torch.zeros(2, 1, 900)).item()
    0.0
    """
    _refuse_shapes(y_hat, y)
    fitting = [size for size in sizes if y.shape[-1] > size // 2]
    if not fitting:
        raise UserError(
            f"the STFT distance needs more than {min(sizes) // 2} samples, got {y.shape[-1]}: give longer audio"
        )
    parts = []
    for size in fitting:
        kept = _kept(size, sample_rate_hz, limit_hz)
        magnitudes = [_magnitude(x, size, size // 2)[:, :kept] for x in (y_hat, y)]
        parts.append(_linear_and_log(*magnitudes))
    return torch.stack(parts).mean()


def mel_distance(y_hat: Tensor, y: Tensor, sample_rate_hz: float, limit_hz: float | None = None) -> Tensor:
    """The same of 128 mel bands of spectra of 65,536 samples, one after another (the MSD of section 4.2); a scalar.

    Bands that reach above `limit_hz` do not count. Raises ValueError for shapes that differ, UserError for 32,768
    samples or fewer.
    """
    _refuse_shapes(y_hat, y)
    if y.shape[-1] <= MEL_SIZE // 2:
        raise UserError(
            f"the mel distance needs more than {MEL_SIZE // 2} samples, got {y.shape[-1]}: give longer audio"
        )
    filters = mel_filters(MEL_BANDS, MEL_SIZE, sample_rate_hz)
    if limit_hz is not None:
        filters = filters[filters[:, _kept(MEL_SIZE, sample_rate_hz, limit_hz) :].amax(1) == 0]
    bands = [filters.to(x) @ _magnitude(x, MEL_SIZE, MEL_SIZE) for x in (y_hat, y)]
    return _linear_and_log(*bands)


def spectral_centroid_hz(x: Tensor, sample_rate_hz: float, limit_hz: float | None = None) -> float | None:
    """Mean over frames of 2,048 samples of the centroid of the magnitudes; silent frames have none, nor has silence.

    x is (channels, time). Bins above `limit_hz` do not count.

    >>> round(spectral_centroid_hz(torch.sin(torch.arange(8000) * math.pi / 4)[None], 8000) or 0.0, -2)
    1000.0
    """
    if x.shape[-1] <= CENTROID_SIZE // 2:
        return None
    magnitude = _magnitude(x, CENTROID_SIZE, CENTROID_HOP)[:, : _kept(CENTROID_SIZE, sample_rate_hz, limit_hz)]
    bins_hz = torch.arange(magnitude.shape[1]).to(magnitude) * (sample_rate_hz / CENTROID_SIZE)
    total = magnitude.sum(1)
    heard = total > _HEARD * magnitude.shape[1]
    if not heard.any():
        return None
    return ((bins_hz @ magnitude)[heard] / total[heard]).double().mean().item()


@lru_cache(maxsize=16)
def mel_filters(bands: int, size: int, sample_rate_hz: float) -> Tensor:
    """Triangles of unit area (bands, size / 2 + 1), from 0 Hz to half the rate, on Slaney's mel scale.

    Malcolm Slaney, "Auditory toolbox", Interval Research TR 1998-010: linear up to 1 kHz, logarithmic above.
    """
    edges = torch.linspace(0.0, _mel(sample_rate_hz / 2), bands + 2, dtype=torch.float64)
    step = math.log(6.4) / 27
    hz = torch.where(edges < 15.0, edges * 200 / 3, 1000 * torch.exp(step * (edges - 15)))
    bins_hz = torch.linspace(0.0, sample_rate_hz / 2, size // 2 + 1, dtype=torch.float64)
    low, middle, high = (part[:, None] for part in (hz[:-2], hz[1:-1], hz[2:]))
    triangles = torch.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)).clamp(min=0.0)
    return (triangles * 2 / (high - low)).float()


def _mel(frequency_hz: float) -> float:
    if frequency_hz < 1000:
        return frequency_hz * 3 / 200
    return 15 + 27 * math.log(frequency_hz / 1000) / math.log(6.4)


def log_mel(x: Tensor, sample_rate_hz: float) -> Tensor:
    """Frames (frames, 64) of x (channels, time), mixed to mono: log10 of the power in mel bands plus 1e-8, in float64.

    Empty where x is too short for one frame.
    """
    mono = x.mean(0)
    if mono.shape[-1] <= FRECHET_SIZE // 2:
        return torch.zeros(0, FRECHET_BANDS, dtype=torch.float64)
    power = _magnitude(mono[None], FRECHET_SIZE, FRECHET_HOP)[0].square()
    bands = mel_filters(FRECHET_BANDS, FRECHET_SIZE, sample_rate_hz).to(power) @ power
    return torch.log10(bands.double() + 1e-8).T


def frechet_distance(features_hat: Tensor, features: Tensor) -> float:
    """Squared Frechet distance of the normal distributions fitted to two sets of features (frames, dimensions).

    D. C. Dowson, B. V. Landau, J. Multivariate Analysis 12, 1982, eq. 4, in double precision. Raises ValueError for
    sets that do not fit together, UserError for fewer than ten frames a dimension, which leave a covariance unknown.
    """
    if features.ndim != 2 or features_hat.ndim != 2 or features.shape[1] != features_hat.shape[1]:
        raise ValueError(
            f"expected two sets (frames, dimensions), got {tuple(features_hat.shape)} and {tuple(features.shape)}"
        )
    needed, frames = _FRAMES_PER_DIMENSION * features.shape[1], min(len(features), len(features_hat))
    if frames < needed:
        raise UserError(
            f"a Frechet distance in {features.shape[1]} dimensions needs {needed} frames, got {frames}: give more audio"
        )
    mean_hat, mean = (part.double().mean(0) for part in (features_hat, features))
    cov_hat, cov = (torch.cov(part.double().T) for part in (features_hat, features))
    root = _root(cov)
    shared = torch.linalg.eigvalsh(root @ cov_hat @ root).clamp(min=0.0).sqrt().sum()
    distance = (mean_hat - mean).square().sum() + cov_hat.trace() + cov.trace() - 2 * shared
    return max(distance.item(), 0.0)


def fd_logmel(audio_hat: Sequence[Tensor], audio: Sequence[Tensor], sample_rate_hz: float) -> float:
    """`frechet_distance` of the `log_mel` frames of two collections of audio (channels, time) of one rate.

    It is not the "FAD" of the literature, whose features come from a trained network. Raises UserError for less than
    640 frames (about 15 s at 44.1 kHz) on either side.
    """
    sets = [[log_mel(x, sample_rate_hz) for x in part] for part in (audio_hat, audio)]
    nothing = torch.zeros(0, FRECHET_BANDS, dtype=torch.float64)
    return frechet_distance(*(torch.cat([nothing, *part]) for part in sets))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


def _refuse_shapes(y_hat: Tensor, y: Tensor) -> None:
    if y_hat.shape != y.shape or y.ndim == 0:
        raise ValueError(f"expected signals of one shape (..., time), got {tuple(y_hat.shape)} and {tuple(y.shape)}")


def _magnitude(x: Tensor, size: int, hop: int) -> Tensor:
    """(..., time) -> (rows, bins, frames), mirrored at the ends, not less than 1e-4."""
    spectrum = torch.stft(x.reshape(-1, x.shape[-1]), size, hop, window=_hann(size).to(x), return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=_LEAST_POWER).sqrt()


@lru_cache(maxsize=16)
def _hann(size: int) -> Tensor:
    return torch.hann_window(size)


def _linear_and_log(magnitude_hat: Tensor, magnitude: Tensor) -> Tensor:
    logs = (magnitude_hat.clamp(min=1e-12).log() - magnitude.clamp(min=1e-12).log()).abs()
    return (magnitude_hat - magnitude).abs().mean() + logs.mean()


def _kept(size: int, sample_rate_hz: float | None, limit_hz: float | None) -> int:
    """Number of bins up to `limit_hz`. Raises ValueError where no rate tells which."""
    if limit_hz is None:
        return size // 2 + 1
    if not sample_rate_hz:
        raise ValueError("limit_hz needs the sample rate")
    return min(int(limit_hz * size / sample_rate_hz), size // 2) + 1
