"""Rounds of recording and learning: what is recorded, what is to be recorded next, each step kept on the disk."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.active import ascent, knobs
from revox_lightning.active.ascent import Candidate
from revox_lightning.active.knobs import Knob
from revox_lightning.capture import pairs, session
from revox_lightning.capture.own import align_pair
from revox_lightning.dsp.alignment import fractional_delay
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.models.contract import Net

log = logging.getLogger(__name__)

DESIGNS = ("active", "random", "grid")
ALIGNMENTS = ("constant", "varying")
_PIECES = 4  # of the dry recording, in which the ensemble is asked
_ALIGNED_SECONDS = 30.0

Place = Mapping[str, "float | str"]  # of every knob, in its own unit
Record = Callable[[Place, Path, int], None]
Train = Callable[[Path, Path, int], Net]


@dataclass(frozen=True)
class Plan:
    """What is recorded, and how that is decided; the first ``start`` settings fill the space evenly."""

    knobs: tuple[Knob, ...]
    dry: Path
    design: str = "active"
    recordings: int = 20
    start: int = 8
    per_round: int = 4
    ensemble: int = 4
    restarts: int = 10
    steps: int = 250
    ascent_seconds: float = 2.0
    acquisition: str = "relative"
    align: str = "constant"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("design", DESIGNS), ("align", ALIGNMENTS), ("acquisition", ascent.ACQUISITIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)}: choose one of {', '.join(known)}.")
        least_of = {"recordings": 2, "start": 1, "per_round": 1, "ensemble": 2, "restarts": 1, "steps": 1, "seed": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: give {least} or more.")
        if not self.ascent_seconds >= 0.1:
            raise UserError(f"ascent_seconds={self.ascent_seconds}: give 0.1 or more.")
        if self.design == "grid":
            knobs.grid(self.knobs, self.recordings)


class Setting(NamedTuple):
    """One setting to record: its number, the round that asked for it, its file and its knobs' controls (0 to 1)."""

    number: int
    round: int
    file: str
    score: float | None
    controls: tuple[float, ...]


