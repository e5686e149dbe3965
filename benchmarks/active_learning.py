"""Which settings of the knobs to record: python benchmarks/active_learning.py [--rows relative,variance,random,grid].

The virtual Revox with three knobs (record level, bias, speed), a few recordings of 15 s at settings that an ensemble's
disagreement chooses (its variance as published, or relative to the output's energy), that chance chooses, or that stand
on a grid; then one net for all knobs, of the same recipe for every row, scored on other music at 200 other settings.
What is finished is kept, what was interrupted goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, median

import pictures
import runs as trainings
import torch

from revox_lightning import audio
from revox_lightning.active.knobs import Knob, at_random, read_knob
from revox_lightning.commands import assemble, settings
from revox_lightning.data import performer
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import table
from revox_lightning.scorer import BySetting, score
from revox_lightning.tape.knobs import turned

PRESET, RATE_HZ = "a77_7.5ips", 44_100
KNOBS = {"record_level_db": "-6:12", "over_peak_db": "1:5", "speed_ips": "7.5,15"}
DRY_SECONDS, TEST_SECONDS, TEST_SETTINGS = 15.0, 4.0, 200
ROWS = {
    "relative": ["design=active", "acquisition=relative"],
    "variance": ["design=active", "acquisition=variance"],
    "random": ["design=random"],
    "grid": ["design=grid"],
}
HOW = ["ensemble=3", "restarts=5", "steps=120", "ascent_seconds=0.5", "start=8", "per_round=4"]
NET = [
    "model=lstm", "size=16", "trainer=cpu", "system.threads=1", "report.data_sheet=false", "report.examples=[]",
    "report.audio_seconds=5",
]  # fmt: skip
# The members of the ensembles learn for half a minute; the nets that are compared longer, so that what they recorded
# shows, and not how far they came.
MEMBER_EPOCHS, EPOCHS = 12, 30


def test_set(folder: Path) -> Path:
    """The held-out settings, recorded once; returns their manifest."""
    manifest = folder / "recordings.csv"
    knobs = [read_knob(name, text) for name, text in KNOBS.items()]
    if manifest.is_file():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    dry = performer.perform(TEST_SECONDS, RATE_HZ, seed=1000)[None]
    audio.write(folder / "dry.wav", torch.from_numpy(dry).float(), RATE_HZ, subtype="FLOAT")
    machine = assemble.build_machine(PRESET, []).without("transport", "azimuth")
    rows: list[list[object]] = [["dry", "wet", "split", *KNOBS]]
    for number, controls in enumerate(at_random(knobs, TEST_SETTINGS, seed=1000).tolist(), 1):
        wet = turned(machine, _place(knobs, controls)).play(dry, RATE_HZ, 10_000 + number).wet
        audio.write(folder / f"{number:03d}.wav", torch.from_numpy(wet), RATE_HZ, subtype="FLOAT")
        rows.append(["dry.wav", f"{number:03d}.wav", "test", *controls])
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return manifest


def _place(knobs: list[Knob], controls: list[float]) -> dict[str, float | str]:
    return {knob.name: knob.value(control) for knob, control in zip(knobs, controls, strict=True)}


def campaign(name: str, words: list[str], seed: int, recordings: int, out: Path) -> Path:
    """The folder of a campaign whose model is trained."""
    folder = out / name
    how = [f"recordings={recordings}"]
    if not (folder / "active.yaml").is_file():
        how += [f"machine={PRESET}", f"dry={out / 'dry.wav'}", f"seed={seed}", *words, *HOW, *NET]
        how += [f"trainer.max_epochs={MEMBER_EPOCHS}"]
        how += [f"knob.{knob}={text}" for knob, text in KNOBS.items()]
    with open(out / f"{name}.log", "a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "revox_lightning.commands.active", f"run={folder}", *how]
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    return folder


def scored(run: Path, manifest: Path) -> dict[str, float]:
    """Error of a run over the held-out settings, and at each of them."""
    kept = run / "held_out.json"
    if not kept.is_file():
        net, cfg, _ = assemble.load_run(run)
        composed = settings.composed(["data=recordings", f"data.manifest={manifest}", f"data.sample_rate_hz={RATE_HZ}"])
        cfg.data = composed.data
        data = assemble.build_data(cfg, test_only=True)
        by = BySetting(len(KNOBS))
        score(net, data.chunks("test"), EffectMetrics(RATE_HZ), settings=by)
        content = by.summary() | {"settings_esr": [[*s.knobs, s.esr] for s in by.worst()]}
        kept.write_text(json.dumps(content), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--rows", default="relative,variance,random,grid")
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--recordings", type=int, default=20)
    given.add_argument("--out", type=Path, default=Path("outputs/active_learning"))
    args = given.parse_args()
    torch.set_num_threads(1)
    manifest = test_set(args.out / "held_out")
    if not (dry := args.out / "dry.wav").is_file():
        music = torch.from_numpy(performer.perform(DRY_SECONDS, RATE_HZ, seed=0)).float()[None]
        audio.write(dry, music, RATE_HZ, subtype="FLOAT")
    names = [(row, seed) for seed in range(args.seeds) for row in args.rows.split(",")]
    jobs = {}
    for row, seed in names:
        folder = campaign(f"{row}_{seed}", ROWS[row], seed, args.recordings, args.out)
        data = ["data=recordings", f"data.manifest={folder / 'recordings.csv'}", f"data.sample_rate_hz={RATE_HZ}"]
        jobs[f"{row}_{seed}_net"] = [*NET, *data, "logger=csv", f"trainer.max_epochs={EPOCHS}", f"seed={seed}"]
    trainings.all_trained(jobs, args.out)
    found: dict[str, list[dict]] = {}
    chosen: dict[str, list[list[str]]] = {}
    for row, seed in names:
        found.setdefault(row, []).append(scored(args.out / f"{row}_{seed}_net", manifest))
        with open(args.out / f"{row}_{seed}" / "settings.csv", newline="", encoding="utf-8") as file:
            chosen.setdefault(row, []).append(list(csv.reader(file))[1:])
    columns = ["settings chosen by", "mean ESR", "dB", "of each seed", "median setting", "worst setting"]
    cells = []
    for row, results in found.items():
        esr = [result["esr_mean_of_settings"] for result in results]
        middle, worst = (mean(r[f"esr_{n}"] for r in results) for n in ("median_of_settings", "worst_setting"))
        each = ", ".join(f"{value:.5f}" for value in esr)
        cells.append([row, f"{mean(esr):.5f}", table.decibels(mean(esr)), each, f"{middle:.5f}", f"{worst:.4f}"])
    table.show(f"{args.recordings} recordings, {TEST_SETTINGS} other settings", columns, cells)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    (args.out / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    first = {row: [[float(v) for v in line[4:6]] for line in runs[0]] for row, runs in chosen.items()}
    errors = {row: [result["esr_mean_of_settings"] for result in results] for row, results in found.items()}
    hardest = median_esr([result["settings_esr"] for results in found.values() for result in results])
    turning = [read_knob(name, text) for name, text in KNOBS.items()][:2]
    places = [
        ([float(k.value(c)) for k, c in zip(turning, knobs, strict=False)], esr) for knobs, esr in hardest.items()
    ]
    pictures.designs(errors, first, places, ("record level, dB", "bias, dB over the peak"), args.out / "designs.png")


def median_esr(results: list[list[list[float]]]) -> dict[tuple[float, ...], float]:
    """ESR at each setting, the median of all nets."""
    at: dict[tuple[float, ...], list[float]] = {}
    for result in results:
        for *knobs, esr in result:
            at.setdefault(tuple(knobs), []).append(esr)
    return {knobs: median(values) for knobs, values in at.items()}


if __name__ == "__main__":
    main()
