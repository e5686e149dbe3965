"""``python train.py show=true``: the network and what it costs, without training."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from omegaconf import DictConfig

from revox_lightning.commands import assemble
from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.models.contract import Net
from revox_lightning.stream import stream

_NOT_PLAYED_ALONE = ("style", "proxy")  # tasks whose nets hear more than a signal: a reference, an effect's knobs


def show(cfg: DictConfig) -> dict[str, Any]:
    """Prints the layers, parameters, receptive field, multiply-adds per sample and the measured real-time factor."""
    if cfg.get("parts"):
        raise UserError(f"{cfg.name} is put together of {', '.join(cfg.parts.values())}: show those with model=NAME.")
    backend.choose(cfg.kernels)
    with tempfile.TemporaryDirectory() as scratch:  # nothing is kept of what is looked at
        cfg.data.cache_dir = scratch
        assemble.build_source(cfg)
    cfg.audio_channels = cfg.model.get("channels", 1)
    net = assemble.build_net(cfg).eval()
    assemble.divide_threads(cfg, net)
    rate_hz = cfg.data.sample_rate_hz
    field = net.receptive_field
    parameters = count(net)
    print(net)
    print(f"parameters             {parameters:,}")
    print(
        "receptive field        "
        + ("recurrent" if field is None else f"{field} samples ({1000 * field / rate_hz:.1f} ms)")
    )
    print(f"latency                {net.latency_samples} samples")
    print(f"multiply-adds/sample   {net.multiply_adds_per_sample:,}")
    found = {"name": cfg.name, "task": cfg.task, "parameters": parameters}
    if cfg.task in _NOT_PLAYED_ALONE:
        return found
    factor = real_time_factor(net, rate_hz)
    print(f"real-time factor       {factor:.1f} x (this machine, {backend.threads()} threads, blocks of 4,096)")
    return found | {"real_time_factor": factor}


def count(net: Net) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def real_time_factor(net: Net, sample_rate_hz: float, seconds: float = 2.0) -> float:
    """Seconds of audio rendered per second, in blocks of 4,096 samples (median of three)."""
    x = torch.randn(1, net.channels, int(seconds * sample_rate_hz)) * 0.1
    controls = torch.full((1, getattr(net, "knobs", net.controls)), 0.5)  # as render does: without a delay
    speeds = []
    with torch.inference_mode():
        stream(net, x[..., :8192], controls, block_samples=4096)
        for _ in range(3):
            started = time.perf_counter()
            stream(net, x, controls, block_samples=4096)
            speeds.append(x.shape[-1] / sample_rate_hz / (time.perf_counter() - started))
    return sorted(speeds)[1]
