"""The benchmarks of what surrounds the kernels run in small and say what others read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def rows(script, path, *words):
    """The JSON of a benchmark run in small, and what it printed."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--json", str(path), "--quick", "--threads", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert all({"job", "ours", "reference", "ratio", "unit", "threads"} <= set(row) for row in found)
    return found, done.stdout


@pytest.mark.slow
def test_an_epoch_stands_beside_the_bare_loop(tmp_path):
    (row,), printed = rows("overhead", tmp_path / "a.json", "--jobs", "lstm")
    assert row["rounds"] == 2 and row["unit"] == "s / epoch" and row["threads"] == 1
    assert 0 < row["validation_seconds"] < row["ours"]
    assert row["cost_min"] <= row["cost"] <= row["cost_max"]
    assert row["cost_training"] < row["cost"]
    assert row["hops"] == 16  # 6 s in segments of 8192: 32, in two batches of 16, of 8 hops each
    assert "lstm" in printed


def test_the_spectral_loss_stands_beside_auraloss(tmp_path):
    (compared, step), printed = rows("spectral_loss", tmp_path / "a.json", "--jobs", "mrstft-40x2048,lstm-32")
    assert compared["value_difference"] < 1e-5 and compared["gradient_difference"] < 1e-5
    assert compared["cost"] == pytest.approx(1 / compared["ratio"], rel=0.5)
    assert 0 < step["esr_share"] < 1 and 0 < step["mrstft_share"] < 1
    assert "share of mrstft" in printed
