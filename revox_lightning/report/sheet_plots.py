"""The curves of a data sheet as SVG: one colour a machine; with two channels the right one is dashed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from revox_lightning.files import write_atomically
from revox_lightning.measure.figures import lookup

Sheets = list[tuple[str, dict[str, Any]]]
# Colours that stay apart for every kind of colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--")
_SIZE = (5.2, 3.1)
_GRID = {"left": 0.05, "right": 0.99, "bottom": 0.06, "top": 0.95, "wspace": 0.2, "hspace": 0.45}
_LOOPS = {"100 Hz at +6 VU": "--", "1 kHz at +6 VU": "-"}


def plots(sheets: Sheets) -> list[tuple[str, str]]:
    """``(SVG as a data address, caption)`` for every kind of curve that at least one sheet has."""
    drawn = []
    for picture, paths, caption in _PICTURES:
        having = [(i, name, s) for i, (name, s) in enumerate(sheets) if any(lookup(s, path) for path in paths)]
        if having:
            drawn.append((_svg(lambda ax, picture=picture, having=having: picture(ax, having)), caption))
    for i, (name, sheet) in enumerate(sheets):
        if lookup(sheet, "response.gain_db"):
            caption = f"{name}: response at four levels. Where the lower curves hold on and the upper ones fall, "
            caption += "the tape saturates in the treble."
            drawn.insert(1 + i, (_svg(lambda ax, sheet=sheet: _levels(ax, sheet)), caption))
    return drawn


def picture(sheets: Sheets, path: Path) -> None:
    """All curves that at least one sheet has on one PNG, three in a row; nothing where there is none."""
    shown = []
    for draw, paths, caption in _PICTURES:
        having = [(i, name, s) for i, (name, s) in enumerate(sheets) if any(lookup(s, p) for p in paths)]
        if having:
            shown.append((draw, having, caption.split(". ")[0].split(":")[0].rstrip(".")))
    if not shown:
        return
    rows = -(-len(shown) // 3)
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(3 * _SIZE[0], rows * _SIZE[1]))
        axes = figure.subplots(rows, 3, squeeze=False, gridspec_kw=_GRID).ravel()
        for ax in axes[len(shown) :]:
            ax.remove()
        for ax, (draw, having, title) in zip(axes, shown, strict=False):
            draw(ax, having)
            ax.grid(alpha=0.3, which="both", lw=0.5)
            ax.set_title(title, loc="left")
        write_atomically(path, lambda file: figure.savefig(file, dpi=90, format="png"))


_Having = list[tuple[int, str, dict[str, Any]]]


def _svg(draw: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context({"svg.hashsalt": "data sheet", "font.size": 9, "svg.fonttype": "path"}):
        figure, ax = plt.subplots(figsize=_SIZE, layout="constrained")
        draw(ax)
        ax.grid(alpha=0.3, which="both", lw=0.5)
        ax.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _array(values: Any) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _draw(ax: Axes, x: Any, channels: Any, i: int, label: str | None, **style: Any) -> None:
    """One machine's curve, for each channel."""
    for channel, values in enumerate(channels or []):
        named = label if channel == 0 else None
        style = {"color": COLOURS[i % len(COLOURS)], "lw": 1.4} | style
        ax.plot(_array(x), _array(values), linestyle=_STYLES[channel % 2], label=named, **style)


def _legend(ax: Axes, **where: Any) -> None:
    if ax.get_legend_handles_labels()[1]:
        legend = ax.legend(fontsize=8, edgecolor="none", framealpha=0.7, **where)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name with $ is no formula


def _hz_axis(ax: Axes, low: float = 20, high: float = 20_000) -> None:
    ax.set_xscale("log")
    ticks = [hz for hz in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000) if low <= hz <= high]
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda hz, _: f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda hz, _: ""))
    ax.set(xlim=(low, high), xlabel="frequency (Hz)")


def _response(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        curves = lookup(sheet, "response.gain_db") or {}
        curve = curves.get("-20") or next(iter(curves.values()))
        _draw(ax, lookup(sheet, "response.frequency_hz"), curve, i, name)
    _hz_axis(ax)
    ax.set(ylabel="dB re 1 kHz", ylim=(-12, 6))
    _legend(ax, loc="lower center")


def _levels(ax: Axes, sheet: dict[str, Any]) -> None:
    response = sheet["response"]
    for i, (level_vu, channels) in enumerate(sorted(response["gain_db"].items(), key=lambda pair: -float(pair[0]))):
        gains = [(response["gain_1k_db"].get(of) or [None])[0] or 0.0 for of in (level_vu, "-20")]
        curves = [_array(channel) + float(level_vu) + gains[0] - gains[1] for channel in channels[:1]]
        _draw(ax, response["frequency_hz"], curves, i, f"{level_vu} VU")
    _hz_axis(ax)
    ax.set(ylabel="output (VU)", ylim=(-45, 12))
    _legend(ax, loc="lower center", ncols=4)


def _third_harmonic(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        steps = lookup(sheet, "distortion.steps_1k")
        for channel, (x, y) in enumerate(zip(steps["output_vu"], steps["third_percent"], strict=True)):
            _draw(ax, x, [y], i, None if channel else name, marker=".", lw=1)
    ax.axhline(3, color="0.4", lw=0.8, ls=":")
    ax.set(yscale="log", xlabel="output at 1 kHz (VU)", ylabel="third harmonic (%)", ylim=(0.01, 30))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    _legend(ax, loc="upper left")


def _saturation(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        for key, marker in (("steps_1k", "."), ("steps_10k", "x"), ("steps_16k", "+")):
            steps = lookup(sheet, f"distortion.{key}")
            if steps:
                label = f"{name}, {key[6:]}Hz"
                _draw(ax, steps["input_vu"], steps["output_vu"][:1], i, label, marker=marker, lw=1, ms=4)
    ax.set(xlabel="input (VU)", ylabel="output (VU)")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], -32))
    _legend(ax, loc="upper left")


