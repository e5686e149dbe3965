"""What pages are made of: styles, scripts, the policy that lets no other run, data, and sounds."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from revox_lightning.files import write_atomically


def part(name: str) -> str:
    """A style or script of this folder, by its file's name."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def head(title: str, style: str, scripts: Sequence[str], images: bool = False) -> str:
    """A page's beginning up to its body; ``title`` is escaped.

    Nothing is loaded, and nothing runs but these scripts, whatever a name may say; ``images`` allows those that
    scripts draw.
    """
    policy = "default-src 'none'; " + "img-src data: blob:; " * images
    policy += f"style-src {_hash(style)}; script-src {' '.join(map(_hash, scripts))}"  # without scripts: none
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>",
    ])  # fmt: skip


def foot(name: str, data: Any, sounds: Sequence[str], scripts: Sequence[str]) -> str:
    """A page's end: its data under the id ``name-data``, its sounds, and its scripts."""
    return "\n".join([
        f'<script type="application/json" id="{name}-data">{_json(data)}</script>',
        *(f'<script type="text/plain" id="sound-{i}">{text}</script>' for i, text in enumerate(sounds)),
        *(f"<script>{text}</script>" for text in scripts),
        "</body>\n</html>\n",
    ])  # fmt: skip


def write(path: Path, text: str) -> None:
    """Writes a page whole or not at all; a folder's name may hold bytes that are no text."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
