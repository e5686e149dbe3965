"""Pairs for learning production styles: two versions of any recording, differently equalised and compressed.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.3, with the ranges of the authors' code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from revox_lightning.dsp import biquads, dynamics, effects, tape_effect
from revox_lightning.dsp.time_stretch import shifted, stretched

PEAK_DBFS = -12.0
_HALL_DB = 24.0  # no further band where the gains together reach this
_FADE_SECONDS = 0.05
_SILENCE = 1e-7
_TAPE_KNOBS = [knob.name for knob in effects.TAPE]


class Corruption:
    """``make(x, rng, augment) -> (input, target)`` of x (time,) float64; both as long as x, peaks at -12 dBFS.

    With ``augment`` every other recording is first played up to 2 semitones higher or lower and up to a fifth faster or
    slower. Input: an equaliser (in 3 of 4), an expander (in 1 of 10). Target: another equaliser (3 of 4), a compressor
    (3 of 4). ``paper_exact`` keeps a slip of the authors' code: the target's level before its compressor is not set.
    With ``chain`` tape the target is then played by a tape (3 of 4), whose knobs (4,) between 0 and 1 are told as a
    third.
    """

    def __init__(self, sample_rate_hz: int, paper_exact: bool = False, chain: str = "studio") -> None:
        self.sample_rate_hz, self._paper_exact, self._taped = sample_rate_hz, paper_exact, chain == "tape"

    def __call__(self, x: np.ndarray, rng: np.random.Generator, augment: bool) -> tuple[np.ndarray, ...]:
        x = at_peak(x)
        if augment and rng.random() < 0.5:
            x = shifted(x, self.sample_rate_hz, rng.uniform(-200, 200))
            x = _as_long(stretched(x, self.sample_rate_hz, rng.uniform(0.8, 1.2)), x.size)
        heard, wanted = x, x
        if rng.random() < 0.75:
            heard = at_peak(equalised(heard, self.sample_rate_hz, rng))
        if rng.random() < 0.1:
            heard = expanded(heard, self.sample_rate_hz, rng)
        if rng.random() < 0.75:
            wanted = equalised(wanted, self.sample_rate_hz, rng)
            wanted = wanted if self._paper_exact else at_peak(wanted)
        if rng.random() < 0.75:
            wanted = compressed(wanted, self.sample_rate_hz, rng)
        if not self._taped:
            return tuple(at_peak(self._faded(part)) for part in (heard, wanted))
        knobs = np.zeros(len(effects.TAPE))
        if rng.random() < 0.75:
            wanted, knobs = taped(wanted, self.sample_rate_hz, rng)
        return *(at_peak(self._faded(part)) for part in (heard, wanted)), knobs

    def _faded(self, x: np.ndarray) -> np.ndarray:
        ramp = np.linspace(0, 1, max(min(round(_FADE_SECONDS * self.sample_rate_hz), x.size // 2), 1))
        x = x.copy()
        x[: ramp.size] *= ramp
        x[-ramp.size :] *= ramp[::-1]
        return x


def at_peak(x: np.ndarray, peak_dbfs: float = PEAK_DBFS) -> np.ndarray:
    """x with its highest sample there; silence stays as it is."""
    peak = float(np.abs(x).max(initial=0.0))
    return x * (10 ** (peak_dbfs / 20) / peak) if peak > _SILENCE else x


def equalised(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """x (time,) through up to four peaks of up to 48 dB and two shelves of up to 24 dB, as chance has it."""
    knobs: list[tuple[str, float, float, float]] = []
    total, highest = 0.0, 0.45 * sample_rate_hz
    for low_hz, high_hz in ((200, 2_000), (800, 4_000), (2_000, 8_000), (4_000, highest)):
        gain = rng.uniform(0, 48) * rng.choice((-1, 1))
        hz, q = rng.uniform(min(low_hz, highest), min(high_hz, highest)), rng.uniform(0.1, 10.1)
        if rng.random() < 0.8 and abs(total + gain) < _HALL_DB:
            total += gain
            knobs.append(("peak", gain, hz, q))
    for kind, low_hz, high_hz in (("low_shelf", 20, 200), ("high_shelf", 4_000, highest)):
        gain, hz = rng.uniform(0, 24) * rng.choice((-1, 1)), rng.uniform(min(low_hz, highest), high_hz)
        if rng.random() < 0.8:
            knobs.append((kind, gain, hz, 0.707))
    if not knobs:
        return x
    rows = [
        biquads.coefficients(kind, *torch.tensor(knob, dtype=torch.float64).unbind(), sample_rate_hz=sample_rate_hz)
        for kind, *knob in knobs
    ]
    return biquads.filtered_exactly(x[None], torch.stack(rows).numpy())[0]


def compressed(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """x (time,) through a compressor as chance has it."""
    attack = rng.uniform(0.0005, 0.0505)
    how: dict[str, Any] = {
        "threshold_db": rng.uniform(-64, -12), "ratio": rng.uniform(1, 11), "knee_db": rng.uniform(0, 12),
        "attack_seconds": attack, "release_seconds": attack + rng.uniform(0, 0.2), "makeup_db": rng.uniform(0, 6),
    }  # fmt: skip
    return dynamics.compressor_exactly(x[None], sample_rate_hz, **how)[0]


def expanded(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """x (time,) through a downward expander as chance has it."""
    attack = rng.uniform(0.001, 0.051)
    how: dict[str, Any] = {
        "threshold_db": rng.uniform(-30, -10), "ratio": rng.uniform(1, 5), "knee_db": rng.uniform(0, 12),
        "attack_seconds": attack, "release_seconds": attack + rng.uniform(0, 0.2), "makeup_db": rng.uniform(0, 6),
    }  # fmt: skip
    return dynamics.compressor_exactly(x[None], sample_rate_hz, **how, expander=True)[0]


def taped(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (time,) from a tape as chance has it, and its knobs (4,) between 0 and 1; small wow is the more likely.

    The hiss is as told below a programme whose peak is -12 dBFS.
    """
    p, seed = rng.random(len(effects.TAPE)), int(rng.integers(2**31))
    p[_TAPE_KNOBS.index("wow_percent")] **= 2
    if np.abs(x).max(initial=0.0) < _SILENCE:
        return x, np.zeros_like(p)
    silent = np.where(np.array(_TAPE_KNOBS) == "hiss_dbfs", 0, p)
    y = effects.taped(torch.from_numpy(x)[None, None], torch.from_numpy(silent)[None], sample_rate_hz, seed)
    y = torch.from_numpy(at_peak(y.numpy()))
    told = effects.denormalised(torch.from_numpy(p)[None], effects.TAPE)["hiss_dbfs"]
    return tape_effect.hissing(y, sample_rate_hz, told, seed)[0, 0].numpy(), p


def _as_long(x: np.ndarray, samples: int) -> np.ndarray:
    return x[:samples] if x.size >= samples else np.pad(x, (0, samples - x.size))
