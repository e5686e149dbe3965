"""Pictures of a result: waveform, spectra, spectrogram of the difference, input-output curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.signal
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from revox_lightning import audio
from revox_lightning.files import write_atomically

_PLACE = {"left": 0.09, "right": 0.97, "bottom": 0.12, "top": 0.92}  # a layout found by drawing takes twice as long


def draw(paths: dict[str, Path], folder: Path, prefix: str) -> list[Path]:
    """Draws the four pictures of one take from its audio files (see ``report.listening``) as PNG."""
    rate_hz = audio.info(paths["dry"]).sample_rate_hz
    x, y, y_hat = (audio.read(paths[kind])[0].numpy() for kind in ("dry", "target", "estimate"))
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, picture in (
        ("waveform", lambda ax: _waveform(ax, y, y_hat, rate_hz)),
        ("spectra", lambda ax: _spectra(ax, x, y, y_hat, rate_hz)),
        ("difference", lambda ax: _spectrogram(ax, y - y_hat, y, rate_hz)),
        ("input_output", lambda ax: _input_output(ax, x, y, y_hat)),
    ):
        figure = Figure(figsize=(9, 4.5))
        ax = figure.subplots(gridspec_kw=_PLACE)
        picture(ax)
        drawn.append(folder / f"{prefix}_{name}.png")
        write_atomically(drawn[-1], lambda file, figure=figure: figure.savefig(file, dpi=100, format="png"))
    return drawn


def _waveform(ax: Axes, y: np.ndarray, y_hat: np.ndarray, rate_hz: float) -> None:
    """60 ms around the loudest moment."""
    centre, half = int(np.argmax(np.abs(y))), int(0.03 * rate_hz)
    part = slice(max(centre - half, 0), centre + half)
    t_ms = 1000 * np.arange(len(y))[part] / rate_hz
    ax.plot(t_ms, y[part], label="target", lw=1.6)
    ax.plot(t_ms, y_hat[part], label="estimate", lw=1, ls="--")
    ax.plot(t_ms, (y - y_hat)[part], label="difference", lw=0.8)
    ax.set(xlabel="time (ms)", ylabel="amplitude (full scale 1)", title="Waveform at the loudest moment")
    ax.legend(loc="upper right")
    ax.grid(alpha=0.3)


def _spectra(ax: Axes, x: np.ndarray, y: np.ndarray, y_hat: np.ndarray, rate_hz: float) -> None:
    for label, signal in (("dry", x), ("target", y), ("estimate", y_hat), ("difference", y - y_hat)):
        f_hz, power = scipy.signal.welch(signal, rate_hz, nperseg=min(8192, len(signal)))
        ax.semilogx(f_hz[1:], 10 * np.log10(power[1:] + 1e-20), label=label, lw=1)
    ax.set(xlabel="frequency (Hz)", ylabel="power density (dBFS/Hz)", title="Spectra", xlim=(20, rate_hz / 2))
    ax.set_ylim(bottom=max(ax.get_ylim()[0], -140))
    ax.legend()
    ax.grid(alpha=0.3, which="both")


def _spectrogram(ax: Axes, e: np.ndarray, y: np.ndarray, rate_hz: float) -> None:
    window = min(2048, len(e))
    f_hz, _, power = scipy.signal.spectrogram(e, rate_hz, nperseg=window, noverlap=window // 2, scaling="spectrum")
    reference = np.mean(y**2) + 1e-20
    image = ax.imshow(
        10 * np.log10(power / reference + 1e-14), vmin=-110, vmax=-20, aspect="auto", origin="lower",
        extent=(0.0, len(e) / rate_hz, 0.0, f_hz[-1] / 1000),
    )  # fmt: skip
    ax.figure.colorbar(image, ax=ax, label="dB re target level")
    ax.set(xlabel="time (s)", ylabel="frequency (kHz)", title="Difference (target minus estimate)")


def _input_output(ax: Axes, x: np.ndarray, y: np.ndarray, y_hat: np.ndarray) -> None:
    step = max(len(x) // 30000, 1)
    ax.plot(x[::step], y[::step], ".", ms=1, label="target")
    ax.plot(x[::step], y_hat[::step], ".", ms=1, label="estimate")
    ax.set(xlabel="dry", ylabel="wet", title="Input-output curve (memory shows as width)")
    ax.legend(markerscale=8)
    ax.grid(alpha=0.3)
