"""The TCN's fused loops (tcn.cpp) for torch: training with gradients, and inference with the state inside."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from revox_lightning.kernels import backend
from revox_lightning.kernels.pointers import addresses

_POINTER = ctypes.c_void_p


class Layout(NamedTuple):
    """Sizes of a net: ``late`` is how late the residual paths are, in samples."""

    inputs: int
    width: int
    outputs: int
    kernel: int
    late: int
    dilations: tuple[int, ...]

    def pasts(self) -> list[tuple[int, int]]:
        """Channels and samples of each block's history."""
        return [
            (self.width if n else self.inputs, (self.kernel - 1) * dilation)
            for n, dilation in enumerate(self.dilations)
        ]


class Weights(NamedTuple):
    """``parameters``: of each block the convolution, slopes and residual factors, then output weights and bias, flat.
    ``film`` (blocks, batch, 2, width): gains and biases. ``statistics`` (blocks, 2, width): mean and variance, which
    training fills in."""

    parameters: Tensor
    film: Tensor
    statistics: Tensor


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("batch", "time", "blocks", "inputs", "width", "outputs", "kernel", "late")),
        *((name, ctypes.c_int) for name in ("training", "threads")),
        ("dilations", ctypes.POINTER(ctypes.c_int)),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, _POINTER) for name in ("of_y", "of_states", "parameters", "film", "x", "histories")]


def _shape(layout: Layout, batch: int, time: int, training: bool, threads: int) -> _Shape:
    dilations = (ctypes.c_int * len(layout.dilations))(*layout.dilations)
    sizes = (layout.inputs, layout.width, layout.outputs, layout.kernel, layout.late)
    return _Shape(batch, time, len(layout.dilations), *sizes, training, threads, dilations)


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return _POINTER(None if tensor is None else tensor.data_ptr())


def _rows(signal: Tensor | None) -> Tensor | None:
    """(batch, channels, time) as the kernel has it in memory: (batch, time, channels)."""
    return None if signal is None else signal.detach().transpose(1, 2).contiguous()


def _new_states(layout: Layout, x: Tensor) -> list[Tensor]:
    """(batch, channels, past) of each block, with the channels of a sample side by side, so that nothing is copied when
    they come back."""
    return [x.new_empty(x.shape[0], past, channels).transpose(1, 2) for channels, past in layout.pasts()]


