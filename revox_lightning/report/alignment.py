"""The page of an alignment: what was found, in plain words and in one picture."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from scipy.signal import welch

from revox_lightning.capture.align import Alignment
from revox_lightning.capture.figures import delay_curve
from revox_lightning.capture.pairs import constant_positions
from revox_lightning.capture.stretch import loudest, read
from revox_lightning.report import page_parts

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "img{width:100%}.warning::before{content:'\\26a0\\fe0e  ';color:#b30}.note{color:#555}"
    "td,th{padding:.15rem .9rem .15rem 0;text-align:right}td:first-child,th:first-child{text-align:left}"
)
_POINTS = 4000


def picture(alignment: Alignment, recorded: np.ndarray) -> bytes:
    """PNG: the delay over the tape's time, the gain over it, and spectra before and after the wander is taken out.

    `recorded` is `(channels, time)`.
    """
    figure, axes = plt.subplots(3, 1, figsize=(10, 11), layout="constrained")
    _delays(axes[0], alignment)
    _gains(axes[1], alignment)
    _spectra(axes[2], alignment, recorded)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return buffer.getvalue()


def _delays(ax: Axes, alignment: Alignment) -> None:
    rate_hz = alignment.sample_rate_hz
    samples = sum(stretch.samples for stretch in alignment.stretches)
    step = max(samples // _POINTS, 1)
    for stretch in alignment.stretches:
        tape, delay = delay_curve(stretch, step, alignment.line.ratio)
        ms = 1000 * (delay - alignment.line.start) / rate_hz
        ax.plot(tape / rate_hz, ms, lw=0.9, label=f"{stretch.name} ({stretch.method})")
        doubtful = stretch.confidence(stretch.positions(tape - stretch.tape_start)) < 0.5
        ax.plot(tape[doubtful] / rate_hz, ms[doubtful], ".", ms=3, color="0.7")
    lead = 1000 * alignment.line.start / rate_hz
    ax.set(xlabel="time on the tape (s)", ylabel="delay (ms)", title=f"Delay around {lead:.2f} ms (grey: uncertain)")
    _legend(ax, loc="upper right")
    ax.grid(alpha=0.3)


def _gains(ax: Axes, alignment: Alignment) -> None:
    for stretch, gains in zip(alignment.stretches, alignment.gains, strict=True):
        for channel, gain in zip(stretch.channels, gains, strict=True):
            at = stretch.tape_start / alignment.sample_rate_hz + gain.seconds
            side = ("left", "right")[channel] if len(stretch.dry) == 2 else "mono"
            ax.plot(at, gain.gain_db, ".-", lw=0.8, ms=4, label=f"{stretch.name}, {side}")
    ax.set(xlabel="time on the tape (s)", ylabel="gain (dB)", title="Gain by the second where it is loud")
    _legend(ax, loc="upper right")
    ax.grid(alpha=0.3)


def _spectra(ax: Axes, alignment: Alignment, recorded: np.ndarray) -> None:
    """The loudest ten seconds of the first stretch: played, recorded, and their difference in both forms."""
    stretch, gain, rate_hz = alignment.stretches[0], alignment.gains[0][0], alignment.sample_rate_hz
    channel = stretch.channels[0]
    first, last = loudest(stretch.dry[channel], 10 * rate_hz)
    k = np.arange(first, last)
    start, ratio = constant_positions(stretch, alignment.line, rate_hz)
    dry = stretch.dry[channel, first:last].astype(np.float64)
    after, before = read(recorded[channel], stretch.positions(k)), read(recorded[channel], start + ratio * k)
    curves = {
        "played": dry, "recorded": after,
        "difference, constant delay removed": before - gain.gain * dry,
        "difference, demodulated": after - gain.gain * dry,
    }  # fmt: skip
    for label, signal in curves.items():
        hz, power = welch(signal, rate_hz, nperseg=min(8192, len(signal)))
        ax.semilogx(hz[1:], 10 * np.log10(power[1:] + 1e-20), lw=1, label=label)
    ax.set(xlabel="frequency (Hz)", ylabel="power density (dBFS/Hz)", title=f"Spectra of {stretch.name}")
    ax.title.set_parse_math(False)
    ax.set_xlim(20, rate_hz / 2)
    ax.set_ylim(bottom=max(ax.get_ylim()[0], -150))
    _legend(ax)
    ax.grid(alpha=0.3, which="both")


def _legend(ax: Axes, **where: Any) -> None:
    for text in ax.legend(fontsize=8, **where).get_texts():
        text.set_parse_math(False)  # a name with $ is no formula


def write_page(path: Path, title: str, figures: dict[str, Any], png: bytes) -> None:
    """Writes the page as one HTML file with the picture in it."""
    order = {"warning": 0, "note": 1}
    findings = sorted(figures["findings"], key=lambda finding: order.get(finding["severity"], 0))
    said = "".join(f'<li class="{escape(f["severity"])}">{escape(f["sentence"])}</li>\n' for f in findings)
    html = (
        f"{page_parts.head(title, _STYLE, [], images=True)}\n<body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(summary(figures))}</p>\n<ul>\n{said}</ul>\n"
        f'<img alt="delay, gain and spectra" src="data:image/png;base64,{base64.b64encode(png).decode()}">\n'
        f"{_table(figures)}</body></html>\n"
    )
    page_parts.write(path, html)


def summary(figures: dict[str, Any]) -> str:
    """The outcome in two or three sentences."""
    sections = figures["sections"]
    seconds = sum(s["seconds"] for s in sections if s["kind"] == "programme")
    start, ppm = figures["start_seconds"], figures["time_ratio_ppm"]
    by_pulses = any(s["method"] == "pulses" for s in sections)
    text = (
        f"{seconds:.0f} s of programme aligned by {'its pulses' if by_pulses else 'the programme itself'}. "
        f"The recording begins {abs(start):.3f} s {'late' if start >= 0 else 'early'} and runs "
        f"{abs(ppm):.1f} ppm {'slow' if ppm >= 0 else 'fast'}; "
        f"its delay wanders by {figures['wander_std_ms']:.3f} ms (standard deviation). "
        f"Polarity {'kept' if figures['polarity'] > 0 else 'turned over (corrected)'}."
    )
    floor = figures.get("floor")
    if floor:
        what = "What differs between plays of one block (hiss, modulation noise, what is left of timing)"
        text += f" {what} is {floor['dbfs'][0]:.1f} dBFS."
    return text


def _table(figures: dict[str, Any]) -> str:
    head = ("section", "by", "delay ms", "std ms", "gain dB", "drift dB", "correlation", "level dBFS")
    rows = []
    for s in figures["sections"]:
        cells = [
            s["name"], s["method"], f"{s['delay_mean_ms']:.3f}", f"{s['delay_std_ms']:.4f}",
            *(", ".join(f"{value:.{digits}f}" for value in s[key])
              for key, digits in (("gain_db", 2), ("gain_drift_db", 2), ("correlation", 4), ("level_dbfs", 1))),
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>\n")
    return "<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + f"</tr>\n{''.join(rows)}</table>"
