"""What a whole training epoch costs beside the bare loop around the same net.

An epoch is that of ``train.py model=...``: fetching and cutting the segments, Lightning, warm-up, hops, validation
with every metric, the lines, the CSV row, the checkpoints. The bare loop is forward, loss, backward, clipping and
optimiser step (and the warm-up's forward) on tensors that lie cut in memory. Both take turns within one training, one
epoch each; the first pair is not counted. `ours` and `reference` are seconds of an epoch, `cost` is their ratio the
other way round: 1.0 would be no overhead at all. The two columns at the end tell validation from the rest.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pairs
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from revox_lightning import audio
from revox_lightning.callbacks.checkpoints import BestAndLast
from revox_lightning.commands import assemble, settings, training
from revox_lightning.data.module import PairData
from revox_lightning.kernels import allocator, backend
from revox_lightning.runs import RunFolder
from revox_lightning.stream import detach
from revox_lightning.system import System

RATE_HZ = 44_100
MODELS = ("lstm", "lstm_linear")
# Of train, validation and test together, which have 0.75, 0.125 and 0.125 of it: as long as the built-in recordings.
SECONDS, QUICK_SECONDS = 240.0, 8.0
UNIT = "s / epoch"
COLUMNS = {
    "job": "job", "threads": "threads", "epoch": "ours", "bare": "reference", "cost": "cost", "least": "cost_min",
    "most": "cost_max", "cost in CPU time": "cost_cpu", "cost of training": "cost_training",
    "validation, s": "validation_seconds", "hops": "hops",
}  # fmt: skip


class Bare:
    """One epoch of the same hops, cut beforehand, with a copy of the net and an optimiser of the same kind."""

    def __init__(self, system: System, data: PairData, cfg: Any) -> None:
        self.net, self.objective = copy.deepcopy(system.net), system.objective
        self.clip_norm = cfg.system.clip_norm
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=cfg.optim.lr, fused=True)
        warmup, hop = cfg.system.warmup_samples, cfg.system.hop_samples
        self.batches = []
        for batch in data.train_dataloader():
            dry, wet = batch["dry"], batch["wet"]
            cuts = [slice(i, i + hop) for i in range(warmup, dry.shape[-1], hop)]
            hops = [
                {"dry": dry[..., cut].clone(), "wet": wet[..., cut].clone(), "controls": batch["controls"]}
                for cut in cuts
            ]
            self.batches.append((dry[..., :warmup].clone(), hops))

    @property
    def hops(self) -> int:
        return sum(len(hops) for _, hops in self.batches)

    def __call__(self) -> None:
        self.net.train()
        weights = list(self.net.parameters())
        for warmup, hops in self.batches:
            with torch.no_grad():
                _, state = self.net(warmup, hops[0]["controls"], None)
            for hop in hops:
                terms, state = self.objective(self.net, hop, state)
                self.optimizer.zero_grad()
                self.objective.total(terms).backward()
                torch.nn.utils.clip_grad_norm_(weights, self.clip_norm)
                self.optimizer.step()
                state = detach(state)


class Turns(Checkpoint):
    """Stands last among the callbacks: when it is called, everything of the epoch is done, and the bare loop's turn."""

    def __init__(self, bare: Bare) -> None:
        self.bare = bare
        self.epochs: list[dict[str, float]] = []
        self.bares: list[dict[str, float]] = []
        self.validations: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validating = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations.append(time.perf_counter() - self._validating)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append({"wall": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu})
        with torch.enable_grad():
            self.bares.append(pairs.timed(self.bare, 1))
        pairs.say(f"epoch {self.epochs[-1]['wall']:.3g} s, bare {self.bares[-1]['wall']:.3g} s")
        self._start()

    def _start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def recordings(folder: Path, seconds: float) -> None:
    """A pair of files: noise, and what a soft clipper makes of it."""
    dry = 0.2 * torch.randn(1, round(seconds * RATE_HZ), generator=torch.Generator().manual_seed(0))
    for name, signal in (("input", dry), ("target", torch.tanh(2 * dry))):
        audio.write(folder / f"pair-{name}.wav", signal, RATE_HZ, "FLOAT")


def turns(model: str, given: Any, folder: Path) -> tuple[Turns, int]:
    """Trains `model` with the bare loop between the epochs; returns what was timed, and the threads it ran on."""
    words = [
        f"model={model}", "data=recordings", f"data.root={folder}", "data.fractions=[0.75,0.125,0.125]", "logger=csv",
        "trainer=cpu", f"trainer.max_epochs={given.rounds + 1}",
    ]  # fmt: skip
    cfg = settings.composed(words)
    cfg.system.threads = given.threads or cfg.system.threads
    backend.choose(cfg.kernels)
    training._quieten()
    run = RunFolder(folder / model)
    data = assemble.build_data(cfg)
    net = assemble.build_net(cfg)
    assemble.divide_threads(cfg, net)
    system = assemble.build_system(cfg, net)
    trainer = training._trainer(cfg, run, BestAndLast(str(run.path / "checkpoints"), cfg.monitor))
    timed = Turns(Bare(system, data, cfg))
    trainer.callbacks.append(timed)  # type: ignore[attr-defined]
    with contextlib.redirect_stdout(io.StringIO()):
        training._fit(trainer, system, data, None)
    return timed, backend.threads()


def measure(model: str, given: Any, folder: Path) -> dict[str, Any]:
    """The row of one model."""
    timed, threads = turns(model, given, folder)
    epochs, bares, validations = timed.epochs[1:], timed.bares[1:], timed.validations[1:]
    wall, bare = ([side["wall"] for side in sides] for sides in (epochs, bares))
    cost = pairs.ratio(wall, bare)
    return pairs.row(
        model, wall, bare, UNIT, threads,
        cost=cost["median"], cost_min=cost["least"], cost_max=cost["greatest"],
        cost_cpu=pairs.ratio([side["cpu"] for side in epochs], [side["cpu"] for side in bares])["median"],
        cost_training=pairs.ratio([a - b for a, b in zip(wall, validations, strict=True)], bare)["median"],
        validation_seconds=statistics.median(validations), hops=timed.bare.hops,
        kernels=backend.describe(timed.bare.net),
    )  # fmt: skip


def main() -> None:
    words = pairs.parser(__doc__, MODELS)
    words.add_argument("--threads", type=int, default=None, help="default: what the model's config says")
    given = pairs.parsed(words)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    allocator.tune()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        recordings(Path(place), QUICK_SECONDS if given.quick else SECONDS)
        for model in given.jobs:
            rows.append(measure(model, given, Path(place)))
    print("seconds of an epoch, and how many times those of the bare loop that is")
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
