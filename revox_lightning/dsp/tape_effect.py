"""A tape machine in four knobs that gradients pass: how hard it is driven, what it loses, how it wavers and hisses.

No model of a machine, as those of `tape` are: each knob does one thing, by a figure that can be measured at the output,
the same at every sample rate. At zero (hiss: at `QUIETEST_DBFS`) a knob does nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from scipy.fft import next_fast_len
from torch import Tensor

from revox_lightning.dsp.interpolation import HALF_WIDTH, read_at
from revox_lightning.dsp.weighting import a_weighting, flutter_weighting
from revox_lightning.tape.fluctuation import (
    band,
    integrated,
    noise_spectrum,
    period_samples,
    read_spline_evenly,
    spline,
)

QUIETEST_DBFS = -100.0  # hiss as low as this is none
TAPE_UM_PER_SECOND = 7.5 * 25_400  # the speed that spacing is told for
HISS_HZ = (20.0, 20_000.0)
_PERIOD_SECONDS = (10, 60)  # after which hiss and wow come again, at least and at most
_WOW_HZ, _WOW_GRID_HZ, _WOW_LAST_HZ = (0.5, 6.0), 200.0, 60.0
_PAD = 4096  # samples of silence that keep a signal's end from its beginning
_TINY = 1e-12
_PHASES = 1024
_SUMS = {"reassoc", "contract"}  # in any order: several at once


def taped(
    x: Tensor,
    sample_rate_hz: float,
    drive_db: Tensor,
    spacing_um: Tensor,
    wow_percent: Tensor,
    hiss_dbfs: Tensor,
    seed: int = 0,
) -> Tensor:
    """x (batch, channels, time) through all four, knobs (batch,) each; differentiable in all of them.

    >>> taped(torch.zeros(2, 1, 100), 24_000, *torch.tensor([[3.0], [1.0], [0.2], [-60.0]])).shape
    torch.Size([2, 1, 100])
    """
    y = dulled(saturated(x, drive_db), sample_rate_hz, spacing_um)
    return hissing(wavering(y, sample_rate_hz, wow_percent, seed), sample_rate_hz, hiss_dbfs, seed)


def saturated(x: Tensor, drive_db: Tensor) -> Tensor:
    """x (batch, channels, time), its peaks rounded; as loud (rms) as before.

    Against the smallest samples, one as high as the rms of x over channels and time loses ``drive_db`` (batch,), higher
    ones more: u / sqrt(1 + (10^(drive / 10) - 1) u^2) at u = x / rms. Twice oversampled.
    """
    rms = (x.square().mean((1, 2), keepdim=True) + _TINY**2).sqrt()
    bend = (10 ** (drive_db / 10) - 1)[:, None, None]
    size = _fast_size(x)
    u = x / rms
    fine = 2 * torch.fft.irfft(_edged(torch.fft.rfft(u, size), 0.5), 2 * size)
    bent = torch.fft.rfft(fine / (1 + bend * fine.square()).sqrt())[..., : size // 2 + 1]
    v = torch.fft.irfft(_edged(bent, 2.0), size)[..., : x.shape[-1]] / 2
    loudness = (u.square().mean((1, 2), keepdim=True) + _TINY) / (v.square().mean((1, 2), keepdim=True) + _TINY)
    return rms * loudness.sqrt() * v


def dulled(x: Tensor, sample_rate_hz: float, spacing_um: Tensor) -> Tensor:
    """x (batch, channels, time) as a head (batch,) micrometres off the tape plays it: 55 dB a wavelength, zero phase.

    exp(-2 pi f d / v) at 7.5 ips (R. L. Wallace, Bell System Technical Journal 30(4), 1951): 2.86 dB a micrometre at
    10 kHz.
    """
    size = _fast_size(x)
    hz = torch.fft.rfftfreq(size, 1 / sample_rate_hz, dtype=x.dtype, device=x.device)
    gain = torch.exp(-2 * math.pi / TAPE_UM_PER_SECOND * spacing_um[:, None, None] * hz)
    return torch.fft.irfft(torch.fft.rfft(x, size) * gain, size)[..., : x.shape[-1]]


def wavering(x: Tensor, sample_rate_hz: float, wow_percent: Tensor, seed: int = 0) -> Tensor:
    """x (batch, channels, time) at an unsteady speed, of weighted wow (batch,) percent (two-sigma, AES6-2008).

    The speed's error is noise from 0.5 to 6 Hz; where it has moved the signal by a delay, the house's interpolation
    reads it. All rows waver alike, twice as far at twice the percentage.
    """
    moved = torch.from_numpy(unit_wow(x.shape[-1], sample_rate_hz, seed)).to(wow_percent.device)
    share = 0.01 * sample_rate_hz * wow_percent.double()[:, None]
    return _Read.apply(x, share * moved)  # type: ignore[return-value]


def hissing(x: Tensor, sample_rate_hz: float, hiss_dbfs: Tensor, seed: int = 0) -> Tensor:
    """x (batch, channels, time) with white noise of an A-weighted level (batch,), a full-scale sine being 0 dBFS.

    The level is that of all of it up to 20 kHz: at lower sample rates the same noise reads less (0.7 dB at 24 kHz).
    All rows hiss alike, their channels do not.
    """
    noise = torch.from_numpy(unit_hiss(x.shape[1], x.shape[2], sample_rate_hz, seed)).to(x)
    gain = torch.where(hiss_dbfs > QUIETEST_DBFS, 10 ** (hiss_dbfs / 20), 0)
    return x + gain[:, None, None].to(x) * noise


def unit_wow(samples: int, sample_rate_hz: float, seed: int) -> np.ndarray:
    """Seconds (samples,) that the signal is moved by at a relative two-sigma figure of 1: the same at every rate."""
    moved = _wow_period(_period(samples, sample_rate_hz), seed)
    return read_spline_evenly(moved, 0.0, _WOW_GRID_HZ / sample_rate_hz, samples)


@lru_cache(maxsize=2)
def _wow_period(seconds: int, seed: int) -> np.ndarray:
    """The spline of `unit_wow`, which a training asks for at every step."""
    size = period_samples(seconds, _WOW_GRID_HZ)
    hz = np.fft.rfftfreq(size, 1 / _WOW_GRID_HZ)
    shape = np.where(hz <= _WOW_LAST_HZ, band(hz, *_WOW_HZ), 0)
    error = noise_spectrum(shape, np.random.default_rng((seed, 1)))
    figure = np.quantile(np.abs(np.fft.irfft(error * flutter_weighting(hz))), 0.95)
    return spline(integrated(error / figure, _WOW_GRID_HZ))


def unit_hiss(channels: int, samples: int, sample_rate_hz: float, seed: int) -> np.ndarray:
    """Noise (channels, samples) of 0 dBFS, A-weighted; drawn line by line, so it is the same at every rate."""
    noise = _hiss_period(channels, _period(samples, sample_rate_hz), sample_rate_hz, seed)
    return np.take(noise, np.arange(samples), axis=1, mode="wrap")


@lru_cache(maxsize=2)
def _hiss_period(channels: int, seconds: int, sample_rate_hz: float, seed: int) -> np.ndarray:
    """The noise of `unit_hiss` until it comes again."""
    size = round(seconds * sample_rate_hz)
    lines = min(round(HISS_HZ[1] * seconds), (size - 1) // 2)
    parts = np.random.default_rng((seed, 2)).standard_normal((lines, channels, 2))
    parts[: round(HISS_HZ[0] * seconds)] = 0
    spectrum = np.zeros((channels, size // 2 + 1), complex)
    spectrum[:, 1 : lines + 1] = (parts[..., 0] + 1j * parts[..., 1]).T
    return size * math.sqrt(hiss_density() / (4 * seconds)) * np.fft.irfft(spectrum, size)


@lru_cache
def hiss_density() -> float:
    """Power in a hertz of white noise whose A-weighted rms is that of a full-scale sine."""
    hz = np.arange(*HISS_HZ)
    return 0.5 / float(np.sum(a_weighting(hz) ** 2))


def _period(samples: int, sample_rate_hz: float) -> int:
    least, most = _PERIOD_SECONDS
    return min(max(math.ceil(samples / sample_rate_hz), least), most)


def _fast_size(x: Tensor) -> int:
    return 2 * int(next_fast_len((x.shape[-1] + _PAD) // 2, real=True))  # type: ignore[call-overload]


def _edged(spectrum: Tensor, factor: float) -> Tensor:
    """A half spectrum whose last line, at half the rate, is counted once or twice."""
    return torch.cat((spectrum[..., :-1], factor * spectrum[..., -1:]), -1)


class _Read(torch.autograd.Function):
    """x (batch, channels, time) read ``moved`` (batch, time) samples late, by the table of `interpolation.read_at`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, moved: Tensor) -> Tensor:
        ctx.save_for_backward(x, moved)
        signal, places = (part.detach().double().cpu().numpy() for part in (x, moved))
        y = np.zeros_like(signal)
        if len(signal) == 1:  # no work to share; a data worker that was forked may start no threads of OpenMP
            _read(signal[0], places[0], _table(), y[0])
        else:
            _read_rows(signal, places, _table(), y)
        return torch.from_numpy(y).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, moved = ctx.saved_tensors
        signal, places, dy = (part.detach().double().cpu().numpy() for part in (x, moved, gradients[0]))
        dx, found = _read_back(signal, places, dy, _table())
        return torch.from_numpy(dx).to(x), torch.from_numpy(found).to(moved)


