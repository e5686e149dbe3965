"""One table at the end of a multirun."""

from __future__ import annotations

from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from revox_lightning.report import table

_REFERENCES = {
    "best linear filter": "linear",
    "causal linear filter": "linear_causal",
    "dry signal": "dry",
    "hiss floor": "floor",
}


class ComparisonTable(Callback):
    """Collects what the jobs of a multirun return and prints a table for each task, best model first."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, dict[str, Any]]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        value = getattr(job_return, "_return_value", None)
        if isinstance(value, dict):
            self._rows.append((" ".join(job_return.overrides or []), value))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._rows = [(name, row) for name, row in self._rows if "test/esr" in row or "error" in row]
        for task in sorted({row.get("task", "") for _, row in self._rows}):
            print_comparison(task, [(name, row) for name, row in self._rows if row.get("task", "") == task])


def print_comparison(task: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    """All runs of one task by test ESR, with the references of the first beneath."""
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
    table.show(f"Comparison, task {task}", columns, cells)
