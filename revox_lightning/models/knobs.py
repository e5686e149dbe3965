"""The controls of a machine on their way into a net: checked once, the same for every model."""

import torch
from torch import Tensor

from revox_lightning.errors import UserError


def knob_signals(controls: Tensor | None, knobs: int, time: int) -> Tensor | None:
    """Knob positions as (batch, knobs, 1) if they stand still, (batch, knobs, time) if they move; None without.

    controls: (batch, knobs) or (batch, knobs, time), or None.
    Raises UserError when their number or length is not what the model was built for.

    >>> knob_signals(torch.zeros(4, 2), 2, 100).shape
    torch.Size([4, 2, 1])
    """
    given = 0 if controls is None else controls.shape[1]
    if given != knobs:
        raise UserError(f"the model takes {knobs} knobs but {given} were given: set model.controls to match the data")
    if controls is None or knobs == 0:
        return None
    if controls.ndim == 2:
        return controls[:, :, None]
    if controls.shape[-1] not in (1, time):
        raise UserError(f"the knobs move over {controls.shape[-1]} samples but the audio has {time}: cut both alike")
    return controls


def with_knobs(x: Tensor, controls: Tensor | None, knobs: int) -> Tensor:
    """Concatenate the knobs to the audio as further channels: (batch, channels + knobs, time)."""
    signals = knob_signals(controls, knobs, x.shape[-1])
    return x if signals is None else torch.cat([x, signals.to(x.dtype).expand(-1, -1, x.shape[-1])], dim=1)
