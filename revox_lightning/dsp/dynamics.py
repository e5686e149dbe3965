"""Compressor, expander, limiter and saturation: differentiable in signal and parameters, batched, at any rate.

D. Giannoulis, M. Massberg, J. D. Reiss, "Digital dynamic range compressor design", JAES 60(6), 2012: the gain computer
of section 2.2 and the smooth branching detector of 2.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

SILENCE_DB = -96.0  # no level is lower than this
_EPSILON = 1e-8


def level_db(x: Tensor) -> Tensor:
    """The level of every sample, at least `SILENCE_DB`."""
    return (20 * torch.log10(x.abs() + _EPSILON)).clamp(min=SILENCE_DB)


def compressed_db(level: Tensor, threshold_db: Tensor, ratio: Tensor, knee_db: Tensor) -> Tensor:
    """What a compressor makes of a level, both in dB: above the threshold a ``ratio``-th, in the knee a parabola."""
    over = level - threshold_db
    width = torch.where(knee_db > 0, knee_db, torch.ones_like(knee_db))
    bent = level + (1 / ratio - 1) * (over + knee_db / 2) ** 2 / (2 * width)
    within = (over.abs() * 2 <= knee_db) & (knee_db > 0)
    return torch.where(within, bent, torch.where(over > 0, threshold_db + over / ratio, level))


def expanded_db(level: Tensor, threshold_db: Tensor, ratio: Tensor, knee_db: Tensor) -> Tensor:
    """What a downward expander makes of a level, both in dB: below the threshold ``ratio`` times the distance to it."""
    over = level - threshold_db
    width = torch.where(knee_db > 0, knee_db, torch.ones_like(knee_db))
    bent = level + (1 - ratio) * (over - knee_db / 2) ** 2 / (2 * width)
    within = (over.abs() * 2 <= knee_db) & (knee_db > 0)
    return torch.where(within, bent, torch.where(over < 0, threshold_db + over * ratio, level))


def compressor(
    x: Tensor,
    sample_rate_hz: float,
    threshold_db: Tensor,
    ratio: Tensor,
    attack_seconds: Tensor,
    release_seconds: Tensor,
    knee_db: Tensor,
    makeup_db: Tensor,
    expander: bool = False,
) -> Tensor:
    """x (batch, channels, time) through a compressor (or a downward expander), parameters (batch,) each.

    Channels are linked: the loudest sample of all of them says the gain. Attack and release are the times in which the
    gain's change goes from 10 to 90 % of its way. Gradients are exact wherever the detector does not change branches.
    """
    threshold_db, ratio, knee_db = (part[:, None] for part in (threshold_db, ratio, knee_db))
    level = level_db(x.abs().amax(1))
    curve = expanded_db if expander else compressed_db
    reduction = level - curve(level, threshold_db, ratio, knee_db)
    attack, release = (torch.exp(-math.log(9) / (sample_rate_hz * t)) for t in (attack_seconds, release_seconds))
    smooth = smoothed(reduction, attack, release)
    return x * 10 ** ((makeup_db[:, None] - smooth) / 20)[:, None]


def smoothed(reduction: Tensor, attack: Tensor, release: Tensor) -> Tensor:
    """One pole that follows (batch, time) with another coefficient (batch,) upwards than downwards; from 0.

    y[n] = a y[n-1] + (1 - a) x[n], a = attack where x[n] > y[n-1], else release.
    """
    return _Smoothed.apply(reduction, attack, release)  # type: ignore[return-value]


class _Smoothed(torch.autograd.Function):
    """The recursion as a compiled loop, forwards and, for its gradients, backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, attack: Tensor, release: Tensor) -> Tensor:
        arrays = [np.ascontiguousarray(part.detach().double().cpu().numpy()) for part in (x, attack, release)]
        y = _follow(*arrays)
        ctx.save_for_backward(x, attack, release)
        ctx.y = y
        return torch.from_numpy(y).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kept = ctx.saved_tensors
        given = (*kept, gradients[0])
        x, attack, release, dy = (np.ascontiguousarray(part.detach().double().cpu().numpy()) for part in given)
        found = _follow_back(x, attack, release, ctx.y, dy)
        dx, da, dr = (torch.from_numpy(part).to(one) for part, one in zip(found, kept, strict=True))
        return dx, da, dr


