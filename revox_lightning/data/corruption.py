"""Pairs for learning production styles: two versions of any recording, differently equalised and compressed.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 3.3, with the ranges of the authors' code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.signal import butter, sosfilt

from revox_lightning.dsp import biquads, dynamics, effects, style_bands, tape_effect
from revox_lightning.dsp.time_stretch import shifted

PEAK_DBFS = -12.0
_ENDS_HZ = (3_500.0, 11_000.0)
_HALL_DB = 24.0  # no further band where the gains together reach this
_FADE_SECONDS = 0.05
_SILENCE = 1e-7
_IDLE = np.array([0.0, 1.0, 0.01, 0.1, 0.0, 0.0])  # knobs of a compressor that does nothing
_TAPE_KNOBS = [knob.name for knob in effects.TAPE]


class Corruption:
    """``make(x, rng, augment) -> (input, target, truth)`` of x (time,) float64; both as long, peaks at -12 dBFS.

    With ``augment`` every other recording is first played up to 2 semitones higher or lower and up to a fifth
    faster or slower. Input: an equaliser (in 3 of 4), an expander (in 1 of 10). Target: another equaliser (3 of 4),
    a compressor (3 of 4). Of the augmented ones, a share ``ends_early`` has nothing above a frequency that is
    drawn, as many recordings have; the paper has none. ``paper_exact`` keeps a slip of the authors' code: the
    target's level before its compressor is not set. With ``chain`` tape the target is then played by a tape (3 of
    4), and every other one has no equaliser and no compressor.

    ``truth`` is what a chain of equaliser and compressor has to do to the input, as far as that is known: the
    response in dB at the centres of `style_bands` (96,), then the compressor's knobs in their units (6,; none is
    one of ratio 1), moved to the levels that the input has behind that equaliser. The expander is not undone. With
    a tape, its knobs (4,) between 0 and 1 follow.
    """

    def __init__(
        self, sample_rate_hz: int, paper_exact: bool = False, chain: str = "studio", ends_early: float = 0.0
    ) -> None:
        self.sample_rate_hz, self._paper_exact, self._taped = sample_rate_hz, paper_exact, chain == "tape"
        self._ends_early = ends_early
        self._hz = style_bands.centres_hz(sample_rate_hz)

    def __call__(self, x: np.ndarray, rng: np.random.Generator, augment: bool) -> tuple[np.ndarray, ...]:
        x, rate_hz = at_peak(x), self.sample_rate_hz
        if augment and rng.random() < 0.5:
            x = _as_long(shifted(x, rate_hz, rng.uniform(-200, 200), rng.uniform(0.8, 1.2)), x.size)
        if augment and rng.random() < self._ends_early:
            x = at_peak(limited(x, rate_hz, rng.uniform(*_ENDS_HZ)))
        heard, wanted = x, x
        told, knobs = np.zeros((2, len(self._hz))), _IDLE
        rises_db = 0.0  # of the input over the target, where both would have passed the same equaliser
        if rng.random() < 0.75:
            heard, told[0] = self._equalised(heard, rng)
            heard, rises_db = _at_peak(heard)
        if rng.random() < 0.1:
            heard = expanded(heard, rate_hz, rng)
        produced = not self._taped or rng.random() < 0.5
        if produced and rng.random() < 0.75:
            wanted, told[1] = self._equalised(wanted, rng)
            if not self._paper_exact:
                wanted, risen_db = _at_peak(wanted)
                rises_db -= risen_db
        if produced and rng.random() < 0.75:
            wanted, knobs = compressed(wanted, rate_hz, rng)
        tape = []
        if self._taped:
            tape = [np.zeros(len(effects.TAPE))]
            if rng.random() < 0.75:
                wanted, tape[0], gain_db = taped(wanted, rate_hz, rng)
                knobs = knobs + np.array([0, 0, 0, 0, 0, gain_db])
        (heard, input_db), (wanted, target_db) = (_at_peak(self._faded(part)) for part in (heard, wanted))
        rises_db += input_db
        moved = knobs + np.array([rises_db, 0, 0, 0, 0, target_db - rises_db])
        return heard, wanted, np.concatenate((told[1] - told[0], moved, *tape))

    def responses(self, number: int, seed: int = 0) -> torch.Tensor:
        """Responses (number, 96) in dB of equalisers as `truth` tells them; a quarter is flat."""
        rng = np.random.default_rng((seed, 4))
        drawn = [_sections(self.sample_rate_hz, rng) if rng.random() < 0.75 else None for _ in range(number)]
        return torch.from_numpy(np.stack([self._response(sections) for sections in drawn])).float()

    def _equalised(self, x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sections = _sections(self.sample_rate_hz, rng)
        y = x if sections is None else biquads.filtered_exactly(x[None], sections)[0]
        return y, self._response(sections)

    def _response(self, sections: np.ndarray | None) -> np.ndarray:
        if sections is None:
            return np.zeros(len(self._hz))
        gain = biquads.response(torch.from_numpy(sections), self._hz.double(), self.sample_rate_hz).abs()
        return (20 * torch.log10(gain + 1e-9)).numpy()

    def _faded(self, x: np.ndarray) -> np.ndarray:
        ramp = np.linspace(0, 1, max(min(round(_FADE_SECONDS * self.sample_rate_hz), x.size // 2), 1))
        x = x.copy()
        x[: ramp.size] *= ramp
        x[-ramp.size :] *= ramp[::-1]
        return x


def at_peak(x: np.ndarray, peak_dbfs: float = PEAK_DBFS) -> np.ndarray:
    """x with its highest sample there; silence stays as it is."""
    return _at_peak(x, peak_dbfs)[0]


def _at_peak(x: np.ndarray, peak_dbfs: float = PEAK_DBFS) -> tuple[np.ndarray, float]:
    """The same, and by how many dB it rose."""
    peak = float(np.abs(x).max(initial=0.0))
    if peak <= _SILENCE:
        return x, 0.0
    gain = 10 ** (peak_dbfs / 20) / peak
    return x * gain, 20 * float(np.log10(gain))


def _sections(sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray | None:
    """Up to four peaks of up to 48 dB and two shelves of up to 24 dB (number, 6), as chance has it; None for none."""
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
        return None
    rows = [
        biquads.coefficients(kind, *torch.tensor(knob, dtype=torch.float64).unbind(), sample_rate_hz=sample_rate_hz)
        for kind, *knob in knobs
    ]
    return torch.stack(rows).numpy()


def limited(x: np.ndarray, sample_rate_hz: int, highest_hz: float) -> np.ndarray:
    """x (time,) without what lies above a frequency, which nothing does from half the rate on."""
    if highest_hz >= 0.45 * sample_rate_hz:
        return x
    return np.asarray(sosfilt(butter(10, highest_hz, fs=sample_rate_hz, output="sos"), x))


def compressed(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (time,) through a compressor as chance has it, and its knobs (6,) in their units."""
    attack = rng.uniform(0.0005, 0.0505)
    how: dict[str, Any] = {
        "threshold_db": rng.uniform(-64, -12), "ratio": rng.uniform(1, 11), "knee_db": rng.uniform(0, 12),
        "attack_seconds": attack, "release_seconds": attack + rng.uniform(0, 0.2), "makeup_db": rng.uniform(0, 6),
    }  # fmt: skip
    knobs = np.array([how[knob.name] for knob in effects.COMPRESSOR])
    return dynamics.compressor_exactly(x[None], sample_rate_hz, **how)[0], knobs


