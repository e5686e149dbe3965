"""Filter banks as magnitude responses over frequency: cochlear bands, modulation bands (McDermott & Simoncelli, 2011).

Every bank is (bands, frequencies), real and without phase: a band is the product of a spectrum with one of its rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOW_HZ, HIGH_HZ = 20.0, 10_000.0  # of the cochlear bank
_ERB_PER_NEPER, _HZ_OF_BEND = 9.265, 24.7 * 9.265  # Glasberg & Moore, 1990
_MODULATION_Q = 2.0


def erb_number(hz: Tensor) -> Tensor:
    """Frequency in equivalent rectangular bandwidths of the ear.

    >>> erb_number(torch.tensor([0.0, 1000.0])).round(decimals=1)
    tensor([ 0.0000, 15.6000])
    """
    return _ERB_PER_NEPER * torch.log1p(hz / _HZ_OF_BEND)


def cochlear(hz: Tensor, bands: int = 32, low_hz: float = LOW_HZ, high_hz: float = HIGH_HZ) -> Tensor:
    """Half-cosines on the ERB scale that overlap by half, a low-pass below and a high-pass above: (bands, frequencies).

    Their squares add to one at every frequency. ``bands`` counts the low-pass and the high-pass and is at least 4.

    >>> cochlear(torch.linspace(0, 10_000, 101)).square().sum(0).allclose(torch.ones(101))
    True
    """
    if bands < 4:
        raise ValueError(f"a cochlear bank has at least 4 bands, not {bands}")
    place = erb_number(hz.double())
    ends = erb_number(torch.tensor([low_hz, high_hz], dtype=torch.float64))
    cutoffs = torch.linspace(float(ends[0]), float(ends[1]), bands, dtype=torch.float64)
    centres, span = cutoffs[1:-1, None], 2 * (cutoffs[1] - cutoffs[0])
    offset = (place - centres) / span
    inner = torch.where(offset.abs() < 0.5, torch.cos(math.pi * offset), 0.0)
    below = torch.where(place < cutoffs[1], (1 - inner[0].square()).clamp_min(0).sqrt(), 0.0)
    above = torch.where(place > cutoffs[-2], (1 - inner[-1].square()).clamp_min(0).sqrt(), 0.0)
    return torch.cat([below[None], inner, above[None]]).float()


def modulation(hz: Tensor, bands: int = 20, low_hz: float = 0.5, high_hz: float = 200.0) -> Tensor:
    """Half-cosines of constant Q = 2 on a logarithmic scale: (bands, frequencies).

    Normalised so that the sum of their squares is one on average between the fourth lowest and fourth highest centre.
    """
    centres = torch.logspace(math.log10(low_hz), math.log10(high_hz), bands, dtype=torch.float64)[:, None]

    def shape(at_hz: Tensor) -> Tensor:
        offset = (at_hz - centres) / (2 * centres / _MODULATION_Q)
        return torch.where(offset.abs() < 0.5, torch.cos(math.pi * offset), 0.0)

    inside = torch.linspace(float(centres[3]), float(centres[-4]), 4096, dtype=torch.float64)
    return (shape(hz.double()) / shape(inside).square().sum(0).mean().sqrt()).float()


def octaves(hz: Tensor, rate_hz: float = 400.0, lowest_hz: float = 1.0) -> Tensor:
    """Half-cosines an octave apart on log2 frequency, each from half its centre to twice it: (bands, frequencies).

    The centres are ``rate_hz`` / 4, / 8 ... down to above ``lowest_hz``: 1.5625 to 100 Hz, lowest first.
    """
    count = math.ceil(math.log2(rate_hz / 4 / lowest_hz))
    centres = rate_hz / 4 * 2.0 ** torch.arange(1 - count, 1, dtype=torch.float64)[:, None]
    offset = torch.log2(hz.double().clamp_min(1e-9) / centres) / 2
    return torch.where(offset.abs() < 0.5, torch.cos(math.pi * offset), 0.0).float()
