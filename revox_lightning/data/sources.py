"""What sources of takes have in common: the name of what they made, which changes with how it was made, and folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from revox_lightning import tape
from revox_lightning.data.takes import SPLITS
from revox_lightning.errors import UserError


def key(settings: list[Any], modules: Iterable[ModuleType], here: str) -> str:
    """A name for what the built-in machine made with `settings` (as JSON takes them).

    It changes with them, with the code of the machine, of `modules` and of the file `here`: nothing stale is read.
    """
    sources = [Path(here), *(Path(str(module.__file__)) for module in modules)]
    sources += sorted(Path(str(tape.__file__)).parent.glob("*.py"))
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    return hashlib.sha256((json.dumps(settings, sort_keys=True) + code).encode()).hexdigest()[:16]


def files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """The files below a folder that end so, in order, resolved; raises UserError where there is no such folder."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: there is no such folder.")
    return sorted(path.resolve() for path in root.rglob("*") if path.suffix.lower() in suffixes)


def named_split(path: Path) -> str | None:
    """The split that the nearest of a file's folders is named after.

    >>> named_split(Path("tapes/train/old/a.wav")), named_split(Path("a.wav"))
    ('train', None)
    """
    return next((part for part in reversed(path.parent.parts) if part in SPLITS), None)
