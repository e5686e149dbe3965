"""Training losses between an estimate and its target, both `(batch, channels, time)`, each a float32 scalar.

Every term is a function of its own; `Losses` picks the weighted ones. The first argument is the estimate: the order
matters. All are computed in float32, also under autocast.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from auraloss.freq import STFTLoss
from torch import Tensor, nn

from revox_lightning.errors import UserError

EPSILON = 1e-5  # added to the target's power, CoreAudioML/training.py
FFT_SIZES = (2048, 1024, 512)
_HISS_MARGIN_DB = 6.0


def esr(y_hat: Tensor, y: Tensor) -> Tensor:
    """Error-to-signal ratio, means over the whole batch (Wright et al., DAFx 2019, eq. 8).

    >>> esr(torch.full((1, 1, 4), 0.9), torch.ones(1, 1, 4)).item()  # doctest: +ELLIPSIS
    0.0099...
    """
    return torch.mean((y - y_hat) ** 2) / (torch.mean(y**2) + EPSILON)


def dc(y_hat: Tensor, y: Tensor) -> Tensor:
    """Squared difference of the means over time, relative to the target's power (Wright et al., DAFx 2019, eq. 10)."""
    return torch.mean((y.mean(dim=-1) - y_hat.mean(dim=-1)) ** 2) / (torch.mean(y**2) + EPSILON)


def preemphasis(x: Tensor, coefficient: float) -> Tensor:
    """First-order high-pass `x[n] - coefficient x[n-1]` along the last axis, from silence."""
    return x - coefficient * nn.functional.pad(x, (1, 0))[..., :-1]


def esr_preemphasis(y_hat: Tensor, y: Tensor, coefficient: float = 0.85) -> Tensor:
    """ESR after `preemphasis` (Wright and Välimäki, ICASSP 2020)."""
    return esr(preemphasis(y_hat, coefficient), preemphasis(y, coefficient))


def a_weighting(frequency_hz: Tensor) -> Tensor:
    """Linear gain of the A curve, 1 at 1 kHz (IEC 61672-1:2013, annex E, eq. E.6)."""
    low, mid_low, mid_high, high = (pole_hz**2 for pole_hz in (20.598997, 107.65265, 737.86223, 12194.217))
    f2 = frequency_hz.double() ** 2
    curve = high * f2**2 / ((f2 + low) * torch.sqrt((f2 + mid_low) * (f2 + mid_high)) * (f2 + high))
    return curve * 10 ** (1.9997 / 20)


def esr_a_weighting(y_hat: Tensor, y: Tensor, sample_rate_hz: int) -> Tensor:
    """ESR of the A-weighted signals; the weighting is exact at every frequency and acts on the zero-padded spectrum."""
    size = 2 * y.shape[-1]
    gain = _a_weighting_of_bins(size, sample_rate_hz).to(y.device)
    weighted = (torch.fft.irfft(torch.fft.rfft(x, size) * gain, size) for x in (y_hat, y))
    return esr(*weighted)


@lru_cache(maxsize=16)
def _a_weighting_of_bins(size: int, sample_rate_hz: int) -> Tensor:
    return a_weighting(torch.fft.rfftfreq(size, 1 / sample_rate_hz, dtype=torch.float64)).float()


