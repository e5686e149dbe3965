"""What wow and flutter cost a model: python benchmarks/wow_and_flutter.py [--out FOLDER] [--seeds N] [--rows a,b].

Nets are trained on the built-in machine with its transport standing still, with the transport's delay told to the net,
with the delay taken out of the targets beforehand, and with nothing but its mean taken out; other nets and linear
interpolation beside the GRU that is told the delay. The test is what the row was trained on. The same number of epochs
for all; medians over the seeds. Finished runs are kept.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import runs

from revox_lightning.report import table

# name: what stands in the table, the words of the train command
ROWS = {
    "still": ("GRU, transport standing still", ["experiment=tape_still"]),
    "told": ("GRU and delay line, told the delay", ["experiment=tape_moving"]),
    "linear": ("the same, interpolating linearly", ["experiment=tape_moving", "delay_line.interpolation=linear"]),
    "lstm": ("LSTM and delay line, told the delay", ["experiment=tape_moving", "model.unit=lstm"]),
    "tcn": ("TCN-300 and delay line, told the delay", ["experiment=tape_moving", "model=tcn"]),
    "wavenet": ("WaveNet and delay line, told the delay", ["experiment=tape_moving", "model=wavenet"]),
    "demodulated": ("GRU, delay taken out of the targets", ["experiment=tape_demodulated"]),
    "ignored": ("GRU, only the mean delay taken out", ["experiment=tape_ignored"]),
}
BUDGET = [
    "logger=csv",
    "report.data_sheet=false",
    "report.examples=[]",
    "trainer=cpu",
    "system.threads=1",
    "trainer.max_epochs=10",
]


def row(label: str, seeds: list[dict[str, Any]]) -> list[str]:
    """Cells of one row, from the metrics of its seeds."""
    esr = [metrics["test/esr"] for metrics in seeds]
    middle = statistics.median(esr)
    db = [10 * math.log10(value) for value in esr]
    linear = statistics.median(metrics["test/esr_linear"] for metrics in seeds)
    seconds = statistics.median(metrics["train_seconds"] for metrics in seeds)
    spread = f"{min(db):.1f} to {max(db):.1f}"
    return [label, f"{middle:.5f}", f"{10 * math.log10(middle):.1f}", spread, f"{linear:.5f}", f"{seconds:.0f}"]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--out", type=Path, default=Path("outputs/wow_and_flutter"))
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--rows", default=",".join(ROWS))
    words.add_argument("--epochs", type=int, help="instead of the budget's")
    given = words.parse_args()
    more = [f"trainer.max_epochs={given.epochs}"] if given.epochs else []
    names = given.rows.split(",")
    jobs = {
        f"{name}_{seed}": [*ROWS[name][1], *BUDGET, *more, f"seed={seed}"]
        for seed in range(given.seeds)
        for name in names
    }
    done = runs.all_trained(jobs, given.out)
    columns = ["net", "test ESR", "dB", "dB, all seeds", "best linear filter", "seconds"]
    cells = [row(ROWS[name][0], [done[f"{name}_{seed}"] for seed in range(given.seeds)]) for name in names]
    table.show("The built-in machine's wow and flutter", columns, cells)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    (given.out / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
