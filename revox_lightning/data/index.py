"""What is known of audio files without opening them again: headers, damage and findings, kept between starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from revox_lightning import audio, plain_files
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

log = logging.getLogger(__name__)

_FORM = 1  # of the file: another one is not read
_MOST_BYTES = 2**30
_OLD_FINDINGS = 16  # of one file that this start has no use for: those of other settings
_MOST_THREADS = 16
_SAID_EVERY_SECONDS = 10.0
_MANY = 100  # files; fewer are opened without a word

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], what: str) -> Iterator[Result]:
    """``work`` of every item in threads, in order; says in the log how far it is where that takes long."""
    items = list(items)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(min(2 * cores, _MOST_THREADS))  # half of them wait for the disk
    said = time.monotonic()
    try:
        for n, result in enumerate(pool.map(work, items), 1):
            if time.monotonic() - said > _SAID_EVERY_SECONDS:
                said = time.monotonic()
                log.info("%s: %d of %d ...", what, n, len(items))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


@dataclasses.dataclass
class _Entry:
    """One file: it holds as long as ``stamp``, its size and time of change, does."""

    stamp: list[int]
    header: audio.AudioInfo | None
    problem: str | None = None
    findings: dict[str, Any] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)

    def worth_keeping(self) -> dict[str, Any]:
        """What this start used or found, and the last of what it did not."""
        others = [key for key in self.findings if key not in self.used]
        dropped = set(others[:-_OLD_FINDINGS])
        return {key: finding for key, finding in self.findings.items() if key not in dropped}


class Index:
    """Headers and findings of audio files, in memory and, with ``folder``, in a JSON file there named after ``root``.

    A file is opened once; one that changed, by its size or time of change, is opened again, and it alone. With
    ``skips`` whoever uses it leaves files out that cannot be read, instead of ending.
    """

    def __init__(self, folder: str | Path | None = None, root: str | Path = "", skips: bool = False) -> None:
        self.skips = skips
        self._place: Path | None = None
        self._entries: dict[Path, _Entry] = {}
        self._kept: dict[Path, _Entry] = {}  # from an earlier start; whether they still hold is seen when asked for
        self._told: set[Path] = set()
        self._news = False  # whether there is something to write
        self._lock = threading.Lock()
        if folder is not None:
            root = Path(root).expanduser().resolve()
            name = f"{root.name[:60]}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
            self._place = Path(folder).expanduser() / "index" / name
            self._kept = _read(self._place)

    def look_at(self, paths: Iterable[Path]) -> None:
        """Opens what is not known yet, in parallel, and keeps what it finds."""
        new = [path for path in dict.fromkeys(paths) if path not in self._entries and not self._known(path)]
        if len(new) > _MANY:
            log.info("reading the headers of %d files (once) ...", len(new))
        if new:
            for path, entry in zip(new, in_parallel(_looked_at, new, "headers"), strict=True):
                self._entries[path] = entry
            self._news = True
            self.save()

    def info(self, path: Path) -> audio.AudioInfo:
        """The header of a file. Raises UserError where it cannot be read."""
        entry = self._entry(path)
        if entry.problem is not None or entry.header is None:
            raise UserError(entry.problem or f"{path} cannot be read")
        return entry.header

    def problem(self, path: Path) -> str | None:
        """Why a file cannot be read, in a sentence; None where it can, as far as is known."""
        return self._entry(path).problem

    def damaged(self, path: Path, reason: str) -> None:
        """Notes that a file cannot be read."""
        self._entry(path).problem = reason
        self._news = True

    def tell_unreadable(self, paths: Iterable[Path]) -> None:
        """Says in one list which of the files cannot be read, each once; raises UserError where none can."""
        problems = {path: self.problem(path) for path in dict.fromkeys(paths)}
        reasons = {path: problem for path, problem in problems.items() if problem is not None}
        if problems and len(reasons) == len(problems):
            more = f" (so it is with all {len(reasons)} files)" if len(reasons) > 1 else ""
            raise UserError(next(iter(reasons.values())) + more)
        new = [reason for path, reason in reasons.items() if path not in self._told]
        self._told |= set(reasons)
        if new:
            listed = "\n  ".join(new)
            log.warning("%d of %d files cannot be read and are left out:\n  %s", len(new), len(problems), listed)

    def finding(self, path: Path, key: str) -> Any:
        """What ``keep`` kept under that key as long as the file has not changed; None without."""
        entry = self._entry(path)
        entry.used.add(key)
        return entry.findings.get(key)

    def keep(self, path: Path, key: str, finding: Any) -> None:
        """Keeps something (as JSON takes it) about a file."""
        self._entry(path).findings[key] = finding
        self._news = True

    def save(self) -> None:
        """Writes the file, where there is a place for one; what cannot be written is found again at the next start."""
        if self._place is None or not self._news:
            return
        self._news = False
        # What could not be opened is tried again at the next start: permissions and disks come back.
        files = {
            str(path): {
                "stamp": entry.stamp, "header": list(dataclasses.astuple(entry.header))[1:], "problem": entry.problem,
                "findings": entry.worth_keeping(),
            }
            for path, entry in self._entries.items() if entry.header is not None
        }  # fmt: skip
        text = json.dumps({"form": _FORM, "files": files}).encode()
        try:
            write_atomically(self._place, lambda file: file.write(text))
        except OSError as error:
            log.warning("the index of the recordings could not be kept in %s (%s)", self._place, error.strerror)

    def _entry(self, path: Path) -> _Entry:
        with self._lock:
            if path not in self._entries and not self._known(path):
                self._entries[path] = _looked_at(path)
            return self._entries[path]

    def _known(self, path: Path) -> bool:
        """Takes over what an earlier start found, where the file is still the same."""
        entry = self._kept.get(path)
        if entry is None or entry.stamp != stamp(path):
            return False
        self._entries[path] = entry
        return True


def stamp(path: Path) -> list[int]:
    """Size and time of change of a file; empty where there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _looked_at(path: Path) -> _Entry:
    """Reads a file's header and its last sample, which a file that was cut off does not have."""
    seen = stamp(path)
    try:
        header = audio.info(path)
    except UserError as error:
        return _Entry(seen, None, str(error))
    try:
        audio.read(header, header.frames - 1, 1)
    except audio.DamagedAudio as error:
        return _Entry(seen, header, str(error))
    except UserError:  # a sample that is not finite: whoever reads it says so
        pass
    return _Entry(seen, header)


def _read(place: Path) -> dict[Path, _Entry]:
    """What an earlier start kept; nothing where that is missing, damaged or of another form."""
    try:
        content = plain_files.read_json(place, _MOST_BYTES)
        if content["form"] != _FORM:
            return {}
        return {Path(name): _from_file(Path(name), kept) for name, kept in content["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s is damaged and made anew", place)
        return {}


def _from_file(path: Path, kept: dict[str, Any]) -> _Entry:
    rate_hz, channels, frames, form, subtype = kept["header"]
    header = audio.AudioInfo(path, int(rate_hz), int(channels), int(frames), str(form), str(subtype))
    problem = None if kept["problem"] is None else str(kept["problem"])
    return _Entry([int(n) for n in kept["stamp"]], header, problem, dict(kept["findings"]))
