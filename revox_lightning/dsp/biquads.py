"""Second-order equaliser sections, differentiable in signal and parameters, and their exact recursive twin.

R. Bristow-Johnson, "Cookbook formulae for audio equalizer biquad filter coefficients" (W3C note, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from scipy.signal import sosfilt
from torch import Tensor

KINDS = ("low_shelf", "peak", "high_shelf")
_TINY = 1e-40  # keeps what dies away from becoming denormal, which is slow


def coefficients(kind: str, gain_db: Tensor, frequency_hz: Tensor, q: Tensor, sample_rate_hz: float) -> Tensor:
    """Six numbers b0, b1, b2, a0, a1, a2 in the last dimension, for parameters of any common shape; a0 is 1.

    Raises ValueError for another kind of section.

    >>> coefficients("peak", torch.zeros(4, 2), torch.full((4, 2), 1e3), torch.ones(4, 2), 44_100).shape
    torch.Size([4, 2, 6])
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}")
    amplitude = 10 ** (gain_db / 40)
    omega = 2 * math.pi * frequency_hz / sample_rate_hz
    cosine, alpha = torch.cos(omega), torch.sin(omega) / (2 * q)
    if kind == "peak":
        b = [1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude]
        a = [1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude]
    else:
        cosine = cosine if kind == "low_shelf" else -cosine
        up, down, edge = amplitude + 1, amplitude - 1, 2 * amplitude.sqrt() * alpha
        b = [up - down * cosine + edge, 2 * (down - up * cosine), up - down * cosine - edge]
        b = [amplitude * part for part in b]
        a = [up + down * cosine + edge, -2 * (down + up * cosine), up + down * cosine - edge]
        if kind == "high_shelf":
            b[1], a[1] = -b[1], -a[1]
    return torch.stack([part / a[0] for part in (*b, *a)], -1)


def response(sections: Tensor, frequency_hz: Tensor, sample_rate_hz: float) -> Tensor:
    """Complex gain (..., frequencies) of sections (..., number, 6) one after another."""
    z = torch.exp(-2j * math.pi * frequency_hz / sample_rate_hz)
    powers = torch.stack([torch.ones_like(z), z, z * z])
    return _quotient(sections, powers.to(sections.dtype.to_complex()))


def filtered(x: Tensor, sections: Tensor) -> Tensor:
    """x (batch, channels, time) through sections (batch, number, 6), from silence; differentiable in both.

    A recursion in double precision, forwards and, for its gradients, backwards.
    """
    return _Filtered.apply(x, sections)  # type: ignore[return-value]


class _Filtered(torch.autograd.Function):
    """y = B/A u of a section: dy/db_k = u/A and dy/da_k = -y/A, each k samples late; back to u time runs backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sections: Tensor) -> Tensor:
        batch, channels, time = x.shape
        coefficients = sections.detach().double().repeat_interleave(channels, 0).cpu().numpy()
        stages = _stages(x.detach().double().reshape(-1, time).cpu().numpy(), coefficients)
        ctx.save_for_backward(x, sections)
        ctx.stages, ctx.coefficients = stages, coefficients
        return torch.from_numpy(stages[:, -1].copy()).view(batch, channels, time).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, sections = ctx.saved_tensors
        batch, channels, time = x.shape
        dy = gradients[0].double().reshape(-1, time).cpu().numpy()
        dx, found = _cascade_back(dy, ctx.coefficients, ctx.stages)
        by_row = torch.from_numpy(found).view(batch, channels, -1, 6).sum(1)
        return torch.from_numpy(dx).view_as(x).to(x), by_row.to(sections)


def _stages(x: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """The signal (rows, sections + 1, time) before and behind each section.

    One row is no work to share, and a data worker that was forked from a training may start no threads of OpenMP.
    """
    stages = np.empty((x.shape[0], sections.shape[1] + 1, x.shape[1]))
    if len(x) == 1:
        _cascade(x[0], sections[0], stages[0])
    else:
        _cascades(x, sections, stages)
    return stages


@njit(cache=True, parallel=True)
def _cascades(x, sections, stages):  # pragma: no cover
    for row in prange(x.shape[0]):
        _cascade(x[row], sections[row], stages[row])


@njit(cache=True)
def _cascade(x, sections, stages):  # pragma: no cover
    stages[0] = x
    for k in range(sections.shape[0]):
        b0, b1, b2, _, a1, a2 = sections[k]
        s1 = s2 = 0.0
        for n in range(x.shape[0]):
            u = stages[k, n]
            y = b0 * u + s1
            s1 = b1 * u - a1 * y + s2 + _TINY
            s2 = b2 * u - a2 * y
            stages[k + 1, n] = y


@njit(cache=True, parallel=True)
def _cascade_back(dy, sections, stages):  # pragma: no cover
    rows, time = dy.shape
    dx, found = dy.copy(), np.zeros(sections.shape)
    for row in prange(rows):
        g = dx[row]
        for k in range(sections.shape[1] - 1, -1, -1):
            b0, b1, b2, _, a1, a2 = sections[row, k]
            u1 = u2 = v1 = v2 = 0.0
            db0 = db1 = db2 = da1 = da2 = 0.0
            for n in range(time):
                u = stages[row, k, n] - a1 * u1 - a2 * u2 + _TINY
                v = stages[row, k + 1, n] - a1 * v1 - a2 * v2 + _TINY
                db0 += g[n] * u
                db1 += g[n] * u1
                db2 += g[n] * u2
                da1 -= g[n] * v1
                da2 -= g[n] * v2
                u2, u1, v2, v1 = u1, u, v1, v
            found[row, k] = db0, db1, db2, 0.0, da1, da2
            s1 = s2 = 0.0
            for n in range(time - 1, -1, -1):
                y = b0 * g[n] + s1
                s1 = b1 * g[n] - a1 * y + s2
                if abs(s1) < _TINY:  # not added: the gradient of nothing is nothing
                    s1 = 0.0
                s2 = b2 * g[n] - a2 * y
                g[n] = y
    return dx, found


def filtered_exactly(x: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """x (channels, time) through sections (number, 6), recursively in double precision."""
    return np.asarray(sosfilt(np.asarray(sections, dtype=np.float64), x, axis=-1))


def chain(kinds: Sequence[str], gain_db: Tensor, frequency_hz: Tensor, q: Tensor, sample_rate_hz: float) -> Tensor:
    """Sections (batch, number, 6) of an equaliser whose parameters are (batch, number) each."""
    parts = [
        coefficients(kind, gain_db[:, n], frequency_hz[:, n], q[:, n], sample_rate_hz) for n, kind in enumerate(kinds)
    ]
    return torch.stack(parts, 1)


def _quotient(sections: Tensor, powers: Tensor) -> Tensor:
    b, a = (part.to(powers.dtype) @ powers for part in (sections[..., :3], sections[..., 3:]))
    return (b / a).prod(-2)