def play(
    library: ctypes.CDLL, layout: Layout, weights: Weights, x: Tensor, state: Sequence[Tensor] | None, training: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x (batch, inputs, time) -> y (batch, outputs, time) and the last inputs of each block (batch, channels, past)."""
    histories = list(state) if state else [None] * len(layout.dilations)
    differentiable = [x, weights.parameters, weights.film, *(h for h in histories if h is not None)]
    if training or (torch.is_grad_enabled() and any(t.requires_grad for t in differentiable)):
        y, *states = _Training.apply(library, layout, training, x, *weights, *histories)  # pyright: ignore
        return y, tuple(states)
    stream = Stream(library, layout, weights, x.shape[0], x.shape[-1], backend.threads())
    if state:
        stream.load(state)
    x = x.contiguous()
    y = x.new_empty(x.shape[0], layout.outputs, x.shape[-1])
    stream.play(x.data_ptr(), y.data_ptr(), x.shape[-1])
    return y, stream.state()


class _Training(torch.autograd.Function):
    """Convolutions, norms and activations over the whole signal, with all that the gradients need kept."""

    @staticmethod
    def forward(ctx: Any, library, layout, training, x, parameters, film, statistics, *histories):
        ctx.set_materialize_grads(False)
        batch, _, time = x.shape
        shape = _shape(layout, batch, time, training, backend.threads())
        floats = (ctypes.c_longlong * 2)()
        library.tcn_floats(ctypes.byref(shape), floats)
        memory = x.new_empty(floats[0])
        rows = [_rows(h) for h in histories]
        states = _new_states(layout, x)
        parameters, film, x = parameters.contiguous(), film.contiguous(), x.contiguous()
        y = x.new_empty(batch, layout.outputs, time)
        library.tcn_forward(
            ctypes.byref(shape), _at(parameters), _at(film), _at(statistics), _at(x), addresses(rows), _at(y),
            addresses(states), _at(memory),
        )  # fmt: skip
        ctx.save_for_backward(parameters, film, statistics, y, memory)
        ctx.library, ctx.shape, ctx.layout, ctx.scratch_floats = library, shape, layout, floats[1]
        ctx.silent = [h is None for h in histories]
        return y, *states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor | None, *of_states: Tensor | None):  # pyright: ignore
        parameters, film, statistics, y, memory = ctx.saved_tensors
        _, _, _, x_wanted, _, _, _, *histories_wanted = ctx.needs_input_grad
        batch, time, layout = ctx.shape.batch, ctx.shape.time, ctx.layout
        of_y = torch.zeros_like(y) if of_y is None else of_y.contiguous()
        state_rows = [_rows(g) for g in of_states]
        lanes = ctx.library.vector_bytes() // 4
        of_histories = [
            y.new_empty(batch, past, -(-channels // lanes) * lanes) if wanted else None
            for (channels, past), wanted in zip(layout.pasts(), histories_wanted, strict=True)
        ]
        of_x = y.new_empty(batch, time, -(-layout.inputs // lanes) * lanes) if x_wanted else None
        of_parameters, of_film = torch.empty_like(parameters), torch.empty_like(film)
        places = addresses(state_rows), addresses(of_histories)  # alive as long as the call
        gradients = _Gradients(
            _at(of_y), ctypes.addressof(places[0]), _at(of_parameters), _at(of_film), _at(of_x),
            ctypes.addressof(places[1]),
        )  # fmt: skip
        scratch = y.new_empty(ctx.scratch_floats)
        silent = (ctypes.c_int * len(ctx.silent))(*ctx.silent)
        ctx.library.tcn_backward(
            ctypes.byref(ctx.shape), _at(parameters), _at(film), _at(statistics), _at(y), _at(memory), silent,
            _at(scratch), ctypes.byref(gradients),
        )  # fmt: skip
        planar = [
            None if g is None else g[..., :channels].transpose(1, 2)
            for g, (channels, _) in zip([of_x, *of_histories], [(layout.inputs, 0), *layout.pasts()], strict=True)
        ]
        return None, None, None, planar[0], of_parameters, of_film, None, *planar[1:]


class Stream:
    """Signals through a net block by block, in inference: weights packed once, the state inside.

    ``play(x, y, frames)`` takes the addresses of x (batch, inputs, frames) and y (batch, outputs, frames), contiguous
    float32. Memory is for ``longest`` frames at a time; more are cut into such pieces. Threads share the items.
    """

    def __init__(
        self, library: ctypes.CDLL, layout: Layout, weights: Weights, batch: int = 1, longest: int = 4096,
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._library, self._layout, self._like = library, layout, weights.parameters.new_empty(batch, 0)
        shape = _shape(layout, batch, longest, False, threads)
        tensors = [tensor.detach().contiguous() for tensor in weights]
        self._handle = _POINTER(library.tcn_open(ctypes.byref(shape), *map(_at, tensors)))
        play, handle = library.tcn_play, self._handle.value
        play.argtypes = (_POINTER, _POINTER, _POINTER, ctypes.c_int)
        self.play = functools.partial(play, handle)

    def load(self, state: Sequence[Tensor]) -> None:
        """Goes on from here: of each block (batch, channels, past)."""
        for n, history in enumerate(state):
            rows = _rows(history)
            self._library.tcn_load(self._handle, n, _at(rows))

    def state(self) -> tuple[Tensor, ...]:
        states = _new_states(self._layout, self._like)
        for n, history in enumerate(states):
            self._library.tcn_save(self._handle, n, _at(history))
        return tuple(states)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._library.tcn_close(self._handle)
