"""What every test gets: one thread, compiled kernels, a home of its own for W&B, and small files on the disk."""

import os
from pathlib import Path

import numba
import pytest
import torch

from revox_lightning import audio
from revox_lightning.kernels import backend

os.environ["WANDB_MODE"] = "offline"
numba.set_num_threads(1)  # before torch's: numba's start sets these, too
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _as_before():
    """A run sets threads, kernels and gradients for the whole process: not for the next test."""
    yield
    torch.set_grad_enabled(True)
    backend.choose("auto")
    backend.set_threads(None)
    numba.set_num_threads(1)
    torch.set_num_threads(1)


@pytest.fixture
def golden() -> Path:
    """The folder of real recordings and published artefacts; skips where it is not at hand."""
    place = os.environ.get("REVOX_GOLDEN")
    if not place or not Path(place).is_dir():
        pytest.skip("REVOX_GOLDEN does not name the folder of golden recordings")
    return Path(place)


@pytest.fixture
def pair(tmp_path):
    """A function that writes a dry/wet pair (the wet a soft clipper of the dry) and returns their paths."""

    def make(name="take", seconds=2.0, rate_hz=8000, channels=1, folder=None, seed=0):
        place = folder or tmp_path / "pairs"
        place.mkdir(parents=True, exist_ok=True)
        noise = torch.randn(channels, int(seconds * rate_hz), generator=torch.Generator().manual_seed(seed))
        dry = 0.3 * torch.nn.functional.avg_pool1d(noise[None], 4, 1, 2)[0][:, : noise.shape[1]]
        wet = torch.tanh(2 * dry) * 0.5
        paths = place / f"{name}-input.wav", place / f"{name}-target.wav"
        for path, signal in zip(paths, (dry, wet), strict=True):
            audio.write(path, signal, rate_hz, subtype="FLOAT")
        return paths

    return make
