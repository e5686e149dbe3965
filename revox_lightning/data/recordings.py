"""Pairs of recordings: two paths, a folder, or a manifest."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from revox_lightning import audio, plain_files
from revox_lightning.data.index import Index
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = {".wav", ".wave", ".flac", ".aif", ".aiff", ".ogg", ".w64", ".rf64"}
_COLUMNS = {"dry", "wet", "split", "start_seconds", "end_seconds", "delay_samples", "trajectory"}
_MARKS = (("-input", "-target"), (".input", ".target"), ("_input", "_target"))
_LENGTHS_MAY_DIFFER_SECONDS = 0.05  # less than this is trimmed without a word


class Recordings:
    """Finds the pairs of a recording session.

    - ``dry=PATH wet=PATH``: one pair of files;
    - ``root=FOLDER``: all pairs below it, named ``*-input.* / *-target.*`` or ``*.input.* / *.target.*``, or of one
      name in the folders ``dry/`` and ``wet/``; a folder ``train``, ``val`` or ``test`` on the way names the split;
    - ``manifest=FILE.csv``: columns dry and wet (paths relative to the manifest), and if wanted split, start_seconds,
      end_seconds, delay_samples, trajectory (a file); every other column is a knob (a number).

    A pair NAME-input.wav, NAME-target.wav with a file NAME.npz beside it has that as its trajectory (data.trajectory).
    ``delay_samples`` is how many samples the wet files are late by (constant; a manifest's own column wins).
    Pairs of which a file cannot be read are left out and named in one list; what is known of the files is kept in
    ``cache_dir``. Raises UserError where no pair is left.
    """

    def __init__(
        self,
        root: str | None = None,
        dry: str | None = None,
        wet: str | None = None,
        manifest: str | None = None,
        delay_samples: int = 0,
        zero_vu_dbfs: float | None = None,
        cache_dir: str | None = None,
    ) -> None:
        given = [name for name, value in (("root", root), ("dry", dry), ("manifest", manifest)) if value is not None]
        if len(given) != 1 or (dry is None) != (wet is None):
            raise UserError(
                "data=recordings needs to know where they are: give data.root=FOLDER, or data.dry=FILE and "
                "data.wet=FILE, or data.manifest=FILE.csv (exactly one of the three)."
            )
        self.knobs: tuple[str, ...] = ()
        self.zero_vu_dbfs = zero_vu_dbfs
        self._floor = None if root is None else _floor(Path(root).expanduser())
        self.index = Index(cache_dir, next(v for v in (root, manifest, dry) if v is not None), skips=True)
        self._named: list[Path] = []  # all files of all pairs
        if manifest is not None:
            self._found = self._manifest(Path(manifest).expanduser(), delay_samples)
        else:
            pairs = [(Path(str(dry)).expanduser(), Path(str(wet)).expanduser(), None)]
            pairs = pairs if root is None else _folder(Path(root).expanduser())
            pairs = [(*resolved(dry, wet), split) for dry, wet, split in pairs]
            self._look_at(pairs)
            readable = [one for one in pairs if self._readable(*one[:2])]
            self._found = [pair(d, w, split, delay_samples, index=self.index) for d, w, split in readable]
        self._tell()

    def takes(self) -> list[Take]:
        """All takes found, in a fixed order; without those whose files turned out to be damaged."""
        self._found = [take for take in self._found if self._readable(take.dry, take.wet)]
        self._tell()
        return list(self._found)

    def _look_at(self, pairs: Iterable[tuple[Any, ...]]) -> None:
        self._named = [path for dry, wet, *_ in pairs for path in (dry, wet)]
        self.index.look_at(self._named)

    def _readable(self, *files: Path) -> bool:
        return all(self.index.problem(path) is None for path in files)

    def _tell(self) -> None:
        """Says which files cannot be read, whose partners are left out with them; raises UserError without a pair."""
        self.index.tell_unreadable(self._named)
        if not self._found:
            problems = (self.index.problem(path) for path in self._named)
            raise UserError(f"{next(problem for problem in problems if problem)} (and no other pair is whole)")

    def floor_energy(self, split: str) -> float | None:
        """Mean square of the hiss and modulation noise in a split's wet signal, where `revox align` measured it.

        It reads floor.json in ``root`` or the folder above it; None without it, or where it lacks a channel. One
        floor holds for all splits. Raises UserError where the file is damaged.
        """
        if self._floor is None:
            return None
        channels = max(self.index.info(take.wet).channels for take in self._found)
        powers = self._floor[:channels]
        if len(powers) < channels or None in powers:
            return None
        return sum(power for power in powers if power is not None) / channels

    def _manifest(self, path: Path, delay_samples: int) -> list[Take]:
        if not path.is_file():
            raise UserError(f"data.manifest={path}: there is no such file.")
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                table = csv.DictReader(file)
                columns = list(table.fieldnames or [])
                rows = list(table)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} cannot be read as a manifest ({str(error)[:100]}): write it as CSV.") from error
        if not {"dry", "wet"} <= set(columns) or not rows:
            raise UserError(f"{path}: a manifest needs the columns dry and wet and at least one row below them.")
        self.knobs = tuple(name for name in columns if name not in _COLUMNS)
        places = [f"{path}, line {n}" for n in range(2, len(rows) + 2)]
        files = [_files_of(row, place, path.parent) for row, place in zip(rows, places, strict=True)]
        self._look_at(files)
        found = [self._row(*one, path.parent, delay_samples) for one in zip(rows, places, files, strict=True)]
        return [take for take in found if take is not None]

    def _row(
        self, row: dict[str, str], place: str, files: tuple[Path, Path], folder: Path, delay_samples: int
    ) -> Take | None:
        """The take of a row; None where its files cannot be read."""

        def number(name: str) -> float | None:
            text = (row.get(name) or "").strip()
            try:
                value = float(text) if text else None
            except ValueError:
                value = math.nan
            if value is not None and not math.isfinite(value):
                raise UserError(f"{place}: {name[:50]} is {text[:50]!r} and should be a number.")
            return value

        split = (row.get("split") or "").strip() or None
        if split is not None and split not in SPLITS:
            raise UserError(f"{place}: split is {split[:50]!r}; write train, val or test, or leave it empty.")
        knobs = []
        for name in self.knobs:
            value = number(name)
            if value is None:
                raise UserError(f"{place}: the knob {name[:50]} has no value.")
            knobs.append(value)
        delay = number("delay_samples")
        if not self._readable(*files):
            return None
        take = pair(*files, split, delay_samples if delay is None else round(delay), index=self.index)
        rate_hz = self.index.info(take.dry).sample_rate_hz
        start_seconds, end_seconds = number("start_seconds"), number("end_seconds")
        start = take.start if start_seconds is None else round(start_seconds * rate_hz)
        stop = take.stop if end_seconds is None else round(end_seconds * rate_hz)
        if not take.start <= start < stop <= take.stop:
            raise UserError(
                f"{place}: start_seconds to end_seconds is samples {start} to {stop}, outside of what the pair holds "
                f"({take.start} to {take.stop})."
            )
        lead = start - take.start
        named = (row.get("trajectory") or "").strip()
        trajectory = folder / named if named else take.trajectory
        return Take(take.name, take.dry, take.wet, start, stop, lead, take.delay, tuple(knobs), split, trajectory)


def resolved(dry: Path, wet: Path) -> tuple[Path, Path]:
    """Both paths in full: one file has one name, or a split could leak into another."""
    try:
        return dry.resolve(), wet.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{dry} or {wet} cannot be the name of a file ({error}): check both.") from error


def _files_of(row: dict[str, str], place: str, folder: Path) -> tuple[Path, Path]:
    """The files that a manifest's row names. Raises UserError where one is missing there, or on the disk."""
    if not row.get("dry") or not row.get("wet"):
        raise UserError(f"{place}: dry and wet must both name a file.")
    files = resolved(folder / row["dry"], folder / row["wet"])
    for path in files:
        if not os.path.isfile(path):
            audio.info(path)  # says what is wrong with it
    return files


def pair(
    dry: Path, wet: Path, split: str | None, delay: int, controls: tuple[float, ...] = (), index: Index | None = None
) -> Take:
    """One pair over its whole common length; raises UserError where the two cannot belong together."""
    dry, wet = resolved(dry, wet)
    a, b = (audio.info(path) if index is None else index.info(path) for path in (dry, wet))
    if a.sample_rate_hz != b.sample_rate_hz:
        raise UserError(
            f"{dry} has {a.sample_rate_hz} Hz and {wet} has {b.sample_rate_hz} Hz: a pair needs one rate; export both "
            "at the same rate."
        )
    if a.channels != b.channels:
        raise UserError(
            f"{dry} has {a.channels} channels and {wet} has {b.channels}: a pair needs the same number; export both "
            "mono or both stereo."
        )
    start, stop = max(0, -delay), min(a.frames, b.frames - delay)
    if stop <= start:
        raise UserError(
            f"{dry} and {wet} do not overlap once the delay of {delay} samples is taken out: check the delay."
        )
    if abs(a.frames + delay - b.frames) > _LENGTHS_MAY_DIFFER_SECONDS * a.sample_rate_hz:
        log.warning(
            "%s has %d samples and %s %d: only the common %d are used.", dry, a.frames, wet, b.frames, stop - start
        )
    beside = (dry.with_name(f"{dry.stem.removesuffix(mark)}.npz") for mark, _ in _MARKS if dry.stem.endswith(mark))
    trajectory = next((path for path in beside if path.is_file()), None)
    return Take(dry.stem, dry, wet, start, stop, 0, delay, controls, split, trajectory)


def _floor(root: Path) -> list[float | None] | None:
    """Mean square of the machine's own noise per channel, from the floor.json nearest to the pairs."""
    path = next((p for p in (root / "floor.json", root.resolve().parent / "floor.json") if p.is_file()), None)
    if path is None:
        return None
    try:
        powers = plain_files.read_json(path)["mean_square"]
        found = [None if power is None else float(power) for power in powers]
        if not all(power is None or 0 <= power < math.inf for power in found):
            raise ValueError("a power is no number of 0 or more")
        return found
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): run revox align again, or remove it.") from error


