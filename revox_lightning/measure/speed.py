"""Speed of a machine from a tone it plays: error, wow and flutter by the standards' figures, spectrum."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from scipy.signal import welch
from scipy.signal.windows import blackmanharris

from revox_lightning.dsp.weighting import flutter_weighting
from revox_lightning.errors import UserError
from revox_lightning.measure.signals import checked

WEIGHTINGS = ("weighted", "unweighted")
DETECTORS = ("two_sigma", "quasi_peak", "rms")
SHORTEST_SECONDS = 5.0
_EDGE_SECONDS = 0.1
_SETTLING_SECONDS = 0.5  # of the weighting at either end, left out where 5 s remain


@dataclass(frozen=True)
class Speed:
    """`deviation` (n,): relative deviation of the speed from the nominal one (0.001 = 0.1 % fast), at `rate_hz`."""

    deviation: np.ndarray
    rate_hz: float

    @property
    def seconds(self) -> float:
        return self.deviation.size / self.rate_hz


def demodulate(x: np.ndarray, sample_rate_hz: float, tone_hz: float = 3150.0, bandwidth_hz: float = 200.0) -> Speed:
    """Speed against time from a recorded tone `x` (time,) that may be 4 % off; deviations up to `bandwidth_hz`.

    The first and last tenth of a second are dropped. Raises UserError where `x` is shorter than 1 s, silent, not
    finite, or holds no tone within 4 % of `tone_hz`.

    >>> demodulate(np.sin(2 * np.pi * 3150 / 48_000 * np.arange(96_000)), 48_000).deviation.shape
    (2880,)
    """
    x = checked(x, f"the recording of the {tone_hz:g} Hz tone", sample_rate_hz, seconds=1.0)
    reach_hz = 1.75 * bandwidth_hz  # room for the sidebands of a deviation at `bandwidth_hz`, and for a slope
    if not (0 < reach_hz < 0.9 * tone_hz and 1.04 * tone_hz + reach_hz < sample_rate_hz / 2):
        room = f"{tone_hz:g} Hz at a sample rate of {sample_rate_hz:g} Hz"
        raise UserError(f"{room} has no room for deviations to {bandwidth_hz:g} Hz; ask for slower ones")
    centre = round(find_tone_hz(x, sample_rate_hz, tone_hz, 0.04) * x.size / sample_rate_hz)
    half = round(4 * bandwidth_hz * x.size / sample_rate_hz)
    offset = np.arange(-half, half)
    offset_hz = offset * sample_rate_hz / x.size
    inside = np.abs(offset_hz) <= reach_hz
    band = np.zeros(offset.size, dtype=np.complex128)  # the band about the tone, shifted to 0 Hz and thinned out
    band[inside] = np.fft.rfft(x)[centre + offset[inside]] * _slope(
        np.abs(offset_hz[inside]), 1.25 * bandwidth_hz, reach_hz
    )
    z, z_slope = (np.fft.ifft(np.fft.ifftshift(part)) for part in (band, 2j * np.pi * offset_hz * band))
    power = np.abs(z) ** 2
    power = np.maximum(power, 1e-4 * np.median(power))  # a dropout has no frequency
    found_hz = centre * sample_rate_hz / x.size + np.imag(np.conj(z) * z_slope) / power / (2 * np.pi)
    rate_hz = offset.size / x.size * sample_rate_hz
    edge = round(_EDGE_SECONDS * rate_hz)
    deviation = (found_hz / tone_hz - 1)[edge:-edge]
    return Speed(_filtered(deviation, rate_hz, lambda f: _slope(f, bandwidth_hz, 1.25 * bandwidth_hz)), rate_hz)


def _slope(frequency_hz: np.ndarray, whole_hz: float, none_hz: float) -> np.ndarray:
    """1 up to `whole_hz`, 0 from `none_hz` on, half a cosine between."""
    return np.cos(np.pi / 2 * np.clip((frequency_hz - whole_hz) / (none_hz - whole_hz), 0, 1)) ** 2


def _filtered(deviation: np.ndarray, rate_hz: float, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`deviation` (n,) through a zero-phase filter, mirrored at its ends so that they are no jumps."""
    mirrored = np.concatenate((deviation, deviation[::-1]))
    frequency_hz = np.fft.rfftfreq(mirrored.size, 1 / rate_hz)
    return np.fft.irfft(np.fft.rfft(mirrored) * gain(frequency_hz), mirrored.size)[: deviation.size]


def speed_error_percent(speed: Speed) -> float:
    """Mean speed re the nominal one, in percent, positive where the machine runs fast."""
    deviation = _checked_speed(speed, 0.0)
    window = np.hanning(deviation.size + 2)[1:-1]  # so that an unfinished turn of the wow does not count
    return 100 * float(np.sum(window * deviation) / np.sum(window))


