"""Pictures that more than one benchmark draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter


def learning_curves(lines: Mapping[str, Mapping[float, Sequence[float]]], title: str, path: Path) -> None:
    """Test ESR over seconds of training audio: ``{label: {seconds: [ESR of each seed]}}``, the line through medians."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    for label, points in lines.items():
        seconds = sorted(points)
        style = "--" if "filter" in label else "o-"
        (line,) = ax.loglog(seconds, [median(points[s]) for s in seconds], style, label=label)
        for s in seconds:
            ax.plot([s] * len(points[s]), list(points[s]), ".", color=line.get_color(), alpha=0.5)
    ticks = sorted({s for points in lines.values() for s in points})
    ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="training audio, s", ylabel="test ESR", title=title)
    ax.grid(True, which="both", alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=100)
    print(f"Drawn in {path}")
