"""Zero history and carried history: what lets a convolution stream (docs: the model contract)."""

import torch
from torch import Tensor


def prepend(x: Tensor, samples: int, history: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Put the last `samples` samples of the past before `x`, and return the past for the next call.

    x (batch, channels, time); history (batch, channels, samples), None for silence.
    Returns the window (batch, channels, samples + time) and the new history (batch, channels, samples).

    >>> window, history = prepend(torch.ones(2, 1, 5), 3)
    >>> window.shape, history.shape
    (torch.Size([2, 1, 8]), torch.Size([2, 1, 3]))
    """
    if history is None:
        history = x.new_zeros(*x.shape[:-1], samples)
    window = torch.cat([history, x], dim=-1)
    # A copy, not a view: a state that is kept or saved must not hold the whole window alive.
    return window, window[..., window.shape[-1] - samples :].clone()


def delay(x: Tensor, samples: int, history: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`x` late by `samples`: y[n] = x[n - samples]. Returns y, shaped like x, and the new history.

    >>> y, history = delay(torch.tensor([[[1.0, 2.0, 3.0]]]), 1)
    >>> y.tolist(), history.tolist()
    ([[[0.0, 1.0, 2.0]]], [[[3.0]]])
    """
    window, history = prepend(x, samples, history)
    return window[..., : x.shape[-1]], history
