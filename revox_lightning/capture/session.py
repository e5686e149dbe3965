"""The files of a session: what belongs together, what does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from revox_lightning import audio
from revox_lightning.capture import health, loopback
from revox_lightning.capture.align import Alignment
from revox_lightning.capture.layout import Layout
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.measure.tape import Section, shifted

_GUARD_SECONDS = 0.25


def layout_of(tape: Path, recorded: Path) -> Layout:
    """The layout beside a test tape; raises UserError where the two files are exchanged or one is not what it was."""
    audio.info(tape)
    audio.info(recorded)
    beside = tape.with_suffix(".json")
    if not beside.is_file() and recorded.with_suffix(".json").is_file():
        raise UserError(
            f"the files are swapped: {recorded.name} is the test tape (its layout stands beside it); give the test "
            "tape first and the recording second."
        )
    layout = Layout.read(beside)
    if not _is_tape(tape, layout):
        if _is_tape(recorded, layout):
            raise UserError(
                f"the files are swapped: {recorded.name} is the test tape that {beside.name} describes, and "
                f"{tape.name} is not; give the test tape first and the recording second."
            )
        raise UserError(f"{tape} is not the test tape that {beside.name} describes: write it again with revox capture.")
    return layout


def _is_tape(path: Path, layout: Layout) -> bool:
    info = audio.info(path)
    return (info.frames, info.sample_rate_hz, info.channels) == (layout.samples, layout.sample_rate_hz, layout.channels)


def recording(path: Path, layout: Layout, tape: np.ndarray) -> np.ndarray:
    """The recorded samples `(channels, time)`; raises UserError for another rate, a missing channel, or a mere copy."""
    info = audio.info(path)
    _same_kind(path, info, layout)
    x = audio.read(path).numpy()
    if info.frames == layout.samples and float(np.abs(x - tape).max()) < 1e-4:
        raise UserError(f"{path} is the test tape itself: give what the machine made of it.")
    return x


def _same_kind(path: Path, info: audio.AudioInfo, layout: Layout) -> None:
    if info.sample_rate_hz != layout.sample_rate_hz:
        raise UserError(
            f"{path} has {info.sample_rate_hz} Hz and the test tape {layout.sample_rate_hz} Hz: record it again at the "
            "tape's rate, without conversion."
        )
    if info.channels < layout.channels:
        raise UserError(f"a channel is missing: {path} is mono and the test tape stereo; record both channels.")
    if info.channels > layout.channels:
        raise UserError(f"{path} has {info.channels} channels and the test tape {layout.channels}: export as many.")


def loopback_of(path: Path, tape: Path, layout: Layout) -> loopback.Loopback:
    """What the recording of the loopback file tells of the converters; raises UserError where it is another one."""
    played = tape.with_name(f"{tape.stem}_loopback.wav")
    _same_kind(path, audio.info(path), layout)
    if path.resolve() == played.resolve():
        raise UserError(f"{path} is the loopback file itself: give what came back through the cable.")
    return loopback.measure(layout, audio.read(played).numpy(), audio.read(path).numpy(), path.name)


def two_recordings(dry: Path, wet: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Dry and wet `(channels, time)` and their rate; raises UserError where they cannot belong together."""
    a, b = audio.info(dry), audio.info(wet)
    if dry.resolve() == wet.resolve():
        raise UserError(f"dry= and wet= are the same file, {dry}: give what was played and what came back.")
    if a.sample_rate_hz != b.sample_rate_hz:
        raise UserError(f"{dry} has {a.sample_rate_hz} Hz and {wet} {b.sample_rate_hz} Hz: export both at one rate.")
    if a.channels != b.channels or a.channels > 2:
        raise UserError(
            f"{dry} has {a.channels} channel(s) and {wet} {b.channels}: give both mono or both stereo (a missing "
            "channel cannot be guessed)."
        )
    x, y = audio.read(dry).numpy(), audio.read(wet).numpy()
    if health.level_dbfs(max(health.mean_square(channel) for channel in x)) < -80:
        raise UserError(f"{dry} is silent: give what was played to the machine.")
    return x, y, a.sample_rate_hz


def measuring_part(
    layout: Layout, tape: np.ndarray, recorded: np.ndarray, alignment: Alignment
) -> tuple[tuple[Section, ...], np.ndarray, np.ndarray]:
    """The measuring sections, and dry and wet `(channels, time)` from shortly before the first to after the last.

    The wet side is cut, not resampled: speed is among the things to be measured.
    """
    guard = round(_GUARD_SECONDS * layout.sample_rate_hz)
    first, last = layout.measuring[0].start - guard, layout.measuring[-1].stop + guard
    start = round(float(alignment.timeline.at(first)))
    wet = recorded[:, max(start, 0) : start + last - first]
    wet = np.pad(wet, ((0, 0), (max(-start, 0), 0)))
    wet = np.pad(wet, ((0, 0), (0, last - first - wet.shape[1])))
    return shifted(layout.measuring, -first), tape[:, first:last], wet


def zero_vu_dbfs(layout: Layout, alignment: Alignment, recorded: np.ndarray) -> list[float] | None:
    """How loud the 0 VU tone came back, per channel."""
    tone = next((section for section in layout.of("level") if section.parameters["level_vu"] == 0), None)
    if tone is None:
        return None
    guard = (tone.stop - tone.start) // 8
    first, last = (round(float(alignment.timeline.at(n))) for n in (tone.start + guard, tone.stop - guard))
    return [health.level_dbfs(health.mean_square(channel[first:last])) for channel in recorded]


def write_floor(alignment: Alignment, folder: Path) -> None:
    """Writes floor.json, which `data=recordings` reads, beside the forms of mono and of stereo pairs."""
    if alignment.floor is None:
        return
    content = {"sample_rate_hz": alignment.sample_rate_hz} | alignment.floor.as_dict()
    text = json.dumps(content, indent=1)
    for place in (folder, folder / "stereo"):
        if place.is_dir():
            write_atomically(place / "floor.json", lambda file: file.write(text.encode()))
