"""WaveNets in one fused pass: forward, backward, and streaming (wavenet.cpp)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import byref, c_float, c_int, c_void_p
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revox_lightning.kernels import backend
from revox_lightning.kernels.pointers import address, addresses


class Array(NamedTuple):
    """A stack of layers of equal width: a linear map from `inputs` to `channels`, then one layer per dilation.

    p = tanh(z) (or relu) where z = conv(x) + condition + bias; with `gated`, z has twice the channels and p is also
    multiplied by the sigmoid of the second half. Then x <- x + residual p. `head` is the number of its outputs.
    parameters: weight and bias of the first map, of the head, then of each layer the weight and bias of the
    convolution, the weight of the condition, weight and bias of the residual: convolutions' tensors, None if absent.
    """

    inputs: int
    channels: int
    head: int
    kernel: int
    gated: bool
    relu: bool
    dilations: Sequence[int]
    parameters: Sequence[Tensor | None]


class Net(NamedTuple):
    """A net of arrays. Each reads what the one before hands on; the first reads the first of the `inputs`, and the
    conditions read all of them.

    `mixed`: one array, whose head weight mixes the p of all layers (Wright); otherwise the p of an array are added up,
    from what the head of the array before makes of its own sum, and the last head's output is multiplied by `scale`.
    """

    inputs: int
    outputs: int
    mixed: bool
    scale: float
    arrays: Sequence[Array]


class _Call(ctypes.Structure):
    _fields_ = (
        ("plan", c_void_p), ("parameters", c_void_p), ("scale", c_float),
        ("batch", c_int), ("frames", c_int), ("threads", c_int),
        *((name, c_void_p) for name in (
            "u", "histories", "tape", "y", "states", "dy", "dstates", "gradients", "du", "dhistories"
        )),
    )  # fmt: skip


class _Plan(NamedTuple):
    """A net without its tensors."""

    numbers: tuple[int, ...]
    scale: float
    pasts: tuple[tuple[int, int], ...]  # channels and samples of each layer's history

    def call(self, parameters: Sequence[Tensor | None], batch: int = 1, frames: int = 0) -> _Call:
        """The description for the library; it points into `parameters`, which must live as long."""
        numbers = (c_int * len(self.numbers))(*self.numbers)
        places = addresses(parameters)
        call = _Call(ctypes.addressof(numbers), ctypes.addressof(places), self.scale, batch, frames)
        call.threads = backend.threads()
        call.kept_alive = [numbers, places]  # type: ignore[attr-defined]
        return call


def play(
    library: ctypes.CDLL, net: Net, u: Tensor, state: Sequence[Tensor] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """u (batch, inputs, time) -> y (batch, outputs, time) and the last inputs of each layer (batch, channels, past).

    Differentiable once, in everything but the scale.
    """
    plan = _plan(net)
    parameters = [None if p is None else p.contiguous() for array in net.arrays for p in array.parameters]
    histories = [None] * len(plan.pasts) if state is None else [history.contiguous() for history in state]
    u = u.contiguous()
    tensors = [u, *histories, *parameters]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        y, *states = _Play.apply(library, plan, net.outputs, *tensors)
    else:
        y, *states = _forward(library, plan, net.outputs, tensors)[0]
    return y, tuple(states)


def fits(net: Net, u: Tensor, state: Sequence[Tensor] | None) -> bool:
    """Whether all shapes are what the net expects; torch's own loops say what is wrong with others."""
    if u.ndim != 3 or u.shape[1] != net.inputs or u.shape[2] == 0:
        return False
    return state is None or [tuple(h.shape) for h in state] == [(len(u), *past) for past in _plan(net).pasts]


def stream(library: ctypes.CDLL, net: Net, channels: int, controls: Tensor | None) -> Stream | None:
    """A Stream whose x has `channels`, None if these and the controls (1, knobs) are not all that the net hears."""
    knobs = 0 if controls is None else controls.numel()
    return Stream(library, net, controls) if channels + knobs == net.inputs else None