def _folder(root: Path) -> list[tuple[Path, Path, str | None]]:
    """All (dry, wet, split) below a folder."""
    if not root.is_dir():
        raise UserError(f"data.root={root}: there is no such folder.")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    known = set(files)
    pairs = []
    for dry in files:
        candidates = []
        for mark, other in _MARKS:
            if dry.stem.endswith(mark):
                candidates.append(dry.with_name(dry.stem[: -len(mark)] + other + dry.suffix))
            elif f"{mark}." in dry.name:
                candidates.append(dry.with_name(dry.name.replace(f"{mark}.", f"{other}.", 1)))
        if dry.parent.name == "dry":
            candidates.append(dry.parent.parent / "wet" / dry.name)
        wet = next((c for c in candidates if c in known), None)
        if wet is None and candidates:
            raise UserError(f"{dry} has no partner: expected {candidates[0]} beside it.")
        if wet is not None:
            split = next((part for part in reversed(dry.relative_to(root).parts) if part in SPLITS), None)
            pairs.append((dry, wet, split))
    if not pairs:
        raise UserError(
            f"data.root={root} holds no pairs: name them NAME-input.wav and NAME-target.wav, or NAME.input.wav and "
            "NAME.target.wav, or put files of one name into the folders dry/ and wet/."
        )
    return pairs
