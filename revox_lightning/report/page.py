"""The report as one HTML file that needs nothing else: tables, curves, and every version of every excerpt to hear."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from revox_lightning import __version__
from revox_lightning.report import excerpts as sounds
from revox_lightning.report import page_parts
from revox_lightning.report.excerpts import Excerpt, SoundStore
from revox_lightning.report.leaderboard import Board, Row, Run
from revox_lightning.report.page_table import decibels, table

LIMIT_CHARACTERS = 56_000_000  # of sounds: with all else the page stays below 60 MB
_CURVE_POINTS = 300  # of a learning curve
_COMPUTED = ("compiler_options", "device", "processor", "precision", "torch", "version")  # of a run, told beside it
_SCRIPTS = ("player.js", "charts.js", "page.js")


def write(path: Path, boards: Sequence[Board], problems: Sequence[str], count: int, seconds: float) -> list[str]:
    """Writes the page, with at most ``count`` excerpts of ``seconds`` a table; what was left out or shortened."""
    notes: list[str] = []
    heard = [sounds.excerpts(board, count, seconds, notes) for board in boards]
    store, heard = _stored(heard, notes)
    data = {"boards": [_board_data(b, found, store) for b, found in zip(boards, heard, strict=True)]}
    page_parts.write(path, _document(boards, [*problems, *notes], data, store.sounds))
    return notes


def _stored(heard: list[list[Excerpt]], notes: list[str]) -> tuple[SoundStore, list[list[Excerpt]]]:
    """All sounds, shortened until they fit ``LIMIT_CHARACTERS``."""
    while True:
        store = SoundStore()
        for excerpt in (one for found in heard for one in found):
            for version in excerpt.versions:
                store.add(version.signal, excerpt.sample_rate_hz)
        if store.characters <= LIMIT_CHARACTERS:
            return store, heard
        share = 0.97 * LIMIT_CHARACTERS / store.characters
        heard = [[_shortened(one, share) for one in found] for found in heard]
        longest = max(one.reference.shape[-1] / one.sample_rate_hz for found in heard for one in found)
        notes.append(f"The excerpts are shortened to {longest:.1f} s, so that the page stays below 60 MB.")


def _shortened(excerpt: Excerpt, share: float) -> Excerpt:
    frames = max(round(share * excerpt.reference.shape[-1]), 1)
    versions = [replace(v, signal=v.signal[:, :frames].clone()) for v in excerpt.versions]
    return replace(excerpt, versions=versions)


def _board_data(board: Board, heard: Sequence[Excerpt], store: SoundStore) -> dict[str, Any]:
    return {
        "title": board.title,
        "references": {name: decibels(esr) for name, esr in board.references.items()},
        "rows": [_row_data(row) for row in board.rows],
        "excerpts": [_excerpt_data(one, store) for one in heard],
    }


def _row_data(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "esr_db": decibels(row.esr),
        "multiply_adds": row.mean("multiply_adds_per_sample"),
        "real_time_factor": row.mean("real_time_factor"),
        "parameters": row.mean("parameters"),
        "curves": [curve for run in row.runs if (curve := _curve(run))],
    }


def _curve(run: Run) -> list[list[float]]:
    """Epoch, hours of audio seen, minutes of training, and the validation error in dB."""
    points = [
        [e["epoch"], e.get("audio_seconds_trained", 0.0) / 3600, e.get("train_seconds", 0.0) / 60, decibels(value)]
        for e in run.epochs
        if "epoch" in e and (value := e.get("val/esr", 0.0)) > 0
    ]
    step = math.ceil(len(points) / _CURVE_POINTS)
    return [[_rounded(v) for v in p] for i, p in enumerate(points) if i % step == 0 or i == len(points) - 1]


def _excerpt_data(excerpt: Excerpt, store: SoundStore) -> dict[str, Any]:
    rate, y = excerpt.sample_rate_hz, excerpt.reference
    signals = [v.signal for v in excerpt.versions]
    dry = next(v.signal for v in excerpt.versions if v.kind == "dry")
    levels, means = sounds.transfer(dry, signals)
    peak_db = max(decibels(float(v.signal.abs().max()) ** 2) + v.gain_db for v in excerpt.versions)
    versions = [
        {
            "label": v.label,
            "kind": v.kind,
            "row": v.row,
            "sound": store.add(v.signal, rate),
            "gain_db": round(v.gain_db, 2),
            "spectrum": np.round(sounds.spectrum_db(v.signal, rate), 1).tolist(),
            "error": None if v.signal is y else np.round(sounds.spectrum_db(v.signal - y, rate), 1).tolist(),
            "transfer": np.round(mean, 5).tolist(),
        }
        for v, mean in zip(excerpt.versions, means, strict=True)
    ]
    return {
        "name": excerpt.name,
        "rate": rate,
        "start_seconds": excerpt.start / rate,
        "headroom_db": round(min(0.0, -0.1 - peak_db), 2),  # all together are made softer where one would clip
        "bands_hz": np.round(sounds.bands_hz(rate), 1).tolist(),
        "levels": np.round(levels, 5).tolist(),
        "versions": versions,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _document(boards: Sequence[Board], problems: Sequence[str], data: dict[str, Any], stored: Sequence[str]) -> str:
    scripts = [page_parts.part(name) for name in _SCRIPTS]
    runs = sum(len(row.runs) for board in boards for row in board.rows)
    models = sum(len(board.rows) for board in boards)
    sections = "".join(_section(i, board) for i, board in enumerate(boards))
    listening = any(board["excerpts"] for board in data["boards"])
    links = [(f"board-{i}", board.title) for i, board in enumerate(boards)] + [("listen", "Listen")] * listening
    contents = "".join(f'<li><a href="#{place}">{html.escape(text)}</a></li>' for place, text in links)
    title = f"Comparison of {_many(models, 'model')}"
    return "\n".join([
        page_parts.head(title, page_parts.part("page.css"), scripts, images=True),
        f"<body>\n<header><h1>{title}</h1>",
        f"<p>{_many(runs, 'run')}; {_many(len(boards), 'table')}, one for each data set.</p>",
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header>',
        f"<main>{sections}{_LISTEN * listening}{_problems(problems)}</main>",
        f"<footer>Written by revox_lightning {html.escape(__version__)}.</footer>",
        page_parts.foot("report", data, stored, scripts),
    ])  # fmt: skip


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


_LISTEN = """<section id="listen" aria-labelledby="listen-heading"><h2 id="listen-heading">Listen</h2>
<div id="listening"><p>This part needs JavaScript.</p></div></section>"""


def _section(number: int, board: Board) -> str:
    return f"""<section id="board-{number}" class="board" aria-labelledby="board-{number}-heading">
<h2 id="board-{number}-heading">{html.escape(board.title)}</h2>
{table(board)}
<div class="charts" data-board="{number}"></div>
{_runs(board)}
</section>"""


def _runs(board: Board) -> str:
    items = "".join(
        f"<li>{html.escape(row.label)}: " + "; ".join(_run(run) for run in row.runs) + "</li>" for row in board.rows
    )
    return f"<details><summary>The runs of this table</summary><ul>{items}</ul></details>"


def _run(run: Run) -> str:
    """Its seed, its folder, and what computed it, as far as it says."""
    threads = run.figures.get("computed/threads")
    said = [run.texts.get("kernels"), *(run.texts.get(f"computed/{name}") for name in _COMPUTED)]
    said.insert(1, None if threads is None else _many(round(threads), "thread"))
    by = ", ".join(html.escape(text) for text in said if text)
    place = f"seed {html.escape(str(run.seed))} <code>{html.escape(str(run.path))}</code>"
    return f"{place}, computed by {by}" if by else place


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in problems)
    heading = '<h2 id="notes-heading">Notes</h2>'
    return f'<section id="notes" aria-labelledby="notes-heading">{heading}<ul>{items}</ul></section>'
