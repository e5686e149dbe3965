"""One table at the end of a multirun."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from revox_lightning.files import begin_folder, write_atomically
from revox_lightning.report import table

_REFERENCES = {
    "best linear filter": "linear",
    "causal linear filter": "linear_causal",
    "dry signal": "dry",
    "hiss floor": "floor",
}


failed: list[str] = []  # the names of jobs, of this process or of others, that the user must change


class ComparisonTable(Callback):
    """Collects what the jobs of a multirun return and prints a table for each test set, best model first.

    Jobs may run in other processes and on other machines: each leaves its row in a folder of the multirun.
    """

    _place: Path | None = None
    _lock: int

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        failed.clear()
        place = Path(str(config.hydra.sweep.dir))
        place.mkdir(parents=True, exist_ok=True)
        self._lock, self._place = begin_folder(place.resolve() / "rows")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        value = getattr(job_return, "_return_value", None)
        if self._place is not None and isinstance(value, dict) and ("test/esr" in value or "error" in value):
            # Runs are comparable where all that the data was made by is the same.
            made_by = str(OmegaConf.to_container(config.data, resolve=True)) if "data" in config else ""
            name = OmegaConf.select(config, "hydra.runtime.choices.data", default="")
            row = [name, made_by, " ".join(job_return.overrides or []), value]
            text = json.dumps(row, default=str).encode()
            write_atomically(self._place / f"{config.hydra.job.num:06d}.json", lambda file: file.write(text))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if self._place is None:
            return
        tables: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
        for path in sorted(self._place.glob("*.json")):
            data, made_by, words, value = json.loads(path.read_text(encoding="utf-8"))
            tables.setdefault((data, made_by), []).append((words, value))
        shutil.rmtree(self._place, ignore_errors=True)
        os.close(self._lock)
        for (data, _), rows in tables.items():
            print_comparison(data, rows)
            failed.extend(words for words, value in rows if "error" in value)


def print_comparison(data: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """All runs on the same data by test ESR, with the references of the first beneath."""
    done = sorted((r for r in rows if "test/esr" in r[1]), key=lambda r: r[1]["test/esr"])
    columns = ["run", "ESR", "ESR dB", "gain-aligned", "MRSTFT", "parameters", "x real time", "train s"]
    cells = []
    for overrides, m in done:
        cells.append([
            overrides or m["name"], table.number(m["test/esr"], 5), table.decibels(m["test/esr"]),
            table.number(m["test/esr_gain_aligned"], 5), table.number(m["test/mrstft"], 3), f"{m['parameters']:,}",
            f"{m['real_time_factor']:.1f}", f"{m['train_seconds']:.0f}",
        ])  # fmt: skip
    for label, key in _REFERENCES.items() if done else ():
        first = done[0][1]
        esr, aligned = first.get(f"test/esr_{key}"), first.get(f"test/esr_{key}_gain_aligned")
        cells.append([label, table.number(esr, 5), table.decibels(esr), table.number(aligned, 5), *[""] * 4])
    cells += [[f"{o or m['name']}: FAILED, {m['error']}", *[""] * 7] for o, m in rows if "error" in m]
    table.show(f"Comparison, data={data}", columns, cells)
