"""How much faster a training update is than with stock torch, and how near it comes to the processor's peak.

Three processes take turns: this package as its users get it (fused kernels, allocator tuned), stock torch as its users
get it, and stock torch with the allocator tuned. An update is forward, ESR and backward of the same net on the same
signals. `ours` and `reference` are seconds of audio trained a second; the peak is a single-precision matrix product of
1024 x 1024 with as many threads, in the same rounds. `--isa avx2` confines both to AVX2.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import jobs
import pairs
import torch

from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend

SIDES = {
    "ours": {"kernels": "auto", "tuned": True},
    "stock": {"kernels": "torch", "tuned": False},
    "stock tuned": {"kernels": "torch", "tuned": True},
}
# What confines the compiler, torch's own loops and oneDNN.
ISAS = {
    "native": {},
    "avx2": {"REVOX_KERNELS_MARCH": "x86-64-v3", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
UNIT = "s audio / s"
COLUMNS = {
    "job": "job", "threads": "threads", "ours": "ours", "stock": "reference", "ratio": "ratio", "least": "ratio_min",
    "most": "ratio_max", "stock tuned": "reference_tuned", "ratio to tuned": "ratio_tuned", "GFLOP/s": "gflops",
    "peak": "peak_gflops", "reached": "fraction", "stock reached": "reference_fraction",
}  # fmt: skip


class Worker:
    """What a child does."""

    def __init__(self, role: dict[str, Any]) -> None:
        if role["tuned"]:
            allocator.tune()
        backend.choose(role["kernels"])
        # As a training divides the threads: what torch has left to do beside a kernel is too small to share.
        fused = role["kernels"] != "torch"
        self._threads, self._torch_threads = role["threads"], 1 if fused else role["threads"]
        torch.set_num_threads(self._torch_threads)
        backend.set_threads(self._threads)
        self._update: jobs.Update | None = None

    def prepare(self, job: str, quick: bool) -> dict[str, Any]:
        chosen = jobs.JOBS[job].quick() if quick else jobs.JOBS[job]
        self._update = None  # frees the last one first
        self._update = jobs.Update(chosen, jobs.built(chosen))
        for _ in range(1 if quick else 2):
            self._update()
        seconds = pairs.timed(self._update, 1)["wall"]
        return {"seconds": seconds, "flop": self._update.flop, "kernels": backend.describe(self._update.net)}

    def step(self, repeats: int) -> float:
        assert self._update is not None
        return pairs.timed(self._update, repeats)["wall"]

    def product(self, size: int, repeats: int) -> float:
        """Seconds of a matrix product."""
        if getattr(self, "_square", None) is None or self._square.shape[0] != size:
            self._square = torch.randn(size, size)
        torch.set_num_threads(self._threads)
        self._square @ self._square
        seconds = pairs.timed(lambda: self._square @ self._square, repeats)["wall"]
        torch.set_num_threads(self._torch_threads)
        return seconds


def measure(children: dict[str, pairs.Child], name: str, given: Any) -> dict[str, Any]:
    """The row of one job."""
    ready = {side: child.ask("prepare", job=name, quick=given.quick) for side, child in children.items()}
    size, products = (64, 1) if given.quick else (1024, 20)
    turns = {
        side: lambda side=side: children[side].ask(
            "step", repeats=pairs.repeats_for(ready[side]["seconds"], given.quick)
        )
        for side in children
    }
    turns["product"] = lambda: children["ours"].ask("product", size=size, repeats=products)
    taken = pairs.in_turn(turns, given.rounds, name)
    job = jobs.JOBS[name].quick() if given.quick else jobs.JOBS[name]
    flop = ready["ours"]["flop"]
    peak = 2 * size**3 / statistics.median(taken["product"]) / 1e9
    ours, stock = (flop / statistics.median(taken[side]) / 1e9 for side in ("ours", "stock"))
    tuned = pairs.ratio(taken["stock tuned"], taken["ours"])
    row = pairs.row(
        name, taken["ours"], taken["stock"], UNIT, given.threads, amount=job.audio_seconds,
        reference_tuned=job.audio_seconds / statistics.median(taken["stock tuned"]), ratio_tuned=tuned["median"],
        gflops=ours, peak_gflops=peak, fraction=ours / peak, reference_fraction=stock / peak,
        isa=given.isa, kernels=ready["ours"]["kernels"],
    )  # fmt: skip
    row["seconds"]["reference_tuned"] = taken["stock tuned"]
    return row


def main() -> None:
    words = pairs.parser(__doc__, list(jobs.JOBS))
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--isa", choices=list(ISAS), default="native")
    given = pairs.parsed(words)
    if given.child:
        worker = Worker(json.loads(given.child))
        pairs.serve({"prepare": worker.prepare, "step": worker.step, "product": worker.product})
        return
    children = {
        side: pairs.Child.of(__file__, {**role, "threads": given.threads}, ISAS[given.isa])
        for side, role in SIDES.items()
    }
    rows = []
    try:
        for name in given.jobs:
            try:
                rows.append(measure(children, name, given))
            except (RuntimeError, UserError) as error:
                pairs.say(f"{name} left out: {error}")
    finally:
        for child in children.values():
            child.close()
    print(f"audio seconds trained a second ({given.isa} instructions)")
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
