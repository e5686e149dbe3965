"""``revox score FOLDER bench=BENCH``: audio of any program, by the metrics and beside the rivals of runs."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from revox_lightning import audio, identity, plain_files
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.result import as_rows, test_metrics
from revox_lightning.commands.usage import SCORE as USAGE
from revox_lightning.data import bench
from revox_lightning.data.module import PairData
from revox_lightning.dsp.alignment import delay_samples
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.report import leaderboard, page, references, table
from revox_lightning.report.references import Reference
from revox_lightning.runs import RunFolder

_LONGEST_DELAY_SECONDS = 0.5
_MAY_BE_SHORTER_SECONDS = 0.1
_HEARD_SECONDS = 8.0
_SAME = 1e-6  # relative: what two processors may differ by


def score(argv: list[str]) -> Path:
    """Scores FOLDER/MACHINE/NAME.wav and writes the card, or confirms a card; returns where it wrote."""
    named, others, words = settings.arguments(argv, {"bench", "out", "name", "card"})
    if others or len(words) != 1 or "bench" not in named:
        raise UserError(f"score needs a folder and bench=FOLDER: {USAGE}.")
    folder, place = Path(words[0]).expanduser(), Path(named["bench"]).expanduser()
    frozen = bench.read(place)
    machines = [name for name in bench.MACHINES if (folder / name).is_dir()]
    if not machines:
        raise UserError(f"{folder} has no folder {' or '.join(bench.MACHINES)} with the audio that is to be scored.")
    estimates = {machine: _estimates(folder / machine, place / machine) for machine in machines}
    name = named.get("name", folder.name)
    out = Path(named.get("out", folder.with_name(f"{folder.name}_scored"))).expanduser()
    card: dict[str, Any] = {
        "name": name, "bench": frozen["bench"], "frozen": frozen["files"] == bench.frozen(),
        "program": identity.version(), "bench_files": frozen["files"],
        "files": {f"{m}/{n}.wav": bench.sha256(_file(folder / m, n)) for m in machines for n in bench.tests()},
        "machines": {},
    }  # fmt: skip
    for machine in machines:
        card["machines"][machine] = _score_one(name, estimates[machine], place / machine, frozen, out / machine)
    if "card" in named:
        _confirm(card, Path(named["card"]).expanduser())
    _write(out, card)
    boards, problems = leaderboard.read([out])
    notes = page.write(out / "report.html", boards, problems, len(bench.tests()), _HEARD_SECONDS)
    for note in [*problems, *notes]:
        log.warning("%s", note)
    print(f"Listen: {out / 'report.html'}")
    print(f"Result card: {out / 'card.json'}   again by anybody: revox score {folder} bench={place} card=card.json")
    return out


def _file(folder: Path, name: str) -> Path:
    """NAME.wav; a program that keeps the names of what it plays writes NAME-input.wav."""
    kept = folder / f"{name}-input.wav"
    return kept if kept.is_file() else folder / f"{name}.wav"


def _estimates(folder: Path, place: Path) -> dict[str, Tensor]:
    """The audio to be scored, (1, time) each, before anything is computed; raises UserError where it does not fit."""
    found = {}
    for name in bench.tests():
        path = _file(folder, name)
        if not path.is_file():
            raise UserError(
                f"{path} is missing: play {place}/test/{name}-input.wav through the program and put it there."
            )
        info, wanted = audio.info(path), audio.info(place / f"test/{name}-target.wav")
        if info.sample_rate_hz != wanted.sample_rate_hz or info.channels != 1:
            raise UserError(
                f"{path} has {info.channels} channels at {info.sample_rate_hz} Hz: the bench is mono at "
                f"{wanted.sample_rate_hz} Hz."
            )
        if info.frames < wanted.frames - round(_MAY_BE_SHORTER_SECONDS * info.sample_rate_hz):
            raise UserError(f"{path} has {info.frames} samples and {wanted.frames} were played: render all of it.")
        found[name] = audio.read(path)
        if not torch.isfinite(found[name]).all():
            raise UserError(f"{path} holds NaN or infinite samples: render it again.")
    return found


def _score_one(
    name: str, estimates: dict[str, Tensor], place: Path, frozen: dict[str, Any], out: Path
) -> dict[str, Any]:
    """Figures on one machine, beside the rivals'; leaves what a run leaves in ``out``."""
    targets = {n: audio.read(place / f"test/{n}-target.wav") for n in estimates}
    late = round(median(
        delay_samples(targets[n][0], y[0], round(_LONGEST_DELAY_SECONDS * bench.RATE_HZ)) for n, y in estimates.items()
    ))  # fmt: skip
    if late:
        log.info("%s: the audio is %d samples late, which is taken out, as a host does", place.name, late)
    metrics, each = EffectMetrics(bench.RATE_HZ), {}
    for n, y in estimates.items():
        y_hat = _aligned(y, late, targets[n].shape[1])
        metrics.start_file()
        metrics.update(y_hat, targets[n])
        metrics.end_file()
        each[n] = float((y_hat - targets[n]).double().square().sum() / targets[n].double().square().sum())
        _write_audio(out, len(each), n, place, y_hat, targets[n])
    test = metrics.compute()
    rivals, data = _rivals(place)
    figures = test_metrics(test, rivals, data)
    noise = [frozen["noise"][f"{place.name}/test/{n}"] * targets[n].numel() for n in targets]
    figures["test/esr_floor"] = sum(noise) / sum(float(y.double().square().sum()) for y in targets.values())
    rows = as_rows(name, test, rivals, figures["test/esr_floor"])
    cells = [[str(r["row"]), *(table.number(r.get(k), 5) for k in ("esr", "esr_gain_aligned", "mrstft"))] for r in rows]
    table.show(f"{name} on {place.name}", ["", "ESR", "gain-aligned", "MRSTFT"], cells)
    RunFolder(out).write_json("metrics.json", {"name": name, "task": "effect", "late_samples": late, **figures})
    RunFolder(out).write_text("config.yaml", _config(name, place))
    return {"late_samples": late, "metrics": figures, "esr_of_excerpts": each}


