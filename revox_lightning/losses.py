"""Training losses between an estimate and its target, both `(batch, channels, time)`, each a float32 scalar.

Every term is a function of its own; `Losses` picks the weighted ones. The first argument is the estimate: the order
matters. All are computed in float32, also under autocast.
"""

from collections.abc import Callable
from functools import lru_cache, partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from revox_lightning.errors import UserError

EPSILON = 1e-5  # added to the target's power, CoreAudioML/training.py
FFT_SIZES = (2048, 1024, 512)
STYLE_FFT_SIZES = (32, 128, 512, 2048, 8192, 32_768)
_Distance = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # of two power spectra, seen through a window
_HISS_MARGIN_DB = 6.0
_LEAST_POWER = 1e-8  # of a bin, as in auraloss
_LEAST_NORM = 1e-30  # no gradient, rather than 0 / 0, where estimate and target are equal


def esr(y_hat: Tensor, y: Tensor) -> Tensor:
    """Error-to-signal ratio, means over the whole batch (Wright et al., DAFx 2019, eq. 8).

    >>> esr(torch.full((1, 1, 4), 0.9), torch.ones(1, 1, 4)).item()  # doctest: +ELLIPSIS
    0.0099...
    """
    return mse(y_hat, y) / (y.square().mean() + EPSILON)


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


def _emphasised(loss: Callable[[Tensor, Tensor], Tensor], coefficient: float, y_hat: Tensor, y: Tensor) -> Tensor:
    """Another loss, after `preemphasis`."""
    return loss(preemphasis(y_hat, coefficient), preemphasis(y, coefficient))


