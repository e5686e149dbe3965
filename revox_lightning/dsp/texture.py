"""Statistics of sound textures, differentiable (McDermott & Simoncelli, Neuron 71(5), 2011), as imposed there.

The published analysis filters at the full rate. Here every cochlear band is cut out of the spectrum and shifted to
zero, which leaves its envelope as it is, so that an inverse transform of few bins gives the envelope at a low rate;
powers and correlations of modulation bands are sums over the spectra of envelopes (Parseval) and need no filtering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from revox_lightning.dsp import filterbanks

RATE_HZ = 20_000
ENVELOPE_HZ = 400
STEP_SAMPLES = RATE_HZ // ENVELOPE_HZ  # a signal holds a whole number of envelope samples
RMS = 0.01  # of a signal, as published; the statistics depend on it
OFFSETS = (1, 2, 3, 5, 8, 11, 16, 21)  # of the cochlear bands whose envelopes are correlated
_EXPONENT = 0.3  # of the ear's compression
_FLOOR = 1e-10  # of a squared subband envelope: its root has a gradient at zero
_OVERSAMPLING = 3  # of a subband before compression, which widens its spectrum
_TINY = 1e-9  # of an envelope's variance: four orders below what sounds


@dataclass(frozen=True)
class _Group:
    """Cochlear bands (bands) that share one rate: the spectrum's bins (bands, size) each takes, with their weights."""

    bins: Tensor
    weights: Tensor


class Statistics:
    """The imposed statistics of signals of ``samples`` samples at 20 kHz, a multiple of ``STEP_SAMPLES``.

    Calling it with (batch, samples) gives a dict of classes, each (batch, ...): 1,739 numbers at 32 bands. The signal
    counts as circular. Bring it to ``RMS`` first where levels are to be comparable.

    >>> found = Statistics(20_000, bands=8)(torch.randn(1, 20_000) * RMS)
    >>> [tuple(found[name].shape[1:]) for name in ("envelope_mean", "envelope_correlation", "modulation_c2")]
    [(8,), (21,), (8, 6, 2)]
    """

    def __init__(self, samples: int, bands: int = 32) -> None:
        if samples < 10 * STEP_SAMPLES or samples % STEP_SAMPLES:
            raise ValueError(f"expected a multiple of {STEP_SAMPLES} samples, at least ten of them, got {samples}")
        self.samples, self.bands = samples, bands
        bank = filterbanks.cochlear(_frequencies(samples, RATE_HZ), bands)
        bank[:, 0] = 0  # a constant is no sound
        self._powers = bank.square().T.contiguous()  # (frequencies, bands)
        self._frames = samples // STEP_SAMPLES
        self._groups = _groups(bank, self._frames)
        envelope_hz = _frequencies(self._frames, ENVELOPE_HZ)
        self._modulation = filterbanks.modulation(envelope_hz).square().T.contiguous()
        self._octaves = filterbanks.octaves(envelope_hz, ENVELOPE_HZ)
        self._octave_powers = self._octaves[1:].square().T.contiguous()  # C1 takes the upper six
        self._pairs = _pairs(bands, OFFSETS)
        self._neighbours = _pairs(bands, (1, 2))

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The classes of x (batch, samples). Raises ValueError for another length."""
        if x.ndim != 2 or x.shape[-1] != self.samples:
            raise ValueError(f"expected a signal (batch, {self.samples}), got {tuple(x.shape)}")
        spectrum = torch.fft.rfft(x)
        envelopes = self._envelopes(spectrum)
        mean = envelopes.mean(-1, keepdim=True)
        centred = envelopes - mean
        variance = centred.square().mean(-1) + _TINY
        unit = centred / variance.sqrt()[..., None]
        of_envelopes = torch.fft.rfft(unit)
        squares = _power(of_envelopes)
        first, second = self._pairs
        return {
            "subband_variance": _power(spectrum) @ self._powers * (2 / self.samples**2),
            "envelope_mean": mean[..., 0],
            "envelope_variation": variance.sqrt() / mean[..., 0],
            "envelope_skewness": unit.pow(3).mean(-1),
            "envelope_kurtosis": unit.square().square().mean(-1),
            "envelope_correlation": (unit @ unit.mT)[:, first, second] / self._frames,
            "modulation_power": squares @ self._modulation * (2 / self._frames**2),
            "modulation_c1": self._c1(of_envelopes, squares),
            "modulation_c2": self._c2(of_envelopes),
        }

    def envelopes(self, x: Tensor) -> Tensor:
        """Compressed envelopes at 400 Hz of x (batch, samples): (batch, bands, samples / 50)."""
        return self._envelopes(torch.fft.rfft(x))

    def _envelopes(self, spectrum: Tensor) -> Tensor:
        found = []
        for group in self._groups:
            size = group.bins.shape[-1]
            part = spectrum[:, group.bins] * group.weights
            analytic = torch.fft.ifft(part, norm="forward") * (2 / self.samples)
            envelope = (_power(analytic) + _FLOOR).pow(_EXPONENT / 2)
            low = torch.fft.rfft(envelope)[..., : self._frames // 2 + 1]
            found.append(torch.fft.irfft(low, self._frames) * (self._frames / size))
        return torch.cat(found, 1).clamp_min(0)

    def _c1(self, spectrum: Tensor, squares: Tensor) -> Tensor:
        """Correlations (batch, pairs, 6) of one modulation band's output between cochlear bands one and two apart."""
        first, second = self._neighbours
        a, b = torch.view_as_real(spectrum[:, first]), torch.view_as_real(spectrum[:, second])
        together = (a * b).sum(-1) @ self._octave_powers
        alone = squares @ self._octave_powers / self._frames + _TINY
        return together / self._frames / (alone[:, first] * alone[:, second]).sqrt()

    def _c2(self, spectrum: Tensor) -> Tensor:
        """Phase relations (batch, bands, 6, 2) of neighbouring octaves of modulation in one cochlear band."""
        parts = spectrum[:, :, None] * (2 * self._octaves)
        a = torch.view_as_real(torch.fft.ifft(parts, self._frames))
        re, im = a.unbind(-1)
        low_re, low_im, high_re, high_im = re[:, :, :-1], im[:, :, :-1], re[:, :, 1:], im[:, :, 1:]
        doubled = (low_re.square() - low_im.square()) / (low_re.square() + low_im.square() + _TINY).sqrt()
        scale = (doubled.square().mean(-1) * high_re.square().mean(-1) + _TINY**2).sqrt()
        return torch.stack([(doubled * high_re).mean(-1) / scale, (doubled * high_im).mean(-1) / scale], -1)


