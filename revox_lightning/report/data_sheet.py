"""The data sheet on one page: a table of figures, several machines side by side, and their curves; and as JSON."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

from revox_lightning import plain_files
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.measure.figures import FIGURES, Figure, bounds, lookup
from revox_lightning.report import page_parts
from revox_lightning.report.table import escaped

Sheets = list[tuple[str, dict[str, Any]]]

_STYLE = """
body { font: 13px/1.4 system-ui, sans-serif; color: #111; margin: 1.2em auto; max-width: 1240px; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 0 0 .2em; } h2 { font-size: 1.1em; margin: 1em 0 .3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .12em .7em; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; } td.unit { text-align: left; color: #666; padding-left: 0; }
tr.group th { text-align: left; padding-top: .6em; border-bottom: 1px solid #888; }
td.published { color: #555; font-style: italic; } .swatch { display: inline-block; width: .8em; height: .8em; }
figure { margin: 0; } figcaption { color: #444; font-size: .9em; } img { width: 100%; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 1em; }
.missed { background: #f6f3e8; padding: .5em 1em; } .notes { color: #444; } .notes p { margin: .2em 0; }
@media print { .curves { grid-template-columns: repeat(3, 1fr); } figure, tr { break-inside: avoid; } }
"""
_DEFINITIONS = (
    "0 VU is a sine of the level named above; a full-scale sine is 0 dBFS. Two figures with a slash are left / right.",
    "Wow and flutter: AES6-2008 two-sigma and IEC 60386 quasi-peak are different standards and are not mixed. A figure "
    "marked monitor was heard while recording: part of the wander cancels, so it is never compared with data sheets.",
    "The latency of a recording that was rewound and replayed tells only when the replay was started.",
    "MOL: output at 1 kHz with 3 % third harmonic. SOL: the most that comes back at 10 and 16 kHz. "
    "S/N: noise of a silent recording under 0 VU, and under MOL. A dash: not measured, not reached or not published.",
)
# Where a published figure stands beside a measured one: path in the sheet, key in the preset.
_PUBLISHED = {
    "speed.weighted_two_sigma_percent": "wow_flutter_percent",
    "response.lower_minus_3db_hz": "response_low_hz",
    "response.upper_minus_3db_hz": "response_high_hz",
    "distortion.thd_percent": "distortion_percent",
    "stereo.crosstalk_1k_db": "crosstalk_db",
}


def write_page(sheets: Sheets, path: Path) -> None:
    """Writes the named sheets (see ``measure.data_sheet``) side by side as one HTML file that needs nothing else.

    Raises UserError where the disk refuses.
    """
    title = " and ".join(name for name, _ in sheets) if len(sheets) < 3 else f"{len(sheets)} machines side by side"
    body = [f"<h1>Data sheet: {html.escape(title)}</h1>", _heads(sheets)]
    body += [_missed(name, sheet["missed"]) for name, sheet in sheets if sheet.get("missed")]
    table = rows(sheets)
    if table:
        body.append(_table(sheets, table))
    from revox_lightning.report import sheet_plots  # matplotlib takes a second to import

    swatches = "".join(f".swatch.c{i} {{ background: {colour}; }}\n" for i, colour in enumerate(sheet_plots.COLOURS))
    curves = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="{address}"><figcaption>{html.escape(caption)}</figcaption>'
        "</figure>"
        for address, caption in sheet_plots.plots(sheets)
    )
    body.append(f'<h2>Curves</h2><div class="curves">{curves}</div>')
    definitions = "".join(f"<p>{text}</p>" for text in _DEFINITIONS)
    body.append(f'<h2>How it was measured</h2><div class="notes">{definitions}</div>')
    page = page_parts.head(f"Data sheet: {title}", _STYLE + swatches, [], images=True)
    _write(path, f"{page}\n<body>{''.join(body)}</body></html>\n")


def write_json(sheets: Sheets, path: Path) -> None:
    """Writes ``{"sheets": [{"name": ..., ...}]}``; figures that are not finite become null."""
    content = {"sheets": [{"name": name} | _finite(sheet) for name, sheet in sheets]}
    text = json.dumps(content, indent=1, allow_nan=False)
    _write(path, re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text) + "\n")


def write_table(sheets: Sheets, path: Path) -> None:
    """Writes the figures of the named sheets side by side as a Markdown table, and their notes beneath it.

    Raises UserError where the disk refuses.
    """
    names = [escaped(name) for name, _ in sheets]
    lines = ["# Data sheet", "", f"| figure | unit | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    lines += [f"| {figure.label} | {figure.unit} | {' | '.join(cells)} |" for figure, cells in rows(sheets)]
    for name, (_, sheet) in zip(names, sheets, strict=True):
        lines += ["", *(f"- {name}: {escaped(note)}." for note in sheet.get("notes", []))]
        if sheet.get("missed"):
            target, sentences = escaped(sheet["missed"]["target"]), map(escaped, sheet["missed"]["sentences"])
            lines += ["", f"What did {name} miss of {target}? {' '.join(sentences)}"]
    _write(path, "\n".join(lines) + "\n")


def read_json(path: Path) -> Sheets:
    """What ``write_json`` wrote; raises UserError where the file is no data sheet."""
    try:
        content = plain_files.read_json(path)
        listed = content.get("sheets", [content])
        return [(str(sheet.get("name") or path.parent.name), sheet) for sheet in listed if sheet["kind"]]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a data sheet: measure the recording again.") from error


def rows(sheets: Sheets) -> list[tuple[Figure, list[str]]]:
    """The figures that at least one sheet has, each in text for every sheet; monitor figures are marked."""
    found = []
    for figure in FIGURES:
        values = [lookup(sheet, figure.path) for _, sheet in sheets]
        if all(value is None for value in values):
            continue
        cells = [
            figure.written(value, bounds(sheet, figure.path)) for value, (_, sheet) in zip(values, sheets, strict=True)
        ]
        if "two_sigma" in figure.path or "quasi_peak" in figure.path:
            cells = [_marked(cell, sheet) for cell, (_, sheet) in zip(cells, sheets, strict=True)]
        found.append((figure, cells))
    return found


def _marked(cell: str, sheet: dict[str, Any]) -> str:
    return f"{cell} (monitor)" if cell != "-" and sheet.get("mode") == "monitor" else cell


def published(sheet: dict[str, Any], figure: Figure) -> str:
    """The published figure of a machine in text; a dash where there is none, or not known to mean the same."""
    figures = sheet.get("published") or {}
    key = _PUBLISHED.get(figure.path, "")
    value = figures.get(key)
    if figure.path.startswith("noise.re_") and figures.get("signal_to_noise_weighting"):
        stated = figures.get("signal_to_noise_reference"), figures["signal_to_noise_weighting"]
        value = figures.get("signal_to_noise_db") if figure.path == "noise.re_{}_db.{}".format(*stated) else None
    if value is None or (figure.group == "Speed" and sheet.get("mode") == "monitor"):
        return "-"
    if key == "wow_flutter_percent":
        return f"{value:g} (standard not stated)"
    unclear = key == "distortion_percent" and figures.get("distortion_level") is None
    return f"{value:g}" + (" (level not stated)" if unclear else "")


def published_note(sheet: dict[str, Any]) -> str:
    """A sentence on the published figure that no row can hold: an S/N whose weighting the source does not state."""
    figures = sheet.get("published") or {}
    value = figures.get("signal_to_noise_db")
    if value is None or (figures.get("signal_to_noise_weighting") and figures.get("signal_to_noise_reference")):
        return ""
    return f"published S/N {value:g} dB, weighting or reference not stated"


def _heads(sheets: Sheets) -> str:
    from revox_lightning.report.sheet_plots import COLOURS

    lines = []
    for i, (name, sheet) in enumerate(sheets):
        swatch = f'<span class="swatch c{i % len(COLOURS)}"></span>'
        mode = {"monitor": "heard while recording (monitor)", "second_pass": "recorded, rewound and replayed"}
        facts = [mode.get(str(sheet.get("mode")), ""), f"{sheet['sample_rate_hz'] / 1000:g} kHz"]
        if sheet.get("zero_vu_dbfs") is not None:
            facts.append(f"0 VU = {sheet['zero_vu_dbfs']:g} dBFS")
        facts += [*sheet.get("notes", []), published_note(sheet)]
        lines.append(f"<p>{swatch} <b>{html.escape(name)}</b>: {html.escape('; '.join(f for f in facts if f))}</p>")
    return f'<div class="notes">{"".join(lines)}</div>'


def _missed(name: str, missed: dict[str, Any]) -> str:
    heading = f"<b>What did {html.escape(name)} miss of {html.escape(missed['target'])}?</b> "
    text = " ".join(html.escape(sentence) for sentence in missed["sentences"])
    return f'<p class="missed">{heading}{text}</p>'


def _table(sheets: Sheets, table: list[tuple[Figure, list[str]]]) -> str:
    with_published = [i for i, (_, sheet) in enumerate(sheets) if sheet.get("published")]
    names = [name for name, _ in sheets] + [f"{sheets[i][0]}, published" for i in with_published]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines, group = [f"<tr><th></th><th></th>{head}</tr>"], ""
    for figure, cells in table:
        if figure.group != group:
            group = figure.group
            lines.append(f'<tr class="group"><th colspan="{2 + len(names)}">{html.escape(group)}</th></tr>')
        own = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        makers = [html.escape(published(sheets[i][1], figure)) for i in with_published]
        own += "".join(f'<td class="published">{text}</td>' for text in makers)
        unit = {"us": "&micro;s"}.get(figure.unit, html.escape(figure.unit))
        lines.append(f'<tr><td>{html.escape(figure.label)}</td><td class="unit">{unit}</td>{own}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))
    except OSError as error:
        raise UserError(f"could not write {path} ({error.strerror}): choose another folder (out=).") from error
