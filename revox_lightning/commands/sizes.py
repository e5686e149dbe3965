"""Nets of configs that came with a run's folder: built only as large as the weights beside them, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.modules import module as torch_module

from revox_lightning.errors import UserError
from revox_lightning.export import json_weights

_MOST_PARTS = 5_000  # modules, parameters, buffers
_COMPUTED_NUMBERS = 2**22
_HIGHEST_RATE_HZ = 1_000_000


@contextlib.contextmanager
def bounded(config: Path, checkpoint: Path) -> Iterator[None]:
    """While it lasts, a net may be built that has its weights in ``checkpoint``, and no larger one.

    Modules say what they hold before they fill it, so that a size without reason costs neither memory nor time.
    Raises UserError for such a size, and for whatever else keeps the net that ``config`` tells of from being built.
    """
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist: the run has not finished its first epoch; train it again.")
    # A stored number takes several bytes; tables that are computed, such as windows, are not stored.
    room = [checkpoint.stat().st_size + _COMPUTED_NUMBERS, _MOST_PARTS]

    def parameter(_: Any, name: str, value: Tensor | None) -> None:
        take(0 if value is None else value.numel())

    def inner(*_: Any) -> None:
        take(0)

    def take(numbers: int) -> None:
        room[0] -= numbers
        room[1] -= 1
        if min(room) < 0:
            raise UserError(f"{config} tells of a larger net than {checkpoint} holds: the run's folder is damaged.")

    hooks = [
        torch_module.register_module_parameter_registration_hook(parameter),
        torch_module.register_module_buffer_registration_hook(parameter),
        torch_module.register_module_module_registration_hook(inner),
    ]
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
        raise UserError(f"{config} tells of a net that cannot be built: {first}.") from error
    finally:
        for hook in hooks:
            hook.remove()


def check_playable(net: Any, sample_rate_hz: Any, config: Path) -> None:
    """Raises UserError for a rate that is none, and for a net that looks further back than any real one."""
    number = isinstance(sample_rate_hz, (int, float)) and not isinstance(sample_rate_hz, bool)
    if not number or not 1 <= sample_rate_hz <= _HIGHEST_RATE_HZ:  # of trajectories, 100 Hz
        raise UserError(f"{config}: data.sample_rate_hz={str(sample_rate_hz)[:50]} is no rate that a net works at.")
    for samples in (net.receptive_field, getattr(net, "preroll_samples", 0), getattr(net, "latency_samples", 0)):
        json_weights.check_memory(samples or 0, config)
