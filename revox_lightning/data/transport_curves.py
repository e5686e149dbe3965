"""Trajectories to learn from: how the delay of a transport strays from its mean, as WAV files of seconds at 100 Hz."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import logging
import math
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from revox_lightning import audio
from revox_lightning.data import sources, trajectories
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.dsp import weighting
from revox_lightning.errors import UserError
from revox_lightning.tape.machine import TapeMachine

log = logging.getLogger(__name__)

_TAPE_SECONDS = 600.0  # of one rendering: its speed errors stand on a grid of 2 kHz in memory


class TransportCurves:
    """Deviations of a delay from its mean, in seconds at ``sample_rate_hz``; dry and wet of a take are one file.

    Of ``machine``'s transport, ``seconds`` of each split in tapes of ten minutes with seeds of their own; its constant
    speed error is left out, as it lets the delay grow without end. Or, with ``root``, of the files NAME.npz in a folder
    that ``revox align`` wrote beside raw pairs; a folder train, val or test on the way names the split.
    Files lie under ``cache_dir/transport_curves``. Raises UserError for a machine without transport and for a folder
    without trajectories.
    """

    knobs: tuple[str, ...] = ()
    zero_vu_dbfs: float | None = None

    def __init__(
        self,
        machine: TapeMachine | None = None,
        root: str | None = None,
        sample_rate_hz: int = 100,
        seconds: dict[str, float] | None = None,
        seed: int = 0,
        cache_dir: str = "outputs/cache",
    ) -> None:
        self._rate_hz, self._seed = sample_rate_hz, seed
        self._seconds = seconds or {"train": 7200.0, "val": 600.0, "test": 1200.0}
        self._root = None if root is None else Path(root).expanduser()
        self._folder = Path(cache_dir) / "transport_curves"
        if self._root is None:
            if machine is None or machine.transport is None:
                raise UserError(
                    "the machine has no transport to learn from: choose another machine, or give data.root."
                )
            self._transport = dataclasses.replace(machine.transport, speed_error_percent=0.0)
            self._speed_ips = machine.speed_ips

    def takes(self) -> list[Take]:
        """One take for each tape or file; makes what is missing."""
        if self._root is not None:
            return [self._of_file(path) for path in _measured(self._root)]
        folder = self._folder / self._key()
        tapes = [(split, i) for split in SPLITS for i in range(math.ceil(self._seconds[split] / _TAPE_SECONDS))]
        paths = [folder / f"{split}-{i:03d}.wav" for split, i in tapes]
        missing = [(path, *tape_) for path, tape_ in zip(paths, tapes, strict=True) if not path.exists()]
        if missing:
            log.info("letting %d tapes of the built-in machine run (once) ...", len(missing))
            folder.mkdir(parents=True, exist_ok=True)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda job: self._render(*job), missing))
        return [_take(path, split) for path, (split, _) in zip(paths, tapes, strict=True)]

    def floor_energy(self, split: str) -> float | None:
        """None: a trajectory is all signal."""
        return None

    def _render(self, path: Path, split: str, number: int) -> None:
        seconds = min(_TAPE_SECONDS, self._seconds[split] - number * _TAPE_SECONDS)
        samples = round(seconds * self._rate_hz)
        seed = [self._seed, SPLITS.index(split), number]
        delay = np.arange(samples) - self._transport.positions(samples, self._rate_hz, self._speed_ips, seed)
        _write(path, delay / self._rate_hz, self._rate_hz)

    def _of_file(self, path: Path) -> Take:
        kept = path.stat()
        key = hashlib.sha256(f"{path}|{kept.st_size}|{kept.st_mtime_ns}|{self._rate_hz}".encode()).hexdigest()[:16]
        copy = self._folder / f"{path.stem}-{key}.wav"
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            rate_hz = _rate_hz(path)
            delay = at_rate(trajectories.load(path) / rate_hz, rate_hz, self._rate_hz)
            _write(copy, delay, self._rate_hz)
        return _take(copy, sources.named_split(path))

    def _key(self) -> str:
        settings = [dataclasses.asdict(self._transport), self._speed_ips, self._rate_hz, self._seconds, self._seed]
        return sources.key(settings, (weighting,), __file__)


def at_rate(delay: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """A trajectory (time,) at another rate, band-limited; beyond its ends it goes on in a straight line.

    >>> at_rate(np.linspace(0, 1, 44_100), 44_100, 100).shape
    (100,)
    """
    divisor = math.gcd(from_hz, to_hz)
    return resample_poly(delay, to_hz // divisor, from_hz // divisor, padtype="line")


def _write(path: Path, delay_seconds: np.ndarray, rate_hz: int) -> None:
    deviation = torch.from_numpy(delay_seconds - delay_seconds.mean()).float()
    audio.write(path, deviation[None], rate_hz, subtype="FLOAT")


def _take(path: Path, split: str | None) -> Take:
    return Take(path.stem, path, path, 0, audio.info(path).frames, split=split)


def _measured(root: Path) -> list[Path]:
    found = sources.files(root, (".npz",))
    if not found:
        raise UserError(f"data.root={root} holds no trajectories (NAME.npz): revox align writes them beside raw pairs.")
    return found


def _rate_hz(path: Path) -> int:
    """Sample rate that a trajectory's delays count in: of the file itself, or of the audio beside it."""
    with np.load(path) as content:
        if "sample_rate_hz" in content.files:
            return int(content["sample_rate_hz"])
    beside = next(iter(sorted(path.parent.glob(f"{path.stem}[-_.]*.wav"))), None)
    if beside is None:
        raise UserError(f"{path} does not say its sample_rate_hz, and no {path.stem}-target.wav beside it does.")
    return audio.info(beside).sample_rate_hz
