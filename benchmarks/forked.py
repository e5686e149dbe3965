"""Commands in forked processes: what takes seconds to import is imported once; each command still ends by itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from revox_lightning.commands import train

_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl, Linux
_POLL_SECONDS = 0.002
_LONGEST_SECONDS = 600.0
Main = Callable[[], None]


def start(main: Main, words: Sequence[object], place: Path, log: int, leads: bool = True) -> int:
    """Forks a process that runs a command's ``main`` with its words in a folder; returns its id.

    What it says goes to the file descriptor ``log``. One that ``leads`` has a process group of its own; any other gets
    SIGTERM when the thread that started it ends, as those of ``rows.START`` do.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        if leads:
            with contextlib.suppress(OSError):  # it did so itself, or is gone
                os.setpgid(pid, pid)
        return pid
    code: Any = 1
    try:
        if leads:
            os.setpgid(0, 0)
        else:
            ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(place)
        sys.argv = ["revox", *map(str, words)]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def adopt() -> None:
    """From now on processes whose parent was killed become this one's children, which ``gone`` can wait for."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)


def gone(group: int, seconds: float = 60.0) -> None:
    """Waits until no process of a group is left; ends those that do not end by themselves."""
    until = time.monotonic() + seconds
    while True:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            if time.monotonic() > until:
                os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)


def watched(
    main: Main, words: Sequence[object], place: Path, moment: tuple[str, float] | None, alone: bool
) -> tuple[int | None, int]:
    """Runs a command in a folder; its exit code, None where it was killed, and how often its files were seen to change.

    It is killed at ``("seconds", s)`` or ``("changes", n)``, ``alone`` or with all that it started.
    """
    with open(place / "said.log", "ab") as log:
        pid = start(main, words, place, log.fileno())
    began, before, changes = time.monotonic(), None, 0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            gone(pid)
            return os.waitstatus_to_exitcode(status), changes
        if moment is None or moment[0] == "changes":
            now = _stamps(place)
            changes += before is not None and now != before
            before = now
        passed = time.monotonic() - began
        if moment is not None and (passed if moment[0] == "seconds" else changes) >= moment[1]:
            break
        if passed > _LONGEST_SECONDS:
            raise TimeoutError(f"{place} did not end in {_LONGEST_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    (os.kill if alone else os.killpg)(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None, changes


def _stamps(place: Path) -> frozenset[tuple[str, int, int]]:
    found, waiting = [], [str(place)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif not entry.name.endswith(".log"):
                        stat = entry.stat()
                        found.append((entry.path, stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:  # a temporary one that is gone
            continue
    return frozenset(found)


def reap() -> None:
    """Waits for what killed commands had started."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.01)
        except ChildProcessError:
            return


class Training:
    """``subprocess.Popen`` for what ``rows.START`` starts: the training is forked instead."""

    def __init__(self, command: Sequence[str], stdout: Any, stderr: int) -> None:
        self.returncode: int | None = None
        self.pid = start(train.main, command[3:], Path.cwd(), stdout.fileno(), leads=False)

    def _wait(self, how: int) -> None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None

    def poll(self) -> int | None:
        self._wait(os.WNOHANG)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("train", timeout or 0.0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Subprocess:
    """The module ``subprocess`` as ``rows`` and ``sweep`` use it."""

    STDOUT, TimeoutExpired, Popen = subprocess.STDOUT, subprocess.TimeoutExpired, Training

    @staticmethod
    def run(command: Sequence[str], stdout: Any, stderr: int) -> Training:
        training = Training(command, stdout, stderr)
        training.wait()
        return training