def expanded(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """x (time,) through a downward expander as chance has it."""
    attack = rng.uniform(0.001, 0.051)
    how: dict[str, Any] = {
        "threshold_db": rng.uniform(-30, -10), "ratio": rng.uniform(1, 5), "knee_db": rng.uniform(0, 12),
        "attack_seconds": attack, "release_seconds": attack + rng.uniform(0, 0.2), "makeup_db": rng.uniform(0, 6),
    }  # fmt: skip
    return dynamics.compressor_exactly(x[None], sample_rate_hz, **how, expander=True)[0]


def taped(x: np.ndarray, sample_rate_hz: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """x (time,) from a tape as chance has it, its knobs (4,) between 0 and 1, and how many dB its programme rose.

    The programme's peak is put at -12 dBFS, and the hiss is as told below that.
    """
    p, seed = rng.random(len(effects.TAPE)), int(rng.integers(2**31))
    if np.abs(x).max(initial=0.0) < _SILENCE:
        return x, np.zeros_like(p), 0.0
    y, gain_db = on_tape(x, sample_rate_hz, p, seed)
    return y, p, gain_db


def on_tape(x: np.ndarray, sample_rate_hz: int, p: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """x (time,) from a tape of knobs p (4,), its hiss told below a programme that peaks at -12 dBFS; how far x rose."""
    silent = np.where(np.array(_TAPE_KNOBS) == "hiss_dbfs", 0, p)
    y = effects.taped(torch.from_numpy(x)[None, None], torch.from_numpy(silent)[None], sample_rate_hz, seed)
    peaked, gain_db = _at_peak(y.numpy())
    told = effects.denormalised(torch.from_numpy(p)[None], effects.TAPE)["hiss_dbfs"]
    return tape_effect.hissing(torch.from_numpy(peaked), sample_rate_hz, told, seed)[0, 0].numpy(), gain_db


def _as_long(x: np.ndarray, samples: int) -> np.ndarray:
    return x[:samples] if x.size >= samples else np.pad(x, (0, samples - x.size))
