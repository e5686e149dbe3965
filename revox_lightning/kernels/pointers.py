"""Where torch's tensors lie, as C takes it. Whoever passes an address keeps the tensor alive."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor


def address(tensor: Tensor | None) -> int | None:
    """Of the first element; None (a null pointer) for no tensor."""
    return None if tensor is None else tensor.data_ptr()


def addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    """A C array of them."""
    return (ctypes.c_void_p * len(tensors))(*map(address, tensors))
