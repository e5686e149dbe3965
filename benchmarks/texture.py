"""Texture transfer measured: REVOX_GOLDEN=FOLDER python benchmarks/texture.py [--only TEXT] [--threads 1] [--json F].

Ten seconds each: speech in the texture of vinyl hiss, guitar in that of drums (REVOX_GOLDEN/audio), and stationary
noises made here, resynthesised from other noise. Told are the time, the loss and every class's signal-to-noise ratio
before and after, measured on the result; the distance is the root of the mean of the classes' relative squared errors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from revox_lightning import audio, texture
from revox_lightning.dsp.texture import RATE_HZ
from revox_lightning.report import table
from revox_lightning.texture import Options

SECONDS = 10.0
NOISES = ("white", "pink", "two bands", "4 Hz modulated", "bands modulated", "clicks")


def recording(name: str, rate_hz: int) -> Tensor:
    """The loudest ten seconds' worth (time,) of a recording, mixed to mono; all of a shorter one."""
    path = Path(os.environ["REVOX_GOLDEN"], "audio", f"{name}.flac")
    x = audio.resample(audio.read(path).mean(0, keepdim=True), audio.info(path).sample_rate_hz, rate_hz)[0]
    samples, hop = round(SECONDS * rate_hz), rate_hz // 2
    starts = range(0, max(len(x) - samples, 0) + 1, hop)
    best = max(starts, key=lambda at: float(x[at : at + samples].square().sum()))
    return x[best : best + samples].contiguous()


def noise(kind: str, seed: int = 1) -> Tensor:
    """A stationary noise (time,) at 20 kHz."""
    random = torch.Generator().manual_seed(seed)
    samples = round(SECONDS * RATE_HZ)
    white = torch.randn(samples, generator=random)
    hz = torch.fft.rfftfreq(samples, 1 / RATE_HZ)
    if kind == "white":
        return white
    if kind == "pink":
        return torch.fft.irfft(torch.fft.rfft(white) / hz.clamp_min(20).sqrt(), samples)
    if kind == "two bands":
        inside = ((hz > 300) & (hz < 900)) | ((hz > 3000) & (hz < 5000))
        return torch.fft.irfft(torch.fft.rfft(white) * (inside + 0.01), samples)
    if kind == "4 Hz modulated":
        return white * (1 + 0.8 * torch.sin(torch.arange(samples) * (2 * math.pi * 4 / RATE_HZ)))
    if kind == "bands modulated":  # each of twelve by its own slow noise
        edges = torch.logspace(math.log10(100), math.log10(9000), 13)
        parts = []
        for low, high in itertools.pairwise(edges.tolist()):
            own = torch.randn(samples, generator=random)
            slow = torch.fft.irfft(torch.fft.rfft(torch.randn(samples, generator=random)) * (hz < 10), samples)
            parts.append(torch.fft.irfft(torch.fft.rfft(own) * ((hz >= low) & (hz < high)), samples)
                         * torch.exp(slow / slow.std()))  # fmt: skip
        return torch.stack(parts).sum(0)
    clicks = white * (torch.rand(samples, generator=random) < 40 / RATE_HZ)
    ring = torch.exp(-torch.arange(samples) / (0.004 * RATE_HZ)) * torch.randn(samples, generator=random)
    return torch.fft.irfft(torch.fft.rfft(clicks) * torch.fft.rfft(ring), samples) + 0.01 * white


