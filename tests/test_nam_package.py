"""What we write as .nam is what Neural Amp Modeler's own package reads."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "nam_package.py"


@pytest.mark.slow
def test_captures_play_alike_in_the_package_from_the_registry(tmp_path):
    words = [sys.executable, str(SCRIPT), "--install", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode == 2:
        pytest.skip(f"the package cannot be installed here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) >= 10 and "MORE" not in done.stdout
