"""``revox measure machine=NAME | run=FOLDER | IN.wav OUT.wav``: the data sheet of machines, several side by side."""

from __future__ import annotations

import contextlib
import datetime
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from revox_lightning.commands import settings, subjects
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import MEASURE as USAGE
from revox_lightning.errors import UserError
from revox_lightning.measure.data_sheet import MODES
from revox_lightning.report import data_sheet, table

OPTIONS = ("out", "kernels", "mode", "speed_seconds", "sample_rate_hz", "zero_vu_dbfs", "controls")


def measure(argv: list[str]) -> data_sheet.Sheets:
    """Measures all that is named, prints a table, and writes ``data_sheet.html`` and ``data_sheet.json``."""
    what, options, changes = _arguments(argv)
    how = _settings(options)
    sheets: data_sheet.Sheets = []
    place = Path(options["out"]).expanduser() if "out" in options else None
    with _progress() as progress:
        for kind, value in what:
            if kind == "machine":
                sheets += subjects.of_machine(value, changes, how, progress)
            elif kind == "run":
                found, folder = subjects.of_run(value, how, progress)
                sheets += [(name, sheet) for name, sheet in found if name not in dict(sheets)]
                place = place or (folder.path / "measure" if len(what) == 1 else None)
            else:
                dry, wet = (Path(word).expanduser() for word in value.split("\n"))
                sheets += subjects.of_files(dry, wet, how, progress)
        place = place or Path("outputs/measure") / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        progress("page")
        page, figures = place / "data_sheet.html", place / "data_sheet.json"
        data_sheet.write_json(sheets, figures)
        data_sheet.write_page(sheets, page)
    _tell(sheets)
    print(f"Data sheet: {page}   figures: {figures}")
    return sheets


def _arguments(argv: list[str]) -> tuple[list[tuple[str, str]], dict[str, str], list[str]]:
    """What to measure, in order; the options; the changes of the machine. Raises UserError for anything else."""
    what: list[tuple[str, str]] = []
    options: dict[str, str] = {}
    changes, words = [], []
    for text in argv:
        name, equals, value = text.partition("=")
        group = (settings.CONF / name).is_dir()  # such as machine/hysteresis
        if not equals or ("/" in name and not group) or Path(text).exists():
            words.append(text)
        elif name in ("machine", "run"):
            what.append((name, value))
        elif name in OPTIONS:
            options[name] = value
        elif group or name.lstrip("+~").startswith("machine."):
            changes.append(text)
        else:
            raise UserError(f"measure has no option {name}: {USAGE}.")
    if len(words) not in (0, 2):
        raise UserError(f"measure takes two files, what was played and what came back, not {len(words)}: {USAGE}.")
    if words:
        what.append(("files", "\n".join(words)))
    if not what:
        raise UserError(f"measure needs a machine, a run or two files: {USAGE}.")
    if changes and not any(kind == "machine" for kind, _ in what):
        raise UserError(f"{changes[0]} changes a machine, and none is measured: add machine=NAME.")
    return what, options, changes


def _settings(options: dict[str, str]) -> subjects.Settings:
    mode = options.get("mode")
    if mode not in (None, *MODES):
        raise UserError(f"mode={mode}: choose one of {', '.join(MODES)}.")
    rate_hz = _number(options, "sample_rate_hz")
    speed_seconds = _number(options, "speed_seconds")
    controls = options.get("controls", "")
    try:
        knobs = tuple(float(text) for text in controls.split(",") if text)
    except ValueError:
        raise UserError(f"controls={controls}: give numbers separated by commas.") from None
    return subjects.Settings(
        mode=mode,
        speed_seconds=60.0 if speed_seconds is None else speed_seconds,
        sample_rate_hz=None if rate_hz is None else round(rate_hz),
        zero_vu_dbfs=_number(options, "zero_vu_dbfs"),
        controls=knobs,
        kernels=options.get("kernels"),
    )


def _number(options: dict[str, str], name: str) -> float | None:
    if name not in options:
        return None
    try:
        value = float(options[name])
    except ValueError:
        raise UserError(f"{name}={options[name]}: expected a number.") from None
    if not math.isfinite(value):
        raise UserError(f"{name}={options[name]}: expected a number.")
    return value


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being done: one changing line on a terminal, log lines elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what: log.info("%s ...", what)
        return
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda what: bar.update(task, description=what)


def _tell(sheets: data_sheet.Sheets) -> None:
    """The figures side by side, the published ones beside their machine's, and what each net missed."""
    columns, cells = ["", ""], {}
    found = data_sheet.rows(sheets)
    for i, (name, sheet) in enumerate(sheets):
        columns.append(name)
        own = {figure: values[i] for figure, values in found}
        if sheet.get("published"):
            columns.append("published")
            own = {figure: (value, data_sheet.published(sheet, figure)) for figure, value in own.items()}
        for figure, value in own.items():
            cells.setdefault(figure, []).extend(value if isinstance(value, tuple) else (value,))
    rows: list[Any] = [[figure.label, figure.unit, *values] for figure, values in cells.items()]
    table.show("Data sheet", columns, rows)
    for name, sheet in sheets:
        for note in [*sheet.get("notes", []), data_sheet.published_note(sheet)]:
            if note:
                print(f"{name}: {note}.")
        if sheet.get("missed"):
            print(f"What did {name} miss of {sheet['missed']['target']}? {' '.join(sheet['missed']['sentences'])}")


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(measure)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
