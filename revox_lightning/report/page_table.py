"""A table of the report's page as HTML: text is escaped, and each cell keeps its figure for sorting."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from revox_lightning.report import intervals
from revox_lightning.report.leaderboard import Board, Row


@dataclass(frozen=True)
class Column:
    """A column of the table: its heading, its figure, how many digits, and what it means."""

    heading: str
    figure: str
    digits: int
    meaning: str


COLUMNS = (
    Column("ESR", "test/esr", 5, "error-to-signal ratio: squared error over the target's energy, over the whole test"),
    Column("ESR, dB", "esr_db", 1, "the same in decibels; in brackets 95 % of draws of seeds and stretches"),
    Column("gain-aligned", "test/esr_gain_aligned", 5, "ESR after the best single gain"),
    Column("MRSTFT", "test/mrstft", 3, "multi-resolution STFT distance of auraloss"),
    Column("loudness, dB", "test/lufs_error_db", 2, "how much louder than the target, ITU-R BS.1770"),
    Column("over linear, dB", "esr_gain_db", 1, "by how much its error lies below the best linear filter's"),
    Column("parameters", "parameters", 0, "trained numbers"),
    Column("multiply-adds", "multiply_adds_per_sample", 0, "multiplications with addition for each sample"),
    Column("&times; real time", "real_time_factor", 1, "seconds of audio in a second on the machine it was trained on"),
    Column("training, s", "train_seconds", 0, "seconds that training took, without tests"),
)


def decibels(ratio: float) -> float:
    """Of a ratio of energies; nothing lies below -140 dB."""
    return round(10 * math.log10(max(ratio, 1e-14)), 3)


def table(board: Board) -> str:
    """A table with its models and references, sorted by error, and beneath it what its columns mean."""
    ranked = any(row.rank is not None for row in board.rows)
    headings = [("model", "")] + [("rank", "")] * ranked + [(c.heading, c.meaning) for c in COLUMNS] + [("seeds", "")]
    head = "".join(
        f'<th scope="col"{" aria-sort=ascending" * (text == "ESR")}><button type="button">{text}</button></th>'
        for text, _ in headings
    )
    body = [(row.esr, _model_row(i, row, ranked)) for i, row in enumerate(board.rows)]
    body += [(esr, _reference_row(name, esr, ranked)) for name, esr in board.references.items()]
    meanings = "".join(f"<dt>{text}</dt><dd>{html.escape(what)}</dd>" for text, what in headings if what)
    if ranked:
        meanings += (
            "<dt>rank</dt><dd>1 + how many models are better beyond chance (paired bootstrap over seeds and stretches "
            "of the test, 95 %): equal ranks are what this test cannot separate</dd>"
        )
    return (
        f'<div class="scroll" role="region" aria-label="Table: {html.escape(board.title)}" tabindex="0">'
        f"<table><caption>Test error of each model; ± is the standard deviation over seeds. A click on a heading sorts."
        f"</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(text for _, text in sorted(body, key=lambda pair: pair[0]))}</tbody></table></div>"
        f"<details><summary>What the columns mean</summary><dl>{meanings}</dl></details>"
    )


def _model_row(number: int, row: Row, ranked: bool) -> str:
    cells = [f'<th scope="row"><span class="swatch" data-series="{number}"></span>{html.escape(row.label)}</th>']
    cells += [_cell(row.rank, 0)] * ranked
    for column in COLUMNS:
        if column.figure == "esr_db":
            cells.append(_cell(decibels(row.esr), 1, _interval(row)))
        else:
            cells.append(_cell(row.mean(column.figure), column.digits, _spread(row.spread(column.figure), column)))
    return f"<tr>{''.join(cells)}{_cell(len(row.runs), 0)}</tr>"


def _reference_row(name: str, esr: float, ranked: bool) -> str:
    known = {"test/esr": (esr, 5), "esr_db": (decibels(esr), 1)}
    cells = [_cell(None, 0)] * ranked + [_cell(*known.get(c.figure, (None, 0))) for c in COLUMNS] + [_cell(None, 0)]
    return f'<tr class="reference"><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>'


def _cell(value: float | None, digits: int, more: str = "") -> str:
    if value is None:
        return '<td class="none">&ndash;</td>'
    return f'<td data-value="{value!r}">{_figure(value, digits)}{more}</td>'


def _figure(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.replace("-", "&minus;") if float(text.replace(",", "")) else text.lstrip("-")


def _spread(spread: float | None, column: Column) -> str:
    if spread is None or (spread == 0 and column.digits == 0):  # a number of parameters does not vary
        return ""
    return f" <small>± {spread:,.{column.digits}f}</small>"


def _interval(row: Row) -> str:
    if row.stretches is None:
        return ""
    found = intervals.interval(row.stretches)
    return f" <small>({_figure(decibels(found.low), 1)} to {_figure(decibels(found.high), 1)})</small>"
