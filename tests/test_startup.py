"""What a command imports before it has something to do: help, a printed config and a refused word need no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from revox_lightning.commands import cli, settings, usage

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch", "pytorch_lightning", "lightning_fabric", "wandb", "matplotlib", "scipy", "numba", "auraloss",
    "torchmetrics", "torchaudio", "soundfile",
}  # fmt: skip
TRAIN = [str(ROOT / "train.py")]
REVOX = ["-m", "revox_lightning.commands.cli"]


@pytest.mark.parametrize(
    "words,code,said",
    [
        ([*TRAIN, "--help"], 0, "lstm_linear"),
        ([*TRAIN, "--cfg", "job"], 0, "max_epochs"),
        ([*TRAIN, "modle=tcn"], 2, "there is no option modle"),
        ([*TRAIN, "model=tcm"], 2, "there is no model=tcm"),
        ([*TRAIN, "optim.lr=fast"], 2, "expected a number"),
        ([*TRAIN, "resume=/nowhere"], 2, "there is no such folder"),
        ([*REVOX, "--help"], 0, "render"),
        ([*REVOX, "train", "--help"], 0, "groups"),
        *[([*REVOX, name, "--help"], 0, f"revox {name}") for name in cli.COMMANDS if name != "train"],
    ],
    ids=lambda value: " ".join(value[1:] if value[0] == "-m" else value[-1:]) if isinstance(value, list) else None,
)
def test_it_answers_without_the_heavy_packages(words, code, said, tmp_path):
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-500:]
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)}
    assert "revox_lightning" in imported and not imported & HEAVY
    assert said in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.name != "outputs"], "something was left behind"


def test_help_names_every_group_and_every_option_of_the_root():
    text = settings.help_text()
    for folder in settings.CONF.iterdir():
        assert folder.suffix == ".yaml" or f"  {folder.name}  " in text
    for name in ("kernels:", "size:", "report:", "resume:"):
        assert f"\n  {name}" in text
    assert "hydra:" not in text and "defaults:" not in text


def test_every_command_has_its_usage():
    for name in cli.COMMANDS:
        assert name == "train" or getattr(usage, name.upper()).startswith(f"revox {name}")


def test_playing_a_net_needs_no_lightning():
    code = "import sys; from revox_lightning.commands import render; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"pytorch_lightning", "wandb", "matplotlib", "torchmetrics", "numba"}