def _forward(
    library: ctypes.CDLL, plan: _Plan, outputs: int, tensors: Sequence[Tensor | None], keep: bool = False
) -> tuple[list[Tensor], Tensor | None]:
    """y and the states, and with `keep` what the way back needs."""
    u, histories, parameters = _sorted(plan, tensors)
    call = plan.call(parameters, u.shape[0], u.shape[2])
    tape = u.new_empty(library.wavenet_tape_floats(byref(call))) if keep else None
    y = u.new_empty(u.shape[0], outputs, u.shape[2])
    states = [u.new_empty(u.shape[0], *past) for past in plan.pasts]
    ends, starts = addresses(states), addresses(histories)
    call.u, call.y, call.states, call.tape = u.data_ptr(), y.data_ptr(), ctypes.addressof(ends), address(tape)
    call.histories = ctypes.addressof(starts) if histories[0] is not None else None
    library.wavenet_forward(byref(call))
    return [y, *states], tape


class _Play(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, plan: _Plan, outputs: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        results, tape = _forward(library, plan, outputs, tensors, keep=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(tape, *tensors)
        ctx.library, ctx.plan = library, plan
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dy: Tensor | None, *dstates: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        tape, *tensors = ctx.saved_tensors
        plan, wanted = ctx.plan, ctx.needs_input_grad[3:]
        u, histories, parameters = _sorted(plan, tensors)
        call = plan.call(parameters, u.shape[0], u.shape[2])
        dy = None if dy is None else dy.contiguous()
        dstates = tuple(None if d is None else d.contiguous() for d in dstates)
        gradients = [None if t is None else t.new_empty(t.shape) for t in parameters]
        du = torch.empty_like(u) if wanted[0] else None
        dhistories = [t.new_empty(t.shape) if t is not None and w else None
                      for t, w in zip(histories, wanted[1:], strict=False)]  # fmt: skip
        starts, ends, out, before = map(addresses, (histories, dstates, gradients, dhistories))
        call.u, call.tape, call.dy, call.du = u.data_ptr(), tape.data_ptr(), address(dy), address(du)
        call.histories = ctypes.addressof(starts) if histories[0] is not None else None
        call.dstates, call.gradients, call.dhistories = map(ctypes.addressof, (ends, out, before))
        ctx.library.wavenet_backward(byref(call))
        return (None, None, None, du, *dhistories, *gradients)


class Stream:
    """One signal through a WaveNet block by block, in inference: weights packed once, the state inside.

    ``play(x, y, frames)`` takes the addresses of x (inputs, frames) and y (outputs, frames), both contiguous float32.
    `knobs` (knobs,) or (1, knobs) are the last of the net's inputs, and not among those of x: they stand still.
    """

    def __init__(self, library: ctypes.CDLL, net: Net, knobs: Tensor | None = None) -> None:
        parameters = [None if p is None else p.detach().contiguous() for a in net.arrays for p in a.parameters]
        positions = [] if knobs is None else knobs.flatten().tolist()
        self._library, self._plan = library, _plan(net)
        library.wavenet_stream_delete.argtypes = (c_void_p,)
        self._handle = library.wavenet_stream(
            byref(self._plan.call(parameters)), (c_float * len(positions))(*positions), c_int(len(positions))
        )
        play, handle = library.wavenet_stream_play, self._handle
        play.argtypes = (c_void_p, c_void_p, c_void_p, c_int)
        self.play = functools.partial(play, handle)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The last inputs of each layer (1, channels, past), as the model itself hands them back."""
        states = tuple(torch.empty(1, *past) for past in self._plan.pasts)
        self._library.wavenet_stream_state(c_void_p(self._handle), addresses(states))
        return states

    @state.setter
    def state(self, state: Sequence[Tensor] | None) -> None:
        histories = None if state is None else [history.detach().contiguous() for history in state]
        places = None if histories is None else addresses(histories)
        self._library.wavenet_stream_start(c_void_p(self._handle), places)

    def __del__(self) -> None:
        self._library.wavenet_stream_delete(self._handle)


def _plan(net: Net) -> _Plan:
    numbers = [net.inputs, net.outputs, int(net.mixed), len(net.arrays)]
    for a in net.arrays:
        numbers += [a.inputs, a.channels, a.head, a.kernel, 1 + a.gated, int(a.relu), len(a.dilations), *a.dilations]
    pasts = tuple((a.channels, (a.kernel - 1) * dilation) for a in net.arrays for dilation in a.dilations)
    return _Plan(tuple(numbers), net.scale, pasts)


def _sorted(
    plan: _Plan, tensors: Sequence[Tensor | None]
) -> tuple[Tensor, Sequence[Tensor | None], Sequence[Tensor | None]]:
    """The signal, the histories, the parameters."""
    u, count = tensors[0], 1 + len(plan.pasts)
    assert u is not None
    return u, tensors[1:count], tensors[count:]