def jobs() -> list[tuple[str, str, str, Options]]:
    """What is measured: label, content, style, options; a content or style that is no recording is a noise."""
    alone, usual = Options(seconds=600, content_weight=0), Options(seconds=600)
    random = Options("shallow_random", iterations=100, seconds=600)
    speech, hiss = "speech_librivox_16k", "texture_vinyl_hiss_drone"
    guitar, drums = "guitar_lead_feelings", "drums_loops"
    found = [
        ("speech, hiss", speech, hiss, usual),
        ("speech, hiss, style alone", speech, hiss, alone),
        (
            "speech, hiss, style alone, 30 iterations",
            speech,
            hiss,
            Options(seconds=600, iterations=30, content_weight=0),
        ),
        ("speech, hiss, content weight 1", speech, hiss, Options(seconds=600, content_weight=1)),
        ("guitar, drums", guitar, drums, usual),
        ("guitar, drums, style alone", guitar, drums, alone),
        ("guitar, drums, content weight 1", guitar, drums, Options(seconds=600, content_weight=1)),
        ("guitar, drums, random net", guitar, drums, random),
        ("noise, hiss", "white", hiss, Options(start="noise", seconds=600)),
    ]
    return found + [(f"noise, {kind}", "white", kind, Options(start="noise", seconds=600)) for kind in NOISES]


def measure(label: str, content: str, style: str, options: Options) -> dict:
    """The figures of one transfer."""

    def sound(name: str, rate_hz: int) -> Tensor:
        made = noise(name, seed=1 + NOISES.index(name)) if name in NOISES else None
        return recording(name, rate_hz) if made is None else made

    x, y = sound(content, options.rate_hz), sound(style, options.rate_hz)
    begun = time.perf_counter()
    outcome = texture.transfer(x, y, options, tell=lambda text: print(f"  {text}", flush=True))
    seconds = time.perf_counter() - begun
    start, made = (_at_ear(part, options) for part in (outcome.start, outcome.audio))
    reference = sound(style, RATE_HZ)
    before, after = (texture.measured(part, reference, options.bands, 10.0) for part in (start, made))
    return {
        "job": label,
        "seconds_of_audio": len(x) / options.rate_hz,
        "seconds": seconds,
        "iterations": outcome.iterations,
        "loss": [sum(before.values()), sum(after.values())],
        "optimised_loss": list(outcome.loss),
        "distance": [math.sqrt(sum(part.values()) / len(part)) for part in (before, after)],
        "correlation": float(torch.corrcoef(torch.stack([made, _at_ear(x, options)[: len(made)]]))[0, 1]),
        "snr_db": {name: [-10 * math.log10(max(part[name], 1e-12)) for part in (before, after)] for name in before},
    }


def _at_ear(x: Tensor, options: Options) -> Tensor:
    return audio.resample(x[None], options.rate_hz, RATE_HZ)[0]


def show(found: list[dict]) -> None:
    """Both tables."""
    columns = ("", "time, s", "iterations", "loss", "distance", "optimised", "correlation", "mean SNR, dB", "rising")
    rows, classes = [], list(found[0]["snr_db"])
    for one in found:
        means = [sum(pair[i] for pair in one["snr_db"].values()) / len(classes) for i in (0, 1)]
        pairs = (f"{a:.3g} to {b:.3g}" for a, b in (one["loss"], one["distance"], one["optimised_loss"]))
        rising = sum(b > a for a, b in one["snr_db"].values())
        row = [one["job"], f"{one['seconds']:.0f}", str(sum(one["iterations"])), *pairs, f"{one['correlation']:.2f}"]
        rows.append([*row, f"{means[0]:.1f} to {means[1]:.1f}", f"{rising} of {len(classes)}"])
    table.show("Ten seconds each", columns, rows)
    each = [[name.replace("_", " "), *("{:.1f} to {:.1f}".format(*one["snr_db"][name]) for one in found)]
            for name in classes]  # fmt: skip
    table.show("SNR of every class, dB", ("", *(one["job"] for one in found)), each)


def main() -> None:
    """Measures all jobs, or those whose label holds ``--only``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    golden, found = "REVOX_GOLDEN" in os.environ, []
    for job in jobs():
        if words.only in job[0] and (golden or set(job[1:3]) <= set(NOISES)):
            print(f"{job[0]} ...", flush=True)
            found.append(measure(*job))
            if words.json:
                words.json.write_text(json.dumps(found, indent=2))
    show(found)


if __name__ == "__main__":
    main()
