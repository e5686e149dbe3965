"""Runs, artifacts, sync, sweeps and agents against a loopback server: what arrived, not what was called."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_server import WandbServer

ROOT = Path(__file__).parents[1]
TINY = [
    "model=lstm", "size=2", "data=recordings", "data.sample_rate_hz=8000", "trainer=cpu", "trainer.max_epochs=2",
    "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100",
    "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "report.audio_seconds=1",
    "report.data_sheet=false", "report.examples=[]", "kernels=torch",
]  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture
def server():
    with WandbServer() as server:
        yield server


@pytest.fixture
def run(server, pair, tmp_path):
    """A function that runs a command of W&B's or of ours beside the server; the words of a tiny training."""
    dry, wet = pair(seconds=4)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, **server.environment(str(home)), "OMP_NUM_THREADS": "1"}

    def call(*command, cwd=tmp_path):
        done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    call.words = [*TINY, f"data.dry={dry}", f"data.wet={wet}"]
    return call


def train(run, *words):
    return run(sys.executable, "-m", "revox_lightning.commands.train", *words)


def arrived(server, run_folder):
    (name,) = server.runs
    return name, server.runs[name], json.loads((run_folder / "metrics.json").read_text())


def check_artifact(server, folder):
    (artifact,) = (a for a in server.artifacts.values() if a["given"].get("artifactTypeName") == "model")
    assert artifact["state"] == "COMMITTED", server.asked
    assert {"best.ckpt", "config.yaml"} <= set(artifact["files"])
    sent = next(data for path, data in server.files.items() if path.endswith("/best.ckpt"))
    assert hashlib.sha256(sent).digest() == hashlib.sha256((folder / "checkpoints/best.ckpt").read_bytes()).digest()


def check(server, folder):
    """Of one run: its figures, its media, its artifact."""
    _, found, metrics = arrived(server, folder)
    rows = [row for row in found["history"] if "val/esr" in row]
    assert len(rows) >= 2 and any(row.get("audio_seconds_trained", 0) > 0 for row in found["history"])
    assert found["summary"]["test/esr"] == pytest.approx(metrics["test/esr"])
    assert found["exit"] == 0 and found["config"]["name"]["value"] == "lstm"
    assert found["jobType"] == "train" and found["groupName"] == "mine" and found["tags"] == ["a"]
    check_artifact(server, folder)
    target = next((folder / "audio").glob("01_*_target.wav")).read_bytes()
    sounds = {path: data for path, data in server.files.items() if path.endswith(".wav")}
    assert target in sounds.values(), "audio arrives as it lies in the folder"
    table = next(
        json.loads(data)
        for path, data in server.files.items()
        if "test/excerpts" in path and path.endswith(".table.json")
    )
    assert {"excerpt", "dry", "target", "estimate"} <= set(table["columns"])
    (row,) = table["data"]
    cell = row[table["columns"].index("target")]
    assert cell["_type"] == "audio-file"
    assert next(data for path, data in server.files.items() if path.endswith(cell["path"])) == target


def test_an_online_run_arrives_whole_and_goes_on_under_its_id(server, run, tmp_path):
    folder = tmp_path / "run"
    how = ["logger.offline=false", "logger.entity=tester", "logger.group=mine", "logger.tags=[a]"]
    train(run, *run.words, *how, f"run_dir={folder}")
    check(server, folder)
    before = len(next(iter(server.runs.values()))["history"])
    train(run, f"resume={folder}", "trainer.max_epochs=3")
    _, found, metrics = arrived(server, folder)
    assert len(found["begun"]) > 2 and len(found["history"]) > before and "RunResumeStatus" in server.asked
    assert found["summary"]["test/esr"] == pytest.approx(metrics["test/esr"])


def test_an_offline_run_that_was_moved_syncs_whole(server, run, tmp_path):
    folder = tmp_path / "run"
    train(run, *run.words, "logger.group=mine", "logger.tags=[a]", f"run_dir={folder}")
    assert not server.runs
    moved = tmp_path / "elsewhere" / "another name"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    run(sys.executable, "-m", "revox_lightning.commands.sync", str(moved))
    check(server, moved)


def test_an_offline_run_syncs_its_artifacts_from_where_it_was_made(server, run, tmp_path):
    folder = tmp_path / "run"
    train(run, *run.words, "logger.group=mine", "logger.tags=[a]", f"run_dir={folder}")
    (place,) = (folder / "wandb").glob("offline-run-*")
    run(sys.executable, "-m", "wandb", "sync", "--yes", str(place), cwd=folder)
    check(server, folder)