def mse(y_hat: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return nn.functional.mse_loss(y_hat, y)  # one kernel there and one back


def mae(y_hat: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error."""
    return nn.functional.l1_loss(y_hat, y)


def mrstft(y_hat: Tensor, y: Tensor, noise_floor_db: float | None = None) -> Tensor:
    """Spectral convergence plus log-magnitude distance, mean over FFT sizes (Yamamoto et al., ICASSP 2020, eq. 3-6).

    Hops are a quarter of the window. Sizes that do not fit the segment (time <= size / 2) are left out.
    `noise_floor_db` is the level of the target's hiss as the RMS, in dBFS, of white noise of the same density; the
    log-magnitude term then counts only bins where the target, and the mean of the 5 by 5 bins around, lies at least
    6 dB above it, because elsewhere it teaches the shape of one random noise. The target is a constant: no gradient
    reaches it. Raises UserError where no size fits.
    """
    fitting = [size for size in FFT_SIZES if y.shape[-1] > size // 2]
    if not fitting:
        raise UserError(
            f"the loss mrstft needs segments of more than {min(FFT_SIZES) // 2} samples, got {y.shape[-1]}: "
            "use longer segments or hops, or another loss"
        )
    distance = partial(_distance, noise_floor_db=noise_floor_db)
    return _SpectralDistance.apply(y_hat.flatten(0, 1), y.detach().flatten(0, 1), fitting, 4, distance)  # type: ignore[return-value]


def mrstft_magnitudes(y_hat: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of magnitudes plus that of their logs, mean over six FFT sizes from 32 to 32,768.

    Steinmetz, Bryan and Reiss, JAES 70(9), 2022, section 3.4. Hops are half the window; sizes that do not fit are left
    out. The target is a constant. Raises UserError where no size fits.
    """
    fitting = [size for size in STYLE_FFT_SIZES if y.shape[-1] > size // 2]
    if not fitting:
        raise UserError(f"this loss needs more than {min(STYLE_FFT_SIZES) // 2} samples, got {y.shape[-1]}")
    return _SpectralDistance.apply(y_hat.flatten(0, 1), y.detach().flatten(0, 1), fitting, 2, _linear_and_log)  # type: ignore[return-value]


class _SpectralDistance(torch.autograd.Function):
    """Mean over `sizes` of the distances between the spectra of y_hat and y (rows, time).

    The gradient is worked out beside the value, while the spectra are at hand: through a magnitude |X| it is X times
    a real weight, through the transform and the windowed, mirrored frames it is the way back of each.
    """

    @staticmethod
    def forward(ctx: Any, y_hat: Tensor, y: Tensor, sizes: list[int], overlap: int, distance: _Distance) -> Tensor:
        reach, time = max(sizes) // 2, y.shape[-1]
        mirrored_hat, mirrored = (nn.functional.pad(x, (reach, reach), mode="reflect") for x in (y_hat, y))
        gradient, value = torch.zeros_like(mirrored), y.new_zeros(())
        for size in sizes:
            inside = slice(reach - size // 2, reach + time + size // 2)  # frames are centred on each size's own hops
            window = _hann(size, y.dtype, y.device)
            spectrum_hat, spectrum = (
                torch.fft.rfft(x[:, inside].unfold(-1, size, size // overlap) * window)
                for x in (mirrored_hat, mirrored)
            )
            apart, weight = distance(_power(spectrum_hat), _power(spectrum), window)
            value += apart / len(sizes)
            if ctx.needs_input_grad[0]:
                weight[..., 0] *= 2  # the inverse transform counts all bins between these two twice
                weight[..., -1] *= 2
                frames = torch.fft.irfft(spectrum_hat.mul_(weight), size).mul_(window * (size / 2 / len(sizes)))
                added = _overlap_add(frames, overlap)
                gradient[:, inside][:, : added.shape[1]] += added
        ctx.save_for_backward(_unmirrored(gradient, reach))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.saved_tensors[0] * gradient, None, None, None, None


def _linear_and_log(power_hat: Tensor, power: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Linear plus log-magnitude distance of two power spectra, and its derivative by |X| over |X|."""
    magnitude_hat, share = power_hat.sqrt(), 1 / power_hat.numel()
    apart = magnitude_hat - power.sqrt()
    weight = apart.sign().mul_(share).mul_((1 + magnitude_hat).div_(power_hat)).mul_(power_hat > _LEAST_POWER)
    return (apart.abs().mean() + (power_hat / power).log_().abs_().mean() / 2), weight


def _distance(power_hat: Tensor, power: Tensor, window: Tensor, noise_floor_db: float | None) -> tuple[Tensor, Tensor]:
    """Spectral convergence plus log-magnitude distance of two power spectra, and its derivative by |X| over |X|."""
    hiss = _hiss(noise_floor_db, window)
    ratio = (power_hat / power).sqrt_()  # of the magnitudes
    excess = ratio - 1
    difference, norm = (power * excess).mul_(excess).sum().sqrt(), power.sum().sqrt()
    apart, share = ratio.log().abs_(), 1 / ratio.numel()
    weight = excess.sign().div_(power_hat)
    if hiss is not None:
        audible = _audible(power, hiss)
        share = 1 / audible.sum().clamp(min=1.0)
        apart, weight = apart.mul_(audible), weight.mul_(audible)
    weight.mul_(share).addcdiv_(excess, ratio.mul_((difference * norm).clamp(min=_LEAST_NORM)))
    return difference / norm + apart.sum() * share, weight.mul_(power_hat > _LEAST_POWER)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.conj_physical().mul_(spectrum).real.clamp(min=_LEAST_POWER)  # faster than its parts squared


def _hiss(noise_floor_db: float | None, window: Tensor) -> float | None:
    """Power in a bin up to which the target counts as hiss."""
    if noise_floor_db is None:
        return None
    return 10 ** ((noise_floor_db + _HISS_MARGIN_DB) / 10) * window.square().sum().item()


def _audible(power: Tensor, hiss: float) -> Tensor:
    """1 where a bin of `power` (rows, frames, bins) stands above the hiss, else 0."""
    # a random peak of the hiss itself stands 6 dB out in 2 of 100 bins; its neighbourhood does not
    around = nn.functional.avg_pool2d(power[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    return (torch.minimum(power, around) >= hiss).to(power.dtype)


def _overlap_add(frames: Tensor, overlap: int) -> Tensor:
    """(rows, frames, size) at hops of size / overlap -> (rows, time)."""
    rows, count, size = frames.shape
    out = frames.new_zeros(rows, count + overlap - 1, size // overlap)
    for i, part in enumerate(frames.split(size // overlap, dim=-1)):
        out[:, i : i + count] += part
    return out.flatten(1)


def _unmirrored(gradient: Tensor, reach: int) -> Tensor:
    """The gradient by a signal of that by the signal with `reach` samples mirrored at both ends."""
    inner = gradient[:, reach:-reach].clone()
    inner[:, 1 : reach + 1] += gradient[:, :reach].flip(1)
    inner[:, -reach - 1 : -1] += gradient[:, -reach:].flip(1)
    return inner


@lru_cache(maxsize=8)
def _hann(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(size, dtype=dtype, device=device)


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
            "mse_preemphasis": partial(_emphasised, mse, preemphasis_coefficient),
            "mrstft": partial(mrstft, noise_floor_db=noise_floor_db),
            "mrstft_preemphasis": partial(_emphasised, mrstft, preemphasis_coefficient),
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
        return reduce(add, (self.weights[name] * term for name, term in terms.items()))
