"""Runs a Lightning training, ours or another project's, whose epochs wait for their turn. A child of `peers.py`.

Imports nothing of this package, because it also runs in the peers' own virtual environment. The training is started as
its own users start it; only a callback is added to the Trainer, which lets an epoch begin when the parent asks for it
and reports the seconds from its beginning to its last batch, validation and checkpoints left out.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import time
import types
from typing import Any

# What NablAFx imports for figures, listening scores and nets that are not trained here; they want torch with CUDA.
NOT_NEEDED = {
    "torchvision": {}, "torchvision.transforms": {"ToTensor": object}, "rational": {},
    "rational.torch": {"Rational": object}, "frechet_audio_distance": {"FrechetAudioDistance": object},
}  # fmt: skip


class Turns:
    """The child's end of the pipe to `pairs.Child`: blocks until it is this process's turn."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what the training prints goes to stderr
        self._asked = False

    def wait(self, value: Any = None) -> None:
        """Answers the last question with `value` and waits for the next; ends the process when there is none."""
        if self._asked:
            print(json.dumps({"value": value}), file=self._out, flush=True)
        if not sys.stdin.readline():
            os._exit(0)
        self._asked = True


def gate(package: str, turns: Turns) -> None:
    """Adds the callback to every Trainer of `pytorch_lightning` or `lightning.pytorch`."""
    pl: Any = importlib.import_module(package)

    class Gate(pl.Callback):
        begin, end, batches, result = 0.0, 0.0, 0, None

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            turns.wait(self.result)
            self.begin, self.batches = time.perf_counter(), 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.end = time.perf_counter()
            self.batches += 1

        def on_train_epoch_end(self, *_: Any) -> None:
            self.result = {"seconds": self.end - self.begin, "batches": self.batches}

    start = pl.Trainer.__init__

    def with_gate(self: Any, *words: Any, callbacks: Any = None, **named: Any) -> None:
        given = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        start(self, *words, callbacks=[Gate(), *given], **named)

    pl.Trainer.__init__ = with_gate


def ours(turns: Turns, argv: list[str]) -> None:
    """`python train.py ...`"""
    gate("pytorch_lightning", turns)
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


def nam(turns: Turns, argv: list[str]) -> None:
    """`nam-full data.json model.json learning.json FOLDER ...`"""
    gate("pytorch_lightning", turns)
    sys.argv = ["nam-full", *argv]
    importlib.import_module("nam.cli").nam_full()


def nablafx(turns: Turns, job: dict[str, Any]) -> None:
    """NablAFx's system in Lightning's loop, on segments in memory, the scheduler's `verbose` left out."""
    os.environ["WANDB_MODE"] = "disabled"
    gate("lightning.pytorch", turns)
    lightning: Any = importlib.import_module("lightning")
    lightning.Trainer = importlib.import_module("lightning.pytorch").Trainer
    auraloss, wandb = importlib.import_module("auraloss"), importlib.import_module("wandb")
    np, soundfile, torch = (importlib.import_module(name) for name in ("numpy", "soundfile", "torch"))
    for name, contents in NOT_NEEDED.items():
        module = types.ModuleType(name)
        module.__dict__.update(contents)
        sys.modules[name] = module
    core = importlib.import_module("nablafx.core")
    processor = getattr(importlib.import_module(f"nablafx.processors.{job['module']}"), job["net"])(**job["words"])
    step = job.get("step_num_samples")
    kind = core.BlackBoxSystemWithTBPTT if step else core.BlackBoxSystem

    class System(kind):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=20)
            return [optimizer], [{"scheduler": plateau, "monitor": "loss/val/tot"}]

    def segments(split: str) -> Any:
        dry, wet = (soundfile.read(job[split][side], dtype="float32")[0] for side in ("dry", "wet"))
        frames = min(job["segment"], len(dry))
        cut = [torch.from_numpy(np.stack(np.split(x[: len(x) // frames * frames], len(x) // frames)))[:, None]
               for x in (dry, wet)]  # fmt: skip
        whole = torch.utils.data.TensorDataset(*cut)
        return torch.utils.data.DataLoader(whole, batch_size=job["batch"], shuffle=split == "train")

    wandb.init()
    system = System(
        core.BlackBoxModel(processor), loss=auraloss.time.ESRLoss(), lr=0.001, use_callbacks=True,
        **({"step_num_samples": step} if step else {}),
    )  # fmt: skip
    trainer = lightning.Trainer(
        max_epochs=job["epochs"], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(system, segments("train"), segments("val"))


def main() -> None:
    side = json.loads(sys.argv[1])
    {"ours": ours, "nam": nam, "nablafx": nablafx}[side["loop"]](Turns(), side["words"])


if __name__ == "__main__":
    main()
