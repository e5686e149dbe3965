"""A multirun through a real Slurm: jobs that are requeued or lose their node end as those that nobody stopped."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_node
import torch

ROOT = Path(__file__).parents[1]
SEEDS = range(6)
TINY = [
    "model=lstm", "data=recordings", "data.sample_rate_hz=8000", "logger=csv", "trainer=cpu", "trainer.max_epochs=60",
    "report.data_sheet=false", "report.examples=[]", "report.audio_seconds=1", "system.batch_size=4",
    "system.segment_samples=1000", "system.hop_samples=250", "system.warmup_samples=100", "linear_filter.taps=64",
    "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "system.threads=1",
]  # fmt: skip


def plugin():
    try:
        return importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is not None
    except ModuleNotFoundError:
        return False


def start(words, cwd, env):
    command = [sys.executable, "-m", "revox_lightning.commands.train", "-m", *words]
    with open(cwd / "said.txt", "ab") as out:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=out)


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def epochs(folder):
    table = folder / "metrics.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def kept(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    figures = {k: v for k, v in metrics.items() if k.startswith(("test/", "val/"))}
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return figures, weights


@pytest.mark.slow
@pytest.mark.skipif(slurm_node.missing() is not None, reason=str(slurm_node.missing()))
@pytest.mark.skipif(not plugin(), reason="hydra-submitit-launcher is not installed: pip install '.[parallel]'")
def test_six_jobs_end_as_if_nobody_had_stopped_them(pair, tmp_path):
    dry, wet = pair(seconds=6.0)
    words = [*TINY, f"data.dry={dry}", f"data.wet={wet}", f"seed={','.join(map(str, SEEDS))}"]
    alone, place = tmp_path / "alone", tmp_path / "slurm"
    alone.mkdir()
    place.mkdir()
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    assert start([*words, "campaign=night", "launcher=joblib"], alone, own).wait(500) == 0, (
        alone / "said.txt"
    ).read_text()
    jobs = [f"outputs/night/seed={seed}" for seed in SEEDS]
    with slurm_node.node(tmp_path / "node") as env:
        env = env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        queued = start([*words, "campaign=night", "launcher=slurm", "launcher.cpus=1"], place, env)

        def slurm(*told):
            return subprocess.run(told, env=env, capture_output=True, text=True).stdout

        try:
            until(lambda: epochs(place / jobs[0]) >= 2 and epochs(place / jobs[1]) >= 1)
            names = {
                line.split()[1]: line.split()[0] for line in slurm("squeue", "-h", "-r", "-o", "%i %F_%K").splitlines()
            }
            first = next(name for name in sorted(names) if name.endswith("_0"))
            assert not (place / jobs[0] / "metrics.json").exists()
            slurm("timeout", "3", "scancel", "--signal=USR2", first)  # as Slurm does before it preempts a job
            until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", first))
            until(lambda: "JobState=PENDING" in slurm("scontrol", "show", "job", first))
            slurm("scontrol", "update", f"jobid={first}", "starttime=now")  # Slurm itself waits two minutes
            until(lambda: any(2 <= epochs(place / job) < 40 for job in jobs[1:]))
            running = [n for n in slurm("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()]
            node = slurm("sinfo", "-h", "-o", "%n").split()[0]
            slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
            until(lambda: not slurm("squeue", "-h", "-t", "R,CG", "-o", "%i").split())
            slurm("scontrol", "update", f"nodename={node}", "state=resume")
            for name in running:
                slurm("scontrol", "update", f"jobid={name}", "starttime=now")
            assert running
            code = queued.wait(500)
        finally:
            queued.kill()
            queued.wait()
            said = (place / "said.txt").read_text()
        restarts = slurm("scontrol", "show", "job").count("Restarts=1")
    assert code == 0, said
    print(f"{restarts} jobs were started twice, {running} lost their node")
    for job in jobs:
        (figures, weights), (expected, others) = kept(place / job), kept(alone / job)
        assert figures == expected, job
        assert weights.keys() == others.keys() and all(torch.equal(weights[k], others[k]) for k in weights), job


@pytest.mark.slow
@pytest.mark.skipif(slurm_node.missing() is not None, reason=str(slurm_node.missing()))
def test_the_script_of_the_manual_is_requeued_by_its_signal_and_goes_on(pair, tmp_path):
    dry, wet = pair(seconds=6.0)
    words = [*TINY, f"data.dry={dry}", f"data.wet={wet}"]
    manual = (ROOT / "docs" / "scaling.md").read_text()
    script = manual[manual.index("#!/bin/bash") :].partition("```")[0]
    assert script.count("model=lstm") == 1 and script.count("python train.py") == 1
    script = script.replace("model=lstm", " ".join(words))
    script = script.replace("python train.py", f"{sys.executable} -m revox_lightning.commands.train")
    (tmp_path / "job.sh").write_text(script)
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    own = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-m", "revox_lightning.commands.train", *words, f"run_dir={tmp_path}/alone"]
    subprocess.run(command, env=own, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    with slurm_node.node(tmp_path / "node") as env:
        env = env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}

        def slurm(*told):
            return subprocess.run(told, env=env, cwd=tmp_path, capture_output=True, text=True).stdout

        job = slurm("sbatch", "--parsable", "--cpus-per-task=1", "--output=said.txt", "job.sh").strip()
        run = tmp_path / "outputs" / "lstm" / job
        until(lambda: epochs(run) >= 2, 600)
        assert not (run / "metrics.json").exists()
        slurm("scancel", "--batch", "--signal=USR1", job)  # as Slurm does 120 s before the time is over
        until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job), 60)
        until(lambda: "JobState=PENDING" in slurm("scontrol", "show", "job", job), 60)
        assert (stood := epochs(run)) < 60
        slurm("scontrol", "update", f"jobid={job}", "starttime=now")  # Slurm itself waits two minutes
        until(lambda: "JobState=COMPLETED" in slurm("scontrol", "show", "job", job), 600)
    said = (tmp_path / "said.txt").read_text()
    assert said.count("epoch   1/60") == 1 and f"epoch {stood + 1:3d}/60" in said, said
    (figures, weights), (expected, others) = kept(run), kept(tmp_path / "alone")
    assert figures == expected
    assert weights.keys() == others.keys() and all(torch.equal(weights[k], others[k]) for k in weights)
