"""Distortion: harmonics, maximum and saturated output, intermodulation, modulation noise."""

from dataclasses import dataclass

import numpy as np
from scipy.signal.windows import blackmanharris

from revox_lightning.dsp.weighting import flat, weighted
from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked, decibels
from revox_lightning.measure.speed import ToneTrack, band_about, find_tone_hz, follow_tone


@dataclass(frozen=True)
class Harmonics:
    """A tone taken apart.

    `frequency_hz` of the fundamental as found; `level_dbfs` of the fundamental; `relative` (count,): amplitudes of
    harmonics 1, 2, ... re the fundamental (so `relative[0]` is 1 and `relative[2]` the third), NaN past the band;
    `thd_percent` of the harmonics from 2 on; `thd_noise_percent` of all but the fundamental, 20 Hz to 20 kHz.
    """

    frequency_hz: float
    level_dbfs: float
    relative: np.ndarray
    thd_percent: float
    thd_noise_percent: float

    @property
    def third_percent(self) -> float:
        """The third harmonic in percent of the fundamental: the figure of tape data sheets."""
        return 100 * float(self.relative[2])


@dataclass(frozen=True)
class DifferenceTones:
    """Difference-tone distortion of two equal tones f1 < f2, in percent of the sum of their amplitudes (IEC 60268-3).

    `second_percent`: the tone at f2 - f1; `third_percent`: those at 2 f1 - f2 and 2 f2 - f1 added.
    """

    second_percent: float
    third_percent: float


def harmonics(x: np.ndarray, fundamental_hz: float, sample_rate_hz: float, count: int = 7) -> Harmonics:
    """Harmonics 1 to `count` (3 or more) of the tone in `x` (time,), whose speed may be off by 2 % and waver.

    Raises UserError where `x` is shorter than 0.2 s or 20 periods, silent, not finite, or holds no such tone.

    >>> x = np.sin(2 * np.pi * 1000 / 48_000 * np.arange(24_000))
    >>> float(harmonics(x + 0.03 * x**2, 1000.0, 48_000).relative[1].round(4))
    0.015
    """
    if count < 3:
        raise UserError(f"{count} harmonics are not enough for a third; ask for 3 or more")
    shortest = max(0.2, 20 / max(fundamental_hz, 1.0))
    x = checked(x, f"the tone of {fundamental_hz:g} Hz", sample_rate_hz, seconds=shortest)
    track = follow_tone(x, sample_rate_hz, fundamental_hz)
    highest = 0.49 * sample_rate_hz / track.frequency_hz
    parts = np.array([track.component(x, k) if k < highest else np.nan for k in range(1, count + 1)])
    fundamental = np.abs(parts[0])
    relative = np.abs(parts) / fundamental
    thd = np.sqrt(np.nansum(relative[1:] ** 2))
    rest = _rest_rms(x, track, parts[0], sample_rate_hz) * np.sqrt(2) / fundamental
    return Harmonics(track.frequency_hz, float(decibels(fundamental)), relative, 100 * float(thd), 100 * float(rest))


def _rest_rms(x: np.ndarray, track: ToneTrack, fundamental: complex, sample_rate_hz: float) -> float:
    """Rms of all but the fundamental, 20 Hz to 20 kHz."""
    rest = x[track.steady] - np.real(fundamental * np.exp(1j * track.phase))
    return float(np.sqrt(track.weighted_mean(weighted(rest, sample_rate_hz, flat) ** 2).real))


def maximum_output_level(
    levels_out_db: np.ndarray, third_harmonic_percent: np.ndarray, at: float = 3.0
) -> float | None:
    """Output level in dB where the third harmonic first reaches `at` percent, both (n,) in rising order of drive.

    Interpolated between level and logarithm of distortion; None where it is not reached, or exceeded from the start.

    >>> round(maximum_output_level(np.array([-6.0, 0.0, 6.0]), np.array([0.3, 1.0, 9.0])), 6)
    3.0
    """
    level, percent = _checked_curve(levels_out_db, third_harmonic_percent, "the third harmonic against level")
    over = np.flatnonzero(percent >= at)
    if over.size == 0 or (over[0] == 0 and percent[0] > at):
        return None
    if over[0] == 0:
        return float(level[0])
    pair = slice(over[0] - 1, over[0] + 1)
    return float(np.interp(np.log(at), np.log(np.maximum(percent[pair], 1e-9)), level[pair]))


