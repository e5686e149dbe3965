"""Dynamic transfer: output against input over one period, the loop that an oscilloscope shows."""

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked
from revox_lightning.measure.speed import follow_tone

_ORDERS = 32


def dynamic_transfer(
    dry: np.ndarray, wet: np.ndarray, hz: float, sample_rate_hz: float, points: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """`(x, y)`, each (points,): one period of the tone at `hz` in `dry` and of what `wet` made of it, both (time,).

    Averaged over all periods by their harmonics, up to the 32nd, each file in step with its own fundamental. The
    fundamentals are then in phase: latency and the lag of the fundamental are not in the loop, only what bends it.
    Raises UserError where either is shorter than 0.2 s, silent, not finite, or holds no such tone.
    """
    if points < 2:
        raise UserError(f"a loop of {points} points cannot be drawn; ask for 2 or more")
    x = _one_period(checked(dry, "the tone fed in", sample_rate_hz, seconds=0.2), hz, sample_rate_hz, points)
    y = _one_period(checked(wet, "the recorded tone", sample_rate_hz, seconds=0.2), hz, sample_rate_hz, points)
    return x, y


def _one_period(signal: np.ndarray, hz: float, sample_rate_hz: float, points: int) -> np.ndarray:
    """Mean period (points,), its fundamental a cosine."""
    track = follow_tone(signal, sample_rate_hz, hz)
    orders = range(min(_ORDERS, int(0.49 * sample_rate_hz / track.frequency_hz)) + 1)
    parts = np.array([track.component(signal, order) for order in orders])
    angle = 2 * np.pi * np.arange(points) / points
    return np.real(parts @ np.exp(1j * np.outer(orders, angle)))
