"""Results as tables in plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def decibels(esr: float | None) -> str:
    """An error-to-signal ratio in dB."""
    if esr is None or not math.isfinite(esr) or esr <= 0:
        return "-"
    return f"{10 * math.log10(esr):.1f}"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; numbers stand on the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)


def number(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash where it was not measured."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def verdict(esr: float, linear_esr: float, linear_label: str) -> str:
    """How a model stands against the best linear filter, in words."""
    gain_db = 10 * math.log10(linear_esr / esr) if esr > 0 and linear_esr > 0 else 0.0
    if gain_db > 0:
        return f"The model is {gain_db:.1f} dB better than the best linear filter ({linear_label})."
    return (
        f"The model does NOT beat the best linear filter ({linear_label}): it is {-gain_db:.1f} dB worse. "
        "Train longer, try linear_start=true, or use the filter."
    )
