"""Training beside other projects: the same nets, the same audio, the same cores, each in its own loop.

NAM (`nam-full`, its standard WaveNet) and NablAFx (TCN-45 of 16 channels, LSTM-32; its own system in Lightning's loop,
the scheduler's argument that torch 2.13 no longer knows left out) run in a virtual environment of their own, which
`--install` makes. Epochs take turns; figures are seconds of audio trained a second, from an epoch's beginning to its
last batch. Losses are the plain ones on both sides (mean square, error-to-signal ratio), without spectral terms.
NablAFx's TCN is measured twice: as published, with tanh, and with the batch norm and PReLU that this package's has.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jobs
import pairs
import torch

from revox_lightning import audio

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
VENV = ROOT / "outputs" / "peers" / "venv"
# Beside torch without CUDA: NablAFx's own list would bring torchvision and the CUDA build, so its needs are named here.
PACKAGES = (
    ["torch==2.13.0"],
    ["neural-amp-modeler", "wandb", "auraloss", "einops", "natsort", "soundfile", "lightning>=2.6.6"],
    ["--no-deps", "nablafx", "torchaudio==2.11.0"],
)
UNIT = "s audio / s"
COLUMNS = {
    "job": "job", "threads": "threads", "ours": "ours", "peer": "reference", "ratio": "ratio", "least": "ratio_min",
    "most": "ratio_max",
}  # fmt: skip
NAM_LAYERS = [
    {"input_size": size, "condition_size": 1, "channels": channels, "kernel_size": 3,
     "dilations": [2**n for n in range(10)], "activation": "Tanh", "gated": False,
     "head": {"out_channels": head, "kernel_size": 1, "bias": bias}}
    for size, channels, head, bias in ((1, 16, 8, False), (16, 8, 1, True))
]  # fmt: skip
TCN_45 = {
    "num_blocks": 5, "kernel_size": 7, "dilation_growth": 4, "channel_width": 16, "stack_size": 12, "bias": True,
    "causal": True, "residual": True, "act_type": "tanh",
}  # fmt: skip
OUR_TCN = ["model=tcn", "+model.blocks=5", "+model.growth=4", "+model.kernel=7", "+model.width=16"]
# Segments a batch, samples a segment, samples an update; how the peer and this package build the net.
JOBS: dict[str, dict[str, Any]] = {
    "nam-standard": {"loop": "nam", "batch": 16, "segment": 8192, "hop": 8192, "ours": ["model=nam_wavenet"]},
    "nablafx-tcn-45": {
        "loop": "nablafx", "batch": 16, "segment": 144_000, "hop": 144_000, "ours": OUR_TCN,
        "peer": {"module": "tcn", "net": "TCN", "words": TCN_45},
    },
    # the published one has tanh and no batch norm; this one has what ours has
    "nablafx-tcn-45-prelu": {
        "loop": "nablafx", "batch": 16, "segment": 144_000, "hop": 144_000, "ours": OUR_TCN,
        "peer": {"module": "tcn", "net": "TCN",
                 "words": {**TCN_45, "bias": False, "batchnorm": True, "act_type": "prelu"}},
    },
    "nablafx-lstm-32": {
        "loop": "nablafx", "batch": 16, "segment": 144_000, "hop": 4800,
        "ours": ["model=lstm", "model.skip=false", "system.warmup_samples=0"],
        "peer": {"module": "lstm", "net": "LSTM", "words": {"hidden_size": 32}, "step_num_samples": 4800},
    },
}  # fmt: skip


def install(place: Path) -> str | None:
    """Makes the virtual environment; says in one sentence what failed."""
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    for words in PACKAGES:
        pairs.say(f"installing {' '.join(words)} into {place} ...")
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *words], check=False)
        if done.returncode:
            return f"pip could not install {' '.join(words)} into {place}."
    for library in place.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
        library.unlink()  # it needs CUDA; without it torchaudio takes its pure-Python path
    return None


def recordings(place: Path, job: dict[str, Any], batches: int) -> dict[str, dict[str, str]]:
    """Dry and wet files (24 bits, mono) of the training part, so many batches long, and of two short others."""
    files: dict[str, dict[str, str]] = {}
    random = torch.Generator().manual_seed(0)
    trained = batches * job["batch"] * job["segment"] + 8192
    for split, samples in (("train", trained), ("val", 2 * jobs.RATE_HZ), ("test", 2 * jobs.RATE_HZ)):
        x = 0.2 * torch.nn.functional.avg_pool1d(torch.randn(1, samples + 3, generator=random), 4, 1)
        pair = {"dry": x, "wet": torch.tanh(2 * x)}
        files[split] = {side: str(place / split / f"take-{name}.wav")
                        for side, name in (("dry", "input"), ("wet", "target"))}  # fmt: skip
        (place / split).mkdir(parents=True, exist_ok=True)
        for side, path in files[split].items():
            audio.write(Path(path), pair[side], jobs.RATE_HZ, subtype="PCM_24")
    return files


def our_side(job: dict[str, Any], place: Path, epochs: int, threads: int) -> list[str]:
    """The command of this package's training."""
    words = [
        str(ROOT / "train.py"), "data=recordings", f"data.root={place}", "logger=csv", "trainer.accelerator=cpu",
        "report.data_sheet=false", "report.examples=[]",
        f"trainer.max_epochs={epochs}", f"run_dir={place / 'run'}", f"system.batch_size={job['batch']}",
        f"system.segment_samples={job['segment']}", f"system.hop_samples={job['hop']}", f"system.threads={threads}",
    ]  # fmt: skip
    return [sys.executable, str(HERE / "gated.py"), json.dumps({"loop": "ours", "words": words + job["ours"]})]


