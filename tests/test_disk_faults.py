"""A disk that is full, read-only or gone at any moment of a training: one sentence, exit code 2, and nothing lost."""

import json
import shutil
import subprocess
import sys

import pytest
from fault_readers import unreadable

from revox_lightning.callbacks.checkpoints import BestAndLast
from revox_lightning.commands import result, settings, status, train, training
from revox_lightning.commands.exits import guarded
from revox_lightning.data import segments
from revox_lightning.report import plots
from revox_lightning.runs import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB of our own; skips where mounting one is not permitted."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("a small file system is mounted on Linux only")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here ({made.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)  # which a test may have done


def composed(dry, wet, run_dir, *words):
    return settings.composed([
        "model=lstm", "size=2", "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000",
        "trainer=cpu", "trainer.max_epochs=2", "system.batch_size=2", "system.segment_samples=600",
        "system.hop_samples=300", "system.warmup_samples=100", "linear_filter.taps=64",
        "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "logger=csv", "report.audio_seconds=1",
        "report.data_sheet=false", "report.examples=[]", "kernels=torch", f"run_dir={run_dir}", *words,
    ])  # fmt: skip


@pytest.fixture
def run(pair, disk, tmp_path):
    """A finished training of two epochs on that disk."""
    dry, wet = pair(seconds=4)
    training.train(composed(dry, wet, disk / "run"), disk / "run")
    return RunFolder(disk / "run")


def goes_on(folder, capsys):
    """Resumes for four epochs; the exit code and what stderr says of errors."""
    capsys.readouterr()
    code = guarded(lambda: train.resume([f"resume={folder.path}", "trainer.max_epochs=4"]))
    said = capsys.readouterr().err.splitlines()
    return code, [line for line in said if line.startswith(("error", "Traceback"))]


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def fills_before(monkeypatch, place, name, disk, at=lambda *_: True):
    """Fills the disk when a function is called for the first time."""
    original = getattr(place, name)

    def filling(*words, **named):
        if at(*words) and not (disk / "filler").exists():
            fill(disk)
        return original(*words, **named)

    monkeypatch.setattr(place, name, filling)


def in_epoch_3(_, trainer, *__):
    return trainer.current_epoch == 2


@pytest.mark.parametrize("moment", ["at once", "in an epoch", "before the figures", "after the figures"])
def test_a_disk_that_fills_up_ends_in_a_sentence_and_the_run_goes_on_later(moment, run, disk, capsys, monkeypatch):
    if moment == "at once":
        fill(disk)
    elif moment == "in an epoch":
        fills_before(monkeypatch, BestAndLast, "on_train_epoch_end", disk, in_epoch_3)
    elif moment == "before the figures":
        fills_before(monkeypatch, result, "score", disk)
    else:
        fills_before(monkeypatch, plots, "draw", disk)
    before = {path: path.read_bytes() for path in (run.best, run.last, run.path / "metrics.json")}
    code, said = goes_on(run, capsys)
    assert code == 2 and len(said) == 1 and said[0].startswith("error: "), said
    assert not unreadable(run.path)
    assert all(path.exists() for path in before)
    if moment in ("at once", "in an epoch"):
        assert {path: path.read_bytes() for path in before} == before
    monkeypatch.undo()
    (disk / "filler").unlink()
    code, said = goes_on(run, capsys)
    assert code == 0 and not said and status.of(run) == ("finished", "")
    rows = (run.path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2", "3"]
    assert json.loads((run.path / "metrics.json").read_text())["audio_seconds_trained"] > 0
    assert not [path for path in run.path.rglob(".*")], "nothing is left over"


def test_a_read_only_folder_is_one_sentence_and_stays_as_it_was(run, disk, capsys):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, said = goes_on(run, capsys)
    assert code == 2 and len(said) == 1 and "Read-only file system" in said[0], said
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert goes_on(run, capsys) == (0, [])


@pytest.mark.parametrize("moment", ["in an epoch", "in a validation"])
def test_recordings_whose_disk_goes_away_end_the_training_and_are_not_silence(
    moment, pair, disk, tmp_path, capsys, monkeypatch
):
    """Half of a validation on silence would choose the wrong weights."""
    dry, wet = pair(seconds=4, folder=disk)
    folder = RunFolder(tmp_path / "run")
    of, name = (segments.Segments, "__getitems__") if moment == "in an epoch" else (segments.Chunks, "__getitem__")
    original, asked = getattr(of, name), []

    def goes(self, *words):
        asked.append(words)
        if len(asked) == 8:
            subprocess.run(["umount", "-l", str(disk)], check=True)
        return original(self, *words)

    monkeypatch.setattr(of, name, goes)
    words = ["data.memory_mb=0", "trainer.max_epochs=20"]
    code = guarded(lambda: training.train(composed(dry, wet, folder.path, *words), folder.path))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback"))]
    assert code == 2 and len(said) == 1 and "can no longer be read" in said[0], said
    assert not unreadable(folder.path) and status.of(folder)[0] == "failed"


def test_a_run_folder_whose_disk_goes_away_is_one_sentence(run, disk, capsys, monkeypatch):
    original = BestAndLast.on_train_epoch_end

    def goes(self, *words):
        subprocess.run(["umount", "-l", str(disk)], check=False)
        return original(self, *words)

    monkeypatch.setattr(BestAndLast, "on_train_epoch_end", goes)
    code, said = goes_on(run, capsys)
    assert code == 2 and len(said) == 1 and "has gone: bring its disk back" in said[0], said