def _config(name: str, place: Path) -> str:
    """What a reader of runs wants to know of it."""
    lines = ["# scored, not trained here", f"name: {json.dumps(name)}", "task: effect", "model: {_target_: null}"]
    return "\n".join([*lines, f"data: {{bench: {bench.VERSION}, machine: {place.name}}}", ""])


def _aligned(y: Tensor, late: int, frames: int) -> Tensor:
    y = y[:, late:] if late >= 0 else torch.nn.functional.pad(y, (-late, 0))
    return torch.nn.functional.pad(y[:, :frames], (0, max(frames - y.shape[1], 0)))


def _rivals(place: Path) -> tuple[list[Reference], PairData]:
    """The dry signal and the best linear filters, fitted on the bench's training part."""
    words = ["model=lstm", "data=recordings", f"data.root={place}", f"data.sample_rate_hz={bench.RATE_HZ}"]
    data = assemble.build_data(settings.composed(words))
    log.info("%s: fitting the best linear filters ...", place.name)
    filters = references.best_filters(
        references.correlations(data, "train", 1024), references.correlations(data, "val")
    )  # fmt: skip
    return references.references(data, filters), data


def _write_audio(out: Path, number: int, name: str, place: Path, y_hat: Tensor, y: Tensor) -> None:
    gain = float((y * y_hat).sum() / y_hat.square().sum().clamp_min(1e-12))
    signals = {
        "dry": audio.read(place / f"test/{name}-input.wav"), "target": y, "estimate": y_hat, "difference": y - y_hat,
        "estimate_level_matched": gain * y_hat,
    }  # fmt: skip
    (out / "audio").mkdir(parents=True, exist_ok=True)
    for kind, signal in signals.items():
        path = out / "audio" / f"{number:02d}_{name}_{kind}.wav"
        audio.write(path, signal.clamp(-1, 1), bench.RATE_HZ, subtype="PCM_24")


def _confirm(card: dict[str, Any], path: Path) -> None:
    """Compares with somebody's card; raises UserError where another file was scored or another figure found."""
    try:
        theirs = plain_files.read_json(path)
        pairs = [
            (f"{m}, {key}", value, theirs["machines"][m]["metrics"][key])
            for m, found in card["machines"].items()
            for key, value in found["metrics"].items()
        ]
        files = dict(theirs["files"])
        if not all(told is None or isinstance(told, (int, float)) for _, _, told in pairs):
            raise TypeError("a figure is no number")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"card={path} is no result card of these machines ({type(error).__name__}).") from error
    if changed := [name for name, expected in card["files"].items() if files.get(name) != expected]:
        raise UserError(f"card={path} is of other audio: {changed[0]} differs.")
    for what, ours, told in pairs:
        same = ours is not None and told is not None and math.isclose(ours, told, rel_tol=_SAME, abs_tol=1e-9)
        if ours != told and not same:
            raise UserError(f"card={path} says {what} is {told}, and here it is {ours}.")
    print(f"{path}: confirmed, every figure of {len(files)} files.")


def _write(out: Path, card: dict[str, Any]) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return None if isinstance(value, float) and not np.isfinite(value) else value

    text = json.dumps(plain(card), indent=1)
    RunFolder(out).write_text("card.json", text + "\n")


def main() -> None:
    """Entry point."""
    with_disk = disk_faults()(score)
    sys.exit(guarded(lambda: with_disk(sys.argv[1:]) and 0))


if __name__ == "__main__":
    main()
