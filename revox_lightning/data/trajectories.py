"""What is made of a take's wandering delay: nothing, its mean, a guide for the net, or a recording without it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.data.takes import Reader, Take
from revox_lightning.dsp.interpolation import HALF_WIDTH, read_at
from revox_lightning.dsp.trajectory import demodulate
from revox_lightning.errors import UserError

MODES = ("constant", "delay", "demodulate")
LEAST_DELAY_SAMPLES = HALF_WIDTH  # that is left to follow: a delay line may read as far to either side


@lru_cache(maxsize=16)
def load(path: Path) -> np.ndarray:
    """Delay ``(time,)`` in samples of each wet sample: ``wet[n] = dry(n - delay[n])``; float64.

    A file as ``revox align`` writes beside a raw pair. Raises UserError where it is missing or damaged.
    """
    try:
        with np.load(path) as content:
            delay = np.asarray(content["delay_samples"], dtype=np.float64)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such trajectory; revox align writes one beside each raw pair.") from None
    except Exception as error:
        raise UserError(
            f"{path} is not a trajectory ({type(error).__name__}): it needs an array delay_samples."
        ) from None
    if delay.ndim != 1 or not delay.size or not np.isfinite(delay).all():
        raise UserError(
            f"{path}: delay_samples has the shape {delay.shape} and should be one finite delay a wet sample."
        )
    return delay


def apply(take: Take, mode: str | None, cache_dir: str) -> Take:
    """The take with its trajectory put to use.

    None: as it is. "constant": the mean delay is taken out. "delay": the whole samples that all of it has in common
    are taken out, and the rest goes to the net (``Take.follows``). "demodulate": the wet file is moved back onto the
    dry one's time, once, and kept in ``cache_dir``. Raises UserError for another mode and a take without trajectory.
    """
    if mode is None:
        return take
    if mode not in MODES:
        raise UserError(f"data.trajectory={mode}: choose one of {', '.join(MODES)}, or null.")
    if take.trajectory is None:
        raise UserError(
            f"data.trajectory={mode}: {take.name} has no trajectory; use the raw pairs that revox align writes, or "
            "name it in a manifest's column trajectory."
        )
    delay = load(take.trajectory)
    heard = delay[: audio.info(take.wet).frames]
    if mode == "demodulate":
        copy = _demodulated(take.wet, take.trajectory, cache_dir)
        return _delayed(dataclasses.replace(take, wet=copy), 0, math.ceil(heard.max()))
    common = round(heard.mean()) if mode == "constant" else math.floor(heard.min()) - LEAST_DELAY_SAMPLES
    return _delayed(dataclasses.replace(take, follows=mode == "delay"), common)


def handed(take: Take, start: int, frames: int) -> torch.Tensor:
    """Delay in samples that the net is told of from dry sample ``start`` on: ``(1, frames)``, or without a row.

    Beyond the ends of the file the delay stays what it was.
    """
    delay = _left(take, start, frames) if take.follows else np.empty((0, frames))
    return torch.from_numpy(np.atleast_2d(delay).astype(np.float32))


def pair(read: Reader, take: Take, start: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dry and wet of a take, each ``(channel, frames)``; dry is moved along the delay that the net would be told of."""
    dry, wet = read.pair(take, start, frames)
    if not take.follows or not frames:
        return dry, wet
    places = np.arange(start, start + frames) - _left(take, start, frames)
    first, last = math.floor(places.min()) - HALF_WIDTH, math.ceil(places.max()) + HALF_WIDTH + 1
    around = read(take.dry, first, last - first).numpy()
    return torch.from_numpy(np.stack([read_at(channel, places - first) for channel in around])).float(), wet


def _left(take: Take, start: int, frames: int) -> np.ndarray:
    """Delay ``(frames,)`` beside the take's constant one; float64."""
    assert take.trajectory is not None
    delay = load(take.trajectory)
    return delay[np.clip(np.arange(start, start + frames) + take.delay, 0, len(delay) - 1)] - take.delay


def _delayed(take: Take, samples: int, missing: int = 0) -> Take:
    """The take with another constant delay, within what its files hold; the wet one misses its last samples."""
    dry, wet = audio.info(take.dry).frames, audio.info(take.wet).frames - max(missing, 0)
    start, stop = max(take.start, -samples), min(take.stop, dry, wet - samples)
    if stop <= start:
        raise UserError(f"{take.name}: nothing is left of it once its delay of {samples} samples is taken out.")
    return dataclasses.replace(take, delay=samples, start=start, stop=stop, lead=max(take.lead - start + take.start, 0))


def _demodulated(wet: Path, trajectory: Path, cache_dir: str) -> Path:
    """The wet file without its wandering delay."""
    key = "|".join(f"{p.resolve()}|{p.stat().st_size}|{p.stat().st_mtime_ns}" for p in (wet, trajectory))
    copy = Path(cache_dir) / "demodulated" / f"{wet.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.wav"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        x, delay = audio.read(wet).numpy(), load(trajectory)
        delay = delay[np.minimum(np.arange(x.shape[1]), len(delay) - 1)]
        moved = np.stack([demodulate(channel, delay) for channel in x])
        audio.write(copy, torch.from_numpy(moved).float(), audio.info(wet).sample_rate_hz, subtype="FLOAT")
    return copy