def _checked_speed(speed: Speed, seconds: float) -> np.ndarray:
    return checked(speed.deviation, "the speed deviation", speed.rate_hz, seconds=seconds, silent=True)


def wow_and_flutter(speed: Speed, weighting: str = "weighted", detector: str = "two_sigma") -> float:
    """Wow and flutter in percent (peak, +-; rms where the detector says so).

    `weighting`: "weighted" by the standards' curve, or "unweighted", flat from 0.1 to 200 Hz.
    `detector`: "two_sigma", the deviation that is exceeded 5 % of the time (AES6-2008; IEC 60386 amendment 1,
    method 1); "quasi_peak", the highest reading of the older meter (IEC 60386, DIN 45507) but for the rarest 5 %, once
    it has risen for a second; "rms" (JIS, NAB).
    Raises UserError for less than 5 s, or for names that are not listed.
    """
    if weighting not in WEIGHTINGS or detector not in DETECTORS:
        known = f"{WEIGHTINGS} and {DETECTORS}"
        raise UserError(f"wow and flutter has no {weighting!r} {detector!r} figure; name one of {known}")
    deviation = _checked_speed(speed, SHORTEST_SECONDS)
    mean = deviation.mean()
    gain = flutter_weighting if weighting == "weighted" else _flat
    # The standards refer the deviation to the mean speed of the machine, not to the nominal one.
    deviation = _filtered((deviation - mean) / (1 + mean), speed.rate_hz, gain)
    edge = round(min(_SETTLING_SECONDS, (speed.seconds - SHORTEST_SECONDS) / 2) * speed.rate_hz)
    deviation = deviation[edge : deviation.size - edge]
    if detector == "two_sigma":
        return 100 * float(np.quantile(np.abs(deviation), 0.95))
    if detector == "quasi_peak":
        return 100 * float(np.quantile(quasi_peak(deviation, speed.rate_hz)[round(speed.rate_hz) :], 0.95))
    return 100 * float(np.sqrt(np.mean(deviation**2)))


def _flat(frequency_hz: np.ndarray) -> np.ndarray:
    return ((frequency_hz >= 0.1) & (frequency_hz <= 200)).astype(np.float64)


