"""Runs of released versions play as they did: their configs, checkpoints and figures are still read."""

from pathlib import Path

import keep_run
import numpy as np
import pytest
import torch

from revox_lightning import __version__, audio
from revox_lightning.commands import render
from revox_lightning.kernels import backend
from revox_lightning.report import leaderboard
from revox_lightning.runs import RunFolder

torch.set_num_threads(1)
RUNS = sorted(path.parent for path in keep_run.PLACE.glob("*/*/config.yaml"))
TOLERANCE = {"torch": 1e-6, "fused": 1e-5}
# Its knobs hear the logarithms of nearly silent bands: other instructions of the processor have moved it by 1.3e-4.
STYLE_TOLERANCE = 1e-3


def kept(run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What a run was given (1, time), and what it made of it."""
    return torch.from_numpy(np.load(run.parent / "input.npz")["x"]), torch.from_numpy(
        np.load(run / "rendered.npz")["y"]
    )


@pytest.mark.parametrize("kernels", TOLERANCE)
@pytest.mark.parametrize("run", RUNS, ids=lambda path: f"{path.parent.name} {path.name}")
def test_a_kept_run_plays_as_it_did(run, kernels):
    if kernels == "fused" and backend.library("recurrent") is None:
        pytest.skip("no C++ compiler")
    x, y = kept(run)
    y_hat = keep_run.played(run, x, kernels)
    assert y.shape == y_hat.shape and y.abs().max() > 0.01
    tolerance = STYLE_TOLERANCE if run.name == "style_transfer" else TOLERANCE[kernels]
    torch.testing.assert_close(y_hat, y, rtol=0, atol=tolerance)


@pytest.mark.parametrize("run", [path for path in RUNS if path.name == "lstm"], ids=str)
def test_the_command_renders_it_too(run, tmp_path):
    x, y = kept(run)
    audio.write(tmp_path / "in.wav", x, keep_run.RATE_HZ, subtype="FLOAT")
    render.render([f"run={run}", "kernels=torch", str(tmp_path / "in.wav"), str(tmp_path / "out.wav")])
    torch.testing.assert_close(audio.read(tmp_path / "out.wav"), y, rtol=0, atol=1e-6)


def test_their_figures_are_still_read():
    boards, _ = leaderboard.read(sorted({run.parent for run in RUNS}))
    found = {run.path.name for board in boards for row in board.rows for run in row.runs}
    assert {path.name for path in RUNS} - {"style_transfer"} <= found
    assert all(RunFolder(run).read_json("levels.json") for run in RUNS)


def test_every_family_of_this_version_is_kept_and_small():
    assert {path.name for path in RUNS if path.parent.name == __version__} >= set(keep_run.KEPT)
    for version in {run.parent for run in RUNS}:
        assert sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) < 2_000_000, version
    for run in RUNS:
        assert "/home" not in (run / "config.yaml").read_text() and "/tmp" not in (run / "config.yaml").read_text()


def test_a_kept_run_is_not_made_again(tmp_path, monkeypatch, capsys):
    (tmp_path / __version__ / "lstm").mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["keep_run.py", "lstm", "--out", str(tmp_path)])
    assert keep_run.main() == 0 and "is kept already" in capsys.readouterr().out
    assert not list((tmp_path / __version__ / "lstm").iterdir())
    monkeypatch.setattr("sys.argv", ["keep_run.py", "mp3", "--out", str(tmp_path)])
    assert keep_run.main() == 2 and capsys.readouterr().err.startswith("error: mp3")
