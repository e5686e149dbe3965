"""True peak: the largest value of the signal between its samples (ITU-R BS.1770-4, annex 2)."""

import math

import numpy as np
import torch
from torch import Tensor

_OVERSAMPLING = 4
_TAPS = 32  # per phase; the annex suggests 12, more taps follow the signal closer to the Nyquist frequency
_HOP = 32


class TruePeak:
    """Streaming true peak over all channels, by four-fold oversampling.

    >>> meter = TruePeak(channels=1)
    >>> meter.update(torch.sin(torch.pi / 2 * torch.arange(4800) + torch.pi / 4)[None])  # samples at -3 dBFS
    >>> -0.1 < meter.dbtp < 1.0
    True
    """

    def __init__(self, channels: int):
        # an odd length, so that one phase falls on the samples themselves
        reach = np.arange(1 - _OVERSAMPLING * _TAPS // 2, _OVERSAMPLING * _TAPS // 2)
        window = np.sinc(reach / _OVERSAMPLING) * np.kaiser(len(reach), 8.0)
        phases = torch.tensor([*window, 0.0], dtype=torch.float32).reshape(_TAPS, _OVERSAMPLING).T.flip(1)
        phases = phases[[p for p in range(_OVERSAMPLING) if phases[p].abs().max() < 0.999]]  # (phase, tap)
        # One product with this matrix gives _HOP samples of every phase, much faster than a convolution.
        self.matrix = torch.zeros(_TAPS + _HOP - 1, _HOP, len(phases))
        for i in range(_HOP):
            self.matrix[i : i + _TAPS, i] = phases.T
        self.matrix = self.matrix.flatten(1)  # (window, value)
        self.buffer = torch.zeros(channels, _TAPS - 1)  # what the next windows begin with
        self.peak = 0.0

    def update(self, block: Tensor) -> None:
        """Take `block` `(channels, time)`, full scale 1.0."""
        if block.shape[1] == 0:
            return
        self.peak = max(self.peak, _largest(block))
        self.buffer = torch.cat((self.buffer, block.detach().float().cpu()), dim=1)
        if self.buffer.shape[1] >= len(self.matrix):
            self.peak = max(self.peak, self._between(self.buffer))
            done = (self.buffer.shape[1] - _TAPS + 1) // _HOP * _HOP
            self.buffer = self.buffer[:, done:].clone()

    def _between(self, signal: Tensor) -> float:
        return _largest(signal.unfold(1, len(self.matrix), _HOP) @ self.matrix)

    @property
    def dbtp(self) -> float:
        """True peak in dB relative to full scale; -inf for silence."""
        tail = torch.cat((self.buffer, torch.zeros(len(self.buffer), _TAPS + _HOP)), dim=1)
        peak = max(self.peak, self._between(tail))
        return 20 * math.log10(peak) if peak > 0 else -math.inf


def _largest(x: Tensor) -> float:
    low, high = x.aminmax()
    return max(-float(low), float(high))
