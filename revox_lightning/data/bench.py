"""bench v1: two frozen machines, what is learned from them and what is tested, as files that any program can read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from revox_lightning import audio, plain_files
from revox_lightning.data import performer, speech
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.tape.machine import TapeMachine

log = logging.getLogger(__name__)

VERSION = "v1"
RATE_HZ = 44_100
# Presets of conf/machine; both laws of hysteresis, so that no model is judged by the one it may contain.
MACHINES = {"jiles_atherton": "a77_7.5ips", "preisach": "a77_7.5ips_preisach"}
WITHOUT = ("transport", "azimuth")
# Seconds of each performance and its seed; what says "speech" is the synthetic voice, the rest music.
EXCERPTS = {
    "train/music": (180.0, 31_000), "val/music": (30.0, 31_001), "test/music_1": (8.0, 31_002),
    "test/music_2": (8.0, 31_003), "test/music_3": (8.0, 31_004), "test/music_4": (8.0, 31_005),
    "test/speech_1": (8.0, 31_006), "test/speech_2": (8.0, 31_007),
}  # fmt: skip
_HEADROOM = 0.7  # 16 bits end at full scale, which a machine may overshoot
RECORD_LEVEL_DB = 6.0  # what the headroom takes, and 3 dB more: most of a quieter tape is linear
_LIST = "bench.json"


def tests() -> list[str]:
    """Names of the excerpts that are scored."""
    return [name.removeprefix("test/") for name in EXCERPTS if name.startswith("test/")]


def write(machines: Mapping[str, TapeMachine], folder: Path) -> dict[str, str]:
    """Renders ``folder/MACHINE/{train,val,test}/NAME-{input,target}.wav`` and bench.json; SHA-256 by file.

    Mono, 16 bit: the hashes do not hang on the last bits of a processor's arithmetic.
    """
    hashes: dict[str, str] = {}
    noise: dict[str, float] = {}
    machines = {name: dataclasses.replace(m, record_level_db=RECORD_LEVEL_DB) for name, m in machines.items()}
    for machine, recorder in machines.items():
        for name, (seconds, seed) in EXCERPTS.items():
            log.info("rendering %s %s ...", machine, name)
            play = speech.speak if "speech" in name else performer.perform
            dry = (_HEADROOM * play(seconds, RATE_HZ, seed))[None]
            dry = np.round(dry * 32768) / 32768  # as its file has it
            playback = recorder.without(*WITHOUT).play(dry, RATE_HZ, seed)
            noise[f"{machine}/{name}"] = float(np.mean(playback.noise.astype(np.float64) ** 2))
            for side, signal in (("input", dry), ("target", playback.wet)):
                path = folder / machine / f"{name}-{side}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                audio.write(path, torch.from_numpy(signal).float(), RATE_HZ, subtype="PCM_16")
                hashes[str(path.relative_to(folder))] = sha256(path)
    settings = {name: dataclasses.asdict(machine) for name, machine in machines.items()}
    content = {"bench": VERSION, "files": hashes, "noise": noise, "machines": settings}
    text = json.dumps(content, indent=1, sort_keys=True, default=str)
    write_atomically(folder / _LIST, lambda file: file.write(text.encode()))
    return hashes


def read(folder: Path) -> dict[str, Any]:
    """What bench.json says, after every file was compared with it; raises UserError where one is missing or another."""
    path = folder / _LIST
    try:
        content = plain_files.read_json(path)
        files = dict(content["files"])
        dict(content["noise"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: write the bench with revox bench {folder}.") from error
    for name, expected in files.items():
        if not _is(folder, name, expected):
            raise UserError(
                f"{str(folder / name)[:300]} is missing or changed: write the bench anew with revox bench {folder}."
            )
    return content


def _is(folder: Path, name: str, expected: Any) -> bool:
    """Whether a file is there, in the folder and not beside it, and has this SHA-256."""
    try:
        path = (folder / name).resolve()
        return path.is_relative_to(folder.resolve()) and path.is_file() and sha256(path) == expected
    except (OSError, ValueError):  # of names that no file can have
        return False


def frozen() -> dict[str, str]:
    """SHA-256 by file of bench v1 as it was published."""
    return json.loads(Path(__file__).with_name("bench_v1.json").read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
