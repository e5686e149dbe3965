"""Programme loudness, ITU-R BS.1770-4."""

import math
from array import array

import numpy as np
import torch
from scipy.signal import sosfilt
from torch import Tensor

from revox_lightning.dsp import biquads

_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_DB = -10.0
_OFFSET_LUFS = -0.691


def k_weighting(sample_rate_hz: float) -> np.ndarray:
    """Second-order sections `(2, 6)` of the K curve: a shelf for the head, then a high-pass (annex 1, tables 1 and 2).

    The standard lists coefficients for 48 kHz only; the analogue prototypes here reproduce those and serve any rate.

    >>> k_weighting(48_000).round(4)[0]
    array([ 1.5351, -2.6917,  1.1984,  1.    , -1.6907,  0.7325])
    """
    shelf, high_pass = (math.tan(math.pi * f0_hz / sample_rate_hz) for f0_hz in (1681.974450955533, 38.13547087602444))
    q, gain = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = gain**0.4996667741545416
    a0 = 1 + shelf / q + shelf**2
    numerator = [gain + middle * shelf / q + shelf**2, 2 * (shelf**2 - gain), gain - middle * shelf / q + shelf**2]
    first = [*(b / a0 for b in numerator), 1.0, 2 * (shelf**2 - 1) / a0, (1 - shelf / q + shelf**2) / a0]
    q = 0.5003270373238773
    a0 = 1 + high_pass / q + high_pass**2
    second = [1.0, -2.0, 1.0, 1.0, 2 * (high_pass**2 - 1) / a0, (1 - high_pass / q + high_pass**2) / a0]
    return np.array([first, second])


class Loudness:
    """Streaming gated loudness of `channels` that count alike (mono, or left and right).

    >>> meter = Loudness(48_000, channels=1)
    >>> meter.update(np.sin(2 * np.pi * 997 / 48_000 * np.arange(96_000))[None])
    >>> round(meter.lufs, 2)
    -3.01
    """

    def __init__(self, sample_rate_hz: int, channels: int):
        self.sections = k_weighting(sample_rate_hz)
        self.state = np.zeros((2, channels, 2))
        self.step = round(0.1 * sample_rate_hz)  # blocks of 400 ms overlap by three quarters
        self.rest = np.zeros(0)
        self.steps = array("d")  # grows by ten numbers a second, in one piece

    def update(self, audio: np.ndarray) -> None:
        """Take the next samples `(channels, time)`."""
        if audio.shape[1] == 0:
            return
        weighted, self.state = sosfilt(self.sections, audio.astype(np.float64, copy=False), zi=self.state)
        power = np.concatenate((self.rest, np.square(weighted).sum(axis=0)))
        whole = len(power) // self.step * self.step
        self.rest = power[whole:].copy()
        self.steps.frombytes(power[:whole].reshape(-1, self.step).mean(axis=1).tobytes())

    @property
    def lufs(self) -> float:
        """Integrated loudness in LUFS; nan below 400 ms, or where everything lies below the absolute gate."""
        steps = np.array(self.steps)
        if len(steps) < 4:
            return math.nan
        blocks = np.convolve(steps, np.full(4, 0.25), mode="valid")
        heard = blocks[blocks > _power(_ABSOLUTE_GATE_LUFS)]
        if len(heard) == 0:
            return math.nan
        gate = heard.mean() * 10 ** (_RELATIVE_GATE_DB / 10)
        return _OFFSET_LUFS + 10 * math.log10(heard[heard > gate].mean())


def loudness(x: Tensor, sample_rate_hz: int) -> Tensor:
    """Integrated loudness (batch,) in LUFS of x (batch, channels, time), differentiable; at least the absolute gate.

    As `Loudness` measures it; what is shorter than 400 ms counts as one block.

    >>> loudness(torch.ones(1, 1, 96_000) * torch.sin(torch.arange(96_000) * 0.1305), 48_000).round(decimals=1)
    tensor([-3.])
    """
    sections = torch.from_numpy(k_weighting(sample_rate_hz)).to(x).expand(len(x), -1, -1)
    power = biquads.filtered(x, sections).square().sum(1)
    block = min(round(0.4 * sample_rate_hz), x.shape[-1])
    blocks = power.unfold(1, block, max(block // 4, 1)).mean(2) + _power(_ABSOLUTE_GATE_LUFS)
    heard = blocks > 2 * _power(_ABSOLUTE_GATE_LUFS)
    gate = _mean(blocks, heard) * 10 ** (_RELATIVE_GATE_DB / 10)
    return _OFFSET_LUFS + 10 * torch.log10(_mean(blocks, heard & (blocks > gate[:, None])))


def _mean(blocks: Tensor, which: Tensor) -> Tensor:
    """Mean (batch,) of the blocks (batch, blocks) that count; of all where none does."""
    which = which | ~which.any(1, keepdim=True)
    return (blocks * which).sum(1) / which.sum(1)


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_LUFS) / 10)
