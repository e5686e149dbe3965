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
_LN9, _LN10_20 = math.log(9), math.log(10) / 20


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
    *,
    expander: bool = False,
) -> Tensor:
    """x (batch, channels, time) through a compressor (or a downward expander), parameters (batch,) each.

    Channels are linked: the loudest sample of all of them says the gain. Attack and release are the times in which the
    gain's change goes from 10 to 90 % of its way. Gradients are exact wherever the detector does not change branches.
    """
    knobs = torch.stack((threshold_db, ratio, knee_db, attack_seconds, release_seconds, makeup_db), 1)
    return _Compressed.apply(x, knobs, sample_rate_hz, expander)  # type: ignore[return-value]


class _Compressed(torch.autograd.Function):
    """Level, gain computer, detector and gain in one compiled loop, and the way back through all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, knobs: Tensor, sample_rate_hz: float, expander: bool) -> Tensor:
        signal, values = (np.ascontiguousarray(part.detach().double().cpu().numpy()) for part in (x, knobs))
        y, smooth = np.empty_like(signal), np.empty((signal.shape[0], signal.shape[2]))
        if len(signal) == 1:  # no work to share; a data worker that was forked may start no threads of OpenMP
            _compress(signal[0], values[0], sample_rate_hz, expander, y[0], smooth[0])
        else:
            _compress_rows(signal, values, sample_rate_hz, expander, y, smooth)
        ctx.save_for_backward(x, knobs)
        ctx.how = (signal, values), smooth, sample_rate_hz, expander
        return torch.from_numpy(y).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, knobs = ctx.saved_tensors
        (signal, values), smooth, *how = ctx.how
        dy = np.ascontiguousarray(gradients[0].double().cpu().numpy())
        dx, found = _compress_rows_back(signal, values, smooth, dy, *how)
        return torch.from_numpy(dx).to(x), torch.from_numpy(found).to(knobs), None, None


@njit(cache=True)
def _reduction(over, ratio, knee, expander):  # pragma: no cover
    """How many dB less, of a level so far over the threshold; and its slopes by level, ratio and knee."""
    if knee > 0 and 2 * abs(over) <= knee:
        way = over - knee / 2 if expander else over + knee / 2
        bend = ratio - 1 if expander else 1 - 1 / ratio
        square = way * way / (2 * knee)
        half = -way / (2 * knee) if expander else way / (2 * knee)
        by_ratio = square if expander else square / ratio**2
        return bend * square, bend * way / knee, by_ratio, bend * (half - square / knee)
    if expander:
        return ((1 - ratio) * over, 1 - ratio, -over, 0.0) if over < 0 else (0.0, 0.0, 0.0, 0.0)
    return ((1 - 1 / ratio) * over, 1 - 1 / ratio, over / ratio**2, 0.0) if over > 0 else (0.0, 0.0, 0.0, 0.0)


@njit(cache=True)
def _loudest(x, n):  # pragma: no cover
    """The channel of the loudest sample, and its level in dB."""
    channel = 0
    for c in range(1, x.shape[0]):
        if abs(x[c, n]) > abs(x[channel, n]):
            channel = c
    return channel, max(20 * np.log10(abs(x[channel, n]) + _EPSILON), SILENCE_DB)


@njit(cache=True, parallel=True)
def _compress_rows(x, knobs, sample_rate_hz, expander, y, smooth):  # pragma: no cover
    for row in prange(x.shape[0]):
        _compress(x[row], knobs[row], sample_rate_hz, expander, y[row], smooth[row])


@njit(cache=True)
def _compress(x, knobs, sample_rate_hz, expander, y, smooth):  # pragma: no cover
    threshold, ratio, knee, attack_seconds, release_seconds, makeup = knobs
    attack = np.exp(-_LN9 / (sample_rate_hz * attack_seconds))
    release = np.exp(-_LN9 / (sample_rate_hz * release_seconds))
    last = 0.0
    for n in range(x.shape[1]):
        wanted = _reduction(_loudest(x, n)[1] - threshold, ratio, knee, expander)[0]
        a = attack if wanted > last else release
        last = a * last + (1 - a) * wanted
        smooth[n] = last
        gain = 10 ** ((makeup - last) / 20)
        for c in range(x.shape[0]):
            y[c, n] = gain * x[c, n]


@njit(cache=True, parallel=True)
def _compress_rows_back(x, knobs, smooth, dy, sample_rate_hz, expander):  # pragma: no cover
    dx, found = np.empty_like(x), np.zeros(knobs.shape)
    for row in prange(x.shape[0]):
        threshold, ratio, knee, attack_seconds, release_seconds, makeup = knobs[row]
        attack = np.exp(-_LN9 / (sample_rate_hz * attack_seconds))
        release = np.exp(-_LN9 / (sample_rate_hz * release_seconds))
        g = d_threshold = d_ratio = d_knee = d_attack = d_release = d_makeup = 0.0
        for n in range(x.shape[2] - 1, -1, -1):
            gain = 10 ** ((makeup - smooth[row, n]) / 20)
            along = 0.0
            for c in range(x.shape[1]):
                along += dy[row, c, n] * gain * x[row, c, n]
                dx[row, c, n] = dy[row, c, n] * gain
            d_makeup += _LN10_20 * along
            g -= _LN10_20 * along
            channel, level = _loudest(x[row], n)
            wanted, by_level, by_ratio, by_knee = _reduction(level - threshold, ratio, knee, expander)
            before = smooth[row, n - 1] if n else 0.0
            rising = wanted > before
            a = attack if rising else release
            if rising:
                d_attack += g * (before - wanted)
            else:
                d_release += g * (before - wanted)
            d = (1 - a) * g
            d_threshold -= d * by_level
            d_ratio += d * by_ratio
            d_knee += d * by_knee
            if level > SILENCE_DB:
                way = 1.0 if x[row, channel, n] > 0 else -1.0
                dx[row, channel, n] += d * by_level * way / (_LN10_20 * (abs(x[row, channel, n]) + _EPSILON))
            g *= a
        d_attack *= attack * _LN9 / (sample_rate_hz * attack_seconds**2)
        d_release *= release * _LN9 / (sample_rate_hz * release_seconds**2)
        found[row] = d_threshold, d_ratio, d_knee, d_attack, d_release, d_makeup
    return dx, found


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
    *,
    expander: bool = False,
) -> np.ndarray:
    """The same for one signal (channels, time), sample by sample in double precision, without gradients."""
    x = np.ascontiguousarray(x, dtype=np.float64)
    knobs = np.array((threshold_db, ratio, knee_db, attack_seconds, release_seconds, makeup_db))
    y, smooth = np.empty_like(x), np.empty(x.shape[-1])
    _compress(x, knobs, float(sample_rate_hz), expander, y, smooth)
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
