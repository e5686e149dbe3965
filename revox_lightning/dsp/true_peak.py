"""True peak: the largest value of the signal between its samples (ITU-R BS.1770-4, annex 2)."""

import math

import numpy as np
import torch
from torch import Tensor

_OVERSAMPLING = 4
_TAPS = 32  # per phase; the annex suggests 12, more taps follow the signal closer to the Nyquist frequency


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
        phases = torch.tensor([*window, 0.0], dtype=torch.float32).reshape(_TAPS, _OVERSAMPLING).T
        self.phases = phases.flip(1)[:, None]  # (phase, 1, tap)
        self.history = torch.zeros(channels, _TAPS - 1)
        self.peak = 0.0

    def update(self, block: Tensor) -> None:
        """Take `block` `(channels, time)`, full scale 1.0."""
        if block.shape[1] == 0:
            return
        signal = torch.cat((self.history, block.detach().float().cpu()), dim=1)
        self.history = signal[:, -(_TAPS - 1) :]
        self.peak = max(self.peak, float(block.abs().max()), self._between(signal))

    def _between(self, signal: Tensor) -> float:
        return float(torch.nn.functional.conv1d(signal[:, None], self.phases).abs().max())

    @property
    def dbtp(self) -> float:
        """True peak in dB relative to full scale; -inf for silence."""
        tail = torch.cat((self.history, torch.zeros(len(self.history), _TAPS)), dim=1)
        peak = max(self.peak, self._between(tail))
        return 20 * math.log10(peak) if peak > 0 else -math.inf
