"""Which loops compute: the fused kernels of this package, or torch's own."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, build

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "fused")
_chosen = "auto"
_threads: int | None = None
_libraries: dict[str, ctypes.CDLL | None] = {}
_loading = threading.Lock()
# What the kernels' functions return that ctypes would take for an int.
_RESULTS = {
    "kept_floats": ctypes.c_size_t, "stream_new": ctypes.c_void_p, "tcn_open": ctypes.c_void_p,
    "wavenet_tape_floats": ctypes.c_size_t, "wavenet_stream": ctypes.c_void_p, "compiler_options": ctypes.c_char_p,
}  # fmt: skip


def choose(name: str) -> None:
    """Sets the backend of this process: fused kernels wherever they apply, with auto only if a compiler is found.

    Raises UserError for an unknown name, and for "fused" without a compiler.
    """
    global _chosen
    if name not in BACKENDS:
        raise UserError(f"kernels={name}: choose one of {', '.join(BACKENDS)}.")
    if name == "fused":
        try:
            build.compiler()
        except build.NoCompiler as error:
            raise UserError(f"kernels=fused: {error}; install one, or take kernels=torch.") from error
    _chosen = name


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """`choose` for the length of a with block."""
    before = _chosen
    choose(name)
    try:
        yield
    finally:
        choose(before)


def set_threads(threads: int | None) -> None:
    """How many threads a kernel divides a batch between; None: as many as torch has."""
    global _threads
    _threads = threads


def threads() -> int:
    """How many threads a kernel divides a batch between.

    A number of its own, because kernels gain from every core, and torch's threads wait for each other in loops.
    """
    return _threads or torch.get_num_threads()


class Parts(Protocol):
    """An nn.Module, whatever else it is."""

    def modules(self) -> Iterator[torch.nn.Module]: ...


def computes(net: Parts) -> bool:
    """Whether kernels compute a net on a CPU: its models name theirs as ``kernel``."""
    names = {name for part in net.modules() if isinstance(name := getattr(part, "kernel", None), str)}
    return _chosen != "torch" and bool(names) and all(library(str(name)) is not None for name in names)


def library(name: str) -> ctypes.CDLL | None:
    """The compiled kernel ``name``, None where it cannot be had: said once. Raises UserError then with "fused"."""
    with _loading:  # several threads may play their first block at once
        if name not in _libraries:
            _libraries[name] = _loaded(name)
    if _libraries[name] is None and _chosen == "fused":
        raise UserError(f"kernels=fused: the kernel {name} could not be compiled; take kernels=torch.")
    return _libraries[name]


def _loaded(name: str) -> ctypes.CDLL | None:
    try:
        library = build.load(name)
    except build.NoCompiler as error:
        log.warning("%s: torch's own loops are used, which are several times slower", error)
        return None
    for function, result in _RESULTS.items():
        if hasattr(library, function):
            getattr(library, function).restype = result
    allocator.tune()
    return library


def wanted(*tensors: Tensor) -> bool:
    """Whether kernels could compute with all these tensors: float32 on the CPU, nobody traces, not kernels=torch."""
    if _chosen == "torch" or torch._C._get_tracing_state() is not None or torch.compiler.is_compiling():
        return False
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def fused(name: str, *tensors: Tensor) -> ctypes.CDLL | None:
    """The kernel's library if it is there and can compute with all these tensors."""
    return library(name) if wanted(*tensors) else None


def describe(net: Parts) -> str:
    """What computes a net on a CPU, for the records of a run: "torch", or "fused" with the compiler's name.

    >>> with using("torch"):
    ...     describe(torch.nn.Linear(1, 1))
    'torch'
    """
    if not computes(net):
        return "torch"
    return f"fused ({' '.join(build.compiler())}, vectors of {_vector_bytes()} bytes)"


def options(net: Parts) -> str | None:
    """The options that the compiler was given for the kernels of a net; None where torch computes it."""
    return _any_library().compiler_options().decode() if computes(net) else None


def _vector_bytes() -> int:
    return _any_library().vector_bytes()


def _any_library() -> ctypes.CDLL:
    return next(handle for handle in _libraries.values() if handle is not None)
