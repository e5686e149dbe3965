"""What any programme tells of a machine, without a measuring tape: delay, gain, polarity, response where it holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from revox_lightning.dsp.alignment import delay_samples
from revox_lightning.errors import UserError
from revox_lightning.measure import response
from revox_lightning.measure.bench import plain
from revox_lightning.measure.signals import level_dbfs
from revox_lightning.measure.sweeps import GRID_HZ

LEAST_COHERENCE = 0.5  # below it a response says more about noise and wander than about the machine
_REACH_SECONDS = 20.0


def programme_sheet(dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float) -> dict[str, Any]:
    """Delay, polarity, levels, and the response and coherence of `wet` re `dry`, both (channels, time).

    The response is left out (None) where the coherence in a sixth of an octave is under 0.5. Raises UserError where
    either is silent, or too short for four segments of 0.2 s once the delay is taken off.
    """
    if dry.ndim != 2 or dry.shape[0] != wet.shape[0]:
        raise UserError(f"dry has {len(dry)} channel(s) and wet {len(wet)}: give files with the same channels.")
    delay = delay_samples(dry[0], wet[0], max_delay=round(_REACH_SECONDS * sample_rate_hz))
    x, y = dry[:, max(-delay, 0) :], wet[:, max(delay, 0) :]
    samples = min(x.shape[1], y.shape[1])
    x, y = x[:, :samples].astype(np.float64), y[:, :samples].astype(np.float64)
    gains_db, coherences = [], []
    for channel in range(len(x)):
        hz, gain, coherence = response.transfer(x[channel], y[channel], sample_rate_hz)
        gain_db, held = _on_grid(hz, gain, coherence)
        gains_db.append(np.where(held >= LEAST_COHERENCE, gain_db, np.nan))
        coherences.append(held)
    levels = [(level_dbfs(a), level_dbfs(b)) for a, b in zip(x, y, strict=True)]
    notes = ["measured from its programme only: no measuring tape"]
    if np.nanmedian(coherences) < LEAST_COHERENCE:
        notes.append("the two files hardly belong together, or their delay wanders: align them first")
    return plain({
        "kind": "programme", "mode": None, "sample_rate_hz": sample_rate_hz, "zero_vu_dbfs": None, "notes": notes,
        "channels": ["left", "right"] if len(x) == 2 else ["mono"], "seconds": samples / sample_rate_hz,
        "latency": {"milliseconds": 1000 * delay / sample_rate_hz, "polarity": 1 if np.vdot(x[0], y[0]) >= 0 else -1},
        "level": {"dry_dbfs": [a for a, _ in levels], "wet_dbfs": [b for _, b in levels],
                  "gain_db": [b - a for a, b in levels]},
        "programme": {"frequency_hz": GRID_HZ, "gain_db": gains_db, "coherence": coherences},
        "missing": {},
    })  # fmt: skip


def _on_grid(hz: np.ndarray, gain: np.ndarray, coherence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain in dB and coherence, averaged over a sixth of an octave around each point of the grid."""
    gain_db, held = np.full(GRID_HZ.size, np.nan), np.full(GRID_HZ.size, np.nan)
    for i, centre in enumerate(GRID_HZ):
        inside = (hz >= centre * 2 ** (-1 / 12)) & (hz <= centre * 2 ** (1 / 12)) & np.isfinite(np.abs(gain))
        if not inside.any():
            inside = np.zeros(hz.size, bool)
            nearest = int(np.argmin(np.abs(hz - centre)))
            if centre > hz[-1] or not np.isfinite(gain[nearest]):
                continue
            inside[nearest] = True
        gain_db[i] = 10 * np.log10(max(float(np.mean(np.abs(gain[inside]) ** 2)), 1e-20))
        held[i] = np.mean(coherence[inside])
    return gain_db, held