def _power(spectrum: Tensor) -> Tensor:
    return torch.view_as_real(spectrum).square().sum(-1)


def _frequencies(samples: int, rate_hz: float) -> Tensor:
    return torch.fft.rfftfreq(samples, 1 / rate_hz, dtype=torch.float64)


def _pairs(bands: int, offsets: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Bands so many apart: two tensors of indices."""
    low = [band for offset in offsets for band in range(max(bands - offset, 0))]
    high = [band + offset for offset in offsets for band in range(max(bands - offset, 0))]
    return torch.tensor(low), torch.tensor(high)


def _groups(bank: Tensor, frames: int) -> list[_Group]:
    """Neighbouring bands of one envelope rate: 400 Hz times 2, 3, 4, 6, 8, 12 ..., three times a band's width."""
    spans = [(int(row.nonzero()[0]), int(row.nonzero()[-1]) + 1) if row.any() else (0, 1) for row in bank]
    smooth = sorted([2 * 2**k for k in range(10)] + [3 * 2**k for k in range(10)])
    sizes = [frames * next(m for m in smooth if m * frames >= _OVERSAMPLING * (stop - start)) for start, stop in spans]
    groups: list[_Group] = []
    begun = 0
    for band in range(1, len(bank) + 1):
        if band < len(bank) and sizes[band] == sizes[begun]:
            continue
        bins = torch.stack([spans[k][0] + torch.arange(sizes[k]) for k in range(begun, band)])
        inside = bins < bank.shape[1]
        bins = bins.clamp_max(bank.shape[1] - 1)
        weights = torch.gather(bank[begun:band], 1, bins) * inside
        groups.append(_Group(bins, weights))
        begun = band
    return groups


def errors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of every class the mean squared error relative to the mean square of what is wanted: scalars."""
    return {
        name: (found[name] - value).square().mean() / value.square().mean().clamp_min(1e-30)
        for name, value in wanted.items()
    }


def snr_db(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """The same in dB, as published: 10 lg of the wanted's energy over the error's; infinite where they agree."""
    shares = errors(found, wanted)
    return {name: -10 * math.log10(float(v)) if float(v) > 0 else math.inf for name, v in shares.items()}
