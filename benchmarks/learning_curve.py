"""How much audio a model needs: python benchmarks/learning_curve.py [--models a,b@SIZE] [--seconds 3,30,180].

Each model learns from the first seconds of the built-in machine's training part, for as much audio in all, however
often that is repeated; the test is the same. Finished runs are kept, interrupted ones go on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from statistics import median

import pictures
import runs

from revox_lightning.report import table

WHOLE_SECONDS = 180.0  # of the built-in machine's training part


def words(model: str, seconds: float, seed: int, epochs: int) -> list[str]:
    """Of the train command; ``epochs`` are passes over all the material, and there are as many validations."""
    more = max(round(WHOLE_SECONDS / seconds), 1)
    name, _, size = model.partition("@")
    return [
        f"model={name}", *([f"size={size}"] if size else []), f"data.train_seconds={seconds}", f"seed={seed}",
        f"trainer.max_epochs={epochs * more}", f"trainer.check_val_every_n_epoch={more}", "logger=csv", "trainer=cpu",
        "system.threads=1", "system.segment_samples=8192", "report.audio_seconds=5", "report.data_sheet=false",
        "report.examples=[]",
    ]  # fmt: skip


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--out", type=Path, default=Path("outputs/learning_curve"))
    given.add_argument("--models", default="tape_gru,lstm_linear,greybox_tape")
    given.add_argument("--seconds", default="3,30,180")
    given.add_argument("--seeds", type=int, default=1)
    given.add_argument("--epochs", type=int, default=8, help="passes over 180 s; shorter material is repeated as often")
    args = given.parse_args()
    models, lengths = args.models.split(","), [float(text) for text in args.seconds.split(",")]
    names = {(m, s, seed): f"{m}_{s:g}s_{seed}" for seed in range(args.seeds) for m in models for s in lengths}
    done = runs.all_trained({name: words(*key, args.epochs) for key, name in names.items()}, args.out)
    lines: dict[str, dict[float, list[float]]] = {"best linear filter": {}}
    for (model, seconds, _), name in names.items():
        lines.setdefault(model, {}).setdefault(seconds, []).append(done[name]["test/esr"])
        lines["best linear filter"][seconds] = [done[name]["test/esr_linear"]]
    columns = ["", *(f"{s:g} s" for s in lengths)]
    cells = [[label, *(_cell(points[s]) for s in lengths)] for label, points in lines.items()]
    table.show("Test ESR by the length of the training audio", columns, cells)
    rows = [columns, ["---", *["---:"] * len(lengths)], *cells]
    (args.out / "table.md").write_text("".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")
    pictures.learning_curves(lines, "Built-in machine a77_7.5ips", args.out / "learning_curves.png")


def _cell(esr: list[float]) -> str:
    return f"{median(esr):.5f} ({10 * math.log10(median(esr)):.1f} dB)"


if __name__ == "__main__":
    main()
