"""``revox status outputs ...``: which runs are there, how each stands, and why one failed, in a sentence.

A run says so itself in ``status.json``: running, finished, failed (with the reason) or interrupted. What was killed
could say nothing any more: its process is looked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from revox_lightning.commands import settings
from revox_lightning.commands.exits import guarded
from revox_lightning.commands.usage import STATUS as USAGE
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

NAME = "status.json"
RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"
_SIGNALS = ("SIGTERM", "SIGUSR1")  # of the shell and the system's end; of a cluster's scheduler


@contextlib.contextmanager
def kept(folder: RunFolder) -> Iterator[None]:
    """Keeps ``status.json`` true around a training, which SIGTERM and SIGUSR1 stop as Ctrl+C does.

    A run that failed before it wrote its config leaves no status: there is nothing to go on with.
    """
    told: dict[str, Any] = {"state": RUNNING, "reason": None, "begun": _now(), "ended": None}
    told |= {"host": socket.gethostname(), "pid": os.getpid()}
    folder.write_json(NAME, told)
    try:
        with _interruptible():
            yield
    except BaseException as error:
        state = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        reason = None if state == INTERRUPTED else _sentence(error)
        with contextlib.suppress(UserError, OSError):  # the disk may be what failed
            if folder.config_path.exists():
                ended = {"state": state, "reason": reason, "ended": _now()}
                folder.write_json(NAME, folder.read_json(NAME) | told | ended)
            else:
                (folder.path / NAME).unlink(missing_ok=True)
                folder.path.rmdir()  # where nothing else is in it
        raise
    folder.write_json(NAME, folder.read_json(NAME) | told | {"state": FINISHED, "ended": _now()})


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that ask for an end become KeyboardInterrupt, where nobody else (a scheduler's client) handles them."""
    own = os.getpid()

    def stop(number: int, _: Any) -> None:
        if os.getpid() != own:  # a forked worker dies as it would have
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt

    taken = []
    with contextlib.suppress(ValueError):  # signals are the main thread's
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, stop)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def of(folder: RunFolder) -> tuple[str, str]:
    """How a run stands and, in words, why: the state that it wrote, or what is left of one that was killed."""
    told = folder.read_json(NAME)
    state = str(told.get("state"))
    if state not in (RUNNING, FINISHED, FAILED, INTERRUPTED):  # a run of an earlier version
        return (FINISHED, "") if (folder.path / "metrics.json").is_file() else (INTERRUPTED, "it wrote no metrics.json")
    if state == RUNNING and told.get("host") == socket.gethostname() and not _alive(told.get("pid")):
        return INTERRUPTED, "its process is gone"
    if state == RUNNING:
        return RUNNING, f"on {told.get('host')} since {told.get('begun')}"
    return state, str(told.get("reason") or "")


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _sentence(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}".rstrip(": ")


def status(argv: list[str]) -> int:
    """Prints a line for each run below the folders named; returns 0 where all are finished or running, 2 otherwise."""
    _, changes, words = settings.arguments(argv, set())
    if changes:
        raise UserError(f"usage: {USAGE}")
    bad = 0
    places = [Path(text).expanduser() for text in words or ["outputs"]]
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place} is no folder: name run folders, or one that holds some.")
    found = sorted({path.parent for place in places for name in (NAME, "config.yaml") for path in place.rglob(name)})
    for path in found:
        try:
            state, reason = of(RunFolder(path))
        except UserError as error:
            state, reason = FAILED, str(error)
        bad += state in (FAILED, INTERRUPTED)
        goes_on = f"; go on with train.py resume={path}" if state != FINISHED and RunFolder(path).last.exists() else ""
        said = reason + (goes_on if state != RUNNING else "")
        print(f"{state:12s}{path}" + (f": {said.lstrip('; ')}" if said else ""))
    print(f"{len(found)} runs, {bad} of them failed or interrupted")
    return 2 if bad else 0


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: status(sys.argv[1:])))


if __name__ == "__main__":
    main()
