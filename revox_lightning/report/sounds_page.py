"""A page of named sounds as one HTML file that needs nothing else: each to hear, switched in step, beside a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from torch import Tensor

from revox_lightning.report import page_parts
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
    page_parts.write(path, _document(title, data, store.sounds, _table(columns, figures)))


def _document(title: str, data: dict, stored: Sequence[str], table: str) -> str:
    scripts = [page_parts.part(name) for name in _SCRIPTS]
    return "\n".join([
        page_parts.head(title, page_parts.part("page.css"), scripts),
        f"<body>\n<header><h1>{escape(title)}</h1></header>",
        '<main><div id="listening"><p>This part needs JavaScript.</p></div>',
        f"{table}</main>",
        page_parts.foot("sounds", data, stored, scripts),
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
