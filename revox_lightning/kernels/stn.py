"""The recursion of a State Transition Network in fused loops: forward, back through time, and streaming (stn.cpp)."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revox_lightning.kernels import backend
from revox_lightning.kernels.pointers import address, addresses

_SIGNALS = ("a", "q", "p", "p_before", "gain", "target", "pull", "lag", "limit", "start", "z_start", "m", "z", "h")


class _Sizes(ctypes.Structure):
    _fields_ = (("layers", c_int), ("hidden", c_void_p), ("weights", c_void_p))


class _Signals(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in _SIGNALS),
        ("batch", c_int), ("frames", c_int), ("keep", c_float),
    )  # fmt: skip


class _Gradients(ctypes.Structure):
    _fields_ = tuple((name, c_void_p) for name in (
        "dm", "dz_end", "d", "dq", "dp", "dp_before", "d_gain", "d_target", "d_pull", "d_lag", "dz", "d_start",
        "dz_start",
    ))  # fmt: skip


class Signals(NamedTuple):
    """What a net is driven by: ``a`` (batch, time, hidden), ``start, z_start`` (batch,), the rest (batch, time).

    Each step is ``m' = keep m + p_before z'`` with the z before, ``h = tanh(a + q m' w)``, further tanh layers, ``y =
    gain (head h + bias)``, ``z = y + max(target - pull m' - lag y, 0)``, and ``m = m' + p z`` kept within ``limit``.
    ``start`` and ``z_start`` are m and z before the first step.
    """

    a: Tensor
    q: Tensor
    p: Tensor
    p_before: Tensor
    gain: Tensor
    target: Tensor
    pull: Tensor
    lag: Tensor
    limit: Tensor
    start: Tensor
    z_start: Tensor


def reference(signals: Signals, weights: Sequence[Tensor], keep: float = 1.0) -> tuple[Tensor, Tensor]:
    """The recursion in torch: magnetisation (batch, time), the last z (batch,). What the kernel computes, in words.

    ``weights``: from m to the first layer (hidden,), W and b of each further layer, head (hidden,), bias ().
    """
    a, q, p, p_before, gain, target, pull, lag, limit, m, z = signals
    from_m, *further, head, bias = weights
    out = []
    for n in range(a.shape[1]):
        m = keep * m + p_before[:, n] * z
        h = torch.tanh(a[:, n] + (q[:, n] * m)[:, None] * from_m)
        for w, b in zip(further[::2], further[1::2], strict=True):
            h = torch.tanh(torch.nn.functional.linear(h, w, b))
        y = gain[:, n] * (h @ head + bias)
        z = y + torch.relu(target[:, n] - pull[:, n] * m - lag[:, n] * y)
        m = torch.minimum(torch.maximum(m + p[:, n] * z, -limit[:, n]), limit[:, n])
        out.append(m)
    return torch.stack(out, dim=1), z


def play(library: ctypes.CDLL, signals: Signals, weights: Sequence[Tensor], keep: float = 1.0) -> tuple[Tensor, Tensor]:
    """`reference`, fused; differentiable once, in everything but the limit."""
    a, *others = signals
    units = a.shape[-1]
    a = torch.nn.functional.pad(a, (0, _padded(library, units) - units))
    return _Play.apply(library, keep, a, *others, *weights)  # type: ignore[return-value]


def _padded(library: ctypes.CDLL, units: int) -> int:
    lanes = library.vector_bytes() // 4
    return -(-units // lanes) * lanes


def _sizes(weights: Sequence[Tensor]) -> _Sizes:
    """Points into ``weights``, which must live as long."""
    from_m, *further, _, _ = weights
    hidden = [from_m.numel(), *(w.shape[0] for w in further[::2])]
    places, numbers = addresses(weights), (c_int * len(hidden))(*hidden)
    sizes = _Sizes(len(hidden), ctypes.addressof(numbers), ctypes.addressof(places))
    sizes.kept_alive = places, numbers  # type: ignore[attr-defined]
    return sizes


class _Play(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, keep: float, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        tensors = tuple(t.contiguous() for t in tensors)
        given, weights = Signals(*tensors[:11]), tensors[11:]
        m, z = torch.empty_like(given.q), torch.empty_like(given.q)
        kept = sum(_padded(library, units) for units in _hidden(weights))
        h = m.new_empty(*m.shape, kept) if any(ctx.needs_input_grad) else None
        signals = _Signals(*map(address, (*given, m, z, h)), *m.shape, keep)
        library.stn_forward(byref(_sizes(weights)), byref(signals), backend.threads())
        if h is not None:
            ctx.save_for_backward(m, z, h, *tensors)
            ctx.library, ctx.keep, ctx.threads = library, keep, backend.threads()
        return m, z[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dm: Tensor, dz_end: Tensor
    ) -> tuple[Tensor | None, ...]:
        m, z, h, *tensors = ctx.saved_tensors
        given, weights = Signals(*tensors[:11]), tensors[11:]
        d, dz = torch.empty_like(h), torch.empty_like(m)
        of_signals = [torch.empty_like(m) for _ in range(7)]  # q to lag
        d_start, dz_start = torch.empty_like(given.start), torch.empty_like(given.start)
        dm, dz_end = dm.contiguous(), dz_end.contiguous()
        signals = _Signals(*map(address, (*given, m, z, h)), *m.shape, ctx.keep)
        places = (dm, dz_end, d, *of_signals, dz, d_start, dz_start)
        gradients = _Gradients(*map(address, places))
        ctx.library.stn_backward(byref(_sizes(weights)), byref(signals), byref(gradients), ctx.threads)
        m_before, z_before = (
            torch.cat([first[:, None], then[:, :-1]], dim=1) for first, then in ((given.start, m), (given.z_start, z))
        )
        before = given.q * (ctx.keep * m_before + given.p_before * z_before)
        at, of_layers = 0, []
        for units in _hidden(weights):
            of_layers.append((d[..., at : at + units].flatten(0, 1), h[..., at : at + units].flatten(0, 1)))
            at += _padded(ctx.library, units)
        of_weights = [before.flatten() @ of_layers[0][0]]
        for (_, below), (sums, _) in itertools.pairwise(of_layers):
            of_weights += [sums.T @ below, sums.sum(dim=0)]
        of_weights += [dz.flatten() @ of_layers[-1][1], dz.sum()]
        return (None, None, d[..., : given.a.shape[-1]], *of_signals, None, d_start, dz_start, *of_weights)


def _hidden(weights: Sequence[Tensor]) -> list[int]:
    from_m, *further, _, _ = weights
    return [from_m.numel(), *(w.shape[0] for w in further[::2])]


class Stream:
    """Signals through the net block by block, in inference, from the field itself; the state stays inside.

    ``inputs`` (batch, 5, hidden) are the weights of H, D, H1, D1 and the bias of the first layer, ``scales``
    (batch, 8) hold q, p, limit, slope and height of the anhysteretic curve, drag and softness of the pull towards it,
    gain, ``state`` (batch, 4) M, H, D and z.
    ``play(x, y, frames)`` takes the addresses of x and y (batch, frames), both contiguous float32.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        inputs: Tensor,
        scales: Tensor,
        state: Tensor,
        weights: Sequence[Tensor],
        keep: float = 1.0,
    ) -> None:
        weights = [w.detach().contiguous() for w in weights]
        inputs, scales, state = (t.detach().contiguous() for t in (inputs, scales, state))
        self._library, self._shape = library, state.shape
        library.stn_open.restype = c_void_p
        opened = library.stn_open(
            byref(_sizes(weights)), *(c_void_p(address(t)) for t in (inputs, scales, state)), c_float(keep), len(state)
        )
        self._stream = c_void_p(opened)

    def play(self, x: int, y: int, frames: int) -> None:
        self._library.stn_play(self._stream, c_void_p(x), c_void_p(y), frames, backend.threads())

    @property
    def state(self) -> Tensor:
        """(batch, 4)"""
        values = (c_float * self._shape.numel())()
        self._library.stn_state(self._stream, values)
        return torch.tensor(values[:]).view(self._shape)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._library.stn_close(self._stream)
