"""The picture of a style: what its equaliser does to every frequency, and its compressor to every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from revox_lightning.dsp import biquads, dynamics, effects
from revox_lightning.files import write_atomically


def draw(p: Tensor, sample_rate_hz: int, path: Path) -> None:
    """Draws the chain of p (1, 24) at a rate, as PNG."""
    knobs = effects.denormalised(p.double())
    hz = torch.tensor(np.geomspace(20, sample_rate_hz / 2, 400))
    curve = biquads.response(effects.sections(p.double(), sample_rate_hz)[0], hz, sample_rate_hz).abs().log10() * 20
    level = torch.linspace(-80, 0, 200, dtype=torch.float64)
    out = dynamics.compressed_db(level, knobs["threshold_db"], knobs["ratio"], knobs["knee_db"]) + knobs["makeup_db"]
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(
        1, 2, gridspec_kw={"width_ratios": [2, 1], "left": 0.07, "right": 0.98, "bottom": 0.14}
    )
    left.semilogx(hz.numpy(), curve.numpy())
    left.set(xlabel="frequency, Hz", ylabel="equaliser, dB", ylim=(-36, 36), xlim=(20, sample_rate_hz / 2))
    right.plot(level.numpy(), level.numpy(), ":", color="grey")
    right.plot(level.numpy(), out.numpy())
    right.set(xlabel="level in, dB", ylabel="level out, dB", title="compressor with its make-up gain", xlim=(-80, 0))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    write_atomically(path, lambda file: figure.savefig(file, dpi=100, format="png"))
