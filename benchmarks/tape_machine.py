"""Cost of the virtual Revox: seconds for a minute of stereo at 8-fold oversampling, every stage on.

The reference, in the same run: scipy's polyphase resampler up and down by 8 with a tanh between, the least that any
oversampled distortion costs. Medians of `--repeats`; `--json FILE` writes the list that all benchmarks here write.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from revox_lightning.commands import assemble

RATE_HZ, SECONDS = 44_100, 60
PRESETS = ("a77_7.5ips", "worn", "a77_7.5ips_preisach")


def median_seconds(job: Callable[[], object], repeats: int) -> float:
    """Median wall time of a job."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def bare(x: np.ndarray) -> np.ndarray:
    """An oversampled tanh of x (channels, time)."""
    return resample_poly(np.tanh(resample_poly(x, 8, 1, axis=1)), 1, 8, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    x = 0.1 * np.random.default_rng(0).standard_normal((2, RATE_HZ * SECONDS))
    reference = median_seconds(lambda: bare(x), given.repeats)
    rows = []
    for preset in PRESETS:
        machine = assemble.build_machine(preset, [])
        machine.play(x[:, :RATE_HZ], RATE_HZ, 0)  # compiles, and sets the bias
        ours = median_seconds(lambda machine=machine: machine.play(x, RATE_HZ, 0), given.repeats)
        rows.append({"job": preset, "ours": ours, "reference": reference, "ratio": reference / ours,
                     "unit": "s per minute of stereo", "threads": min(2, os.cpu_count() or 1)})  # fmt: skip
        print(
            f"{preset:22s} {ours:6.1f} s a minute of stereo; reference {reference:5.1f} s; ratio {reference / ours:.2f}"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
