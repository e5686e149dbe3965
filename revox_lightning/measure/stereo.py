"""Two channels of one machine against each other: balance, crosstalk, azimuth."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.signal import csd

from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked, decibels
from revox_lightning.measure.speed import follow_tone


def channel_balance_db(left: np.ndarray, right: np.ndarray, sample_rate_hz: float, hz: float | None = None) -> float:
    """Level of `left` re `right`, both (time,), in dB: by rms, or of the tone at `hz` that both were given.

    Raises UserError where either is shorter than 0.2 s, silent, not finite, or holds no such tone.

    >>> noise = np.random.default_rng(0).standard_normal(48_000)
    >>> round(channel_balance_db(noise, noise / 2, 48_000), 2)
    6.02
    """
    left = checked(left, "the left channel", sample_rate_hz, seconds=0.2)
    right = checked(right, "the right channel", sample_rate_hz, seconds=0.2)
    if hz is None:
        return float(decibels(np.sqrt(np.mean(left**2) / np.mean(right**2))))
    levels = [abs(follow_tone(channel, sample_rate_hz, hz).component(channel)) for channel in (left, right)]
    return float(decibels(levels[0] / levels[1]))


def crosstalk_db(driven: np.ndarray, other: np.ndarray, hz: float, sample_rate_hz: float) -> float:
    """What a tone at `hz`, recorded on `driven` (time,), leaves on `other` (time,), in dB re the driven channel.

    Narrow-band: only what keeps step with the driven channel's tone reads, not hiss. Nothing at all reads -400.
    Raises UserError where they differ in length, or `driven` is shorter than 0.2 s, silent, or holds no such tone.
    """
    driven = checked(driven, "the driven channel", sample_rate_hz, seconds=0.2)
    other = checked(other, "the other channel", sample_rate_hz, silent=True)
    _one_length(driven, other)
    track = follow_tone(driven, sample_rate_hz, hz)
    return float(decibels(abs(track.component(other)) / abs(track.component(driven))))


def _one_length(first: np.ndarray, second: np.ndarray) -> None:
    if first.size != second.size:
        raise UserError(f"the channels have {first.size} and {second.size} samples; cut them to one length")


def azimuth(left: np.ndarray, right: np.ndarray, sample_rate_hz: float, reach_seconds: float = 0.0005) -> float:
    """Time in seconds by which `right` comes after `left`, both (time,) of the same noise or programme.

    The peak of their cross-correlation within `reach_seconds`; with a tone it holds to half a period.
    Raises UserError where they differ in length, are shorter than 0.1 s, silent or not finite.
    """
    left = checked(left, "the left channel", sample_rate_hz, seconds=0.1)
    right = checked(right, "the right channel", sample_rate_hz, seconds=0.1)
    _one_length(left, right)
    reach = max(1, round(reach_seconds * sample_rate_hz))
    size = min(left.size, max(8192, 64 * reach)) // 2 * 2
    frequency, cross = csd(left, right, 1.0, nperseg=size)
    lags = np.arange(-min(reach, size // 2 - 1), min(reach, size // 2 - 1) + 1)
    start = float(lags[np.argmax(np.fft.irfft(cross)[lags])])
    fine = minimize_scalar(
        lambda samples: -np.sum(np.real(np.exp(2j * np.pi * samples * frequency) * cross)),
        bounds=(start - 1, start + 1),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(fine.x) / sample_rate_hz
