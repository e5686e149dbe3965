"""What a config may build: ``_target_`` names a class of this package's own rooms, or one of the few guests below.

A config comes with a run's folder, from whoever made that. A target is looked up by the module that defines it and by
one name in there, never along attributes: ``revox_lightning.audio.sys.modules`` leads nowhere.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from revox_lightning.errors import UserError

_ROOMS = ("models", "objectives", "data", "tape")  # classes, and of models the functions that build them, too
_GUESTS = "a class of revox_lightning's models, objectives, data or tape, an optimiser or schedule of torch.optim"
_PATH = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_OURS = re.compile(rf"revox_lightning\.({'|'.join(_ROOMS)})\.[a-z]\w*", re.ASCII)
_DEEPEST = 32


def built(node: Any, more: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Plain types (resolved, without interpolations) with every mapping that has a ``_target_`` made into its object.

    ``_partial_: true`` makes a function that waits for the rest of its arguments; ``more`` are further arguments of
    the outermost. Raises UserError for a target that is not allowed, and for arguments that do not fit.
    """
    if depth > _DEEPEST:
        raise UserError("the config is nested too deeply.")
    if isinstance(node, list):
        return [built(value, None, depth + 1) for value in node]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {name: built(value, None, depth + 1) for name, value in node.items()}
    target = node["_target_"]
    made = find(target)
    options = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    if wrong := [name for name in options if not isinstance(name, str) or name.startswith("_")]:
        raise UserError(f"the config of {target} has an option {_shown(wrong[0])}, which nothing here takes.")
    options = {name: built(value, None, depth + 1) for name, value in options.items()} | dict(more or {})
    if node.get("_partial_"):
        return functools.partial(made, **options)
    try:
        return made(**options)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, (TypeError, ValueError)) or _misconfigured(error):
            first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UserError(f"the config of {target} does not fit: {first}.") from error
        raise


def find(target: Any) -> Callable[..., Any]:
    """The class (or function of models) that a target names. Raises UserError for any other target."""
    module, _, name = target.rpartition(".") if isinstance(target, str) and _PATH.fullmatch(target) else ("", "", "")
    found = _guest(module, name)
    if found is None and _OURS.fullmatch(module):
        try:
            found = vars(importlib.import_module(module)).get(name)
        except ImportError:
            found = None
        own = getattr(found, "__module__", None) == module
        room = module.split(".")[1]
        if not own or not (inspect.isclass(found) or (room == "models" and inspect.isfunction(found))):
            found = None
    if found is None:
        raise UserError(
            f"_target_: {_shown(target)} is not allowed in a config: name {_GUESTS}, or Lightning's Trainer."
        )
    return found


def _guest(module: str, name: str) -> Any:
    """An optimiser or schedule of torch, or Lightning's Trainer."""
    if (module, name) == ("pytorch_lightning", "Trainer"):
        from pytorch_lightning import Trainer

        return Trainer
    if module != "torch.optim" and not module.startswith("torch.optim."):
        return None
    import torch

    found = vars(torch.optim.lr_scheduler if module.endswith(".lr_scheduler") else torch.optim).get(name)
    kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    defined = str(getattr(found, "__module__", "")).startswith("torch.optim.")
    named = module in ("torch.optim", "torch.optim.lr_scheduler") or getattr(found, "__module__", "") == module
    return found if inspect.isclass(found) and issubclass(found, kinds) and defined and named else None


def _misconfigured(error: BaseException) -> bool:
    """Whether it is Lightning's own word for it."""
    return type(error).__name__ == "MisconfigurationException"


def _shown(target: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(target))[:100]
