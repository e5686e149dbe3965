"""Files brought to another sample rate once, and kept."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from revox_lightning import audio
from revox_lightning.data.takes import Take
from revox_lightning.errors import UserError


def at_rate(take: Take, sample_rate_hz: int, cache_dir: str) -> Take:
    """The take at another rate: both its files converted, its positions scaled.

    Raises UserError where the take has a trajectory, which counts samples of the rate it was measured at.
    """
    if take.trajectory is not None:
        raise UserError(
            f"{take.dry} has a measured trajectory and cannot be brought to another rate: run revox align at "
            f"{sample_rate_hz} Hz, or set data.sample_rate_hz={audio.info(take.dry).sample_rate_hz}."
        )
    ratio = sample_rate_hz / audio.info(take.dry).sample_rate_hz
    return dataclasses.replace(
        take,
        dry=_file_at_rate(take.dry, sample_rate_hz, cache_dir),
        wet=_file_at_rate(take.wet, sample_rate_hz, cache_dir),
        start=round(take.start * ratio),
        stop=int(take.stop * ratio),
        lead=int(take.lead * ratio),
        delay=round(take.delay * ratio),
    )


def _file_at_rate(path: Path, sample_rate_hz: int, cache_dir: str) -> Path:
    """A copy of the file at another rate, named after its path, size, time stamp and the rate."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{sample_rate_hz}"
    copy = Path(cache_dir) / "resampled" / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.wav"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        info = audio.info(path)
        convert = audio.StreamResampler(info.sample_rate_hz, sample_rate_hz, info.channels)
        with audio.writer(copy, sample_rate_hz, info.channels, subtype="FLOAT") as out:
            for block in audio.blocks(path, 1 << 18):
                out.write(convert.push(block))
            out.write(convert.flush())
    return copy
