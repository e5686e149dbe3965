"""Many trainings of one table: each in a process of its own, finished ones kept, interrupted ones gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from revox_lightning import identity
from revox_lightning.commands import assemble, settings, status, texture_row
from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.runs import RunFolder

# A training must not outlive who started it: the next one would find its folder in use. (PR_SET_PDEATHSIG; Linux)
START = (
    "import ctypes, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 15)\n"
    "from revox_lightning.commands.train import main\n"
    "main()\n"
)


@dataclass(frozen=True)
class Job:
    """One training, or another command with a metrics.json: its words, and the folder that is its own alone."""

    label: str
    words: tuple[str, ...]
    folder: RunFolder
    identity: dict[str, str]
    command: str = "train"

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics.json; an empty one before it is done."""
        return self.folder.read_json("metrics.json")

    @property
    def done(self) -> bool:
        """Whether it ended well; one that was stopped while it drew its pictures has figures, and goes on."""
        return bool(self.metrics) and (self.command != "train" or status.of(self.folder)[0] == status.FINISHED)


def prepared(label: str, words: Sequence[str], place: Path, command: str = "train") -> Job:
    """A job in ``place/LABEL-IDENTITY``: another config, other audio, other code or kernels are another folder.

    The built-in data is rendered here, where it is missing. Raises UserError for words that do not compose.
    """
    found = identity.identity(*(_described(words) if command == "train" else (*texture_row.described(words), "torch")))
    name = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in label)
    return Job(label, tuple(words), RunFolder(place / f"{name}-{identity.short(found)}"), found, command)


def _described(words: Sequence[str]) -> tuple[dict[str, Any], list[Path], str]:
    """A training's resolved config, the files that it reads, and what computes."""
    cfg = settings.composed(list(words))
    audio = _audio(cfg)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    backend.choose(cfg.kernels)
    return plain, audio, backend.describe(assemble.build_net(cfg))


def _audio(cfg: DictConfig) -> list[Path]:
    """Every file that the run reads; the net is told how many knobs and channels these have."""
    source = assemble.build_source(cfg)
    takes = source.takes()
    paths = sorted({p for take in takes for p in (take.dry, take.wet, take.trajectory) if p is not None})
    if cfg.audio_channels is None:
        from revox_lightning import audio

        cfg.audio_channels = audio.info(takes[0].dry).channels if cfg.data.channels == "each" else 1
    return paths


def train_all(jobs: Sequence[Job], at_once: int = 1) -> dict[str, str]:
    """Trains what is not done, ``at_once`` at a time, and says how it goes on; returns {label: reason} of failures."""
    left = [job for job in jobs if not job.done]
    log.info("%d of %d trainings are done already", len(jobs) - len(left), len(jobs))
    failed: dict[str, str] = {}
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(_train, job, at_once): job for job in left}
        try:
            for done, future in enumerate(as_completed(running), 1):
                job, reason = running[future], future.result()
                if reason:
                    failed[job.label] = reason
                minutes = (time.monotonic() - begun) / 60 / done * (len(left) - done)
                esr = job.metrics.get("test/esr")
                what = reason or (f"ESR {esr:.5f}" if esr is not None else "done")
                log.info("%d of %d, %s: %s; about %.0f min left", done, len(left), job.label, what, minutes)
        except BaseException:
            for future in running:
                future.cancel()
            raise
    return failed


def _train(job: Job, at_once: int) -> str | None:
    """One training in a process; the reason where it failed. What it prints goes to ``train.log`` in its folder."""
    path = job.folder.path
    path.mkdir(parents=True, exist_ok=True)
    job.folder.write_json("identity.json", dict(job.identity))
    how = [f"resume={path}"] if job.folder.last.exists() else [*job.words, f"run_dir={path}"]
    if job.command == "train" and at_once > 1 and not any(word.startswith("system.threads=") for word in how):
        how.append(f"system.threads={max((os.cpu_count() or 1) // at_once, 1)}")
    log_path = path / "train.log"
    with open(log_path, "a", encoding="utf-8") as out:
        rc = subprocess.run(
            [sys.executable, "-c", START.replace("train", job.command), *how], stdout=out, stderr=subprocess.STDOUT
        ).returncode
    if rc == 0 and job.metrics:
        return None
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), f"it ended with {rc}")
    return f"failed ({said.removeprefix('error: ').rstrip('.')}; {log_path})"


def missing(option: str, path: str | None, files: Sequence[str], source: str) -> str | None:
    """One sentence where a data set that the user has to fetch is not there, or not whole."""
    if path is None:
        return f"its recordings are not part of this program: get {', '.join(files)} from {source}, and give {option}."
    lacking = [name for name in files if not (Path(path).expanduser() / name).exists()]
    return f"{path} has no {lacking[0]}: {option} is to name the folder that holds it ({source})." if lacking else None


def checked(path: Path, sha256: dict[str, str | None]) -> None:
    """Raises UserError where a file is another than the one that was published; None stands for no published sum."""
    for name, expected in sha256.items():
        if expected is not None and (found := identity.file_hash(path / name)) != expected:
            raise UserError(f"{path / name} is not the published file: its SHA-256 is {found}, not {expected}.")
