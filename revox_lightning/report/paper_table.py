"""A table of models on one machine, ours beside what was published: Markdown, CSV, LaTeX, W&B, and on the screen."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from revox_lightning.files import write_atomically
from revox_lightning.report import intervals
from revox_lightning.report import table as screen
from revox_lightning.report.intervals import Stretches

# Columns that a table leaves out where no row has anything to say.
_NOT_OF_ALL = ("parameters", "dB (95 %)", "over the linear filter, dB", "rank", "training, s", "x real time")
_PHYSICS = "† its class contains the equations of the machine that it learns here."
_RANK = (
    "rank: 1 + how many rows are better beyond chance (paired bootstrap over seeds and stretches or files of the test, "
    "95 %) on every machine of this table."
)


@dataclass(frozen=True)
class Cell:
    """A row: the metrics.json of each seed, and what was published; ``parameters`` as published."""

    label: str
    physics: bool
    parameters: int | None
    theirs: Mapping[str, float | None]
    metrics: Sequence[Mapping[str, Any]]
    stretches: Sequence[Path]

    @cached_property
    def drawn_from(self) -> Stretches | None:
        """What its interval is drawn from, where every seed left it."""
        if not self.stretches or not all(path.is_file() for path in self.stretches):
            return None
        return intervals.read(self.stretches)


@dataclass(frozen=True)
class Table:
    """Rows on one set; ``columns`` are the keys of metrics.json by the column's heading."""

    name: str
    title: str
    columns: Mapping[str, str]
    cells: Sequence[Cell]


def lines(tables: Sequence[Table]) -> dict[str, list[list[str]]]:
    """For each set its heading and its rows as text, the best first, rows that nobody has figures of last."""
    ranked = intervals.ranks([{c.label: c.drawn_from for c in t.cells if c.drawn_from is not None} for t in tables])
    return {one.name: _lines(one, ranked) for one in tables}


def _lines(one: Table, ranked: Mapping[str, int]) -> list[list[str]]:
    compared = {label for label in one.columns if any(label in cell.theirs for cell in one.cells)}
    heading = ["model", _NOT_OF_ALL[0]]
    for label in one.columns:
        heading += [label, f"{label} published"] if label in compared else [label]
    heading += [*_NOT_OF_ALL[1:]]
    rows = []
    for cell in sorted(one.cells, key=_esr):
        row = [f"{cell.label} †" if cell.physics else cell.label, _parameters(cell)]
        for label, key in one.columns.items():
            row.append(_spread([m[key] for m in cell.metrics if m.get(key) is not None]))
            row += [_published(cell.theirs.get(label))] if label in compared else []
        drawn = cell.drawn_from
        row.append(intervals.decibels(intervals.interval(drawn)) if drawn is not None else "-")
        row.append(_over_filter(cell))
        row.append(str(ranked.get(cell.label, "-")))
        row.append(_mean(cell, "train_seconds", "{:.0f}"))
        row.append(_mean(cell, "real_time_factor", "{:.1f}"))
        rows.append(row)
    said = [n for n, label in enumerate(heading) if label not in _NOT_OF_ALL or any(row[n] != "-" for row in rows)]
    return [[row[n] for n in said] for row in (heading, *rows)]


def _esr(cell: Cell) -> float:
    """What rows are sorted by; of styles, which have no error-to-signal ratio, the spectral distance."""
    return mean(m.get("test/esr", m.get("test/stft_distance", math.inf)) for m in cell.metrics or [{}])


def _parameters(cell: Cell) -> str:
    if not cell.metrics:
        return "-" if cell.parameters is None else f"{cell.parameters:,} published"
    ours = cell.metrics[0].get("parameters")
    if ours is None:
        return "-"
    differs = cell.parameters is not None and cell.parameters != ours
    return f"{ours:,} (published {cell.parameters:,})" if differs else f"{ours:,}"


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds: four digits that tell something, at most five decimals."""
    if not values:
        return "-"
    whole, size = all(float(value).is_integer() for value in values), abs(mean(values))
    decimals = 0 if whole and len(values) == 1 else min(max(3 - math.floor(math.log10(size or 1e-5)), 0), 5)
    return f"{mean(values):.{decimals}f}" + (f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else "")


def _published(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def _over_filter(cell: Cell) -> str:
    gains = [
        10 * math.log10(m["test/esr_linear"] / m["test/esr"])
        for m in cell.metrics
        if m.get("test/esr_linear") and m.get("test/esr")
    ]
    return f"{mean(gains):+.1f}" if gains else "-"


def _mean(cell: Cell, key: str, form: str) -> str:
    values = [m[key] for m in cell.metrics if m.get(key) is not None]
    return form.format(mean(values)) if values else "-"


def show(tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Prints the tables and what is to be known of them."""
    for one, (heading, *rows) in zip(tables, lines(tables).values(), strict=True):
        screen.show(one.title, heading, rows)
    for note in [*notes, *_legend(tables)]:
        print(note)


def _legend(tables: Sequence[Table]) -> list[str]:
    return [_RANK, *([_PHYSICS] if any(cell.physics for one in tables for cell in one.cells) else [])]


def write(
    folder: Path, title: str, reference: str, tables: Sequence[Table], notes: Sequence[str], facts: str
) -> list[Path]:
    """Writes table.md, table.csv and table.tex; returns them."""
    found = lines(tables)
    text = {"table.md": _markdown(title, reference, tables, found, [*notes, *_legend(tables), facts])}
    text |= {"table.csv": _csv(tables, found), "table.tex": _latex(tables, found)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in text.items():
        data = content.encode()
        write_atomically(folder / name, lambda file, data=data: file.write(data))
    return [folder / name for name in text]


def _markdown(
    title: str, reference: str, tables: Sequence[Table], found: Mapping[str, list[list[str]]], notes: Sequence[str]
) -> str:
    parts = [f"# {title}\n\n{reference}\n"]
    for one in tables:
        heading, *rows = found[one.name]
        rule = ["---", *["---:"] * (len(heading) - 1)]
        parts.append(f"## {one.title}\n")
        parts.append("".join(f"| {' | '.join(row)} |\n" for row in (heading, rule, *rows)))
    return "\n".join([*parts, *(f"{note}\n" for note in notes)])


def _csv(tables: Sequence[Table], found: Mapping[str, list[list[str]]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for one in tables:
        heading, *body = found[one.name]
        rows.writerow(["set", *heading])
        rows.writerows([one.name, *row] for row in body)
    return text.getvalue()


_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "†": r"$\dagger$", "$": r"\$"}


def _latex(tables: Sequence[Table], found: Mapping[str, list[list[str]]]) -> str:
    parts = ["% needs the package booktabs"]
    for one in tables:
        heading, *body = found[one.name]
        columns = "l" + "r" * (len(heading) - 1)
        parts += [
            rf"\begin{{table}}\centering\caption{{{_tex(one.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}\toprule",
        ]
        parts += [" & ".join(map(_tex, heading)) + r" \\\midrule"]
        parts += [" & ".join(map(_tex, row)) + r" \\" for row in body]
        parts += [r"\bottomrule\end{tabular}\end{table}"]
    return "\n".join(parts) + "\n"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def log(experiment: Any, tables: Sequence[Table]) -> None:
    """The tables in a run of W&B."""
    import wandb

    found = lines(tables)
    experiment.log({
        f"paper/{one.name}": wandb.Table(columns=list(found[one.name][0]), data=found[one.name][1:]) for one in tables
    })  # fmt: skip
