"""What stands where on a test tape: the JSON file beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from revox_lightning import plain_files
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.measure.tape import MeasuringTape, Section

FORMAT = "revox_lightning test tape 1"
# Kinds of sections that are not measuring signals (those of measure/tape.py).
CAPTURE_KINDS = ("marker", "level", "leak", "programme", "floor")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The sections of a test tape and of its loopback file, all positions in samples.

    Kinds beside those of `measure.tape`: `marker`; `level` (frequency_hz, level_vu) for setting up; `leak` (pulses:
    true or false) with the programme channel silent; `programme` (source, pulses: the channel of the pulse train or
    null, bursts_samples: where short pulse trains stand in the section, gain_db); `floor` (play: 1 to 3, pulses).
    """

    sample_rate_hz: int
    channels: int
    samples: int
    zero_vu_dbfs: float
    pulses_hz: float
    sections: tuple[Section, ...]
    loopback_samples: int
    loopback: tuple[Section, ...]

    def of(self, *kinds: str) -> tuple[Section, ...]:
        """The sections of some kinds, in order."""
        return tuple(section for section in self.sections if section.kind in kinds)

    @property
    def measuring(self) -> tuple[Section, ...]:
        """The sections the data sheet reads."""
        return tuple(section for section in self.sections if section.kind not in CAPTURE_KINDS)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; `MeasuringTape.from_layout` reads it too."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("sections", "loopback"):
            fields[name] = [dataclasses.asdict(s) | {"channels": list(s.channels)} for s in fields[name]]
        return {"format": FORMAT} | fields

    @classmethod
    def read(cls, path: Path) -> Layout:
        """Reads a layout; raises UserError where it is missing, damaged or of another kind."""
        if not path.is_file():
            raise UserError(
                f"there is no layout {path}: align needs the .json that capture wrote beside the test tape, or "
                "dry= and wet= for recordings without one."
            )
        try:
            content = plain_files.read_json(path)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}")
            tape = MeasuringTape.from_layout(content, _Extent(content["channels"], content["samples"]))  # type: ignore[arg-type]
            played = {"sample_rate_hz": content["sample_rate_hz"], "zero_vu_dbfs": content["zero_vu_dbfs"]}
            loopback = MeasuringTape.from_layout(
                played | {"sections": content["loopback"]},
                _Extent(content["channels"], content["loopback_samples"]),  # type: ignore[arg-type]
            )
            return cls(
                tape.sample_rate_hz, int(content["channels"]), int(content["samples"]), tape.zero_vu_dbfs,
                float(content["pulses_hz"]), tape.sections, int(content["loopback_samples"]), loopback.sections,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(
                f"{path} is not the layout of a test tape of this version ({type(error).__name__}: {error}): write the "
                "tape again with revox capture."
            ) from error

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        text = json.dumps(self.as_dict(), indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))


class _Extent:
    """Stands for a signal of which only the shape is known."""

    def __init__(self, channels: Any, samples: Any) -> None:
        self.shape = (int(channels), int(samples))
