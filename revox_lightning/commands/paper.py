"""``revox paper paper=wright2020``: a published table, or one of our own, trained, compared and written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from revox_lightning import identity, plain_files
from revox_lightning.commands import loggers, rows, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.rows import Job
from revox_lightning.commands.usage import PAPER as USAGE
from revox_lightning.errors import UserError
from revox_lightning.report import paper_table
from revox_lightning.report.paper_table import Cell, Table
from revox_lightning.runs import RunFolder

PLACE = settings.CONF / "paper"
Key = tuple[str, str, int]
_KNOWN = {"paper", "out", "seeds", "jobs", "rows", "sets", "logger"}
COMMANDS = ("train", "texture_row")
# Of every row that is trained, before its own words.
_USUAL = ["logger=csv", "report.data_sheet=false", "report.examples=[]", "report.audio_seconds=10"]


@dataclass(frozen=True)
class Paper:
    """A table as its yaml says it."""

    name: str
    title: str
    reference: str
    budget: str
    unpublished: str
    words: list[str]
    sets: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    seeds: int = 3
    command: str = "train"  # what makes a row, out of its words
    # Trainings that rows build on, by name, with all their words but those of the set. A row says ``after: [NAME]`` and
    # {NAME} in its words for the run's folder.
    first: dict[str, list[str]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=lambda: {"ESR": "test/esr", "MRSTFT": "test/mrstft"})

    @classmethod
    def read(cls, name: str) -> Paper:
        """The table of ``conf/paper/NAME.yaml``; raises UserError where there is none or it lacks something."""
        path = PLACE / f"{name}.yaml"
        known = sorted(p.stem for p in PLACE.glob("*.yaml"))
        if name not in known:
            raise UserError(f"paper={name}: choose one of {', '.join(known)}.")
        try:
            told = cls(name=name, **plain_files.read_yaml(path))
            told.check()
        except (OSError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise UserError(f"{path} is no table: {(str(error) or type(error).__name__).splitlines()[0]}.") from error
        return told

    @property
    def usual(self) -> list[str]:
        """What stands before the words of every row."""
        return _USUAL if self.command == "train" else []

    def check(self) -> None:
        """Raises one of Python's own errors where a part is of another kind than it should be."""
        if not self.sets or not self.rows:
            raise ValueError("it has no sets or no rows")
        if self.command not in COMMANDS or (self.first and self.command != "train"):
            raise ValueError(f"its command is {self.command}: choose one of {', '.join(COMMANDS)}")
        words = [self.words, *self.first.values(), *(one["words"] for one in [*self.sets.values(), *self.rows])]
        texts = [self.title, self.reference, self.budget, self.unpublished or "", *(row["label"] for row in self.rows)]
        texts += [text for some in words for text in some] + [one["title"] for one in self.sets.values()]
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.seeds, int) or self.seeds < 1:
            raise TypeError("its texts and words are to be text, and its seeds a whole number")
        needs = [one["needs"] for one in self.sets.values() if one.get("needs")]
        after = [name for row in self.rows for name in row.get("after") or []]
        published = [dict(of or {}) for row in self.rows for of in dict(row.get("published") or {}).values()]
        if not all(isinstance(value, str) for value in self.columns.values()) or not set(after) <= set(self.first):
            raise ValueError("a column or a training that it names is not there")
        if any(not isinstance(one["files"], dict) or not isinstance(one["source"], str) for one in needs):
            raise TypeError("what a set needs is not told as files and their source")
        if any(not isinstance(value, (int, float, str, type(None))) for of in published for value in of.values()):
            raise TypeError("a published figure is no number")
        for row in self.rows:
            row_words(row, dict.fromkeys(self.first, ""))


def paper(argv: list[str]) -> Path:
    """Trains what a table lacks and writes it; returns its folder."""
    named, others, words = settings.arguments(argv, _KNOWN)
    if words or not named.get("paper"):
        raise UserError(f"paper needs paper=NAME: {USAGE}.")
    told = Paper.read(named["paper"])
    folders = {text[4:].partition("=")[0]: text.partition("=")[2] for text in others if text.startswith("set.")}
    more = [text for text in others if not text.startswith("set.")]
    seeds, at_once = (_count(named, name, usual) for name, usual in (("seeds", told.seeds), ("jobs", 1)))
    out = Path(named.get("out") or Path("outputs/paper") / told.name).expanduser()
    wanted = {"sets": list(told.sets), "rows": [row["label"] for row in told.rows]}
    for name, known in wanted.items():
        wanted[name] = named[name].split(",") if name in named else known
        if unknown := [text for text in wanted[name] if text not in known]:
            raise UserError(f"{name}={unknown[0]}: {told.name} has {', '.join(known)}.")
    if unknown := [name for name in folders if name not in told.sets]:
        raise UserError(f"set.{unknown[0]}: {told.name} has the sets {', '.join(told.sets)}.")
    first, jobs, absent = _jobs(told, wanted, folders, seeds, out, more)
    failed: dict[str, str] = {}
    for some in (first, jobs):  # what others build on, and then these
        failed |= rows.train_all(list(some.values()), at_once) if some else {}
    tables = [
        _table(told, name, [row for row in told.rows if row["label"] in wanted["rows"]], jobs, seeds)
        for name in wanted["sets"] if name not in absent
    ]  # fmt: skip
    changed = [f"Changed on the command line, against the budget above: {' '.join(more)}."] if more else []
    notes = [told.budget, *changed, *absent.values(), *(f"{label}: {reason}" for label, reason in failed.items())]
    notes += [told.unpublished] if told.unpublished else []
    written = paper_table.write(out, told.title, told.reference, tables, notes, _facts(seeds))
    _log_to_wandb(named.get("logger", "wandb"), out, told, tables)
    paper_table.show(tables, notes)
    print(f"Written: {', '.join(str(path) for path in written)}")
    if failed:
        raise UserError(f"{len(failed)} of {len(first) + len(jobs)} trainings failed: {next(iter(failed.values()))}.")
    return out


