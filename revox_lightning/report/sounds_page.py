"""A page of named sounds as one HTML file that needs nothing else: each to hear, switched in step, beside a table."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from revox_lightning.files import write_atomically
from revox_lightning.report.excerpts import SoundStore

LIMIT_CHARACTERS = 56_000_000  # of sounds: longer ones are shortened, all to the same seconds
_SCRIPTS = ("player.js", "sounds.js")


def page(
    path: Path,
    title: str,
    rows: Sequence[tuple[str, Tensor, int]],
    columns: Sequence[str] = (),
    figures: Sequence[Sequence[str]] = (),
) -> None:
    """Writes a page with one button for each row: name, audio (channels, time), sample rate in Hz.

    ``figures`` are the lines of a table under ``columns``, all text; every text is escaped. What is beyond full scale
    is clipped; sounds keep their levels.
    """
    seconds = max(sound.shape[-1] / rate_hz for _, sound, rate_hz in rows)
    while True:
        store = SoundStore()
        kept = [(name, sound[:, : round(seconds * rate_hz)].contiguous(), rate_hz) for name, sound, rate_hz in rows]
        numbers = [store.add(sound, rate_hz) for _, sound, rate_hz in kept]
        if store.characters <= LIMIT_CHARACTERS:
            break
        seconds *= 0.97 * LIMIT_CHARACTERS / store.characters
    data = {
        "rate": max(rate_hz for _, _, rate_hz in rows),
        "sounds": [{"name": name, "sound": number} for (name, _, _), number in zip(rows, numbers, strict=True)],
    }
    text = _document(title, data, store.sounds, _table(columns, figures))
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def _document(title: str, data: dict, stored: Sequence[str], table: str) -> str:
    style = _part("page.css")
    scripts = [_part(name) for name in _SCRIPTS]
    # Nothing is loaded, and nothing runs but these scripts, whatever a name may say.
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {' '.join(map(_hash, scripts))}"
    told = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>",
        f"<header><h1>{escape(title)}</h1></header>",
        '<main><div id="listening"><p>This part needs JavaScript.</p></div>',
        f"{table}</main>",
        f'<script type="application/json" id="sounds-data">{told}</script>',
        *(f'<script type="text/plain" id="sound-{i}">{text}</script>' for i, text in enumerate(stored)),
        *(f"<script>{text}</script>" for text in scripts),
        "</body>\n</html>\n",
    ])  # fmt: skip


def _table(columns: Sequence[str], figures: Sequence[Sequence[str]]) -> str:
    if not figures:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in figures
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
