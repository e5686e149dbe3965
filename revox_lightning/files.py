"""Files that are whole or absent: written beside their place, synced, then renamed.

The temporary file is locked by who writes it. A lock ends with its process, however that ends: what a killed process
left is known by it, and goes when the same file is written again.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

_AT_FDCWD, _EXCHANGE = -100, 2  # of Linux's renameat2


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets ``write`` fill a temporary file in the target's folder and renames it to ``path``.

    Whatever goes wrong, either the old file or the new one stands there; the folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = begin(path)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            write(file)
        publish(handle, temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(handle)


def begin(path: Path) -> tuple[int, Path]:
    """A new temporary file for ``path``: an open descriptor, whose lock marks it as in use, and its place.

    What killed processes left of this file is removed. Raises OSError where the folder cannot be written.
    """
    clear_leftovers(path)
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        if _kept(handle, temporary):
            return handle, Path(temporary)


def begin_folder(path: Path) -> tuple[int, Path]:
    """As `begin`, a folder."""
    clear_leftovers(path)
    while True:
        part = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(part, os.O_RDONLY)
            if _kept(handle, part):
                return handle, Path(part)


def publish(handle: int, temporary: Path, path: Path) -> None:
    """Gives a written temporary file its name, once it is on the disk."""
    os.fsync(handle)
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)  # a temporary file is private; the finished one is like any other
    os.replace(temporary, path)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``path`` only when everything in it is written.

    What killed processes left of it is removed. Raises OSError where that cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.part.old") if not path.exists() else ():
        aside.rename(path)  # a kill came between the two steps of an exchange
        break
    handle, part = begin_folder(path)
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o777 & ~mask)
        if path.exists():
            _exchange(part, path)
        else:
            part.rename(path)
    finally:
        os.close(handle)
        shutil.rmtree(part, ignore_errors=True)


def clear_leftovers(path: Path) -> None:
    """Removes temporary files and folders that killed processes left of ``path``, and no others."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.part")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in [entry for entry in entries if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDONLY)
                try:
                    if _lock(handle):
                        shutil.rmtree(entry.path) if entry.is_dir() else os.unlink(entry.path)
                finally:
                    os.close(handle)


def _kept(handle: int, temporary: str) -> bool:
    """Locks what was just made; False, and it is closed, where another process took it for left over before that."""
    _lock(handle, waiting=True)
    if os.path.exists(temporary):
        return True
    os.close(handle)
    return False


def _lock(handle: int, waiting: bool = False) -> bool:
    """Takes the lock of an open file; False where another process has it or the file system knows none."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waiting else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _exchange(new: Path, old: Path) -> None:
    """Lets two folders change places in one step, or in two where the system has no such step."""
    try:
        rename: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _EXCHANGE) == 0:
            return
    except (AttributeError, OSError, TypeError):
        pass
    aside = new.with_name(f"{new.name}.old")
    old.rename(aside)
    new.rename(old)
    aside.rename(new)