def peer_side(job: dict[str, Any], place: Path, files: dict[str, Any], epochs: int, python: Path) -> list[str]:
    """The command of the peer's training."""
    if job["loop"] == "nam":
        words: Any = nam_configs(job, place, files, epochs)
    else:
        words = {**job["peer"], **files, "epochs": epochs, "batch": job["batch"], "segment": job["segment"]}
    return [str(python), str(HERE / "gated.py"), json.dumps({"loop": job["loop"], "words": words})]


def nam_configs(job: dict[str, Any], place: Path, files: dict[str, Any], epochs: int) -> list[str]:
    """The three files that `nam-full` reads, and where it writes."""
    parts = {
        split: {"x_path": files[name]["dry"], "y_path": files[name]["wet"], "ny": ny}
        for split, name, ny in (("train", "train", job["segment"]), ("validation", "val", None))
    }
    configs = {
        "data": {**parts, "common": {"delay": 0, "require_input_pre_silence": None}},
        "model": {
            "net": {"name": "WaveNet", "config": {"layers_configs": NAM_LAYERS, "head_scale": 0.02}},
            "loss": {"val_loss": "mse"}, "optimizer": {"lr": 0.004},
            "lr_scheduler": {"class": "ExponentialLR", "kwargs": {"gamma": 0.993}},
        },
        "learning": {
            "train_dataloader": {"batch_size": job["batch"], "shuffle": True, "drop_last": True, "num_workers": 0},
            "val_dataloader": {},
            "trainer": {"max_epochs": epochs, "accelerator": "cpu", "enable_progress_bar": False},
        },
    }  # fmt: skip
    for name, config in configs.items():
        (place / f"{name}.json").write_text(json.dumps(config))
    (place / "nam").mkdir()
    return [*(str(place / f"{name}.json") for name in configs), str(place / "nam"), "--no-show", "--no-plots"]


def measure(name: str, given: Any) -> dict[str, Any]:
    """The row of one job."""
    job = JOBS[name]
    if given.quick:
        job = {**job, "batch": 2, "segment": 4096, "hop": min(job["hop"], 4096)}
    epochs = given.rounds + 3
    env = {"OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads), "PYTHONPATH": ""}
    with tempfile.TemporaryDirectory(prefix="revox_peers_") as folder:
        place = Path(folder)
        files = recordings(place, job, given.batches)
        commands = {
            "ours": our_side(job, place, epochs, given.threads),
            "peer": peer_side(job, place, files, epochs, given.venv / "bin" / "python"),
        }
        logs = {side: place / f"{side}.log" for side in commands}
        with (
            pairs.Child(commands["ours"], env, logs["ours"]) as ours,
            pairs.Child(commands["peer"], env, logs["peer"]) as peer,
        ):
            audio_seconds = job["batch"] * job["segment"] / jobs.RATE_HZ

            def epoch(child: pairs.Child) -> float:
                """Seconds for a second of audio."""
                done = child.ask("epoch")
                return done["seconds"] / (done["batches"] * audio_seconds)

            sides = {"ours": lambda: epoch(ours), "peer": lambda: epoch(peer)}
            pairs.in_turn(sides, 1, f"{name}, warming up")
            taken = pairs.in_turn(sides, given.rounds, name)
    return pairs.row(name, taken["ours"], taken["peer"], UNIT, given.threads, amount=1.0, batches=given.batches)


def main() -> None:
    words = pairs.parser(__doc__, list(JOBS))
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--batches", type=int, default=1, help="of an epoch")
    words.add_argument("--venv", type=Path, default=VENV, help="the peers' virtual environment")
    words.add_argument("--install", action="store_true", help="make that environment first")
    given = pairs.parsed(words)
    rows = []
    failed = install(given.venv) if given.install else None
    if failed or not (given.venv / "bin" / "python").exists():
        print(failed or f"There are no peers in {given.venv}: run with --install to fetch them.")
    else:
        for name in given.jobs:
            try:
                rows.append(measure(name, given))
            except (RuntimeError, statistics.StatisticsError) as error:
                pairs.say(f"{name} left out: {error}")
        pairs.show(rows, COLUMNS)
    pairs.write(given, rows)


if __name__ == "__main__":
    main()
