"""``revox capture OUT.wav [programme=FILE_OR_FOLDER ...]``: writes a test tape, and how to record it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.capture import instructions, programme, tape
from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import CAPTURE as USAGE
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

_BUILT_IN_SECONDS = 120.0
_SUBTYPES = ("PCM_24", "FLOAT", "PCM_16")
_BLOCK = 1 << 20


def capture(argv: list[str]) -> Path:
    """Writes the test tape, its loopback file, its layout and its page; returns the page's path."""
    programmes = [Path(text.partition("=")[2]).expanduser() for text in argv if text.startswith("programme=")]
    if "programme=" in argv:
        raise UserError("programme= names nothing: give a file or a folder, or leave it out for the built-in music.")
    rest = [text for text in argv if not text.startswith("programme=")]
    known = {"sample_rate_hz", "subtype", "channels", "zero_vu_dbfs", "speed_seconds"}
    named, others, words = settings.arguments(rest, known)
    if others:
        raise UserError(f"capture has no option {others[0].split('=')[0]}: {USAGE}.")
    if len(words) != 1 or not words[0].lower().endswith(".wav"):
        raise UserError(f"capture needs the name of the tape to write, ending in .wav: {USAGE}.")
    rate_hz, channels = _whole(named, "sample_rate_hz", 48_000), _whole(named, "channels", 2)
    zero_vu_dbfs, speed_seconds = _number(named, "zero_vu_dbfs", -18.0), _number(named, "speed_seconds", 60.0)
    subtype = named.get("subtype", _SUBTYPES[0])
    if subtype not in _SUBTYPES:
        raise UserError(f"subtype={subtype}: choose one of {', '.join(_SUBTYPES)}.")
    if channels not in (1, 2):
        raise UserError(f"channels={channels}: a test tape has 1 or 2.")
    if not 16_000 <= rate_hz <= 384_000:
        raise UserError(f"sample_rate_hz={rate_hz}: give 16000 to 384000.")
    if not -40 <= zero_vu_dbfs <= -6.5:
        raise UserError(f"zero_vu_dbfs={zero_vu_dbfs:g}: give -40 to -6.5, so that the signals fit below full scale.")
    out = Path(words[0]).expanduser()
    beside, page = out.with_name(f"{out.stem}_loopback.wav"), out.with_suffix(".html")
    for path in (out, beside, out.with_suffix(".json"), page):
        if path.exists():
            raise UserError(f"{path} exists already and may belong to a tape that was recorded: choose another name.")
    if programmes:
        pieces = programme.read_pieces(programmes, rate_hz, channels, zero_vu_dbfs)
    else:
        pieces = [programme.built_in(_BUILT_IN_SECONDS, rate_hz, channels, zero_vu_dbfs)]
    layout, signal, loopback = tape.compose(
        pieces, rate_hz, channels=channels, zero_vu_dbfs=zero_vu_dbfs, speed_seconds=speed_seconds
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, x in ((beside, loopback), (out, signal)):
        _write(path, x, rate_hz, subtype)
    layout.write(out.with_suffix(".json"))
    text = instructions.page(layout, out, beside)
    write_atomically(page, lambda file: file.write(text.encode(errors="backslashreplace")))
    log.info("%s: %.1f minutes, %d sections", out, layout.samples / rate_hz / 60, len(layout.sections))
    print(f"Test tape: {out}   cable: {beside}   how to record it: {page}")
    return page


def _write(path: Path, x: np.ndarray, rate_hz: int, subtype: str) -> None:
    with audio.writer(path, rate_hz, len(x), subtype) as file:
        for start in range(0, x.shape[1], _BLOCK):
            file.write(torch.from_numpy(np.ascontiguousarray(x[:, start : start + _BLOCK])))


def _number(named: dict[str, str], name: str, default: float) -> float:
    try:
        value = float(named.get(name, default))
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise UserError(f"{name}={named[name]}: expected a number.")
    return value


def _whole(named: dict[str, str], name: str, default: int) -> int:
    value = _number(named, name, default)
    if value != int(value):
        raise UserError(f"{name}={named[name]}: expected a whole number.")
    return int(value)


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(capture)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
