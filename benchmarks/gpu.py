"""Training on a GPU: throughput of every net, the batch that saturates the device, the time of a default training.

The batch doubles until throughput grows by less than a tenth or memory ends. `reference` is the throughput at the batch
of the processor benchmarks, `ours` at the batch that saturates, both in seconds of audio a second, single precision;
`bf16` is the latter under autocast. Without a GPU it says so and ends.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
import pairs
import torch

ROOT = Path(__file__).parents[1]
GROWTH, GREATEST_BATCH = 1.1, 4096
UNIT = "s audio / s"
COLUMNS = {
    "job": "job", "batch": "batch", "saturated": "ours", "usual batch": "usual_batch", "usual": "reference",
    "gain": "ratio", "bf16": "bf16", "memory MB": "memory_mb", "unit": "unit",
}  # fmt: skip


def seconds_of(job: jobs.Job, device: str, repeats: int, bf16: bool = False) -> float:
    """Median seconds of an update. Raises torch.cuda.OutOfMemoryError where the batch does not fit."""
    update = jobs.Update(job, jobs.built(job), device)
    taken = []
    for _ in range(2 + repeats):
        settle(device)
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            update()
        settle(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def settle(device: str) -> None:
    """Waits for what the device still computes."""
    if device == "cuda":
        torch.cuda.synchronize()


def throughput(job: jobs.Job, batch: int, device: str, repeats: int, bf16: bool = False) -> float | None:
    """Seconds of audio a second, None where memory ends."""
    sized = replace(job, batch=batch)
    try:
        return sized.audio_seconds / seconds_of(sized, device, repeats, bf16)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def measure(name: str, given: Any) -> dict[str, Any]:
    """The row of one job."""
    job = jobs.JOBS[name].quick() if given.quick else jobs.JOBS[name]
    greatest = 4 if given.quick else GREATEST_BATCH
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    by_batch: dict[int, float] = {}
    batch = job.batch
    while batch <= greatest:
        now = throughput(job, batch, given.device, given.rounds)
        if now is None:
            break
        pairs.say(f"{name}, batch {batch}: {now:.4g} {UNIT}")
        before = by_batch.get(batch // 2)
        by_batch[batch] = now
        if before is not None and now < GROWTH * before:
            break
        batch *= 2
    if not by_batch:
        raise RuntimeError(f"a batch of {job.batch} does not fit into the device's memory")
    best = max(by_batch, key=lambda batch: by_batch[batch])
    memory = torch.cuda.max_memory_allocated() / 2**20 if given.device == "cuda" else None
    return {
        "job": name, "ours": by_batch[best], "reference": by_batch[job.batch], "unit": UNIT,
        "ratio": by_batch[best] / by_batch[job.batch], "threads": torch.get_num_threads(), "batch": best,
        "usual_batch": job.batch, "by_batch": by_batch, "memory_mb": memory,
        "bf16": throughput(job, best, given.device, given.rounds, bf16=True), "device": device_name(given.device),
    }  # fmt: skip


def default_training(given: Any) -> dict[str, Any]:
    """`train.py` with its defaults, whole, on the device and on the processor."""
    taken = {}
    words = ["trainer.max_epochs=1", "data.source.seconds.train=20"] if given.quick else []
    for accelerator in ("gpu", "cpu") if given.device == "cuda" else ("cpu",):
        with tempfile.TemporaryDirectory(prefix="revox_gpu_") as folder:
            start = time.perf_counter()
            command = [sys.executable, str(ROOT / "train.py"), f"trainer.accelerator={accelerator}", "logger=csv"]
            subprocess.run([*command, f"run_dir={folder}/run", *words], check=True, stdout=sys.stderr)
            taken[accelerator] = time.perf_counter() - start
    ours, reference = taken.get("gpu", taken["cpu"]), taken["cpu"]
    return {
        "job": "default training", "ours": ours, "reference": reference, "ratio": reference / ours, "unit": "s",
        "threads": torch.get_num_threads(), "device": device_name(given.device),
    }  # fmt: skip


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(0) if device == "cuda" else "cpu"


def main() -> None:
    words = pairs.parser(__doc__, [*jobs.JOBS, "training"])
    words.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: only to try this script")
    given = pairs.parsed(words)
    rows: list[dict[str, Any]] = []
    if given.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use, so nothing was measured.")
    else:
        for name in given.jobs:
            try:
                rows.append(default_training(given) if name == "training" else measure(name, given))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                pairs.say(f"{name} left out: {error}")
        pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
