"""Results as tables in plain text, and text that Markdown takes for nothing else."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence


def decibels(esr: float | None) -> str:
    """An error-to-signal ratio in dB."""
    if esr is None or not math.isfinite(esr) or esr <= 0:
        return "-"
    return f"{10 * math.log10(esr):.1f}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; numbers stand on the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(text: str) -> Text:  # a name may look like rich's own markup, or speak to the terminal
        return Text("".join(c if c.isprintable() else "?" for c in text))

    table = Table(title=plain(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(plain(column), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash where it was not measured."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def verdict(model: dict[str, float], linear: dict[str, float], linear_label: str) -> str:
    """How a model stands against the best linear filter, in words; plain ESR decides, gain-aligned is told."""
    gains_db = []
    for name in ("esr", "esr_gain_aligned"):
        a, b = model[name], linear[name]
        if not (a > 0 and b > 0):
            return "The test signal is silent: nothing can be said of the model."
        gains_db.append(10 * math.log10(b / a))
    if gains_db[0] > 0:
        return (
            f"The model is {gains_db[0]:.1f} dB better than the best linear filter ({linear_label}); after the best "
            f"gain for each, {gains_db[1]:.1f} dB."
        )
    return (
        f"The model does NOT beat the best linear filter ({linear_label}): it is {-gains_db[0]:.1f} dB worse (after "
        f"the best gain for each, {-gains_db[1]:.1f} dB). Train longer, try linear_start=true, or use the filter."
    )


def escaped(value: object) -> str:
    """Text that Markdown shows as it is, on one line.

    >>> print(escaped("a_b <i>[x](y)"))
    a\\_b \\<i\\>\\[x\\]\\(y\\)
    """
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in str(value))
    return re.sub(r"([\\`*_{}\[\]()<>#.!|&~$@:])", r"\\\1", line.strip()[:300])
