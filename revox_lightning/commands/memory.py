"""A training for which the memory is too small: said in one sentence, or gone on with by smaller batches."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig

from revox_lightning.commands import status
from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

# What torch and CUDA's libraries say where they raise a plain RuntimeError.
_SAID = re.compile(r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED", re.IGNORECASE)
Result = TypeVar("Result")


class OutOfMemory(UserError):
    """A training's memory is used up."""


@contextlib.contextmanager
def watched(cfg: DictConfig) -> Iterator[None]:
    """Raises OutOfMemory, which names ``system.batch_size``, where the memory of a CPU or a GPU is used up."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _SAID.search(str(error))
        if not full:
            raise
        size = cfg.system.batch_size
        less = f"a smaller system.batch_size (now {size})" if size > 1 else "a shorter system.segment_samples"
        more = "" if size == 1 or cfg.system.get("auto_batch") else ", or system.auto_batch=true"
        raise OutOfMemory(f"the memory is used up by a step of the training: train with {less}{more}.") from error


def with_smaller_batches(cfg: DictConfig, folder: RunFolder, resume: bool, train: Callable[[bool], Result]) -> Result:
    """``train(resume)``; with ``system.auto_batch`` again by half the batch, from the last whole epoch, until it fits.

    The config has the new ``system.batch_size`` from then on, and the run's status says what happened.
    Raises OutOfMemory where a single segment is too much, or halving was not asked for.
    """
    halvings = []
    while True:
        try:
            return train(resume)
        except OutOfMemory:
            if not cfg.system.get("auto_batch") or cfg.system.batch_size == 1:
                raise
        gc.collect()  # here the failed step's tensors are nobody's any more
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halvings.append(f"{cfg.system.batch_size} to {cfg.system.batch_size // 2}")
        cfg.system.batch_size //= 2
        log.warning("the memory is used up: going on with system.batch_size=%d", cfg.system.batch_size)
        told: dict[str, Any] = folder.read_json(status.NAME)
        folder.write_json(status.NAME, told | {"batch_size_halved": ", ".join(halvings)})
        resume = resume or folder.last.exists()