@lru_cache
def _table() -> np.ndarray:
    """Weights (phases + 1, taps) of the samples around, for every fraction of a sample: what is read of one impulse."""
    impulse = np.zeros(4 * HALF_WIDTH)
    impulse[2 * HALF_WIDTH] = 1
    distance = np.arange(_PHASES + 1)[:, None] / _PHASES - np.arange(1 - HALF_WIDTH, HALF_WIDTH + 1)
    return read_at(impulse, 2 * HALF_WIDTH + distance.ravel()).reshape(distance.shape)


@njit(cache=True, parallel=True)
def _read_rows(x, moved, table, y):  # pragma: no cover
    for row in prange(x.shape[0]):
        _read(x[row], moved[row], table, y[row])


@njit(cache=True, fastmath=_SUMS)
def _read(x, moved, table, y):  # pragma: no cover
    channels, time = x.shape
    for n in range(time):
        start, here, after, share = _taps(n - moved[n], table, time)
        for channel in range(channels):
            around, total = x[channel, start : start + len(here)], 0.0
            for k in range(len(here)):
                total += (here[k] + share * (after[k] - here[k])) * around[k]
            y[channel, n] = total


@njit(cache=True, parallel=True, fastmath=_SUMS)
def _read_back(x, moved, dy, table):  # pragma: no cover
    batch, channels, time = x.shape
    phases = table.shape[0] - 1
    dx, found = np.zeros_like(x), np.zeros_like(moved)
    for row in prange(batch):
        for n in range(time):
            start, here, after, share = _taps(n - moved[row, n], table, time)
            for channel in range(channels):
                around, back, total = x[row, channel, start : start + len(here)], dy[row, channel, n], 0.0
                from_here = dx[row, channel, start : start + len(here)]
                for k in range(len(here)):
                    slope = after[k] - here[k]
                    from_here[k] += (here[k] + share * slope) * back
                    total += slope * around[k]
                found[row, n] -= phases * total * back
    return dx, found


@njit(cache=True)
def _taps(place, table, time):  # pragma: no cover
    """Where a place is read from, its two rows of weights, as far as there is signal, and the second one's share."""
    half, phases = table.shape[1] // 2, table.shape[0] - 1
    if not -half < place < time + half:  # nor is it a number, perhaps
        return 0, table[0, :0], table[0, :0], 0.0
    whole = int(np.floor(place))
    entry = min(int((place - whole) * phases), phases - 1)
    first = whole + 1 - half
    low, high = max(0, -first), min(2 * half, time - first)
    return first + low, table[entry, low:high], table[entry + 1, low:high], (place - whole) * phases - entry
