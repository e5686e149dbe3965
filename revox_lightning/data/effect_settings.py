"""Recordings before and after an effect whose knobs stand anywhere, for nets that learn to stand in for it.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 2.3, with the levels of the authors' code.
"""

from __future__ import annotations

import numpy as np
import torch

from revox_lightning.data.corruption import at_peak
from revox_lightning.dsp import effects

_PEAKS_DBFS = (-24.0, -12.0)


class EffectSettings:
    """``make(x, rng, augment) -> (x, y, p)``: x (time,) float64 at a peak that is drawn, y as long, knobs p (knobs,).

    All knobs are drawn evenly between 0 and 1, but the compressor's make-up gain, which stays at 0 dB. There is no
    augmentation.
    """

    def __init__(self, effect: str, sample_rate_hz: int) -> None:
        self.effect, self.sample_rate_hz = effect, sample_rate_hz

    def __call__(
        self, x: np.ndarray, rng: np.random.Generator, augment: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = at_peak(x, rng.uniform(*_PEAKS_DBFS))
        p = rng.random(len(effects.EFFECTS[self.effect][0]), dtype=np.float32)
        if self.effect == "compressor":
            p[-1] = effects.NO_MAKEUP
        told = torch.from_numpy(x)[None, None], torch.from_numpy(p)[None]
        return x, effects.one_exactly(self.effect, *told, self.sample_rate_hz)[0, 0].numpy(), p
