"""What a run folder says of itself: running, finished, failed with the reason, interrupted; and signals that stop it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revox_lightning.commands import status
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    found = RunFolder(tmp_path / "outputs" / "a run")
    found.write_text("config.yaml", "name: lstm\nmodel: {}\n")
    return found


def told(folder):
    return json.loads((folder.path / status.NAME).read_text())


def test_a_run_says_that_it_runs_and_then_that_it_is_finished(folder):
    with status.kept(folder):
        assert told(folder)["state"] == "running" and status.of(folder)[0] == "running"
    assert told(folder)["state"] == "finished" and told(folder)["ended"] >= told(folder)["begun"]
    assert status.of(folder) == ("finished", "")


@pytest.mark.parametrize(
    "error, reason",
    [
        (UserError("the disk is full."), "the disk is full."),
        (ValueError("no"), "ValueError: no"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_failure_leaves_its_reason(folder, error, reason):
    with pytest.raises(type(error)), status.kept(folder):
        raise error
    assert status.of(folder) == ("failed", reason)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signals_interrupt_and_are_given_back(folder, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), status.kept(folder):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert status.of(folder) == ("interrupted", "") and signal.getsignal(number) == before


def test_what_failed_before_its_config_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path / "new")
    with pytest.raises(UserError), status.kept(folder):
        raise UserError("no such data.")
    assert not folder.path.exists()


def test_a_killed_run_is_seen_to_be_gone(folder, capsys):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with status.kept(folder):
        pass
    folder.write_json(status.NAME, told(folder) | {"state": "running", "pid": child.pid})
    assert status.of(folder) == ("interrupted", "its process is gone")
    assert status.status([str(folder.path.parent)]) == 2
    assert "interrupted " in (said := capsys.readouterr().out) and said.endswith(
        "1 runs, 1 of them failed or interrupted\n"
    )


def test_status_lists_damage_and_runs_of_older_versions(folder, tmp_path, capsys):
    (folder.path / status.NAME).write_text('{"state": "runn')
    old = RunFolder(tmp_path / "outputs" / "old")
    old.write_text("config.yaml", "name: lstm\n")
    old.write_json("metrics.json", {"test/esr": 0.1})
    assert status.status([str(tmp_path / "outputs")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("failed") and "cannot be read" in lines[0]
    assert lines[1].startswith("finished") and lines[2] == "2 runs, 1 of them failed or interrupted"
    with pytest.raises(UserError, match="is no folder"):
        status.status([str(tmp_path / "nowhere")])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_stopped_training_ends_within_ten_seconds_and_goes_on_exactly(pair, tmp_path, name):
    dry, wet = pair(seconds=4)
    words = [
        "model=lstm", "size=2", "data=recordings", "data.sample_rate_hz=8000", "trainer=cpu", "trainer.max_epochs=30",
        "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100",
        "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "report.audio_seconds=1",
        "report.data_sheet=false", "report.examples=[]", "logger=csv", f"data.dry={dry}", f"data.wet={wet}",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py")]
    # A shell's background jobs ignore SIGINT; a training begun here is to hear it.
    start = "import signal,runpy,sys;signal.signal(signal.SIGINT,signal.default_int_handler);sys.argv=sys.argv[1:];"
    begin = [sys.executable, "-c", start + "runpy.run_path(sys.argv[0],run_name='__main__')", str(ROOT / "train.py")]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    process = subprocess.Popen([*begin, *words, f"run_dir={stopped}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 120
        while not (stopped / "checkpoints" / "last.ckpt").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        asked = time.monotonic()
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert time.monotonic() - asked < 10 and process.returncode == 130 and said.endswith("stopped\n"), said[-2000:]
    assert status.of(RunFolder(stopped)) == ("interrupted", "")
    for more in ([f"resume={stopped}"], [*words, f"run_dir={whole}"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    assert status.of(RunFolder(stopped)) == ("finished", "")
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (stopped, whole))
    for figure in ("val/esr", "test/esr", "test/mrstft"):
        assert ours[figure] == pytest.approx(theirs[figure], rel=1e-6)