@njit(cache=True, parallel=True)
def _follow(x, attack, release):  # pragma: no cover
    y = np.empty_like(x)
    for row in prange(x.shape[0]):
        last = 0.0
        for n in range(x.shape[1]):
            a = attack[row] if x[row, n] > last else release[row]
            last = a * last + (1 - a) * x[row, n]
            y[row, n] = last
    return y


@njit(cache=True, parallel=True)
def _follow_back(x, attack, release, y, dy):  # pragma: no cover
    dx = np.empty_like(x)
    da, dr = np.zeros_like(attack), np.zeros_like(release)
    for row in prange(x.shape[0]):
        g = 0.0
        for n in range(x.shape[1] - 1, -1, -1):
            before = y[row, n - 1] if n else 0.0
            rising = x[row, n] > before
            a = attack[row] if rising else release[row]
            g += dy[row, n]
            dx[row, n] = (1 - a) * g
            if rising:
                da[row] += g * (before - x[row, n])
            else:
                dr[row] += g * (before - x[row, n])
            g *= a
    return dx, da, dr


def compressor_exactly(
    x: np.ndarray,
    sample_rate_hz: float,
    threshold_db: float,
    ratio: float,
    attack_seconds: float,
    release_seconds: float,
    knee_db: float,
    makeup_db: float,
    expander: bool = False,
) -> np.ndarray:
    """The same for one signal (channels, time), sample by sample in double precision, without gradients."""
    attack, release = (math.exp(-math.log(9) / (sample_rate_hz * t)) for t in (attack_seconds, release_seconds))
    x = np.ascontiguousarray(x, dtype=np.float64)
    return _compress(x, threshold_db, ratio, attack, release, knee_db, makeup_db, expander)


@njit(cache=True)
def _compress(x, threshold, ratio, attack, release, knee, makeup, expander):  # pragma: no cover
    y = np.empty_like(x)
    last = 0.0
    for n in range(x.shape[1]):
        peak = 0.0
        for c in range(x.shape[0]):
            peak = max(peak, abs(x[c, n]))
        level = max(20 * np.log10(peak + _EPSILON), SILENCE_DB)
        over = level - threshold
        wanted = 0.0
        if expander:
            if knee > 0 and 2 * abs(over) <= knee:
                wanted = (ratio - 1) * (over - knee / 2) ** 2 / (2 * knee)
            elif over < 0:
                wanted = over - over * ratio
        elif knee > 0 and 2 * abs(over) <= knee:
            wanted = (1 - 1 / ratio) * (over + knee / 2) ** 2 / (2 * knee)
        elif over > 0:
            wanted = over - over / ratio
        a = attack if wanted > last else release
        last = a * last + (1 - a) * wanted
        gain = 10 ** ((makeup - last) / 20)
        for c in range(x.shape[0]):
            y[c, n] = gain * x[c, n]
    return y


def limiter(x: Tensor, sample_rate_hz: float, ceiling_db: Tensor, release_seconds: Tensor) -> Tensor:
    """x (batch, channels, time) kept under a ceiling (batch,), without a look ahead: the gain falls at once."""
    level = level_db(x.abs().amax(1))
    reduction = torch.relu(level - ceiling_db[:, None])
    release = torch.exp(-math.log(9) / (sample_rate_hz * release_seconds))
    return x * 10 ** (-smoothed(reduction, torch.zeros_like(release), release) / 20)[:, None]


def saturation(x: Tensor, drive_db: Tensor) -> Tensor:
    """x (batch, channels, time) through a hyperbolic tangent, driven by (batch,) dB; of unity gain at low level."""
    gain = 10 ** (drive_db / 20)[:, None, None]
    return torch.tanh(gain * x) / gain
