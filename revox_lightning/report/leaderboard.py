"""Finished runs as tables that can be compared: one for each data set, one row for each model with all its seeds."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from revox_lightning.errors import UserError
from revox_lightning.report import intervals
from revox_lightning.runs import RunFolder

# What may differ between seeds of one model, and between runs on the same data.
_NOT_THE_MODEL = ("seed", "name", "run_dir", "resume", "show", "logger", "report", "data")
_NOT_THE_DATA = ("cache_dir", "memory_mb")
_SAME_AUDIO = 1e-3  # relative difference of the dry signal's error: the same test, computed elsewhere
_NO_RUNS_IN = {"evaluations", "wandb", "cache", ".hydra"}


@dataclass(frozen=True)
class Run:
    """One finished run: its config, metrics.json's finite numbers and its texts, and metrics.csv by epochs."""

    path: Path
    config: Mapping[str, Any]
    figures: Mapping[str, float]
    epochs: Sequence[Mapping[str, float]]
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.path.name)

    @property
    def seed(self) -> Any:
        return self.config.get("seed")


@dataclass
class Row:
    """A model: its runs, which differ in the seed alone, the one of the middle error first."""

    label: str
    runs: list[Run]
    rank: int | None = None

    def values(self, name: str) -> list[float]:
        """A figure of each seed that has it; ``esr_gain_db`` is what it gains over the best linear filter."""
        found = [_gain_db(run.figures) if name == "esr_gain_db" else run.figures.get(name) for run in self.runs]
        return [value for value in found if value is not None]

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return mean(values) if values else None

    def spread(self, name: str) -> float | None:
        """The standard deviation over seeds; None of one."""
        values = self.values(name)
        return stdev(values) if len(values) > 1 else None

    @property
    def esr(self) -> float:
        return mean(self.values("test/esr"))

    @cached_property
    def stretches(self) -> intervals.Stretches | None:
        """What the interval of its error is drawn from; None where a seed did not leave it."""
        try:
            found = intervals.read([run.path / "stretches.csv" for run in self.runs])
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            return None
        return found if math.isfinite(found.error.sum()) and found.energy.sum() > 0 else None


@dataclass
class Board:
    """Rows on the same data, the smallest mean error first, and what the test gives without a net."""

    title: str
    rows: list[Row]
    references: dict[str, float] = field(default_factory=dict)


_REFERENCES = {
    "dry signal": "test/esr_dry",
    "best linear filter": "test/esr_linear",
    "causal linear filter": "test/esr_linear_causal",
    "the machine's own hiss": "test/esr_floor",
}


def read(folders: Iterable[Path]) -> tuple[list[Board], list[str]]:
    """Tables of all runs in ``folders`` and below, and a sentence for each run that could not be taken.

    Raises UserError where a folder does not exist or nothing at all was found.
    """
    runs, problems = [], []
    for path in _run_paths(folders):
        try:
            runs.append(_read_run(path))
        except UserError as error:
            problems.append(str(error))
    if not runs:
        told = f" ({problems[0].rstrip('.')})" if problems else ""
        raise UserError(f"there is no finished run to report on{told}: name folders of runs, such as outputs/lstm.")
    boards = [_board(same, problems) for same in _by_data(runs)]
    _tell_apart([(board.title, board.rows[0].runs[0].config["data"]) for board in boards], boards, "title")
    return boards, problems


