"""Whether the files that a killed command leaves are whole."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from matplotlib import image

from revox_lightning import audio
from revox_lightning.runs import load_tensors


def _csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if not lines:
        raise ValueError("it is empty")
    rows = list(csv.reader(lines if text.endswith("\n") else lines[:-1], strict=True))
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("its rows differ in length")


def _jsonl(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines()[: None if text.endswith("\n") else -1]:
        json.loads(line)


def _yaml(path: Path) -> None:
    if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
        raise ValueError("it holds nothing by name")


def _html(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("it ends before its end")


def _npz(path: Path) -> None:
    with open(path, "rb") as raw, np.load(raw) as file:
        for name in file:
            file[name].sum()


def _wav(path: Path) -> None:
    """Its header may tell of more than there is, which readers of audio pass over."""
    with open(path, "rb") as file:
        told = 8 + int.from_bytes(file.read(8)[4:], "little")
    if told > path.stat().st_size:
        raise ValueError(f"it is {path.stat().st_size} bytes long and says {told}")
    audio.read(path)


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".yaml": _yaml,
    ".ckpt": load_tensors,
    ".wav": _wav,
    ".html": _html,
    ".npz": _npz,
    ".png": image.imread,
}


def unreadable(place: Path) -> list[str]:
    """One sentence for each file below a folder that cannot be read; temporary ones (``.NAME...``) are nobody's."""
    found = []
    for path in sorted(place.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
        if hidden or path.suffix not in READERS or not path.is_file():
            continue
        try:
            READERS[path.suffix](path)
        except FileNotFoundError:  # what a command that is ending replaces
            continue
        except Exception as error:
            found.append(f"{path.relative_to(place)} cannot be read ({type(error).__name__}: {str(error)[:200]})")
    return found
