"""What is played on a test tape beside the test signals: the user's own music, or the built-in performer's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
from scipy.signal import oaconvolve

from revox_lightning import audio
from revox_lightning.data import performer
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.errors import UserError

METER_SECONDS = 0.3  # a VU meter's integration time
_HIGHEST_VU = 3.0  # what the programme reaches on such a meter
_PEAK = 10 ** (-1 / 20)


@dataclasses.dataclass(frozen=True)
class Piece:
    """One piece of music, `(channels, time)` float32 at the tape's rate; `gain_db` was applied to its file."""

    name: str
    source: str
    signal: np.ndarray
    gain_db: float


def built_in(seconds: float, sample_rate_hz: int, channels: int, zero_vu_dbfs: float, seed: int = 0) -> Piece:
    """The built-in performance, with another song in each channel of a stereo one, a third of it in the other."""
    songs = [performer.perform(seconds, sample_rate_hz, seed + channel) for channel in range(channels)]
    mix = np.stack([sum(song * (1.0 if c == k else 0.3) for k, song in enumerate(songs)) for c in range(channels)])
    return _levelled("built_in", "built-in performer", mix, sample_rate_hz, zero_vu_dbfs)


def read_pieces(paths: list[Path], sample_rate_hz: int, channels: int, zero_vu_dbfs: float) -> list[Piece]:
    """The user's files, and all audio files of the folders among them, at the tape's rate and level.

    Raises UserError for files that are not audio, silent, shorter than 2 s, or have more than two channels.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"programme={path}: the folder holds no audio files.")
            files += inside
        else:
            files.append(path)
    pieces = []
    for path in files:
        info = audio.info(path)
        if info.channels > 2:
            raise UserError(f"{path} has {info.channels} channels: a test tape takes mono or stereo programme.")
        if info.frames < 2 * info.sample_rate_hz:
            raise UserError(f"{path} lasts {info.frames / info.sample_rate_hz:.2f} s: give at least 2 s of programme.")
        x = audio.resample(audio.read(path), info.sample_rate_hz, sample_rate_hz).numpy()
        x = x.mean(0, keepdims=True) if channels == 1 else np.broadcast_to(x, (2, x.shape[1]))
        if not np.abs(x).max() > 1e-5:
            raise UserError(f"{path} is silent: give programme to record.")
        name = _distinct(re.sub(r"[^\w-]+", "_", path.stem), [piece.name for piece in pieces])
        pieces.append(_levelled(name, str(path), x, sample_rate_hz, zero_vu_dbfs))
    return pieces


def _distinct(name: str, taken: list[str]) -> str:
    return name if name not in taken else next(f"{name}_{i}" for i in range(2, 10**6) if f"{name}_{i}" not in taken)


def _levelled(name: str, source: str, x: np.ndarray, sample_rate_hz: int, zero_vu_dbfs: float) -> Piece:
    """The loudest 300 ms of the piece read +3 VU, unless its peaks would pass -1 dBFS."""
    window = round(METER_SECONDS * sample_rate_hz)
    loudest = max(float(oaconvolve(channel**2, np.ones(window) / window).max()) for channel in x)
    sine_mean_square = 10 ** ((zero_vu_dbfs + _HIGHEST_VU) / 10) / 2
    gain = min(float(np.sqrt(sine_mean_square / loudest)), _PEAK / float(np.abs(x).max()))
    return Piece(name, source, (gain * x).astype(np.float32), 20 * float(np.log10(gain)))


def excerpt(pieces: list[Piece], seconds: float, sample_rate_hz: int, zero_vu_dbfs: float) -> np.ndarray:
    """The block `(time,)` that is played three times: the middle of the longest piece, or the built-in performer."""
    samples = round(seconds * sample_rate_hz)
    longest = max(pieces, key=lambda piece: piece.signal.shape[1])
    if longest.signal.shape[1] < samples:
        return built_in(seconds, sample_rate_hz, 1, zero_vu_dbfs, seed=7).signal[0]
    start = (longest.signal.shape[1] - samples) // 2
    return longest.signal.mean(0)[start : start + samples]
