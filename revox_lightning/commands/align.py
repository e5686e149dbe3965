"""``revox align TAPE.wav RECORDED.wav``, or ``dry=FILE wet=FILE``: aligned pairs, and what is wrong with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from revox_lightning import audio
from revox_lightning.capture import calibration, loopback, pairs, session
from revox_lightning.capture.align import Alignment, align_tape
from revox_lightning.capture.figures import figures
from revox_lightning.capture.findings import note
from revox_lightning.capture.layout import Layout
from revox_lightning.capture.own import align_pair, pulse_channel
from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import ALIGN as USAGE
from revox_lightning.errors import UserError
from revox_lightning.files import whole_folder, write_atomically
from revox_lightning.measure import data_sheet

_RESULTS = {"align.html", "align.json", "data_sheet.json", "floor.json", "stereo", *pairs.FORMS}
_KNOWN = {"loopback", "out", "calibration_tape", "calibration_flux_nwb_per_m", "mode", "dry", "wet", "pulses"}


def align(argv: list[str]) -> Path:
    """Aligns a recording and writes pairs, figures and the page; returns the folder."""
    named, others, words = settings.arguments(argv, _KNOWN)
    if others:
        raise UserError(f"align has no option {others[0].split('=')[0]}: {USAGE}.")
    own = "dry" in named or "wet" in named
    if (own and (words or not {"dry", "wet"} <= named.keys())) or (not own and len(words) != 2):
        raise UserError(f"align needs a test tape and its recording, or dry= and wet=: {USAGE}.")
    mode = named.get("mode")
    if mode not in (None, *data_sheet.MODES):
        raise UserError(f"mode={mode}: choose monitor (replayed while recording) or second_pass (after a rewind).")
    if named.get("out") == "":
        raise UserError("out= names no folder: give one, or leave it out.")
    first, recorded_path = (Path(p).expanduser() for p in ((named["dry"], named["wet"]) if own else words))
    out = Path(named.get("out", recorded_path.with_name(f"{recorded_path.stem}_aligned"))).expanduser()
    inputs = [
        first,
        recorded_path,
        *(Path(named[n]).expanduser() for n in ("loopback", "calibration_tape") if n in named),
    ]
    _check_place(out, inputs)
    if own:
        alignment, recorded, layout, loop, tape = *_own(first, recorded_path, named), None, None, None
    else:
        alignment, recorded, layout, loop, tape = _tape(first, recorded_path, named)
    calibrated = _calibration(named, alignment, layout, recorded, loop) if "calibration_tape" in named else None
    if calibrated is None:
        sentence = "absolute speed, flux, azimuth and the split between record and replay need a calibration tape."
        alignment.findings.append(note("unknown", sentence))
    found = {"tape": str(first), "recorded": str(recorded_path)} | figures(alignment, loop, mode, calibrated)
    _say(found)
    from revox_lightning.report import alignment as report  # matplotlib takes a second to import

    with whole_folder(out) as place:
        pairs.write(alignment, recorded, place, raw_as_is=own)
        _write_json(place / "align.json", found)
        session.write_floor(alignment, place)
        if layout is not None and layout.measuring and tape is not None:
            _write_json(
                place / "data_sheet.json", _sheet(layout, tape, recorded, alignment, mode, calibrated is not None)
            )
        report.write_page(place / "align.html", recorded_path.name, found, report.picture(alignment, recorded))
    train = f"data=recordings data.root={out / 'demodulated'} data.sample_rate_hz={alignment.sample_rate_hz}"
    print(report.summary(found))
    print(f"What was found: {out / 'align.html'}   train on it: python train.py {train}")
    return out


def _tape(path: Path, recorded_path: Path, named: dict[str, str]) -> tuple[Any, ...]:
    """Aligns a recording of a test tape."""
    if "pulses" in named:
        raise UserError("pulses= goes with dry= and wet=: a test tape's layout says where its pulses are.")
    layout = session.layout_of(path, recorded_path)
    tape = audio.read(path).numpy()
    recorded = session.recording(recorded_path, layout, tape)
    loop = None
    if "loopback" in named:
        loop = session.loopback_of(Path(named["loopback"]).expanduser(), path, layout)
        recorded = loopback.remove(loop, recorded)
    log.info("aligning %s (%.1f min) ...", recorded_path, recorded.shape[1] / layout.sample_rate_hz / 60)
    alignment = align_tape(layout, tape, recorded, recorded_path.name)
    alignment.findings += loop.findings() if loop is not None else []
    return alignment, recorded, layout, loop, tape


def _own(dry_path: Path, wet_path: Path, named: dict[str, str]) -> tuple[Alignment, np.ndarray]:
    """Aligns two recordings without a layout."""
    dry, wet, rate_hz = session.two_recordings(dry_path, wet_path)
    which = named.get("pulses", "auto")
    sides = {"left": 0, "right": 1, "none": None}
    if which not in ("auto", *sides):
        raise UserError(f"pulses={which}: choose auto, left, right or none.")
    pulses = pulse_channel(dry, rate_hz) if which == "auto" else sides[which]
    if pulses is not None and len(dry) != 2:
        raise UserError(f"pulses={which}: {dry_path} is mono; pulses need a channel of their own.")
    if pulses is not None:
        log.info("the %s channel is a pulse train: the delay is read off it", ("left", "right")[pulses])
    return align_pair(dry, wet, rate_hz, pulses, (dry_path.name, wet_path.name)), wet


def _calibration(
    named: dict[str, str],
    alignment: Alignment,
    layout: Layout | None,
    recorded: np.ndarray,
    loop: loopback.Loopback | None,
) -> dict[str, Any]:
    path = Path(named["calibration_tape"]).expanduser()
    text = named.get("calibration_flux_nwb_per_m")
    try:
        flux = None if text is None else float(text)
    except ValueError:
        raise UserError(f"calibration_flux_nwb_per_m={text}: expected a number, such as 320.") from None
    zero = session.zero_vu_dbfs(layout, alignment, recorded) if layout is not None else None
    x = audio.read(path).numpy()
    if audio.info(path).sample_rate_hz != alignment.sample_rate_hz or len(x) != len(recorded):
        raise UserError(f"{path} has another rate or number of channels than the recording: record both alike.")
    if loop is not None:
        x = loopback.remove(loop, x)  # as from the recording it is compared with
    told = calibration.read(x, audio.info(path).sample_rate_hz, path.name, flux, zero)
    whole = alignment.gains[0][0].response_db
    told["record_response_db"] = calibration.record_response(told["replay_response_db"], whole) or None
    return told


def _sheet(
    layout: Layout, tape: np.ndarray, recorded: np.ndarray, alignment: Alignment, mode: str | None, calibrated: bool
) -> dict[str, Any]:
    """The machine's data sheet, from the measuring signals on the tape."""
    log.info("measuring the machine ...")
    sections, dry, wet = session.measuring_part(layout, tape, recorded, alignment)
    wet = alignment.polarity * wet  # as in the pairs
    sheet = data_sheet.data_sheet(sections, dry, wet, layout.sample_rate_hz, layout.zero_vu_dbfs, mode)
    for group, figure in () if calibrated else (("speed", "error_percent"), ("stereo", "azimuth_us")):
        if sheet.get(group):
            sheet[group][figure] = None  # what a tape that was made on the machine itself cannot tell
    return sheet


def _say(found: dict[str, Any]) -> None:
    for finding in found["findings"]:
        (log.warning if finding["severity"] == "warning" else log.info)("%s", finding["sentence"])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def _check_place(out: Path, inputs: list[Path]) -> None:
    """Earlier results may be replaced; anything else in that place may not, least of all what is read."""
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out}: that place holds something else; choose a new folder.")
    foreign = sorted(path.name for path in out.glob("*") if path.name not in _RESULTS) if out.exists() else []
    if foreign:
        raise UserError(f"out={out}: that folder holds something else ({foreign[0]}); choose a new folder.")
    if any(path.resolve().is_relative_to(out.resolve()) for path in inputs):
        raise UserError(f"out={out}: that folder holds what is to be read; choose a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(align)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
