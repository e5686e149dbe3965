"""Pictures of a generator beside what it was to make and its plain rival: spectra, a stretch in time, increments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from revox_lightning.files import write_atomically

_PLACE = {"left": 0.09, "right": 0.97, "bottom": 0.12, "top": 0.92}  # a layout found by drawing takes twice as long
_REACH = 6.0  # of the histogram, in standard deviations of the real increments
_FLOOR_DB = 100.0  # below the highest line of the spectra


class _View(NamedTuple):
    """How signals of a task are shown: `unit` is `scale` to one of the signal's own."""

    window_samples: int
    seconds: float
    scale: float
    unit: str
    density: str


_VIEWS = {
    "trajectory": _View(2048, 10.0, 1e6, "deviation (µs)", "power density (dB re 1 s²/Hz)"),
    "noise": _View(4096, 0.02, 1.0, "amplitude (full scale 1)", "power density (dBFS/Hz)"),
}


def draw(signals: dict[str, np.ndarray], task: str, rate_hz: float, folder: Path) -> list[Path]:
    """Draws three pictures as PNG of named signals (time,), the real one first, of generators of a task."""
    view = _VIEWS[task]
    signals = {name: x - x.mean() for name, x in signals.items()}
    pictures: dict[str, Callable[[Figure], None]] = {
        "spectra": lambda figure: _spectra(_axes(figure), signals, rate_hz, view),
        "stretch": lambda figure: _stretch(figure, signals, rate_hz, view),
        "increments": lambda figure: _increments(_axes(figure), signals),
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, picture in pictures.items():
        figure = Figure(figsize=(9, 4.5))
        picture(figure)
        drawn.append(folder / f"{name}.png")
        write_atomically(drawn[-1], lambda file, figure=figure: figure.savefig(file, dpi=100, format="png"))
    return drawn


def _axes(figure: Figure) -> Axes:
    return figure.subplots(gridspec_kw=_PLACE)


def _spectra(ax: Axes, signals: dict[str, np.ndarray], rate_hz: float, view: _View) -> None:
    size = min(view.window_samples, *(x.size for x in signals.values()))
    for name, x in signals.items():
        f_hz, power = scipy.signal.welch(x, rate_hz, nperseg=size)
        ax.semilogx(f_hz[1:], 10 * np.log10(power[1:] + 1e-30), label=name, lw=1)
    ax.set(xlabel="frequency (Hz)", ylabel=view.density, title="Spectra", xlim=(rate_hz / size, rate_hz / 2))
    ax.set_ylim(bottom=max(ax.get_ylim()[0], ax.get_ylim()[1] - _FLOOR_DB))
    ax.legend()
    ax.grid(alpha=0.3, which="both")


def _stretch(figure: Figure, signals: dict[str, np.ndarray], rate_hz: float, view: _View) -> None:
    """Each in a row of its own on one scale, from the middle: random signals over one another say nothing."""
    rows = figure.subplots(len(signals), sharex=True, sharey=True, squeeze=False, gridspec_kw=_PLACE)[:, 0]
    for ax, (name, x) in zip(rows, signals.items(), strict=True):
        part = x[x.size // 2 :][: round(view.seconds * rate_hz)]
        ax.plot(np.arange(part.size) / rate_hz, view.scale * part, lw=1)
        ax.set_title(name, loc="left", fontsize=9, y=0.8, x=0.01)
        ax.grid(alpha=0.3)
    rows[-1].set(xlabel="time (s)")
    rows[len(rows) // 2].set(ylabel=view.unit)


def _increments(ax: Axes, signals: dict[str, np.ndarray]) -> None:
    sigma = max(float(np.diff(next(iter(signals.values()))).std()), 1e-30)
    edges = np.linspace(-_REACH, _REACH, 121)
    for name, x in signals.items():
        # What lies further out counts in the outermost bins.
        inside = np.clip(np.diff(x) / sigma, -_REACH, _REACH)
        ax.stairs(np.histogram(inside, edges, density=True)[0], edges, label=name)
    ax.set(
        xlabel="difference between neighbours (standard deviations of the real one)", ylabel="density",
        title="Increments", yscale="log",
    )  # fmt: skip
    ax.legend()
    ax.grid(alpha=0.3)