def _checked_curve(x: np.ndarray, y: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (n,), points that are NaN left out."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise UserError(f"{what} has points of shape {x.shape} and {y.shape}; give two lists of one length")
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 2:
        raise UserError(f"{what} has {known.sum()} points that are numbers; measure at two levels or more")
    return x[known], y[known]


def saturated_output_level(levels_in_db: np.ndarray, levels_out_db: np.ndarray) -> float | None:
    """Largest output level in dB, however hard the tape is driven, both (n,); a parabola through the three highest.

    None where the output still rises by more than 0.1 dB per dB at the highest input.
    """
    drive, level = _checked_curve(levels_in_db, levels_out_db, "output against input")
    order = np.argsort(drive)
    drive, level = drive[order], level[order]
    top = int(np.argmax(level))
    if top == level.size - 1:
        rise = (level[-1] - level[-2]) / max(drive[-1] - drive[-2], 1e-9)
        return float(level[-1]) if rise <= 0.1 else None
    if top == 0:
        return float(level[0])
    curve = np.polyfit(drive[top - 1 : top + 2] - drive[top], level[top - 1 : top + 2], 2)
    return float(curve[2] - curve[1] ** 2 / (4 * curve[0])) if curve[0] < 0 else float(level[top])


def intermodulation_smpte(x: np.ndarray, sample_rate_hz: float, low_hz: float = 60.0, high_hz: float = 7000.0) -> float:
    """Modulation of the high tone's amplitude by the low tone, in percent (SMPTE RP 120): first and second order, rss.

    Detected as amplitude modulation in step with the low tone, so that flutter, which is frequency modulation, does
    not read. Raises UserError where `x` is shorter than 0.5 s, silent, not finite, or lacks one of the tones.
    """
    x = checked(x, "the two tones", sample_rate_hz, seconds=0.5)
    low = follow_tone(x, sample_rate_hz, low_hz)
    carrier_hz = find_tone_hz(x, sample_rate_hz, high_hz, 0.02)
    envelope = np.abs(band_about(x, sample_rate_hz, carrier_hz, min(5 * low_hz, carrier_hz / 2)))
    orders = np.abs([low.component(envelope, order) for order in (1, 2)])
    return 100 * float(np.sqrt(np.sum(orders**2)) / np.abs(low.component(envelope, 0)))


def intermodulation_difference(
    x: np.ndarray, sample_rate_hz: float, frequencies_hz: tuple[float, float] = (13_000.0, 14_000.0)
) -> DifferenceTones:
    """Difference tones of second and third order of two equal tones (IEC 60268-3, ITU-R difference-tone method).

    Raises UserError where `x` is shorter than 0.5 s, silent, not finite, or lacks one of the tones.
    """
    x = checked(x, "the two tones", sample_rate_hz, seconds=0.5)
    first, second = (
        follow_tone(x, sample_rate_hz, hz, bandwidth_hz=min(100.0, 0.25 * abs(frequencies_hz[1] - frequencies_hz[0])))
        for hz in sorted(frequencies_hz)
    )
    steady = slice(max(first.steady.start, second.steady.start), min(first.steady.stop, second.steady.stop))
    low, high = (
        tone.phase[steady.start - tone.steady.start : steady.stop - tone.steady.start] for tone in (first, second)
    )

    def amplitude(phase: np.ndarray) -> float:
        return abs(ToneTrack(0.0, phase, steady).component(x))

    both = amplitude(low) + amplitude(high)
    third = amplitude(2 * low - high) + (
        amplitude(2 * high - low) if 2 * second.frequency_hz - first.frequency_hz < 0.49 * sample_rate_hz else 0.0
    )
    return DifferenceTones(100 * amplitude(high - low) / both, 100 * third / both)


def modulation_noise(
    x: np.ndarray,
    tone_hz: float,
    sample_rate_hz: float,
    hiss: np.ndarray | None = None,
    notch_hz: float = 50.0,
    reach_hz: float = 500.0,
) -> float:
    """Noise beside a tone, in dB re the tone: its power from `notch_hz` to `reach_hz` away, on both sides together.

    The tone and its speed sidebands within `notch_hz` are left out; flutter faster than that reads as noise, as it
    sounds. `hiss` (time,), the same machine without a tone, has its power in the same band taken off; nothing left is
    -400 dB. Raises UserError where `x` is shorter than 1 s, silent, not finite, or holds no such tone.
    """
    x = checked(x, f"the tone of {tone_hz:g} Hz", sample_rate_hz, seconds=1.0)
    found_hz = find_tone_hz(x, sample_rate_hz, tone_hz, 0.02)
    if not 0 < notch_hz < reach_hz < found_hz:
        band = f"{notch_hz:g} to {reach_hz:g} Hz beside {tone_hz:g} Hz"
        raise UserError(f"noise {band} cannot be measured; let the band rise, and stay below the tone")
    tone_power = _band_power(x, sample_rate_hz, found_hz, 0.0, notch_hz)
    noise_power = _band_power(x, sample_rate_hz, found_hz, notch_hz, reach_hz)
    if hiss is not None:
        hiss = checked(hiss, "the hiss", sample_rate_hz, seconds=0.5, silent=True)
        noise_power -= _band_power(hiss, sample_rate_hz, found_hz, notch_hz, reach_hz)
    return float(decibels(np.sqrt(max(noise_power, 0.0) / tone_power)))


def _band_power(x: np.ndarray, sample_rate_hz: float, centre_hz: float, near_hz: float, far_hz: float) -> float:
    """Mean square of what lies from `near_hz` to `far_hz` on either side of `centre_hz`."""
    window = blackmanharris(x.size)
    away_hz = np.abs(np.arange(x.size // 2 + 1) * sample_rate_hz / x.size - centre_hz)
    power = np.abs(np.fft.rfft(window * x)) ** 2
    return float(2 * power[(away_hz >= near_hz) & (away_hz < far_hz)].sum() / (x.size * np.sum(window**2)))
