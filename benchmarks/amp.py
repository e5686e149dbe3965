"""A guitar amplifier, with its gain knob and without: python benchmarks/amp.py GOLDEN_FOLDER [--out FOLDER].

Eighteen seconds of guitar through a six-knob amplifier at three settings of its gain, the other knobs in the middle
(Grötschla et al., "PANAMA", 2025): 12 s to learn from, the last 1.5 of them for validation, the rest is the test.
Beside each net stand the best linear filter and the published parametric WaveNet, which had thousands of settings.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import runs
import torch

from revox_lightning import audio
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import table

GAINS = {"low": 0.3, "mid": 0.5, "high": 0.75}
TRAIN_SECONDS, VAL_SECONDS, RATE_HZ = 10.4, 12.0, 48_000
SHARED = [
    "data=recordings", f"data.sample_rate_hz={RATE_HZ}", "logger=csv", "trainer=cpu", "system.threads=1",
    "report.data_sheet=false", "report.examples=[]", "data.gap_seconds=0.05",
]  # fmt: skip
NETS = {
    "nam_wavenet": ["model=nam_wavenet", "model.conditioning=bias", "trainer.max_epochs=100"],
    "nam_lstm": ["model=nam_lstm", "trainer.max_epochs=100"],
}


def prepare(golden: Path, folder: Path) -> dict[str, Path]:
    """Manifests of all three settings, gain a knob, and of the middle one without."""
    place = (golden / "amp" / "panama").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    frames = min(audio.info(place / f"demo1_ref_gain-{name}.flac").frames for name in GAINS)
    parts = [("train", 0.0, TRAIN_SECONDS), ("val", TRAIN_SECONDS + 0.1, VAL_SECONDS)]
    parts.append(("test", VAL_SECONDS + 0.1, frames / RATE_HZ))
    manifests = {"parametric": folder / "parametric.csv", "mid": folder / "mid.csv"}
    for kind, path in manifests.items():
        with open(path, "w", newline="", encoding="utf-8") as file:
            knob = kind == "parametric"
            rows = csv.writer(file)
            rows.writerow(["dry", "wet", "split", "start_seconds", "end_seconds", *(["gain"] if knob else [])])
            for name in GAINS if knob else ["mid"]:
                wet = place / f"demo1_ref_gain-{name}.flac"
                more = [GAINS[name]] if knob else []
                rows.writerows([place / "demo1.flac", wet, *part, *more] for part in parts)
    return manifests


def published(golden: Path, names: list[str]) -> float:
    """ESR of the published net on the seconds of the test, over the settings together."""
    metrics = EffectMetrics(RATE_HZ)
    start = round((VAL_SECONDS + 0.1) * RATE_HZ)
    for name in names:
        ours, ref = (audio.read(golden / "amp" / "panama" / f"demo1_{who}_gain-{name}.flac") for who in ("ours", "ref"))
        frames = min(ours.shape[1], ref.shape[1])
        metrics.start_file()
        metrics.update(ours[:, start:frames], ref[:, start:frames])
        metrics.end_file()
    return metrics.compute()["esr"]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("golden", type=Path, help="the folder of golden data, which holds amp/panama")
    words.add_argument("--out", type=Path, default=Path("outputs/amp"))
    words.add_argument("--epochs", type=int, help="instead of the recipe's")
    given = words.parse_args()
    torch.set_num_threads(1)
    manifests = prepare(given.golden, given.out / "data")
    more = [f"trainer.max_epochs={given.epochs}"] if given.epochs else []
    jobs = {
        f"{net}_{kind}": [*SHARED, *NETS[net], f"data.manifest={path}", *more]
        for kind, path in manifests.items()
        for net in NETS
    }
    done = runs.all_trained(jobs, given.out)
    columns = ["model", "parameters", "test ESR", "dB", "best linear filter", "published net", "training, s"]
    cells = []
    for name, metrics in done.items():
        theirs = published(given.golden, list(GAINS) if name.endswith("parametric") else ["mid"])
        cells.append([
            name, f"{metrics['parameters']:,}", f"{metrics['test/esr']:.5f}", table.decibels(metrics["test/esr"]),
            f"{metrics['test/esr_linear']:.5f}", f"{theirs:.5f}", f"{metrics['train_seconds']:.0f}",
        ])  # fmt: skip
    table.show("Six-knob amplifier, the seconds after the twelfth", columns, cells)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    (given.out / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