def flutter_spectrum(speed: Speed, resolution_hz: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """`(frequency_hz, percent)`, each (bins,): unweighted rms deviation per line, so that a sinusoid reads its rms.

    Its peak of that height may lie between two lines; Welch's method, flat-top window.
    """
    deviation = _checked_speed(speed, 1.0)
    # The window's lines are about four bins wide.
    size = min(deviation.size, round(4 * speed.rate_hz / resolution_hz))
    frequency_hz, power = welch(deviation, speed.rate_hz, "flattop", nperseg=size, scaling="spectrum")
    return frequency_hz[1:], 100 * np.sqrt(power[1:])


# Found by a search for the standard's readings: charging at so many times the peak-to-peak value a second, at most;
# towards the end with a time constant; the fall; and how fast the reference of the peak-to-peak value is let go.
_CHARGE_PER_SECOND, _CHARGE_SECONDS, _FALL_SECONDS, _CLAMP_SECONDS = 12.4, 0.050, 0.955, 4.0


def quasi_peak(deviation: np.ndarray, rate_hz: float) -> np.ndarray:
    """Reading against time (n,) of the quasi-peak meter of IEC 60386 and DIN 45507, fed weighted `deviation` (n,).

    Half the peak-to-peak value; a sinusoid of 4 Hz reads its peak. Unidirectional pulses of 10, 30, 60 and 100 ms,
    one a second, read 21, 62, 90 and 100 % of the sinusoid with as much from peak to peak, and fall to 40 % before
    the next one of 100 ms: the readings here lie within 4 of those percents. Sinusoids of 0.8 to 200 Hz read within
    6 % of their peak, high at the lowest rates and low at the highest, as the memory of such a meter is short.
    """
    deviation = checked(deviation, "the speed deviation", rate_hz, silent=True)
    return _meter(deviation, *_meter_steps(rate_hz)) / _meter_at_4_hz(rate_hz)


def _meter_steps(rate_hz: float) -> tuple[float, float, float, float]:
    charge, fall, clamp = (-np.expm1(-1 / (t * rate_hz)) for t in (_CHARGE_SECONDS, _FALL_SECONDS, _CLAMP_SECONDS))
    return _CHARGE_PER_SECOND / rate_hz, charge, fall, clamp


@lru_cache
def _meter_at_4_hz(rate_hz: float) -> float:
    """Uncalibrated reading of a sinusoid of 4 Hz and peak 1."""
    sinusoid = np.sin(2 * np.pi * 4 * np.arange(round(8 * rate_hz)) / rate_hz)
    return float(_meter(sinusoid, *_meter_steps(rate_hz))[round(4 * rate_hz) :].max())


@njit(cache=True, nogil=True)
def _meter(x: np.ndarray, limit: float, charge: float, fall: float, clamp: float) -> np.ndarray:
    out = np.empty(x.size)
    lowest = reading = 0.0
    for n in range(x.size):
        lowest = min(x[n], lowest * (1 - clamp))
        height = x[n] - lowest
        if height > reading:
            reading += min(limit * height, charge * (height - reading))
        else:
            reading *= 1 - fall
        out[n] = reading / 2
    return out


def find_tone_hz(x: np.ndarray, sample_rate_hz: float, tone_hz: float, tolerance: float) -> float:
    """Frequency of the strongest line in `x` (time,) within `tolerance` of `tone_hz`.

    Raises UserError where none stands out by 20 dB.
    """
    if not 0 < tone_hz * (1 + tolerance) < sample_rate_hz / 2:
        raise UserError(f"a tone of {tone_hz:g} Hz does not fit a rate of {sample_rate_hz:g} Hz; name another one")
    if x.size * tone_hz < 8 * sample_rate_hz:
        raise UserError(f"{x.size / sample_rate_hz:.3g} s of a tone of {tone_hz:g} Hz are too short; give more periods")
    power = np.abs(np.fft.rfft(x * np.hanning(x.size))) ** 2
    frequency_hz = np.arange(power.size) * sample_rate_hz / x.size
    margin_hz = tolerance * tone_hz + sample_rate_hz / x.size
    near = np.flatnonzero(np.abs(frequency_hz - tone_hz) <= margin_hz)
    around = power[(frequency_hz >= tone_hz / 2) & (frequency_hz <= 1.5 * tone_hz)]
    peak = near[np.argmax(power[near])]
    if power[peak] <= 100 * np.median(around) or power[peak] <= 1e-12 * power.max():
        near_it = f"no tone within {100 * tolerance:g} % of {tone_hz:g} Hz stands out"
        raise UserError(f"{near_it}; check that this is the right section, and its speed")
    below, at, above = np.log(np.maximum(power[np.clip([peak - 1, peak, peak + 1], 0, power.size - 1)], 1e-300))
    curve = below - 2 * at + above
    return float((peak + (0.5 * (below - above) / curve if curve < 0 else 0.0)) * sample_rate_hz / x.size)


@dataclass(frozen=True)
class ToneTrack:
    """A tone followed through its wow: `phase` (n,) in radians over the samples `steady` where it is on."""

    frequency_hz: float
    phase: np.ndarray
    steady: slice

    def component(self, x: np.ndarray, multiple: int = 1) -> complex:
        """Amplitude and phase of what runs at `multiple` times the tone in `x` (time,), the recording or another."""
        return self.weighted_mean(x[self.steady] * np.exp(-1j * multiple * self.phase)) * (2 if multiple else 1)

    def weighted_mean(self, values: np.ndarray) -> complex:
        """Mean of `values` (n,) under a window without leakage."""
        window = blackmanharris(values.size)
        return complex(np.sum(window * values) / np.sum(window))


def band_about(x: np.ndarray, sample_rate_hz: float, centre_hz: float, half_width_hz: float) -> np.ndarray:
    """Analytic signal (time,) of `x` (time,) within `half_width_hz` of `centre_hz`; nothing from 1.5 times that on."""
    away_hz = np.abs(np.arange(x.size) * sample_rate_hz / x.size - centre_hz)
    return np.fft.ifft(2 * np.fft.fft(x) * _slope(away_hz, half_width_hz, 1.5 * half_width_hz))


def follow_tone(
    x: np.ndarray, sample_rate_hz: float, tone_hz: float, tolerance: float = 0.02, bandwidth_hz: float = 100.0
) -> ToneTrack:
    """The tone in `x` (time,) near `tone_hz`, its wow and flutter up to `bandwidth_hz` followed.

    The fades at its ends and the ends of the filter are left out. Raises UserError where there is no tone.
    """
    found_hz = find_tone_hz(x, sample_rate_hz, tone_hz, tolerance)
    half_width_hz = min(bandwidth_hz, found_hz / 4)
    z = band_about(x, sample_rate_hz, found_hz, half_width_hz)
    loud = np.flatnonzero(np.abs(z) > 0.5 * np.quantile(np.abs(z), 0.9))
    edge = round(1.5 / half_width_hz * sample_rate_hz)
    steady = slice(int(loud[0]) + edge, int(loud[-1]) + 1 - edge)
    if (steady.stop - steady.start) * found_hz < 8 * sample_rate_hz:
        raise UserError(f"the tone of {tone_hz:g} Hz is too short to be followed; give it more periods")
    return ToneTrack(found_hz, np.unwrap(np.angle(z[steady])), steady)
