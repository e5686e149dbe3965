"""``revox sync RUN ...``: ``wandb sync`` for offline runs that may have been moved since, with their artifacts.

W&B's log of an offline run names the files of artifacts by the absolute paths where they were made. They lie inside the
run folder; here the log is told where that is now. Its format: 7 bytes of header, then records in LevelDB's log framing
(blocks of 32 KiB; each piece with the CRC-32 of its type and content, its length and its type).
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import SYNC as USAGE
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

_HEADER, _PIECE, _BLOCK = 7, 7, 32768  # bytes
_MAGIC = b":W&B"
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The records (W&B's protobuf ``Record``) of a ``.wandb`` file, up to where a killed run broke off.

    Raises UserError where the file is none of W&B's.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    data = path.read_bytes()
    if data[:4] != _MAGIC:
        raise UserError(f"{path} is not a log of W&B's: name a run folder, or its wandb/offline-run-* folder.")
    position, content = _HEADER, b""
    while position + _PIECE <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE:
            position += left
            continue
        checksum, size, kind = struct.unpack("<IHB", data[position : position + _PIECE])
        piece = data[position + _PIECE : position + _PIECE + size]
        if len(piece) < size or zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        content = piece if kind in (_FULL, _FIRST) else content + piece
        position += _PIECE + size
        if kind in (_FULL, _LAST):
            yield Record.FromString(content)


def framed(header: bytes, contents: Iterable[bytes]) -> bytes:
    """A ``.wandb`` file of a header and serialised records."""
    out = bytearray(header)
    for content in contents:
        start = 0
        while True:
            left = _BLOCK - len(out) % _BLOCK
            if left < _PIECE:
                out += bytes(left)
                left = _BLOCK
            piece = content[start : start + left - _PIECE]
            ends = start + len(piece) == len(content)
            kind = (_FULL if ends else _FIRST) if start == 0 else (_LAST if ends else _MIDDLE)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            start += len(piece)
            if ends:
                break
    return bytes(out)


def relocate(file: Path, folder: Path) -> int:
    """Tells a run's log where the files of its artifacts lie now, under ``folder``; returns how many had moved.

    Raises UserError naming the first one that is nowhere.
    """
    found, moved = list(records(file)), 0
    for record in found:
        for entry in record.artifact.manifest.contents if record.HasField("artifact") else ():
            if not entry.local_path or Path(entry.local_path).is_file():
                continue
            entry.local_path = str(_inside(entry.local_path, folder))
            moved += 1
    if moved:
        data = framed(file.read_bytes()[:_HEADER], (record.SerializeToString() for record in found))
        write_atomically(file, lambda out: out.write(data))
    return moved


def _inside(path: str, folder: Path) -> Path:
    """Where a file of the run folder is that was at ``path`` before the folder moved."""
    parts = (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).parts
    for start in range(1, len(parts)):
        place = folder.joinpath(*parts[start:]).resolve()
        if place.is_file() and place.is_relative_to(folder):
            return place
    raise UserError(f"an artifact's file {path} is not under {folder}, either: move the whole run folder.")


def _logs(text: str) -> list[tuple[Path, Path]]:
    """The logs of a run folder, or of one folder in its wandb/ (an online run's that W&B lost), with the run folder."""
    given = Path(text).expanduser().resolve()
    places = [given] if given.name.startswith(("offline-run-", "run-")) else sorted(given.glob("wandb/offline-run-*"))
    found = [(file, place.parents[1]) for place in places for file in sorted(place.glob("*.wandb"))]
    if not found:
        raise UserError(f"{text} holds no offline run of W&B: name a run folder (outputs/NAME/TIME) with wandb/ in it.")
    return found


def sync(argv: list[str]) -> int:
    """Carries out the command line; returns W&B's exit code."""
    _, changes, words = settings.arguments(argv, set())
    if changes or not words:
        raise UserError(f"usage: {USAGE}")
    logs = [found for text in words for found in _logs(text)]
    for file, folder in logs:
        with disk_faults():
            moved = relocate(file, folder)
        if moved:
            log.info("%s: %d files of artifacts are looked for where they lie now", folder, moved)
    online = ["--include-online"] if any(file.parent.name.startswith("run-") for file, _ in logs) else []
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *online, *(str(file.parent) for file, _ in logs)]
    return subprocess.run(command).returncode


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: sync(sys.argv[1:])))


if __name__ == "__main__":
    main()
