"""Pictures that more than one benchmark draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
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


def designs(
    errors: Mapping[str, Sequence[float]],
    chosen: Mapping[str, Sequence[Sequence[float]]],
    places: Sequence[tuple[Sequence[float], float]],
    axes: tuple[str, str],
    path: Path,
) -> None:
    """Mean ESR of each design's seeds, and beside it what each chose, over the error at other places (x, y), ESR."""
    figure = Figure(figsize=(4.5 + 3.6 * len(chosen), 4.2), layout="constrained")
    first, *maps = figure.subplots(1, 1 + len(chosen))
    for n, values in enumerate(errors.values()):
        first.plot([n] * len(values), list(values), "o", alpha=0.6)
        first.plot([n - 0.25, n + 0.25], [sum(values) / len(values)] * 2, "k-", lw=1)
    first.set_xticks(range(len(errors)), list(errors))
    first.set(ylabel="mean ESR at other settings", yscale="log", title="each seed, and their mean")
    first.grid(True, which="both", alpha=0.3)
    x, y = zip(*(place for place, _ in places), strict=True)
    for ax, (label, points) in zip(maps, chosen.items(), strict=True):
        seen = ax.scatter(x, y, c=[10 * log10(esr) for _, esr in places], s=14, marker="s", cmap="viridis")
        ax.plot(*zip(*points, strict=True), "r+", ms=12, mew=2)
        ax.set(title=f"{label}: what it records", xlabel=axes[0], ylabel=axes[1])
    figure.colorbar(seen, ax=maps, label="ESR of the nets there, dB")
    figure.savefig(path, dpi=100)
    print(f"Drawn in {path}")