def _run_paths(folders: Iterable[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist: name folders of runs, such as outputs/lstm.")
        for config in sorted(folder.glob("**/config.yaml")) if folder.is_dir() else ():
            if not _NO_RUNS_IN & set(config.relative_to(folder).parts):
                found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def _read_run(path: Path) -> Run:
    """Raises UserError for a run that is damaged, unfinished, or has no error to compare."""
    folder = RunFolder(path)
    config = folder.config()
    metrics = folder.read_json("metrics.json")
    epochs = _epochs(path / "metrics.csv")
    if not metrics:
        raise UserError(f"{path} is not finished: it has no metrics.json (epochs so far: {len(epochs)}).")
    if not isinstance(metrics, dict) or not isinstance(config.get("data"), dict) or not _is_plain(config):
        raise UserError(f"{path} is damaged: its config.yaml or metrics.json is not what a run writes.")
    figures = {name: float(value) for name, value in metrics.items() if _is_figure(value)}
    if "test/esr" not in figures:
        raise UserError(f"{path} has no error on a test to compare (its task is {config.get('task')}).")
    return Run(path, config, figures, epochs, {name: v for name, v in metrics.items() if isinstance(v, str)})


def _is_plain(config: Any) -> bool:
    try:
        return bool(_key(config))
    except (TypeError, ValueError, RecursionError):
        return False


def _is_figure(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)  # a whole number may be too long for a float


def _epochs(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, of the cells that are numbers; none where the file is missing or damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_numbers(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        try:
            value = float(text)
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            found[str(name)] = value
    return found


def _gain_db(figures: Mapping[str, float]) -> float | None:
    own, linear = figures["test/esr"], figures.get("test/esr_linear", 0.0)
    return 10 * math.log10(linear / own) if own > 0 and linear > 0 else None


def _by_data(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs whose data is made by the same config and whose dry signal has the same error."""
    groups: list[tuple[str, float, list[Run]]] = []
    for run in runs:
        key = _key(run.config["data"], _NOT_THE_DATA)
        dry = run.figures.get("test/esr_dry", 0.0)
        for other, other_dry, members in groups:
            if other == key and math.isclose(dry, other_dry, rel_tol=_SAME_AUDIO):
                members.append(run)
                break
        else:
            groups.append((key, dry, [run]))
    return [members for _, _, members in groups]


def _key(config: Any, names: Sequence[str] = ()) -> str:
    return json.dumps(_without(config, names), sort_keys=True, default=str)


def _without(config: Any, names: Sequence[str]) -> Any:
    if isinstance(config, dict):
        return {str(name): _without(value, names) for name, value in config.items() if name not in names}
    return [_without(value, names) for value in config] if isinstance(config, list) else config


def _board(runs: Sequence[Run], problems: list[str]) -> Board:
    models: dict[str, list[Run]] = {}
    for run in runs:
        key = _key({name: value for name, value in run.config.items() if name not in _NOT_THE_MODEL})
        models.setdefault(key, []).append(run)
    rows = [_row(_one_a_seed(same, problems)) for same in models.values()]
    rows.sort(key=lambda row: row.esr)
    _tell_apart([(row.label, row.runs[0].config) for row in rows], rows, "label")
    if len(rows) > 1 and all(row.stretches is not None for row in rows):
        ranked = intervals.ranks([{str(i): row.stretches for i, row in enumerate(rows) if row.stretches is not None}])
        for i, row in enumerate(rows):
            row.rank = ranked[str(i)]
    figures = runs[0].figures
    return Board(
        _data_name(runs[0].config), rows, {name: figures[key] for name, key in _REFERENCES.items() if key in figures}
    )


def _one_a_seed(runs: Sequence[Run], problems: list[str]) -> list[Run]:
    """The newest run of each seed: repeating a seed says nothing about the spread."""
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.path / "metrics.json").stat().st_mtime):
        if str(run.seed) in newest:
            problems.append(f"{newest[str(run.seed)].path} was repeated as {run.path}, which stands in its place.")
        newest[str(run.seed)] = run
    return list(newest.values())


def _row(runs: list[Run]) -> Row:
    by_error = sorted(runs, key=lambda run: run.figures["test/esr"])
    middle = by_error.pop((len(by_error) - 1) // 2)
    names = {re.sub(rf"[_-]{re.escape(str(run.seed))}$", "", run.name) for run in runs}
    return Row(names.pop() if len(names) == 1 else middle.name, [middle, *by_error])


def _data_name(config: Mapping[str, Any]) -> str:
    """A few words for where the audio is from: ``VirtualRevox`` as "virtual revox", or the recordings' folder."""
    data = config["data"]
    source = data.get("source")
    source = source if isinstance(source, dict) else {}
    kind = str(source.get("_target_") or data.get("_target_") or "audio").rsplit(".", 1)[-1]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", kind).lower()
    place = next((str(source[key]) for key in ("root", "dry", "manifest") if source.get(key)), None)
    return f"{words}: {Path(place).name}" if place else words


def _tell_apart(named: Sequence[tuple[str, Mapping[str, Any]]], things: Sequence[Any], attribute: str) -> None:
    """Adds to equal names the options in which their configs differ, as few as tell them apart."""
    skipped = {*_NOT_THE_MODEL, *_NOT_THE_DATA} if attribute == "label" else set(_NOT_THE_DATA)
    for name in {name for name, _ in named}:
        same = [i for i, (other, _) in enumerate(named) if other == name]
        if len(same) < 2:
            continue
        flat = [dict(_flat({k: v for k, v in named[i][1].items() if k not in skipped})) for i in same]
        keys = _telling(flat)
        told = [", ".join(f"{key}={_written(one.get(key))}" for key in keys) for one in flat]
        for number, (i, text) in enumerate(zip(same, told, strict=True), 1):
            unique = text if told.count(text) == 1 else f"{text}, {number}".lstrip(", ")
            setattr(things[i], attribute, f"{name} ({unique})")


def _telling(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names, at most three, whose values divide the configs most finely; of equals the one nearest to the root."""
    keys = sorted({k for one in flat for k in one}, key=lambda k: (k.count("."), len(k), k))
    chosen: list[str] = []

    def classes(names: Sequence[str]) -> int:
        return len({repr([one.get(k) for k in names]) for one in flat})

    while len(chosen) < 3 and classes(chosen) < len(flat) and keys:
        best = max(keys, key=lambda k: classes([*chosen, k]))  # the first of equals
        if classes([*chosen, best]) == classes(chosen):
            break
        chosen.append(best)
    return chosen


def _written(value: Any) -> str:
    """As the command line has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _flat(config: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), config
