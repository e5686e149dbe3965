"""How near the fused kernels come to exact arithmetic, and whether they repeat themselves.

Output and gradients of one update (batch 3, 257 outputs) against the same net in float64 by torch. `ours` and
`reference` are the norm of the gradients' error over the gradients' norm, with the fused kernels and with stock torch,
both in float32; a ratio above 1 means that ours is nearer. After them: the error of the output likewise, how far the
gradients of two threads are from those of one, and whether repeated updates gave the same bits each time. The TCN's
gradient jumps where rounding turns the sign of a PReLU's input, in any float32; its second row has slopes of 1, without
jumps.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import jobs
import pairs
import torch
from torch import Tensor

from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend

REPEATS, QUICK_REPEATS = 1000, 5
BATCH, SAMPLES = 3, 257
COLUMNS = {
    "job": "job", "ours, gradient": "ours", "stock, gradient": "reference", "ratio": "ratio", "ours, output": "output",
    "stock, output": "reference_output", "two threads": "threads_difference", "updates": "repeats",
    "same bits": "bit_equal",
}  # fmt: skip


def computed(update: jobs.Update, kernels: str, threads: int = 1) -> tuple[Tensor, Tensor]:
    """Output and all gradients of an update from the zero state, each as one float64 vector."""
    torch.set_num_threads(threads)
    with backend.using(kernels):
        y = update.evaluate()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in update.net.parameters()]
    return y.double().flatten(), torch.cat([g.double().flatten() for g in gradients])


def error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


def updates(name: str) -> dict[str, jobs.Update]:
    """The update of a job, and of the same net without the jumps of its gradient."""
    job = replace(jobs.JOBS[name], batch=BATCH, samples=SAMPLES)
    found = {name: jobs.Update(job, jobs.built(job))}
    smooth = jobs.Update(job, jobs.built(job))
    slopes = [module.weight for module in smooth.net.modules() if isinstance(module, torch.nn.PReLU)]
    for slope in slopes:
        torch.nn.init.ones_(slope)
    return found | ({f"{name}, slopes 1": smooth} if slopes else {})


def measure(name: str, update: jobs.Update, given: Any) -> dict[str, Any]:
    """The row of one update."""
    exact = copy.deepcopy(update)
    exact.net, exact.x, exact.y = exact.net.double(), exact.x.double(), exact.y.double()
    y, gradient = computed(exact, "torch")
    ours, stock = computed(update, "auto"), computed(update, "torch")
    two = computed(update, "auto", threads=2)
    repeats = QUICK_REPEATS if given.quick else REPEATS
    torch.set_num_threads(given.threads)
    first, equal = computed(update, "auto", given.threads), True
    for _ in range(repeats):
        again = computed(update, "auto", given.threads)
        equal &= all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    fused_error, stock_error = error(ours[1], gradient), error(stock[1], gradient)
    return {
        "job": name, "ours": fused_error, "reference": stock_error, "ratio": stock_error / max(fused_error, 1e-30),
        "unit": "relative error", "threads": given.threads, "output": error(ours[0], y),
        "reference_output": error(stock[0], y), "threads_difference": error(two[1], ours[1]), "repeats": repeats,
        "bit_equal": "yes" if equal else "no",
    }  # fmt: skip


def main() -> None:
    words = pairs.parser(__doc__, list(jobs.JOBS))
    words.add_argument("--threads", type=int, default=2, help="of the repeated updates")
    given = pairs.parsed(words)
    allocator.tune()
    rows = []
    for name in given.jobs:
        try:
            for label, update in updates(name).items():
                rows.append(measure(label, update, given))
                pairs.say(f"{label}: {rows[-1]['ours']:.2g}")
        except (RuntimeError, UserError, ImportError) as problem:
            pairs.say(f"{name} left out: {problem}")
    print("relative errors of one update against float64")
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
