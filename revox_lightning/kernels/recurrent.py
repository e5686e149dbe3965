"""Recurrent nets in fused loops: forward, back-propagation through time, and streaming (recurrent.cpp)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import byref, c_int, c_ssize_t, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revox_lightning.kernels import backend
from revox_lightning.kernels.pointers import address, addresses


class _Net(ctypes.Structure):
    _fields_ = (
        ("gru", c_int), ("layers", c_int), ("inputs", c_int), ("hidden", c_int), ("outputs", c_int), ("skip", c_int),
        ("weights", c_void_p), ("read_out", c_void_p), ("read_out_bias", c_void_p),
    )  # fmt: skip


class _Signal(ctypes.Structure):
    _fields_ = (
        ("x", c_void_p), ("batch_step", c_ssize_t), ("channel_step", c_ssize_t), ("frame_step", c_ssize_t),
        ("batch", c_int), ("frames", c_int),
    )  # fmt: skip


class _State(ctypes.Structure):
    _fields_ = (("h", c_void_p), ("c", c_void_p), ("h_end", c_void_p), ("c_end", c_void_p))


class _Gradients(ctypes.Structure):
    _fields_ = tuple((name, c_void_p) for name in ("weights", "read_out", "read_out_bias", "x", "h", "c"))


def fits(rnn: torch.nn.LSTM | torch.nn.GRU, x: Tensor, state: tuple[Tensor, ...] | None) -> bool:
    """Whether all shapes are what the loops, which never look, will take them for; if not, torch says what is wrong."""
    if x.ndim != 3 or x.shape[1] != rnn.input_size or x.numel() == 0:
        return False
    wanted = (rnn.num_layers, x.shape[0], rnn.hidden_size)
    parts = 1 if isinstance(rnn, torch.nn.GRU) else 2
    return state is None or (len(state) == parts and all(tuple(part.shape) == wanted for part in state))


def play(
    library: ctypes.CDLL,
    x: Tensor,
    state: tuple[Tensor, ...] | None,
    rnn: torch.nn.LSTM | torch.nn.GRU,
    read_out: torch.nn.Linear,
    skip: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (batch, inputs, time) through ``rnn`` and its read-out -> y (batch, outputs, time) and the state.

    The state is torch's own: (h, c) of an LSTM, (h,) of a GRU, each (layers, batch, hidden). With ``skip`` the first
    inputs are added to the outputs. Differentiable once, in everything.
    """
    gru = isinstance(rnn, torch.nn.GRU)
    h, c = (None, None) if state is None else (state[0].contiguous(), None if gru else state[1].contiguous())
    inputs = (x, h, c, *_read_out(read_out), *rnn.parameters())
    back = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    y, *ends = _Play.apply(library, gru, skip, back, *inputs)
    return y, tuple(ends[: 1 if gru else 2])


class _Play(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, gru: bool, skip: bool, back: bool, x: Tensor, h: Tensor | None,
        c: Tensor | None, *parameters: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        net = _net(gru, skip, parameters)
        signal = _signal(x)
        kept = x.new_empty(_kept_floats(library, net, signal)) if back else None
        y = x.new_empty(x.shape[0], net.outputs, x.shape[2])
        ends = [x.new_empty(net.layers, x.shape[0], net.hidden) for _ in range(1 if gru else 2)]
        state = _State(address(h), address(c), *map(address, ends))
        library.forward(
            byref(net), byref(signal), byref(state), c_void_p(address(y)), c_void_p(address(kept)), backend.threads()
        )
        if back:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(x, kept, *parameters)
            ctx.library, ctx.gru, ctx.skip, ctx.threads = library, gru, skip, backend.threads()
        return (y, *ends)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dy: Tensor | None, *ends: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, kept, *parameters = ctx.saved_tensors
        net, signal = _net(ctx.gru, ctx.skip, parameters), _signal(x)
        dy = x.new_zeros(x.shape[0], net.outputs, x.shape[2]) if dy is None else dy.contiguous()
        ends = tuple(None if end is None else end.contiguous() for end in ends)
        state = _State(*map(address, ends))
        size = (net.layers, x.shape[0], net.hidden)
        wanted = ctx.needs_input_grad
        of_x = x.new_empty(x.shape) if wanted[4] else None
        of_h, of_c = (x.new_empty(size) if asked else None for asked in wanted[5:7])
        of_parameters = [torch.zeros_like(p) for p in parameters]
        places = addresses(of_parameters[2:])
        gradients = _Gradients(
            ctypes.addressof(places), *map(address, of_parameters[:2]), address(of_x), address(of_h), address(of_c)
        )  # fmt: skip
        # The columns of the batch lie as the threads of the way forward left them.
        ctx.library.backward(
            byref(net), byref(signal), byref(state), c_void_p(address(dy)), c_void_p(address(kept)), byref(gradients),
            ctx.threads,
        )  # fmt: skip
        return (None, None, None, None, of_x, of_h, of_c, *of_parameters)


class Stream:
    """One signal through a recurrent net block by block, in inference: weights packed once, the state inside.

    ``play(x, y, frames)`` takes the addresses of x (inputs, frames) and y (outputs, frames), both contiguous float32.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        rnn: torch.nn.LSTM | torch.nn.GRU,
        read_out: torch.nn.Linear,
        skip: bool,
    ) -> None:
        gru = isinstance(rnn, torch.nn.GRU)
        parameters = [p.detach().contiguous() for p in (*_read_out(read_out), *rnn.parameters())]
        self._library = library
        self._stream = c_void_p(library.stream_new(byref(_net(gru, skip, parameters))))
        play = library.stream_play
        play.argtypes = (c_void_p, c_void_p, c_void_p, c_int)
        handle = self._stream.value
        self.play = functools.partial(play, handle)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self._library.stream_delete(self._stream)


def _read_out(layer: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias, zeros where the layer has none."""
    bias: Tensor | None = layer.bias
    return layer.weight, layer.weight.new_zeros(layer.out_features) if bias is None else bias


def _net(gru: bool, skip: bool, parameters: Sequence[Tensor]) -> _Net:
    """The description of a net; it points into ``parameters``, which must live as long."""
    read_out, bias, *weights = parameters
    assert all(p.is_contiguous() for p in parameters)
    outputs, hidden = read_out.shape
    places = addresses(weights)
    net = _Net(gru, len(weights) // 4, weights[0].shape[1], hidden, outputs, skip, ctypes.addressof(places))
    net.read_out, net.read_out_bias = read_out.data_ptr(), bias.data_ptr()
    net.kept_alive = places  # type: ignore[attr-defined]
    return net


def _signal(x: Tensor) -> _Signal:
    return _Signal(x.data_ptr(), *x.stride(), x.shape[0], x.shape[2])


def _kept_floats(library: ctypes.CDLL, net: _Net, signal: _Signal) -> int:
    return library.kept_floats(byref(net), byref(signal))
