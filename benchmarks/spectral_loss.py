"""The multi-resolution STFT loss against auraloss's, and how much of a training step the loss takes.

Both are computed forward and backward, at the same sizes and hops and with the allocator tuned, in turn in one process.
`ours` and `reference` are milliseconds; "cost" is ours over auraloss's. The differences stand beside those that
auraloss itself shows between float32 and float64: a bin in which both magnitudes are all but equal may fall to either
side. The other rows are a whole step (forward, loss, backward) of a net with ESR and with this loss, and the loss's
share of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jobs
import pairs
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from torch import Tensor

from revox_lightning import losses
from revox_lightning.kernels import allocator

SHAPES = {"mrstft-40x2048": (40, 2048), "mrstft-16x8192": (16, 8192)}
STEPS = ("lstm-32", "nam-standard")
COLUMNS = {
    "job": "job", "threads": "threads", "ours, ms": "ours", "auraloss, ms": "reference", "ratio": "ratio",
    "cost": "cost", "value": "value_difference", "gradient": "gradient_difference",
    "auraloss 32 to 64 bit": "reference_difference",
}  # fmt: skip
SHARES = {
    "job": "job", "threads": "threads", "step with esr, ms": "esr", "share of esr": "esr_share",
    "step with mrstft, ms": "mrstft", "share of mrstft": "mrstft_share",
}  # fmt: skip
SIZES: list[int] = list(losses.FFT_SIZES)
Loss = Callable[[Tensor, Tensor], Tensor]


def auraloss() -> MultiResolutionSTFTLoss:
    return MultiResolutionSTFTLoss(SIZES, [size // 4 for size in SIZES], SIZES)


def signals(batch: int, samples: int) -> tuple[Tensor, Tensor]:
    """Coloured noise through a clipper, with 1 % of noise, which wants a gradient; and the coloured noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, batch, 1, samples + 7, generator=generator)
    y = 0.5 * torch.nn.functional.avg_pool1d(noise[0], 8, 1)
    return (torch.tanh(1.2 * y) + 0.01 * noise[1, ..., 7:]).requires_grad_(), y


def seconds(loss: Loss, y_hat: Tensor, y: Tensor) -> float:
    """Wall time of the loss and its gradient."""
    y_hat = y_hat.detach().requires_grad_()
    start = time.perf_counter()
    loss(y_hat, y).backward()
    return time.perf_counter() - start


def both(loss: Loss, y_hat: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient, in float64."""
    y_hat = y_hat.detach().requires_grad_()
    value = loss(y_hat, y)
    return value.detach().double(), torch.autograd.grad(value, y_hat)[0].double()


def apart(one: Tensor, other: Tensor) -> float:
    """Norm of the difference, relative."""
    return ((one - other).norm() / other.norm()).item()


def compared(name: str, given: Any) -> dict[str, Any]:
    """The row of one shape: ours against auraloss."""
    batch, samples = (2, 2048) if given.quick else SHAPES[name]
    y_hat, y = signals(batch, samples)
    theirs, exact = auraloss(), auraloss()
    for resolution in exact.stft_losses:
        resolution.window = resolution.window.double()
    ours, reference, precise = (
        both(losses.mrstft, y_hat, y), both(theirs, y_hat, y), both(exact, y_hat.double(), y.double()),
    )  # fmt: skip
    taken = pairs.in_turn(
        {"ours": lambda: seconds(losses.mrstft, y_hat, y), "auraloss": lambda: seconds(theirs, y_hat, y)},
        given.rounds, name,
    )  # fmt: skip
    found = [[1e3 * s for s in side] for side in (taken["ours"], taken["auraloss"])]
    return pairs.row(
        name, found[0], found[1], "ms", given.threads, cost=1 / pairs.ratio(found[1], found[0])["median"],
        value_difference=apart(ours[0], reference[0]), gradient_difference=apart(ours[1], reference[1]),
        reference_difference=apart(reference[1], precise[1]), precise_difference=apart(ours[1], precise[1]),
    )  # fmt: skip


class Step:
    """A training step of a net with a loss; returns its wall time, and that of the loss alone."""

    def __init__(self, job: jobs.Job, loss: Loss) -> None:
        self._update = jobs.Update(job, jobs.built(job))
        self._loss = loss

    def __call__(self) -> tuple[float, float]:
        net, x, y = self._update.net, self._update.x, self._update.y
        net.zero_grad(set_to_none=True)
        start = time.perf_counter()
        y_hat = net(x)[0][..., -y.shape[-1] :]
        cut = y_hat.detach().requires_grad_()
        middle = time.perf_counter()
        self._loss(cut, y).backward()
        spent = time.perf_counter() - middle
        y_hat.backward(cut.grad)
        return time.perf_counter() - start, spent


def shared(name: str, given: Any) -> dict[str, Any]:
    """The row of one net: whole steps with either loss, and the loss's share."""
    job = jobs.JOBS[name]
    if given.quick:
        job = jobs.Job(job.net, 2, 512)
    steps = {loss: Step(job, getattr(losses, loss)) for loss in ("esr", "mrstft")}
    for step in steps.values():
        step()
    shares: dict[str, list[float]] = {loss: [] for loss in steps}

    def turn(loss: str) -> float:
        whole, spent = steps[loss]()
        shares[loss].append(spent / whole)
        return 1e3 * whole

    taken = pairs.in_turn({loss: lambda loss=loss: turn(loss) for loss in steps}, given.rounds, name)
    middle = {loss: sorted(values)[len(values) // 2] for loss, values in taken.items()}
    share = {f"{loss}_share": sorted(values)[len(values) // 2] for loss, values in shares.items()}
    return pairs.row(name, taken["mrstft"], taken["esr"], "ms a step", given.threads,
                     **middle, **share)  # fmt: skip


def main() -> None:
    words = pairs.parser(__doc__, [*SHAPES, *STEPS])
    words.add_argument("--threads", type=int, default=2)
    given = pairs.parsed(words)
    allocator.tune()
    torch.set_num_threads(given.threads)
    rows = [compared(name, given) for name in given.jobs if name in SHAPES]
    steps = [shared(name, given) for name in given.jobs if name in STEPS]
    print("multi-resolution STFT loss with its gradient; differences are relative")
    pairs.show(rows, COLUMNS)
    print("share of the loss in a training step")
    pairs.show(steps, SHARES)
    pairs.write(given, rows + steps)


if __name__ == "__main__":
    main()
