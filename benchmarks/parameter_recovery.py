"""Equaliser and compressor settings found again: python benchmarks/parameter_recovery.py [--settings N] [--json FILE].

Random settings of the 24-parameter chain (uniform over the published ranges) are applied to music; from dry and wet
alone the parameters are then optimised, by gradients through the chain or by SPSA on its exact twin. The response is
the equaliser's power gain in each third of an octave plus the effective gain of the compressor with its make-up; errors
count in bands within 40 dB of the loudest band of the dry programme. REVOX_GOLDEN=FOLDER takes real music from
FOLDER/audio, otherwise the built-in performer plays.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import spsa
import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.data.performer import perform
from revox_lightning.dsp import biquads, effects
from revox_lightning.report import table

RATE_HZ = 24_000
SAMPLES = 32_768
SIZES = (128, 1024, 8192)
PEAK = 10 ** (-12 / 20)
THRESHOLD, MAKEUP = (
    [parameter.name for parameter in effects.PARAMETERS].index(name) for name in ("threshold_db", "makeup_db")
)
GRADIENT_STAGES = ((6, 60, 0.15), (3, 150, 0.1), (1, 300, 0.1))  # starts that are kept, steps, first rate of Adam
# Likewise; then how many samples are heard, and how far the first and last perturbations go.
SPSA_STAGES = ((3, 300, 0.15, 16_384, (0.1, 0.02)), (1, 3000, 0.06, 16_384, (0.05, 0.002)))
GOAL_DB = (0.5, 2.0)  # median, 90th percentile


def music(count: int, seed: int) -> Tensor:
    """Excerpts (count, 1, time), each of peak -12 dBFS and loud enough to tell something."""
    golden = os.environ.get("REVOX_GOLDEN")
    names = sorted(Path(golden, "audio").glob("*.flac")) if golden else []
    pieces = [audio.resample(audio.read(name), audio.info(name).sample_rate_hz, RATE_HZ) for name in names
              if "speech" not in name.name and "hiss" not in name.name]  # fmt: skip
    pieces = pieces or [torch.from_numpy(perform(30.0, RATE_HZ, seed=n))[None] for n in range(4)]
    random, found = np.random.default_rng(seed), []
    while len(found) < count:
        piece = pieces[len(found) % len(pieces)].mean(0, keepdim=True)
        start = int(random.integers(piece.shape[1] - SAMPLES))
        part = piece[:, start : start + SAMPLES]
        if part.square().mean() > 1e-4:
            found.append(part * PEAK / part.abs().max())
    return torch.stack(found)


def third_octaves() -> Tensor:
    """Edges (bands, 2) in Hz, from 25 Hz to 10 kHz."""
    centres = 1000 * 2 ** (torch.arange(-16, 11) / 3)
    return torch.stack([centres * 2 ** (-1 / 6), centres * 2 ** (1 / 6)], 1)


def heard(x: Tensor, within_db: float = 40.0) -> Tensor:
    """Bands (batch, bands) of x (batch, 1, time) that hold programme energy."""
    power = torch.fft.rfft(x[:, 0] * torch.hann_window(x.shape[-1])).abs().square()
    hz = torch.fft.rfftfreq(x.shape[-1], 1 / RATE_HZ)
    bands = torch.stack([power[:, (hz >= low) & (hz < high)].sum(1) for low, high in third_octaves()], 1)
    return bands > bands.amax(1, keepdim=True) * 10 ** (-within_db / 10)


def response_db(x: Tensor, p: Tensor) -> Tensor:
    """Total gain (batch, bands): the equaliser's in each band, and what the compressor does to the power in all."""
    x, p = x.double(), p.double()
    edges = third_octaves()
    hz = edges[:, :1] * (edges[:, 1:] / edges[:, :1]) ** torch.linspace(0, 1, 33)
    power = biquads.response(effects.sections(p, RATE_HZ), hz.flatten().double(), RATE_HZ).abs().square()
    equaliser = 10 * torch.log10(power.unflatten(-1, hz.shape).mean(-1))
    between = biquads.filtered(x, effects.sections(p, RATE_HZ))
    gain = effects.render_exactly(x, p, RATE_HZ).square().sum((1, 2)) / between.square().sum((1, 2))
    return equaliser + 10 * torch.log10(gain)[:, None]


def starts(x: Tensor, y: Tensor, number: int, random: torch.Generator) -> Tensor:
    """Logits (number, batch, 24): the middle of the ranges, and random ones around it; the make-up fits the level."""
    p = 0.5 + 0.5 * (torch.rand(number, len(x), 24, generator=random) - 0.5)
    p[0] = 0.5
    spread = torch.linspace(0.5, 0.9, number) if number > 1 else torch.full((1,), 0.5)
    p[:, :, THRESHOLD] = spread[:, None]
    low, high = effects.PARAMETERS[MAKEUP].low, effects.PARAMETERS[MAKEUP].high
    for row in p:
        gain = y.square().sum((1, 2)) / effects.render(x, row, RATE_HZ).square().sum((1, 2))
        row[:, MAKEUP] = (row[:, MAKEUP] + 10 * torch.log10(gain) / (high - low)).clamp(0.01, 0.99)
    return torch.logit(p)


