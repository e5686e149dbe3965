"""What align has to say about a recording, in plain words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from revox_lightning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence: `fatal` (nothing can be learned from the recording), `warning` (bearable) or `note`."""

    severity: Literal["fatal", "warning", "note"]
    name: str
    sentence: str


def fatal(name: str, sentence: str) -> Finding:
    return Finding("fatal", name, sentence)


def warning(name: str, sentence: str) -> Finding:
    return Finding("warning", name, sentence)


def note(name: str, sentence: str) -> Finding:
    return Finding("note", name, sentence)


def stop_at_fatal(findings: Iterable[Finding]) -> None:
    """Raises UserError with the sentence of the first fatal finding."""
    for finding in findings:
        if finding.severity == "fatal":
            raise UserError(finding.sentence)
