"""How much faster than stock torch a net plays a file, and what small blocks cost, on one thread.

Processes take turns: this package (fused kernels, allocator tuned), stock torch as its users get it, stock torch with
the allocator tuned, and ONNX Runtime in blocks of 512 where it is installed (recurrent nets). `ours` and `reference`
are seconds of audio played whole per second of the process's CPU time, so other work on the machine counts little.
"block cost" is this package's time for the file in blocks of 64, as a plugin plays it, over its time for the whole
file. The plugin engines' figures in the last column were measured elsewhere, on an AMD Zen 4, one thread.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jobs
import pairs
import torch
from torch import Tensor, nn

from revox_lightning import stream
from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend
from revox_lightning.models.contract import Net

BLOCK, ONNX_BLOCK = 64, 512
SIDES = {
    "ours": {"kernels": "auto", "tuned": True},
    "stock": {"kernels": "torch", "tuned": False},
    "stock tuned": {"kernels": "torch", "tuned": True},
}
# Quoted, not measured here: AMD Zen 4, one thread, times real time; RTNeural (Eigen) and the C++ core of NAM.
ELSEWHERE = {
    "lstm-32": "RTNeural 142", "lstm-64": "RTNeural 30", "lstm-96": "RTNeural 14", "gru-64": "RTNeural 40",
    "nam-standard": "NAM core 27-29",
}  # fmt: skip
UNIT = "x real time"
COLUMNS = {
    "job": "job", "threads": "threads", "ours": "ours", "stock": "reference", "ratio": "ratio", "least": "ratio_min",
    "most": "ratio_max", "stock tuned": "reference_tuned", "ratio to tuned": "ratio_tuned",
    "ours, blocks of 64": "blocks", "block cost": "block_cost", "stock, blocks of 64": "reference_blocks",
    "ONNX Runtime": "onnxruntime",
    "measured elsewhere": "elsewhere",
}  # fmt: skip


class Worker:
    """What a child does."""

    def __init__(self, role: dict[str, Any]) -> None:
        if role["tuned"]:
            allocator.tune()
        backend.choose(role["kernels"])
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        self._play: dict[str, Callable[[], object]] = {}

    def prepare(self, job: str, seconds: float, block_seconds: float) -> None:
        net = jobs.built(jobs.JOBS[job]).eval()
        torch.manual_seed(1)
        x = 0.2 * torch.randn(1, round(seconds * jobs.RATE_HZ))
        blocks = x[:, : round(block_seconds * jobs.RATE_HZ)].split(BLOCK, dim=1)
        self._play = {"whole": lambda: whole(net, x), "blocks": lambda: in_blocks(net, blocks)}
        whole(net, x[:, :4096])
        in_blocks(net, blocks[:64])

    def prepare_onnx(self, job: str, seconds: float) -> None:
        net = jobs.built(jobs.JOBS[job]).eval()
        if not hasattr(net, "rec"):
            raise RuntimeError("only recurrent nets are exported here")
        x = 0.2 * torch.randn(1, 1, round(seconds * jobs.RATE_HZ))
        self._play = {"onnx": onnx_player(net, x)}

    def play(self, what: str) -> float:
        return pairs.timed(self._play[what], 1)["cpu"]


def whole(net: Net, x: Tensor) -> None:
    """x (channels, time) in one call."""
    with torch.inference_mode():
        net(x[None])


def in_blocks(net: Net, blocks: Sequence[Tensor]) -> None:
    """Blocks (channels, 64) one after another, as a host hands them on: into one place, state carried."""
    with torch.inference_mode():
        player, out = stream.Streamer(net), torch.empty(len(blocks[0]), BLOCK)
        for block in blocks:
            player.play(block, out[:, : block.shape[1]] if block.shape[1] < BLOCK else out)


class Flat(nn.Module):
    """A recurrent net whose state is a row of plain tensors, as ONNX has it."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, state = self.net(x, None, state)
        return y, *state


def onnx_player(net: Any, x: Tensor) -> Callable[[], object]:
    """Plays x (1, 1, time) through ONNX Runtime in blocks of a fixed size."""
    import io

    import onnxruntime

    hidden = net.rec.hidden_size
    state = tuple(torch.zeros(1, 1, hidden) for _ in range(2 if net.unit == "lstm" else 1))
    names = [f"state_{n}" for n in range(len(state))]
    file = io.BytesIO()
    with backend.using("torch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an exporter that is going, and dynamic lengths that are not used
        torch.onnx.export(
            Flat(net), (x[..., :ONNX_BLOCK], *state), file, input_names=["x", *names],
            output_names=["y", *(f"{name}_out" for name in names)], dynamo=False,
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    samples = x.numpy()

    def play() -> None:
        now = [part.numpy() for part in state]
        for start in range(0, samples.shape[-1] - ONNX_BLOCK + 1, ONNX_BLOCK):
            block = {"x": samples[..., start : start + ONNX_BLOCK]}
            _, *now = session.run(None, block | dict(zip(names, now, strict=True)))

    play()
    return play


def measure(children: dict[str, pairs.Child], name: str, given: Any) -> dict[str, Any]:
    """The row of one job."""
    seconds, eager_seconds = (0.2, 0.1) if given.quick else (given.seconds, 1.0)
    for side, child in children.items():
        if side != "onnx":
            child.ask("prepare", job=name, seconds=seconds, block_seconds=seconds if side == "ours" else eager_seconds)
    turns = {side: lambda side=side: children[side].ask("play", what="whole") for side in SIDES}
    turns["blocks"] = lambda: children["ours"].ask("play", what="blocks")
    turns["stock blocks"] = lambda: children["stock"].ask("play", what="blocks") * seconds / eager_seconds
    with contextlib.suppress(RuntimeError, KeyError):
        children["onnx"].ask("prepare_onnx", job=name, seconds=seconds)
        turns["onnx"] = lambda: children["onnx"].ask("play", what="onnx")
    taken = pairs.in_turn(turns, given.rounds, name)
    rate = {side: seconds / statistics.median(values) for side, values in taken.items()}
    return pairs.row(
        name, taken["ours"], taken["stock"], UNIT, 1, amount=seconds,
        reference_tuned=rate["stock tuned"], ratio_tuned=pairs.ratio(taken["stock tuned"], taken["ours"])["median"],
        blocks=rate["blocks"], block_cost=pairs.ratio(taken["blocks"], taken["ours"])["median"],
        reference_blocks=rate["stock blocks"], onnxruntime=rate.get("onnx"), elsewhere=ELSEWHERE.get(name),
    )  # fmt: skip


def main() -> None:
    words = pairs.parser(__doc__, list(jobs.JOBS))
    words.add_argument("--seconds", type=float, default=10.0, help="of audio in the file")
    given = pairs.parsed(words)
    if given.child:
        worker = Worker(json.loads(given.child))
        pairs.serve({"prepare": worker.prepare, "prepare_onnx": worker.prepare_onnx, "play": worker.play})
        return
    sides: dict[str, dict[str, Any]] = dict(SIDES)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        sides["onnx"] = {"kernels": "torch", "tuned": False}
    children = {side: pairs.Child.of(__file__, role) for side, role in sides.items()}
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
    print("times real time, one thread")
    pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
