"""What is fuzzed of run folders: a whole one to begin with, and what reads its files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz_sounds import RATE_HZ

from revox_lightning.commands import assemble
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.report import leaderboard, page_table, stimuli
from revox_lightning.runs import RunFolder, read_checkpoint

CONFIG: dict[str, Any] = {
    "name": "lstm", "task": "effect", "seed": 0, "size": 4, "monitor": "val/esr", "kernels": "torch", "run_dir": "x",
    "parts": None, "linear_start": False, "linear_filter": {"taps": 16, "lookahead_samples": 0, "trainable": False},
    "delay_line": {"interpolation": None, "max_delay_samples": 64}, "audio_channels": 1, "knobs": [],
    "model": {"_target_": "revox_lightning.models.recurrent.Recurrent", "unit": "lstm", "hidden": 4, "layers": 1,
              "skip": True, "channels": 1, "controls": 0},
    "system": {"threads": 1}, "data": {"_target_": "revox_lightning.data.module.PairData", "sample_rate_hz": RATE_HZ,
              "source": {"_target_": "revox_lightning.data.recordings.Recordings", "root": "/songs"}},
}  # fmt: skip
FIGURES = {
    "test/esr": 0.1, "test/esr_gain_aligned": 0.1, "test/mrstft": 1.5, "test/lufs_error_db": -0.25, "test/esr_dry": 0.2,
    "test/esr_linear": 0.1, "test/esr_floor": 1e-4, "parameters": 1000, "multiply_adds_per_sample": 90,
    "real_time_factor": 12.5, "train_seconds": 60.0, "name": "lstm",
}  # fmt: skip


def run_folder(folder: Path) -> Path:
    """A small finished run, with weights and linear filters."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "metrics.json").write_text(json.dumps(FIGURES))
    (folder / "levels.json").write_text(json.dumps({"train_input_peak_dbfs": -1.0}))
    lines = "".join(f"{i},{i * 10},{i * 60},{0.1 / (i + 1)}\n" for i in range(5))
    (folder / "metrics.csv").write_text(f"epoch,train_seconds,audio_seconds_trained,val/esr\n{lines}")
    (folder / "stretches.csv").write_text("file,error,energy\n0,0.1,1\n0,0.2,1\n1,0.1,2\n")
    (folder / "checkpoints").mkdir(exist_ok=True)
    net = Recurrent("lstm", hidden=4)
    state = {
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        "epoch": 1,
        "callbacks": {},
    }
    torch.save(state, folder / "checkpoints" / "best.ckpt")
    torch.save({"linear": {"h": torch.ones(1, 8), "lookahead": 2}}, folder / "checkpoints" / "linear_filters.ckpt")
    return folder


def of_run(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [run_folder(folder) / name]


def checkpoint(path: Path) -> None:
    content = read_checkpoint(path)
    assert isinstance(content["state_dict"], dict)
    RunFolder(path.parents[1]).load_weights(Recurrent("lstm", hidden=4))  # type: ignore[arg-type]


def report(path: Path) -> None:
    boards, _ = leaderboard.read([path.parent])
    for board in boards:
        for row in board.rows:
            page_table.table(board).encode()
            assert row.label and math.isfinite(row.esr)
    stimuli.systems([path.parent])


def net(path: Path) -> None:
    net, cfg, folder = assemble.load_run(path.parent, "torch")
    assert cfg.data.sample_rate_hz and folder.read_json("levels.json") is not None
    with torch.no_grad():
        net(torch.zeros(1, net.channels, 10), torch.zeros(1, net.controls) if net.controls else None)