def test_wandb_sweep_and_agent_train_and_deliver(server, run, tmp_path):
    server.draws = [{"optim.lr": lr, "seed": 1} for lr in (0.001, 0.003, 0.01)]
    file = tmp_path / "sweep.yaml"
    words = [word for word in run.words if not word.startswith("trainer.max_epochs")]
    lines = ["program: train.py", "method: grid", "metric: {name: val/esr, goal: minimize}", "parameters:"]
    lines += ["  optim.lr: {values: [0.001, 0.003, 0.01]}", "  seed: {value: 1}", "command:"]
    fixed = [
        sys.executable,
        str(ROOT / "train.py"),
        *words,
        "trainer.max_epochs=1",
        "logger.offline=false",
        "${args_no_hyphens}",
    ]
    file.write_text("\n".join([*lines, *(f"  - {json.dumps(word)}" for word in fixed)]) + "\n")
    said = run(sys.executable, "-m", "wandb", "sweep", "--entity", "tester", "--project", "revox_lightning", str(file))
    assert "sweep0" in said and json.loads(json.dumps(server.sweeps["sweep0"]))["config"]
    told = run(sys.executable, "-m", "wandb", "agent", "tester/revox_lightning/sweep0")
    assert server.runs, told
    assert server.sweeps["sweep0"]["agents"] == 1
    delivered = {name: found["summary"].get("val/esr") for name, found in server.runs.items()}
    assert len(delivered) == 3 and all(isinstance(value, float) for value in delivered.values())
    rates = {found["config"]["optim"]["value"]["lr"] for found in server.runs.values()}
    assert rates == {0.001, 0.003, 0.01}


def begun(run, server, tmp_path, folder, *words):
    """A training of many epochs that has begun to deliver."""
    environment = {**os.environ, **server.environment(str(tmp_path / "home")), "OMP_NUM_THREADS": "1"}
    how = ["logger.offline=false", "logger.entity=tester", "trainer.max_epochs=12", f"run_dir={folder}", *words]
    process = subprocess.Popen(
        [sys.executable, "-m", "revox_lightning.commands.train", *run.words, *how],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch   2/"):
            break
    assert lines and lines[-1].startswith("epoch"), lines
    return process


def check_trained(process, folder):
    """That a training ended as if W&B had not failed, with one sentence about it; what it said."""
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said[-3000:]
    assert said.count("W&B failed") == 1 and "Traceback" not in said, said[-3000:]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/esr"] > 0 and (folder / "checkpoints" / "best.ckpt").stat().st_size
    assert len((folder / "metrics.csv").read_text().splitlines()) == 13
    return said


def test_a_server_that_goes_away_does_not_fail_the_training_and_gets_the_rest_later(run, tmp_path):
    folder = tmp_path / "run"
    with WandbServer() as first:
        process = begun(run, first, tmp_path, folder, "logger.finish_seconds=5")
    said = check_trained(process, folder)
    (place,) = (folder / "wandb").glob("run-*")
    assert f"revox sync {place}" in said
    with WandbServer() as second:
        environment = {**os.environ, **second.environment(str(tmp_path / "home"))}
        command = [sys.executable, "-m", "revox_lightning.commands.sync", str(place)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        _, found, metrics = arrived(second, folder)
        assert [row["test/esr"] for row in found["history"] if "test/esr" in row] == [
            pytest.approx(metrics["test/esr"])
        ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks W&B's process up in /proc")
def test_a_wandb_process_that_is_killed_does_not_fail_the_training(server, run, tmp_path):
    folder = tmp_path / "run"
    process = begun(run, server, tmp_path, folder)
    killed = [
        os.kill(int(place.name), signal.SIGKILL)
        for place in Path("/proc").iterdir()
        if place.name.isdecimal() and is_wandb_of(place, process.pid)
    ]
    assert len(killed) == 1
    check_trained(process, folder)


def is_wandb_of(place, pid):
    try:
        words = (place / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"wandb-core" in words[0] and str(pid).encode() in words


def test_where_no_server_answers_at_the_beginning_the_run_is_kept_offline(run, tmp_path):
    with WandbServer() as server:
        environment = {**os.environ, **server.environment(str(tmp_path / "home")), "WANDB_INIT_TIMEOUT": "5"}
    folder = tmp_path / "run"
    words = [*run.words, "logger.offline=false", "logger.entity=tester", f"run_dir={folder}"]
    command = [sys.executable, "-m", "revox_lightning.commands.train", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "W&B does not answer" in done.stderr and (folder / "metrics.json").exists()
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