def _jobs(
    told: Paper, wanted: dict[str, list[str]], folders: dict[str, str], seeds: int, out: Path, more: list[str]
) -> tuple[dict[Key, Job], dict[Key, Job], dict[str, str]]:
    """What rows build on, and every row's training, by set, name and seed; and for each set not here one sentence."""
    first: dict[Key, Job] = {}
    jobs: dict[Key, Job] = {}
    absent = {}
    for name in wanted["sets"]:
        one = told.sets[name]
        folder = folders.get(name)
        if needs := one.get("needs"):
            sentence = rows.missing(f"set.{name}=FOLDER", folder, list(needs["files"]), needs["source"])
            if sentence:
                absent[name] = f"{name}: {sentence}"
                log.warning("%s", absent[name])
                continue
            rows.checked(Path(str(folder)).expanduser(), needs["files"])
        data = [text.format(folder=Path(folder or "").expanduser().resolve()) for text in one["words"]]
        for row in told.rows:
            if row["label"] not in wanted["rows"] or name not in row.get("sets", [name]):
                continue
            for seed in range(seeds):
                places = {}
                for part in row.get("after", []):
                    if (key := (name, part, seed)) not in first:
                        words = [*told.usual, *told.first[part], *data, *more, f"seed={seed}"]
                        first[key] = rows.prepared(f"{name} {part} seed {seed}", words, out / "runs")
                    places[part] = str(first[key].folder.path.resolve())
                words = [*told.usual, *told.words, *data, *row_words(row, places), *more, f"seed={seed}"]
                label = f"{name} {row['label']} seed {seed}"
                jobs[name, row["label"], seed] = rows.prepared(label, words, out / "runs", told.command)
    return first, jobs, absent


def row_words(row: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
    """A row's own words, with the folders of the runs that it builds on, by their names."""
    return [text.format(**places) for text in row["words"]] if row.get("after") else row["words"]


def _table(
    told: Paper, name: str, wanted: list[dict[str, Any]], jobs: dict[tuple[str, str, int], Job], seeds: int
) -> Table:
    """Ours beside theirs on one set; rows whose trainings all failed have figures of nobody's."""
    cells = []
    for row in wanted:
        label = row["label"]
        runs = [job for seed in range(seeds) if (job := jobs.get((name, label, seed))) and job.metrics]
        theirs = (row.get("published") or {}).get(name) or {}
        if not runs and not theirs:
            continue
        cells.append(Cell(
            label=label, physics=bool(row.get("physics")), parameters=row.get("parameters"), theirs=theirs,
            metrics=[job.metrics for job in runs], stretches=[job.folder.path / "stretches.csv" for job in runs],
        ))  # fmt: skip
    return Table(name, told.sets[name]["title"], told.columns, cells)


def _count(named: dict[str, str], name: str, usual: int) -> int:
    text = named.get(name, str(usual))
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name}={text}: give a whole number of at least 1.")
    return int(text)


def _facts(seeds: int) -> str:
    return f"{seeds} seed{'s' if seeds > 1 else ''}; revox_lightning {identity.version()}, code {identity.code_hash()}."


def _log_to_wandb(kind: str, out: Path, told: Paper, tables: list[Table]) -> None:
    """The tables as one run of W&B, offline, in the table's folder."""
    cfg = settings.composed([f"logger={kind}", f"name={told.name}", f"run_dir={out}"])
    plain: Any = OmegaConf.to_container(OmegaConf.create({"paper": told.name, "reference": told.reference}))
    logger = loggers.build_logger(cfg, RunFolder(out).path, plain)
    if not logger:
        return
    try:
        paper_table.log(logger.experiment, tables)
    finally:
        loggers.close(logger)


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(paper)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