def by_gradient(x: Tensor, scale: Tensor, p: Tensor) -> Tensor:
    """The estimate, as loud as its target's peak."""
    return effects.render(x, p, RATE_HZ) * scale


def descended(x: Tensor, y: Tensor, z: Tensor, steps: int, rate: float) -> tuple[Tensor, Tensor]:
    """Logits (batch, 24) after so many steps of Adam, the best of each row on the way, and its distance (batch,)."""
    scale = 1 / y.abs().amax((1, 2), keepdim=True)
    target = y * scale
    z = z.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=rate, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: 0.05 + 0.95 * (1 + math.cos(math.pi * n / steps)) / 2)
    best, least = z.detach().clone(), torch.full((len(z),), math.inf)
    for _ in range(steps):
        adam.zero_grad()
        y_hat = by_gradient(x, scale, torch.sigmoid(z))
        rows = torch.stack([spsa.distance(a, b, SIZES) for a, b in zip(y_hat, target, strict=True)])
        rows.sum().backward()
        with torch.no_grad():
            better = rows < least
            best[better], least[better] = z.detach()[better], rows.detach()[better]
        torch.nn.utils.clip_grad_value_(z, 1e3)
        adam.step()
        decay.step()
    return best, least


def recovered(method: str, stages: tuple, x: Tensor, y: Tensor, random: torch.Generator) -> Tensor:
    """p (batch, 24) from dry and wet; the starts thin out from stage to stage."""
    batch = len(x)
    z = starts(x, y, stages[0][0], random)
    for kept, steps, rate, *how in stages:
        z = z[:kept]
        if method == "gradient":
            found = [descended(x, y, row, steps, rate) for row in z]
            z, least = (torch.stack(part) for part in zip(*found, strict=True))
        else:  # all starts of all settings at once
            samples, widths = how
            dry, wet = (part[..., :samples].repeat(len(z), 1, 1) for part in (x, y))
            of = spsa.Distance(dry, wet, RATE_HZ, SIZES)
            z, least = (
                part.unflatten(0, (len(z), batch))
                for part in spsa.descended(of, z.flatten(0, 1), steps, rate, widths, random)
            )
        z = z[least.argsort(0), torch.arange(batch)]
    return torch.sigmoid(z[0])


def measured(name: str, settings: int, batch: int, seed: int, quick: bool) -> dict:
    """One method on all settings: the row of the table, and all errors."""
    stages = {"gradient": GRADIENT_STAGES, "SPSA": SPSA_STAGES}[name]
    stages = tuple((kept, 3, *how) for kept, _, *how in stages) if quick else stages
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    p, x = torch.rand(settings, 24, generator=random), music(settings, seed)
    errors, undone, started = [], [], time.perf_counter()
    for part in torch.arange(settings).split(batch):
        y = effects.render_exactly(x[part], p[part], RATE_HZ)
        p_hat, bands = recovered(name, stages, x[part], y, random), heard(x[part])
        wanted = response_db(x[part], p[part])
        off = (response_db(x[part], p_hat) - wanted).abs()
        errors += [row[kept].tolist() for row, kept in zip(off, bands, strict=True)]
        undone += [row[kept].tolist() for row, kept in zip(wanted.abs(), bands, strict=True)]
        flat = np.concatenate(errors)
        so_far = f"median {np.median(flat):.2f} dB, 90 % {np.quantile(flat, 0.9):.2f} dB"
        print(f"{name}: {len(errors)}/{settings}, {so_far}, {time.perf_counter() - started:.0f} s", flush=True)
    return figures(name, errors, undone, time.perf_counter() - started)


def figures(name: str, errors: list[list[float]], undone: list[list[float]], seconds: float) -> dict:
    """The row of the table."""
    flat, before = np.concatenate(errors), np.concatenate(undone)
    middles = np.array([np.median(row) for row in errors])
    return {
        "job": name, "settings": len(errors), "bands": len(flat), "median_db": float(np.median(flat)),
        "percentile_90_db": float(np.quantile(flat, 0.9)), "within_2_db": float(np.mean(flat < GOAL_DB[1])),
        "settings_within_half_db": float(np.mean(middles < GOAL_DB[0])), "before_median_db": float(np.median(before)),
        "before_percentile_90_db": float(np.quantile(before, 0.9)), "seconds_per_setting": seconds / len(errors),
        "errors_db": errors,
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--settings", type=int, default=100)
    words.add_argument("--methods", default="gradient,SPSA")
    words.add_argument("--batch", type=int, default=10, help="settings at once")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--quick", action="store_true", help="three steps a stage: tells nothing but that it runs")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    torch.set_num_threads(1)
    rows = [measured(name, given.settings, given.batch, given.seed, given.quick) for name in given.methods.split(",")]
    columns = ["", "settings", "bands", "median dB", "90 % dB", "before: median", "90 %", "s / setting"]
    keys = ("median_db", "percentile_90_db", "before_median_db", "before_percentile_90_db", "seconds_per_setting")
    cells = [[row["job"], str(row["settings"]), str(row["bands"]), *(f"{row[k]:.2f}" for k in keys)] for row in rows]
    table.show(f"Response found again, to {GOAL_DB[0]} dB and {GOAL_DB[1]} dB", columns, cells)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
