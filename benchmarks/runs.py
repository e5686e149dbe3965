"""Trainings that a benchmark compares: each through the train command, several at a time, finished ones kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from revox_lightning.runs import RunFolder


def trained(name: str, words: Sequence[str], out: Path) -> dict[str, Any]:
    """The metrics.json of a run in ``out/name``, trained where there is none; what it prints goes to ``out/name.log``.

    An interrupted run goes on where it stopped. Raises CalledProcessError where the training fails.
    """
    run = RunFolder(out / name)
    if not (metrics := run.read_json("metrics.json")):
        out.mkdir(parents=True, exist_ok=True)
        how = [f"resume={run.path}"] if run.last.exists() else [*words, f"run_dir={run.path}", f"name={name}"]
        with open(out / f"{name}.log", "a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "revox_lightning.commands.train", *how]
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
        metrics = run.read_json("metrics.json")
    print(f"{name}: {metrics['train_seconds']:.0f} s of training", flush=True)
    return metrics


def all_trained(jobs: Mapping[str, Sequence[str]], out: Path) -> dict[str, dict[str, Any]]:
    """``trained`` for each job, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        running = {name: at_once.submit(trained, name, words, out) for name, words in jobs.items()}
        return {name: job.result() for name, job in running.items()}
