"""Linear response and harmonic responses: by a sweep, or from any programme."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.signal import csd, hilbert, welch

from revox_lightning.errors import UserError
from revox_lightning.measure.signals import Sweep, checked, decibels


@dataclass(frozen=True)
class SweepResponses:
    """What one sweep tells: the linear response and those of the harmonics.

    `frequency_hz` (bins,): from the sweep's start to its stop; of the FUNDAMENTAL. `gain` (harmonics, bins), complex:
    row 0 is the linear response, row k - 1 the amplitude and phase of harmonic k at k times the frequency, re the
    amplitude of the sweep; NaN where k times the frequency is past the sweep's stop. `delay_seconds` (record to
    replay) is taken out of the phases. `polarity` is 1 or -1.
    """

    frequency_hz: np.ndarray
    gain: np.ndarray
    delay_seconds: float
    polarity: int

    @property
    def harmonic_percent(self) -> np.ndarray:
        """Each harmonic re the fundamental, in percent, (harmonics, bins); row 0 is 100."""
        return 100 * np.abs(self.gain / self.gain[0])


def sweep_responses(wet: np.ndarray, sweep: Sweep, harmonics: int = 5, window_seconds: float = 0.6) -> SweepResponses:
    """Responses of a machine that was fed `sweep.signal()` and gave `wet` (time,) (Farina 2000; Novak et al. 2015).

    `wet` starts with the sweep's start, or before it; it may last longer. `window_seconds` is the length of the
    response that is kept around each harmonic's pulse: shorter lets less hiss in, and blurs the lowest frequencies.
    A speed deviation moves the pulses by itself times `sweep.seconds_per_e`: where the transport wavers, gains hold,
    while delays are uncertain by that much (0.05 % and 8 s: 0.6 ms).
    Raises UserError where `wet` is shorter than nine tenths of the sweep, silent or not finite.

    >>> sweep = Sweep(20.0, 20_000.0, 2.0, 48_000, -12.0)
    >>> sweep_responses(sweep.signal(), sweep, harmonics=3).gain.shape[0]
    3
    """
    wet = checked(wet, "the recorded sweep", sweep.sample_rate_hz, seconds=0.9 * sweep.seconds)
    if harmonics < 1 or window_seconds <= 0:
        raise UserError(f"{harmonics} harmonics in windows of {window_seconds} s cannot be had; give more of both")
    rate = sweep.sample_rate_hz
    pulses = _deconvolved(wet, sweep)
    reach = window_seconds / 2
    size = 1 << round(4 * reach * rate).bit_length()
    frequency = np.arange(size // 2 + 1) * rate / size
    delay = _delay_seconds(pulses, sweep, reach, size)
    step = frequency[1]  # a line to either side of the band, so that its very ends can be read
    bins = np.flatnonzero((frequency > sweep.start_hz - step) & (frequency < sweep.stop_hz + step))
    gain = np.full((harmonics, bins.size), np.nan + 0j)
    for order in range(1, harmonics + 1):
        spectrum = _cut(pulses, sweep, order, delay, reach, size)
        inside = order * frequency[bins] < sweep.stop_hz + step
        gain[order - 1, inside] = spectrum[order * bins[inside]]
    middle = (frequency[bins] > 2 * sweep.start_hz) & (frequency[bins] < sweep.stop_hz / 2)
    polarity = 1 if np.sum(gain[0].real[middle]) >= 0 else -1
    return SweepResponses(frequency[bins], gain, delay, polarity)


def _deconvolved(wet: np.ndarray, sweep: Sweep) -> np.ndarray:
    """Pulse of the linear response at the delay, those of the harmonics before it, (time,), negative times at its end.

    By the sweep's own spectrum, not its asymptotic one: so the ripple at the ends of its band cancels.
    """
    x = sweep.signal()
    size = 1 << (len(wet) + 2 * len(x)).bit_length()
    spectrum, frequency = np.fft.rfft(x, size), np.fft.rfftfreq(size, 1 / sweep.sample_rate_hz)
    power = np.abs(spectrum) ** 2
    inside = (frequency >= sweep.start_hz) & (frequency <= sweep.stop_hz)
    level = np.median((power * frequency)[inside])  # the power of such a sweep falls as 1 / frequency
    little = 1e-4 * level / np.maximum(frequency, sweep.lowest_hz / 4)
    return np.fft.irfft(np.fft.rfft(wet, size) * np.conj(spectrum) / (power + little), size)


def _cut(pulses: np.ndarray, sweep: Sweep, order: int, delay: float, reach: float, size: int) -> np.ndarray:
    """Spectrum (size / 2 + 1,) of the pulse of one harmonic, its own moment as the time zero."""
    rate = sweep.sample_rate_hz
    moment = (delay - sweep.lead_seconds(order)) * rate
    after = min(reach, (sweep.lead_seconds(order) - sweep.lead_seconds(order - 1)) / 2) if order > 1 else reach
    before = min(reach, (sweep.lead_seconds(order + 1) - sweep.lead_seconds(order)) / 2)
    first, last = round(moment - before * rate), round(moment + after * rate)
    n = np.arange(first, last + 1)
    distance = np.where(n < moment, (moment - n) / (before * rate), (n - moment) / (after * rate))
    window = np.cos(np.pi / 2 * np.clip(2 * distance - 1, 0, 1)) ** 2  # the inner half of either side is whole
    spectrum = np.fft.rfft(pulses[n % len(pulses)] * window, size)
    return spectrum * np.exp(2j * np.pi * np.arange(len(spectrum)) / size * (moment - first))


def _delay_seconds(pulses: np.ndarray, sweep: Sweep, reach: float, size: int) -> float:
    """Moment of the largest pulse, to fractions of a sample: where the phases of its spectrum agree best."""
    rate = sweep.sample_rate_hz
    coarse = int(np.argmax(np.abs(np.asarray(hilbert(pulses)))))
    if coarse > len(pulses) - round(len(pulses) / 4):
        coarse -= len(pulses)
    spectrum = _cut(pulses, sweep, 1, coarse / rate, reach, size)
    frequency = np.arange(len(spectrum)) / size
    inside = (frequency * rate >= sweep.start_hz) & (frequency * rate <= sweep.stop_hz)
    spectrum, frequency = spectrum[inside], frequency[inside]
    fine = minimize_scalar(
        lambda samples: -np.abs(np.sum(spectrum * np.exp(2j * np.pi * frequency * samples))),
        bounds=(-1.0, 1.0),
        method="bounded",
        options={"xatol": 1e-5},
    )
    return (coarse + float(fine.x)) / rate


def smoothed(frequency_hz: np.ndarray, gain: np.ndarray, fraction_octave: float = 1 / 3) -> np.ndarray:
    """Magnitude (bins,) of `gain` (bins,), its power averaged over `fraction_octave` octaves around each frequency.

    Frequencies that are NaN are left out of the averages.
    """
    frequency_hz, gain = _checked_gain(frequency_hz, gain)
    known = np.isfinite(gain)
    per_log = np.where(known, 1 / np.maximum(frequency_hz, 1e-9), 0.0)  # equal weight to equal intervals
    steps = np.gradient(frequency_hz)
    edges = np.append(frequency_hz - steps / 2, frequency_hz[-1] + steps[-1] / 2)
    low, high = frequency_hz * 2 ** (-fraction_octave / 2), frequency_hz * 2 ** (fraction_octave / 2)

    def within(density: np.ndarray) -> np.ndarray:
        total = np.append(0.0, np.cumsum(density * np.diff(edges)))
        return np.interp(high, edges, total) - np.interp(low, edges, total)

    power = np.where(known, np.abs(np.where(known, gain, 0)) ** 2, 0.0)
    weight = within(per_log)
    return np.sqrt(np.where(weight > 0, within(power * per_log) / np.where(weight > 0, weight, 1), np.nan))


def _checked_gain(frequency_hz: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frequency_hz, gain = np.asarray(frequency_hz, dtype=np.float64), np.asarray(gain)
    if frequency_hz.ndim != 1 or frequency_hz.shape != gain.shape or frequency_hz.size < 2:
        shapes = f"{frequency_hz.shape} and {gain.shape}"
        raise UserError(f"a response needs frequencies and gains of one length, not {shapes}; give both as (bins,)")
    if not np.isfinite(gain).any() or not np.any(np.nan_to_num(gain)):
        raise UserError("a response without any gain cannot be read; check the level and the channel of the recording")
    return frequency_hz, gain


def level_at_db(
    frequency_hz: np.ndarray, gain: np.ndarray, at_hz: np.ndarray, reference_hz: float | None = None
) -> np.ndarray:
    """Level in dB of `gain` (bins,) at `at_hz` (n,), re the level at `reference_hz` where one is given.

    NaN at frequencies outside those measured.
    """
    frequency_hz, gain = _checked_gain(frequency_hz, gain)
    known = np.isfinite(gain) & (frequency_hz > 0)
    log_hz, level = np.log(frequency_hz[known]), decibels(gain[known])

    def at(hz: np.ndarray) -> np.ndarray:
        return np.interp(np.log(hz), log_hz, level, left=np.nan, right=np.nan)

    out = at(np.asarray(at_hz, dtype=np.float64))
    return out if reference_hz is None else out - at(np.array(reference_hz))


def response_db(responses: SweepResponses, at_hz: np.ndarray, reference_hz: float | None = None) -> np.ndarray:
    """Linear response in dB at `at_hz` (n,), as a gain, or re the one at `reference_hz` (1,000 on a data sheet)."""
    return level_at_db(responses.frequency_hz, responses.gain[0], at_hz, reference_hz)


def group_delay_seconds(responses: SweepResponses, at_hz: np.ndarray) -> np.ndarray:
    """Group delay in seconds of the linear response at `at_hz` (n,), the machine's whole latency included.

    NaN at frequencies outside those measured.
    """
    frequency_hz, gain = _checked_gain(responses.frequency_hz, responses.gain[0])
    own = -np.gradient(np.unwrap(np.angle(gain)), 2 * np.pi * frequency_hz)
    at_hz = np.asarray(at_hz, dtype=np.float64)
    return responses.delay_seconds + np.interp(at_hz, frequency_hz, own, left=np.nan, right=np.nan)


def minus_3db_points(
    frequency_hz: np.ndarray, gain: np.ndarray, reference_hz: float = 1000.0, drop_db: float = 3.0
) -> tuple[float | None, float | None]:
    """Lower and upper frequency in Hz where `gain` (bins,) has first fallen by `drop_db` from that at `reference_hz`.

    None where it has not within the frequencies measured. Smooth a noisy response first.
    """
    frequency_hz, gain = _checked_gain(frequency_hz, gain)
    known = np.isfinite(gain) & (frequency_hz > 0)
    log_hz, level = np.log(frequency_hz[known]), decibels(gain[known])
    if not log_hz[0] <= np.log(reference_hz) <= log_hz[-1]:
        raise UserError(f"the response does not reach the reference frequency of {reference_hz:g} Hz; name another one")
    target = float(np.interp(np.log(reference_hz), log_hz, level)) - drop_db
    middle = int(np.searchsorted(log_hz, np.log(reference_hz)))

    def crossing(fallen: np.ndarray, towards: int) -> float | None:
        if fallen.size == 0:
            return None
        out = fallen[0 if towards > 0 else -1]
        pair = [out - towards, out]
        share = (target - level[pair[0]]) / (level[pair[1]] - level[pair[0]])
        return float(np.exp(log_hz[pair[0]] + share * (log_hz[pair[1]] - log_hz[pair[0]])))

    fallen = np.flatnonzero(level <= target)
    return crossing(fallen[fallen < middle], -1), crossing(fallen[fallen >= middle], 1)


def transfer(
    dry: np.ndarray, wet: np.ndarray, sample_rate_hz: float, segment_seconds: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(frequency_hz, gain complex, coherence)`, each (bins,), from any programme `dry` and what became of it.

    Welch's method with the H1 estimator: noise of the machine biases nothing, it lowers the coherence. `wet` is to be
    aligned with `dry` within a tenth of `segment_seconds`. Gain is NaN where the programme has nothing.
    Raises UserError where they differ in length, are silent, not finite, or shorter than four segments.
    """
    dry = checked(dry, "the dry programme", sample_rate_hz, seconds=4 * segment_seconds)
    wet = checked(wet, "the recorded programme", sample_rate_hz, seconds=4 * segment_seconds)
    if dry.size != wet.size:
        raise UserError(
            f"the dry programme has {dry.size} samples, the recorded one {wet.size}; cut them to one length"
        )
    size = round(segment_seconds * sample_rate_hz)
    frequency_hz, cross = csd(dry, wet, sample_rate_hz, nperseg=size)
    power_dry, power_wet = (welch(x, sample_rate_hz, nperseg=size)[1] for x in (dry, wet))
    fed = power_dry > 1e-14 * power_dry.max()
    gain = np.where(fed, cross / np.where(fed, power_dry, 1), np.nan)
    both = power_dry * power_wet
    coherence = np.where(fed & (both > 0), np.abs(cross) ** 2 / np.where(both > 0, both, 1), 0.0)
    return frequency_hz, gain, np.minimum(coherence, 1.0)
