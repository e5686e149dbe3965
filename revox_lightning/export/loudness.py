"""How loud a model plays, and how much it distorts levels: the two figures that players of .nam files show.

Neural Amp Modeler measures them with a recording of its own; here it is noise with the spectrum of music, so figures
are comparable among models of this program, and close to those of others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from revox_lightning.stream import stream

_SECONDS, _SETTLING_SECONDS = 4.0, 0.5
_RMS_DBFS = -18.0
_STEPS = 11  # of the input's level, from silence to full


@lru_cache(maxsize=4)
def signal(rate_hz: int) -> Tensor:
    """Four seconds of noise whose power falls by 3 dB an octave from 80 Hz on, -18 dBFS rms: (1, 1, time)."""
    samples = round(_SECONDS * rate_hz)
    hz = torch.fft.rfftfreq(samples, 1 / rate_hz)
    white = torch.randn(2, len(hz), generator=torch.Generator().manual_seed(0))
    shape = torch.where(hz < 80, hz / 80, (80 / hz.clamp(min=1)).sqrt())
    x = torch.fft.irfft(torch.complex(*white) * shape, samples)
    return (x * 10 ** (_RMS_DBFS / 20) / x.square().mean().sqrt())[None, None]


@torch.no_grad()
def loudness_db(net: Any, rate_hz: int) -> float:
    """Level of the output in dB re full scale, rms, for the signal as it is."""
    return 20 * float(_rms(net, signal(rate_hz), rate_hz).clamp(min=1e-10).log10())


@torch.no_grad()
def gain(net: Any, rate_hz: int) -> float:
    """0 for a model whose output follows the input's level, 1 for one that is as loud however soft it is played.

    With y_i the output's level for an input of i tenths: (sum y_i - 5.5 y_10) / 5.5 y_10, kept within 0 and 1.
    """
    x = signal(rate_hz)[..., :rate_hz]
    levels = [float(_rms(net, n / (_STEPS - 1) * x, rate_hz)) for n in range(_STEPS)]
    linear = 0.5 * _STEPS * levels[-1]
    return 0.0 if linear <= 0 else min(max((sum(levels) - linear) / linear, 0.0), 1.0)


def _rms(net: Any, x: Tensor, rate_hz: int) -> Tensor:
    settle = max(round(_SETTLING_SECONDS * rate_hz), getattr(net, "preroll_samples", 0))
    silence = torch.zeros(1, 1, settle)
    return stream(net, torch.cat([silence, x], dim=-1))[0][..., settle:].square().mean().sqrt()
