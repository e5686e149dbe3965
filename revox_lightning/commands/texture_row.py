"""A row of a table of textures: ``content=NAME style=NAME run_dir=FOLDER [OPTION=VALUE ...]`` to a metrics.json.

Sounds are those that are built in (`solos.SOUNDS`) or files; their first seconds go through ``revox texture``, whose
audio, page and state lie in the folder, so that a row that was stopped goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from revox_lightning import audio
from revox_lightning.commands import settings
from revox_lightning.commands import texture as by_command
from revox_lightning.commands.exits import disk_faults, guarded
from revox_lightning.data import solos
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

_OWN = ("content", "style", "audio_seconds", "run_dir")
_RATE_HZ = 22_050  # of built-in sounds: no texture looks higher


def described(words: Sequence[str]) -> tuple[dict[str, Any], list[Path]]:
    """All that decides the figures of a row, and the files it reads; raises UserError for words that it has not."""
    named = _named(words)
    files = [Path(named[name]) for name in ("content", "style") if named[name] not in solos.SOUNDS]
    options = {name: value for name, value in named.items() if name not in _OWN}
    told = {name: named[name] for name in ("content", "style")} | {"audio_seconds": _seconds(named)}
    return told | asdict(by_command.options(options)), files


def texture_row(argv: Sequence[str]) -> None:
    """Writes the two sounds, transfers, and writes metrics.json last."""
    named = _named(argv)
    if "run_dir" not in named:
        raise UserError("a row of textures needs run_dir=FOLDER.")
    folder, seconds = RunFolder(named["run_dir"]), _seconds(named)
    folder.path.mkdir(parents=True, exist_ok=True)
    for what in ("content", "style"):
        x, rate_hz = _sound(named[what], seconds)
        audio.write(folder.path / f"{what}.wav", x, rate_hz)
    words = [f"{what}={folder.path / what}.wav" for what in ("content", "style")]
    words += [f"{name}={value}" for name, value in named.items() if name not in _OWN]
    figures = by_command.texture([*words, str(folder.path / "out.wav")])
    if not figures["finished"]:
        raise UserError("the time limit came before the end: give more seconds=, the next call goes on.")
    folder.write_json("metrics.json", _metrics(figures))


def _named(words: Sequence[str]) -> dict[str, str]:
    known = {*_OWN, *by_command.OPTIONS}
    named, others, loose = settings.arguments(list(words), known)
    if others or loose:
        raise UserError(f"a row of textures has no {[*others, *loose][0]}: it has {', '.join(sorted(known))}.")
    if lacking := [name for name in ("content", "style") if name not in named]:
        raise UserError(f"a row of textures needs {lacking[0]}=: a file, or one of {', '.join(solos.SOUNDS)}.")
    return named


def _seconds(named: dict[str, str]) -> float:
    text = named.get("audio_seconds", "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 600:
        raise UserError(f"audio_seconds={text}: give a number from 1 to 600.")
    return seconds


def _sound(name: str, seconds: float) -> tuple[torch.Tensor, int]:
    """(channels, time) and its rate."""
    if name in solos.SOUNDS:
        return torch.from_numpy(solos.sound(name, seconds, _RATE_HZ))[None], _RATE_HZ
    path = Path(name).expanduser()
    rate_hz = audio.info(path).sample_rate_hz
    return audio.read(path)[:, : round(seconds * rate_hz)], rate_hz


def _metrics(figures: dict[str, Any]) -> dict[str, float]:
    before, after = figures["optimised_loss"]
    return {
        "test/loss_ratio": before / max(after, 1e-12),
        "test/distance_start": figures["distance"][0],
        "test/distance": figures["distance"][1],
        "test/classes_nearer": float(sum(after > before for before, after in figures["snr_db"].values())),
        "test/correlation_with_content": figures["correlation_with_content"],
        "test/iterations": float(sum(figures["iterations"])),
        "test/seconds": figures["seconds_taken"],
    }


def main() -> None:
    """Entry point of a row's process."""
    with_disk = disk_faults()(texture_row)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:])))


if __name__ == "__main__":
    main()