def _noise(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        bands = sheet["noise"]["third_octaves"]
        _draw(ax, bands["frequency_hz"], bands["level_vu"], i, name)
    _hz_axis(ax)
    ax.set(ylabel="noise in a third octave (dB re 0 VU)")
    ax.set_ylim(max(ax.get_ylim()[0], -150), ax.get_ylim()[1])
    _legend(ax, loc="best")


def _flutter(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        label = f"{name} (monitor)" if sheet.get("mode") == "monitor" else name
        spectrum = lookup(sheet, "speed.spectrum")
        seen = [max(percent, 1e-9) for percent in spectrum["percent_rms"]]  # a log axis knows no zero
        _draw(ax, spectrum["frequency_hz"], [seen], i, label, lw=0.9)
    _hz_axis(ax, 0.5, 200)
    ax.set(yscale="log", xlabel="rate of the speed's change (Hz)", ylabel="% rms in a line")
    ax.set_ylim(bottom=max(ax.get_ylim()[0], ax.get_ylim()[1] * 1e-4, 1e-7))
    _legend(ax, loc="best")


def _group_delay(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        _draw(ax, lookup(sheet, "response.frequency_hz"), lookup(sheet, "response.group_delay_ms"), i, name)
    _hz_axis(ax)
    ax.set(ylabel="group delay re 1 kHz (ms)")
    ax.set_yscale("symlog", linthresh=0.1)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    _legend(ax, loc="best")


def _harmonics(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        for key, style in (("third_percent", "-"), ("second_percent", ":")):
            curves = (lookup(sheet, f"harmonics.{key}") or [])[:1]
            for curve in curves:
                label = f"{name}, {key.split('_')[0]}"
                hz = _array(lookup(sheet, "harmonics.frequency_hz"))
                ax.plot(hz, _array(curve), style, color=COLOURS[i % len(COLOURS)], lw=1.2, label=label)
    _hz_axis(ax)
    ax.set(yscale="log", ylabel="% of the fundamental")
    ax.set_ylim(max(ax.get_ylim()[0], 1e-3), min(ax.get_ylim()[1], 100))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    _legend(ax, loc="best")


def _loops(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        for loop in sheet["loops"]:
            if loop["name"] in _LOOPS:
                x, y = (np.append(loop[axis], loop[axis][:1]) for axis in ("x", "y"))
                ax.plot(x, y, _LOOPS[loop["name"]], color=COLOURS[i % 7], lw=1.1, label=f"{name}, {loop['name']}")
    ax.set(xlabel="input (1 = peak at 0 VU)", ylabel="output (1 = peak at 0 VU)")
    _legend(ax, loc="upper left")


def _bends(ax: Axes, having: _Having) -> None:
    """The loops without their straight part, which hides all the rest."""
    for i, _, sheet in having:
        for loop in sheet["loops"]:
            if loop["name"] in _LOOPS:
                x, y = (np.append(loop[axis], loop[axis][:1]) for axis in ("x", "y"))
                rest = 100 * (y - x * (x @ y) / (x @ x))
                ax.plot(x, rest, _LOOPS[loop["name"]], color=COLOURS[i % 7], lw=1.1)
    ax.set(xlabel="input (1 = peak at 0 VU)", ylabel="output minus a straight line (%)")


def _programme(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        response = sheet["programme"]
        _draw(ax, response["frequency_hz"], response["gain_db"], i, name)
    _hz_axis(ax)
    ax.set(ylabel="gain (dB)")
    _legend(ax, loc="best")


def _coherence(ax: Axes, having: _Having) -> None:
    for i, name, sheet in having:
        _draw(ax, sheet["programme"]["frequency_hz"], sheet["programme"]["coherence"], i, name)
    _hz_axis(ax)
    ax.set(ylabel="coherence", ylim=(0, 1.02))
    _legend(ax, loc="best")


_PICTURES: tuple[tuple[Callable[[Axes, _Having], None], tuple[str, ...], str], ...] = (
    (_response, ("response.gain_db",), "Frequency response at -20 VU."),
    (
        _third_harmonic,
        ("distortion.steps_1k",),
        "Third harmonic against output level, 1 kHz. It crosses the dotted 3 % line at the maximum output level (MOL).",
    ),
    (
        _saturation,
        ("distortion.steps_1k", "distortion.steps_10k"),
        "Output against input. The highest point at 10 and 16 kHz is the saturated output level (SOL).",
    ),
    (_harmonics, ("harmonics.third_percent",), "Harmonics along a sweep at 0 VU, at the frequency that makes them."),
    (_noise, ("noise.third_octaves",), "Noise of the silent tape in third octaves."),
    (
        _flutter,
        ("speed.spectrum",),
        "Spectrum of wow and flutter. Lines are turning parts; a plain network has none.",
    ),
    (_group_delay, ("response.group_delay_ms",), "Group delay: which frequencies come later."),
    (_loops, ("loops",), "Input-output loops (hysteresis), the fundamentals in phase."),
    (_bends, ("loops",), "The same loops without their straight part: the bend is saturation, the width memory."),
    (
        _programme,
        ("programme.gain_db",),
        "Response estimated from the programme itself, where the two files belong together.",
    ),
    (
        _coherence,
        ("programme.coherence",),
        "Coherence: 1 where a linear machine explains the output; noise, distortion and wander lower it.",
    ),
)