def mse(y_hat: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return torch.mean((y - y_hat) ** 2)


def mae(y_hat: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error."""
    return torch.mean(torch.abs(y - y_hat))


def mrstft(y_hat: Tensor, y: Tensor, noise_floor_db: float | None = None) -> Tensor:
    """Spectral convergence plus log-magnitude distance, mean over FFT sizes (Yamamoto et al., ICASSP 2020, eq. 3-6).

    Hops are a quarter of the window. Sizes that do not fit the segment (time <= size / 2) are left out.
    `noise_floor_db` is the level of the target's hiss as the RMS, in dBFS, of white noise of the same density; the
    log-magnitude term then counts only bins where the target, and the mean of the 5 by 5 bins around, lies at least
    6 dB above it, because elsewhere it teaches the shape of one random noise. Raises UserError where no size fits.
    """
    fitting = [size for size in FFT_SIZES if y.shape[-1] > size // 2]
    if not fitting:
        raise UserError(
            f"the loss mrstft needs segments of more than {min(FFT_SIZES) // 2} samples, got {y.shape[-1]}: "
            "use longer segments or hops, or another loss"
        )
    terms = [_stft_distance(y_hat.flatten(0, 1), y.flatten(0, 1), size, noise_floor_db) for size in fitting]
    return torch.stack(terms).mean()


def _stft_distance(y_hat: Tensor, y: Tensor, size: int, noise_floor_db: float | None) -> Tensor:
    resolution = _resolution(size)
    if noise_floor_db is None:
        return resolution(y_hat[:, None], y[:, None])
    resolution.window = resolution.window.to(y.device)
    magnitude_hat, magnitude = resolution.stft(y_hat)[0], resolution.stft(y)[0]
    distance = torch.abs(torch.log(magnitude) - torch.log(magnitude_hat))
    hiss = 10 ** ((noise_floor_db + _HISS_MARGIN_DB) / 20) * resolution.window.square().sum().sqrt()
    # a random peak of the hiss itself stands 6 dB out in 2 of 100 bins; its neighbourhood does not
    around = nn.functional.avg_pool2d(magnitude[:, None] ** 2, 5, 1, 2, count_include_pad=False)[:, 0].sqrt()
    audible = (torch.minimum(magnitude, around) >= hiss).to(distance.dtype)
    log_magnitude = (distance * audible).sum() / audible.sum().clamp(min=1.0)
    return resolution.spectralconv(magnitude_hat, magnitude) + log_magnitude


@lru_cache(maxsize=8)
def _resolution(size: int) -> STFTLoss:
    return STFTLoss(fft_size=size, hop_size=size // 4, win_length=size)


class Losses(nn.Module):
    """The losses named in `weights`, those of weight zero left out; nothing of it enters a state_dict.

    Raises UserError for an unknown name, listing the known ones.

    >>> losses = Losses({"esr": 0.75, "dc": 0.25}, sample_rate_hz=44_100)
    >>> terms = losses(torch.zeros(2, 1, 100), torch.ones(2, 1, 100))
    >>> sorted(terms), round(losses.total(terms).item(), 3)
    (['dc', 'esr'], 1.0)
    """

    def __init__(
        self,
        weights: dict[str, float],
        sample_rate_hz: int,
        preemphasis_coefficient: float = 0.85,
        noise_floor_db: float | None = None,
    ):
        super().__init__()
        known: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "esr": esr,
            "dc": dc,
            "esr_preemphasis": partial(esr_preemphasis, coefficient=preemphasis_coefficient),
            "esr_a_weighting": partial(esr_a_weighting, sample_rate_hz=sample_rate_hz),
            "mse": mse,
            "mae": mae,
            "mrstft": partial(mrstft, noise_floor_db=noise_floor_db),
        }
        for name in weights:
            if name not in known:
                raise UserError(f"unknown loss {name!r}: choose from {', '.join(known)}")
        self.weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
        if not self.weights:
            raise UserError(f"no loss has a weight, so there is nothing to train on: weight one of {', '.join(known)}")
        self.functions = {name: known[name] for name in self.weights}

    def forward(self, y_hat: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Unweighted terms by name. Raises ValueError for shapes that differ, are empty or not three-dimensional."""
        if y_hat.shape != y.shape or y.ndim != 3 or y.numel() == 0:
            raise ValueError(
                f"expected estimate and target of one shape (batch, channels, time), "
                f"got {tuple(y_hat.shape)} and {tuple(y.shape)}"
            )
        with torch.autocast(y_hat.device.type, enabled=False):
            return {name: function(y_hat.float(), y.float()) for name, function in self.functions.items()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the terms that `forward` returned."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