class Campaign:
    """A folder with ``settings.csv`` (what is to be recorded, in the knobs' own units), ``wet/`` (the recordings),
    ``round_NN/`` (the ensembles) and, when all is recorded, ``recordings.csv``: a manifest for data=recordings."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def advance(self, record: Record | None, train: Train) -> list[Setting]:
        """Goes on until all is recorded (returns nothing) or somebody has to record (returns what is missing).

        ``record(places of the knobs, file, number)`` is the machine, where it turns its own knobs;
        ``train(manifest, run folder, seed)`` returns a member of the ensemble. Raises UserError where a recording does
        not belong to the dry one.
        """
        while True:
            settings = self.settings() or self._begun()
            missing = [setting for setting in settings if not self.wet(setting).is_file()]
            if missing and record is None:
                return missing
            for setting in missing:
                assert record is not None
                log.info("recording %d of %d: %s", setting.number, self.plan.recordings, self.written(setting))
                record(self.place(setting), self.wet(setting), setting.number)
            done = len(settings) >= self.plan.recordings or self.plan.design != "active"
            place = self.folder if done else self.folder / f"round_{settings[-1].round + 1:02d}"
            manifest = place / "recordings.csv"
            self._write_manifest(manifest, settings)
            if done:
                return []
            nets = [train(manifest, place / f"member_{n}", n) for n in range(self.plan.ensemble)]
            self._ask(nets, settings)

    def settings(self) -> list[Setting]:
        """What settings.csv holds; nothing where there is none. Raises UserError where it is damaged."""
        path = self.folder / "settings.csv"
        if not path.is_file():
            return []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return [self._read(row) for row in csv.DictReader(file)]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): mend the line, or choose another run=.") from error

    def _read(self, row: Mapping[str, str]) -> Setting:
        controls = tuple(knob.control(row[knob.name]) for knob in self.plan.knobs)
        score = float(row["score"]) if row["score"] else None
        return Setting(int(row["number"]), int(row["round"]), row["file"], score, controls)

    def wet(self, setting: Setting) -> Path:
        """Where the recording of a setting lies, or is expected."""
        return self.folder / setting.file

    def place(self, setting: Setting) -> dict[str, float | str]:
        """The knobs of a setting in their own units."""
        return {k.name: k.value(control) for k, control in zip(self.plan.knobs, setting.controls, strict=True)}

    def written(self, setting: Setting) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.place(setting).items())

    def _begun(self) -> list[Setting]:
        plan = self.plan
        if plan.design == "grid":
            controls = knobs.grid(plan.knobs, plan.recordings)
        elif plan.design == "random":
            controls = knobs.at_random(plan.knobs, plan.recordings, plan.seed)
        else:
            controls = knobs.spread(plan.knobs, min(plan.start, plan.recordings), plan.seed)
        return self._added([], [Candidate(tuple(row), float("nan")) for row in controls.tolist()])

    def _ask(self, nets: Sequence[Net], settings: list[Setting]) -> None:
        plan, round = self.plan, settings[-1].round + 1
        seed = 1000 * plan.seed + round
        found = ascent.climb(
            nets, self._excerpt(), plan.knobs, plan.restarts, plan.steps, plan.acquisition, seed=seed
        )  # fmt: skip
        chosen = ascent.choose(found, min(plan.per_round, plan.recordings - len(settings)))
        log.info("round %d: the ensemble disagrees most at %d places", round, len(chosen))
        self._added(settings, chosen)

    def _added(self, settings: list[Setting], chosen: Sequence[Candidate]) -> list[Setting]:
        round = settings[-1].round + 1 if settings else 0
        for candidate in chosen:
            number = len(settings) + 1
            score = None if np.isnan(candidate.score) else candidate.score
            settings.append(Setting(number, round, f"wet/{number:03d}.wav", score, candidate.controls))
        names = [knob.name for knob in self.plan.knobs]
        rows = [
            [s.number, s.round, s.file, "" if s.score is None else f"{s.score:.6g}", *self.place(s).values()]
            for s in settings
        ]
        _write_csv(self.folder / "settings.csv", [["number", "round", "file", "score", *names], *rows])
        return self.settings()

    def _write_manifest(self, path: Path, settings: Sequence[Setting]) -> None:
        rows = []
        for setting in settings:
            dry, wet, delay = self._aligned(setting)
            rows.append([dry, wet, delay, *(f"{control:.6f}" for control in setting.controls)])
        _write_csv(path, [["dry", "wet", "delay_samples", *(knob.name for knob in self.plan.knobs)], *rows])

    def _aligned(self, setting: Setting) -> tuple[Path, Path, int]:
        """Dry, wet and the constant delay between them, of one setting by itself."""
        dry, wet = self.plan.dry.resolve(), self.wet(setting).resolve()
        if self.plan.align == "constant":
            info = audio.info(dry)
            frames = min(round(_ALIGNED_SECONDS * info.sample_rate_hz), info.frames)
            start = (info.frames - frames) // 2
            x, y = (audio.read(path, start, frames).mean(0) for path in (dry, wet))
            try:
                return dry, wet, round(fractional_delay(x, y, info.sample_rate_hz // 2)[0])
            except (UserError, ValueError) as error:
                raise UserError(f"{wet} and {dry} do not go together: {str(error).rstrip('.')}.") from error
        place = self.folder / "aligned" / f"{setting.number:03d}"
        names = [place / "demodulated" / f"programme-{side}.wav" for side in ("input", "target")]
        if not names[1].is_file() or names[1].stat().st_mtime < wet.stat().st_mtime:
            x, y, rate_hz = session.two_recordings(dry, wet)
            pairs.write(align_pair(x, y, rate_hz, None, (dry.name, wet.name)), y, place)
        return names[0].resolve(), names[1].resolve(), 0

    def _excerpt(self) -> torch.Tensor:
        """Pieces (pieces, 1, time) from all over the dry recording."""
        info = audio.info(self.plan.dry)
        frames = min(round(self.plan.ascent_seconds * info.sample_rate_hz), info.frames) // _PIECES
        starts = np.linspace(0, info.frames - frames, _PIECES + 2)[1:-1].astype(int).tolist()
        return torch.stack([audio.read(self.plan.dry, start, frames).mean(0, keepdim=True) for start in starts])


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
