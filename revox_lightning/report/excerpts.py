"""The same stretch of a test as dry signal, target, linear filter and every model: its sounds and curves for a page."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.signal
from torch import Tensor

from revox_lightning import audio
from revox_lightning.dsp.loudness import Loudness
from revox_lightning.errors import UserError
from revox_lightning.report.examples import played
from revox_lightning.report.leaderboard import Board, Run
from revox_lightning.report.references import load_filters

_KINDS = re.compile(r"(.+)_(dry|target|estimate)\.wav")
_ALIKE = 1e-4  # largest difference of two runs' copies of one recording: rounding to 24 bits
_WARM_SECONDS = 0.5  # of the dry signal that a filter hears before the stretch begins
_BANDS_AN_OCTAVE = 6
_FLOOR_DB = -140.0


@dataclass(frozen=True)
class Version:
    """One way that an excerpt sounds: ``kind`` dry, target, linear or model (then ``row`` numbers the table's rows)."""

    label: str
    kind: str
    signal: Tensor
    gain_db: float
    row: int | None = None


@dataclass
class Excerpt:
    """Versions of the same moment, each (channels, time) and of one length; ``start`` is where it lies in its file."""

    name: str
    sample_rate_hz: int
    start: int
    versions: list[Version] = field(default_factory=list)

    @property
    def reference(self) -> Tensor:
        """What all are compared with: the target, or where there is none the dry signal."""
        return next((v for v in self.versions if v.kind == "target"), self.versions[0]).signal


def excerpts(board: Board, count: int, seconds: float, problems: list[str]) -> list[Excerpt]:
    """At most ``count`` excerpts of a table's runs, each the loudest ``seconds`` of its recording.

    Of several seeds the one of the middle error is heard. A run whose recording is not that of the others, or whose
    files cannot be read, is left out of the excerpt and named in ``problems``.
    """
    heard = [row.runs[0] for row in board.rows]
    files = [_files(run) for run in heard]
    # Test takes are numbered and come first; then the examples of music and speech.
    names = sorted({name for one in files for name in one})[:count]
    found = []
    for name in names:
        excerpt = None
        for i, (run, one) in enumerate(zip(heard, files, strict=True)):
            paths = one.get(name)
            if paths is None:
                continue
            try:
                excerpt = excerpt or _begun(name, paths, run, seconds)
                _add_model(excerpt, board.rows[i].label, i, paths)
            except (UserError, ValueError) as error:
                problems.append(f"{run.path}: excerpt {name} is left out ({error}).")
        if excerpt is not None and any(v.kind == "model" for v in excerpt.versions):
            found.append(excerpt)
    return found


def _files(run: Run) -> dict[str, dict[str, Path]]:
    """The audio of a run by excerpt and kind; only excerpts with a dry signal and an estimate."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted((run.path / "audio").glob("*.wav")):
        match = _KINDS.fullmatch(path.name)
        if match:
            found.setdefault(match[1], {})[match[2]] = path
    return {name: paths for name, paths in found.items() if {"dry", "estimate"} <= set(paths)}


def _begun(name: str, paths: dict[str, Path], run: Run, seconds: float) -> Excerpt:
    """An excerpt with the dry signal, the target where there is one, and what the run's linear filter makes."""
    reference = paths.get("target", paths["dry"])
    info = audio.info(reference)
    frames = min(round(seconds * info.sample_rate_hz), info.frames)
    start = _loudest(reference, info.frames, frames, round(info.sample_rate_hz / 2))
    excerpt = Excerpt(name, info.sample_rate_hz, start)
    dry = audio.read(paths["dry"], start, frames)
    signal = audio.read(reference, start, frames)
    if dry.shape != signal.shape:
        raise ValueError("its dry signal and its target are not of one shape")
    level = _level(signal, info.sample_rate_hz)
    excerpt.versions.append(Version("dry", "dry", dry, _gain_db(dry, level, info.sample_rate_hz)))
    if "target" in paths:
        excerpt.versions.append(Version("target", "target", signal, 0.0))
    linear = _filtered(run, paths["dry"], start, frames, info.sample_rate_hz)
    if linear is not None:
        gain_db = _gain_db(linear, level, info.sample_rate_hz)
        excerpt.versions.append(Version("best linear filter", "linear", linear, gain_db))
    return excerpt


def _loudest(path: Path, frames: int, wanted: int, hop: int) -> int:
    """The sample at which the stretch of most energy begins, in steps of ``hop``; of equals the first."""
    energies = [float(block.square().sum()) for block in audio.blocks(path, hop)]
    sums = np.concatenate(([0.0], np.cumsum(energies)))
    steps = min(math.ceil(wanted / hop), len(energies))
    starts = range(max(len(energies) - steps, 0) + 1)
    best = max(starts, key=lambda i: round(sums[i + steps] - sums[i], 6))
    return min(best * hop, frames - wanted)


def _filtered(run: Run, path: Path, start: int, frames: int, sample_rate_hz: int) -> Tensor | None:
    checkpoint = run.path / "checkpoints" / "linear_filters.ckpt"
    if not checkpoint.is_file():
        return None
    try:
        fir = load_filters(checkpoint)["linear"]
        warm = min(start, max(round(_WARM_SECONDS * sample_rate_hz), fir.taps))
        # The filter also looks ahead: it hears what follows the stretch where the file goes on.
        x = audio.read(path, start - warm, warm + frames + fir.latency_samples)
        return played(fir, x, x.new_zeros(1, 0))[:, warm : warm + frames].clone()
    except (UserError, KeyError, AttributeError, TypeError, RuntimeError):
        return None  # the page has one version less


def _add_model(excerpt: Excerpt, label: str, row: int, paths: dict[str, Path]) -> None:
    """Raises ValueError where the run's dry signal, target or rate is not the excerpt's."""
    frames = excerpt.reference.shape[-1]
    if audio.info(paths["estimate"]).sample_rate_hz != excerpt.sample_rate_hz:
        raise ValueError("its sample rate is not that of the other runs")
    for version in excerpt.versions:
        if version.kind in paths:
            own = audio.read(paths[version.kind], excerpt.start, frames)
            if own.shape != version.signal.shape or float((own - version.signal).abs().max()) > _ALIKE:
                raise ValueError(f"its {version.kind} signal is not that of the other runs")
    estimate = audio.read(paths["estimate"], excerpt.start, frames)
    if estimate.shape != excerpt.reference.shape:
        raise ValueError("its estimate is shorter than its target, or has other channels")
    level = _level(excerpt.reference, excerpt.sample_rate_hz)
    gain_db = _gain_db(estimate, level, excerpt.sample_rate_hz)
    excerpt.versions.append(Version(label, "model", estimate, gain_db, row))


def _level(signal: Tensor, sample_rate_hz: int) -> float:
    """Loudness in LUFS (ITU-R BS.1770-4); of what is too short or too soft for that its mean square in dB."""
    meter = Loudness(sample_rate_hz, len(signal))
    meter.update(signal.numpy())
    return meter.lufs if math.isfinite(meter.lufs) else 10 * math.log10(float(signal.square().mean()) + 1e-14)


def _gain_db(signal: Tensor, level: float, sample_rate_hz: int) -> float:
    """What brings a signal to a level; not for silence, which stays as it is."""
    own = _level(signal, sample_rate_hz)
    return level - own if own > -90 else 0.0


class SoundStore:
    """Sounds as FLAC in base64, each kept once however many runs share it."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.sounds: list[str] = []

    def add(self, signal: Tensor, sample_rate_hz: int) -> int:
        """The number of a sound (channels, time): 16 bits with dither, clipped at full scale."""
        key = hashlib.sha256(signal.contiguous().numpy().tobytes() + str(sample_rate_hz).encode()).hexdigest()
        if key not in self._numbers:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "sound.flac"
                audio.write(path, signal, sample_rate_hz, subtype="PCM_16")
                self.sounds.append(base64.b64encode(path.read_bytes()).decode())
            self._numbers[key] = len(self.sounds) - 1
        return self._numbers[key]

    @property
    def characters(self) -> int:
        return sum(map(len, self.sounds))


def bands_hz(sample_rate_hz: int) -> np.ndarray:
    """Centres of sixths of an octave from 30 Hz to just below half the sample rate."""
    count = math.floor(_BANDS_AN_OCTAVE * math.log2(0.45 * sample_rate_hz / 30))
    return 30 * 2 ** (np.arange(count + 1) / _BANDS_AN_OCTAVE)


def spectrum_db(signal: Tensor, sample_rate_hz: int) -> np.ndarray:
    """Level of each band of ``bands_hz``, dBFS (mean square of the channels), by Welch's method."""
    window = min(16_384, signal.shape[-1])
    f_hz, density = scipy.signal.welch(signal.numpy(), sample_rate_hz, nperseg=window, axis=-1)
    power = np.concatenate(([0.0], np.cumsum(density.mean(0)) * (f_hz[1] - f_hz[0])))
    edges = np.append(f_hz, f_hz[-1] + f_hz[1]) - f_hz[1] / 2
    half = 2 ** (0.5 / _BANDS_AN_OCTAVE)
    low, high = (np.interp(bands_hz(sample_rate_hz) * factor, edges, power) for factor in (1 / half, half))
    return np.maximum(10 * np.log10(np.maximum(high - low, 1e-30)), _FLOOR_DB)


def transfer(dry: Tensor, signals: Sequence[Tensor], points: int = 41) -> tuple[np.ndarray, list[np.ndarray]]:
    """The mean of each signal where the dry one has a given value: dry values, and as many means for each signal.

    At most ``points`` values, evenly spaced; those that hardly occur are left out. What memory and noise spread about
    the mean is not shown.
    """
    x = dry.flatten().numpy()
    reach = max(float(np.abs(x).max(initial=0.0)), 1e-9)
    bins = np.clip(((x / reach + 1) * 0.5 * points).astype(int), 0, points - 1)
    counts = np.bincount(bins, minlength=points)
    kept = counts >= max(len(x) // 20_000, 1)

    def means(y: np.ndarray) -> np.ndarray:
        return np.bincount(bins, y, points)[kept] / counts[kept]

    return means(x), [means(signal.flatten().numpy()) for signal in signals]
