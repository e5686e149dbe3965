"""The chain of a production style: six equaliser sections, then a compressor, told by 24 numbers between 0 and 1.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, section 2: the same order, ranges and units. Four more numbers, which the paper has not, put a tape
machine behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from revox_lightning.dsp import biquads, dynamics, tape_effect

_HIGHEST = 0.49  # of the sample rate, that a section is placed at


@dataclass(frozen=True)
class Parameter:
    """One knob: its name, its unit, and the values that 0 and 1 stand for."""

    name: str
    unit: str
    low: float
    high: float


SECTIONS = {  # name: kind, lowest and highest frequency in Hz
    "low_shelf": ("low_shelf", 20.0, 200.0),
    "peak_1": ("peak", 200.0, 2_000.0),
    "peak_2": ("peak", 200.0, 4_000.0),
    "peak_3": ("peak", 2_000.0, 8_000.0),
    "peak_4": ("peak", 4_000.0, 10_800.0),
    "high_shelf": ("high_shelf", 4_000.0, 10_800.0),
}
EQUALISER = tuple(
    parameter
    for name, (_, low_hz, high_hz) in SECTIONS.items()
    for parameter in (
        Parameter(f"{name}_gain_db", "dB", -24.0, 24.0),
        Parameter(f"{name}_frequency_hz", "Hz", low_hz, high_hz),
        Parameter(f"{name}_q", "", 0.1, 10.0),
    )
)
MAKEUP = Parameter("makeup_db", "dB", -48.0, 48.0)
COMPRESSOR = (
    Parameter("threshold_db", "dB", -80.0, 0.0),
    Parameter("ratio", "", 1.0, 20.0),
    Parameter("attack_seconds", "s", 0.0001, 0.1),
    Parameter("release_seconds", "s", 0.005, 1.0),
    Parameter("knee_db", "dB", 0.0, 12.0),
    MAKEUP,
)
PARAMETERS = EQUALISER + COMPRESSOR
TAPE = (
    Parameter("drive_db", "dB", 0.0, 6.0),
    Parameter("spacing_um", "\N{MICRO SIGN}m", 0.0, 10.0),
    Parameter("wow_percent", "%", 0.0, 1.0),
    Parameter("hiss_dbfs", "dBFS", tape_effect.QUIETEST_DBFS, -40.0),
)
CHAINS = {"studio": PARAMETERS, "tape": PARAMETERS + TAPE}


def denormalised(p: Tensor, parameters: Sequence[Parameter] | None = None) -> dict[str, Tensor]:
    """The knobs (batch,) in their units, of p (batch, knobs) between 0 and 1; by default those of the chain so long.

    >>> denormalised(torch.full((1, 24), 0.5))["threshold_db"]
    tensor([-40.])
    """
    parameters = parameters or CHAINS["tape"][: p.shape[1]]
    return {knob.name: knob.low + p[:, n] * (knob.high - knob.low) for n, knob in enumerate(parameters)}


def normalised(values: Mapping[str, float], parameters: Sequence[Parameter] | None = None) -> Tensor:
    """p (1, knobs) of knobs in their units, by default with those of a tape where one is told.

    Raises ValueError for a knob that is missing or out of its range.
    """
    p = []
    for knob in parameters or CHAINS["tape" if any(knob.name in values for knob in TAPE) else "studio"]:
        value = values.get(knob.name)
        if value is None or not knob.low <= value <= knob.high:
            raise ValueError(f"{knob.name} is {value}: give a number from {knob.low:g} to {knob.high:g}")
        p.append((value - knob.low) / (knob.high - knob.low))
    return torch.tensor([p])


def sections(p: Tensor, sample_rate_hz: float) -> Tensor:
    """The equaliser's sections (batch, 6, 6) of p (batch, 18 or more); none lies above 0.49 of the sample rate."""
    knobs = denormalised(p, EQUALISER)
    gain, frequency, q = (
        torch.stack([knobs[f"{name}_{what}"] for name in SECTIONS], 1) for what in ("gain_db", "frequency_hz", "q")
    )
    frequency = frequency.clamp(max=_HIGHEST * sample_rate_hz)
    return biquads.chain([kind for kind, *_ in SECTIONS.values()], gain, frequency, q, sample_rate_hz)


def response_db(p: Tensor, hz: Tensor, sample_rate_hz: float) -> Tensor:
    """Gain (batch, frequencies) of the equaliser, p (batch, 18 or more), at frequencies (frequencies,)."""
    return 20 * torch.log10(biquads.response(sections(p, sample_rate_hz), hz.to(p), sample_rate_hz).abs() + 1e-6)


def equalised(x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
    """x (batch, channels, time) through the equaliser, p (batch, 18 or more); differentiable in both."""
    return biquads.filtered(x, sections(p, sample_rate_hz))


def compressed(x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
    """x (batch, channels, time) through the compressor, p (batch, 6); differentiable in both."""
    return dynamics.compressor(x, sample_rate_hz, *denormalised(p, COMPRESSOR).values())


def taped(x: Tensor, p: Tensor, sample_rate_hz: float, seed: int = 0) -> Tensor:
    """x (batch, channels, time) through the tape, p (batch, 4), with the hiss and wow of a seed; differentiable."""
    return tape_effect.taped(x, sample_rate_hz, *denormalised(p, TAPE).values(), seed=seed)


def render(x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
    """x (batch, channels, time) through the chain, p (batch, 24, or 28 with a tape); differentiable in both."""
    n, knobs = len(EQUALISER), len(PARAMETERS)
    y = compressed(equalised(x, p[:, :n], sample_rate_hz), p[:, n:knobs], sample_rate_hz)
    return taped(y, p[:, knobs:], sample_rate_hz) if p.shape[1] > knobs else y


def render_exactly(x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
    """The same sample by sample in double precision, without gradients."""
    like, x, p = x, x.detach().double().cpu(), p.detach().double().cpu()
    n, knobs = len(EQUALISER), len(PARAMETERS)
    coefficients = sections(p, sample_rate_hz).numpy()
    rows = [biquads.filtered_exactly(*row) for row in zip(x.numpy(), coefficients, strict=True)]
    y = compressed(torch.from_numpy(np.stack(rows)), p[:, n:knobs], sample_rate_hz)
    return (taped(y, p[:, knobs:], sample_rate_hz) if p.shape[1] > knobs else y).to(like)


EFFECTS = {  # what an effect's knobs are, and what it makes of a signal
    "equaliser": (EQUALISER, equalised),
    "compressor": (COMPRESSOR, compressed),
}
NO_MAKEUP = 0.5  # the compressor's last knob, at 0 dB


@torch.no_grad()
def one_exactly(effect: str, x: Tensor, p: Tensor, sample_rate_hz: float) -> Tensor:
    """x (batch, channels, time) through one of `EFFECTS`, p (batch, knobs), in double precision; no gradients."""
    return EFFECTS[effect][1](x, p.double(), sample_rate_hz)
