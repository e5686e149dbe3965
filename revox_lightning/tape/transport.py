"""The transport: how unsteadily the tape moves past the heads, and when each moment of the recording comes back.

The tape's speed is v (1 + e(t)). Its error e is a sum of what turns and rubs: a slow drift, the reels' wow, the capstan
once around, the broad flutter of rollers and servo, and the scrape flutter of the tape on the heads. Frequencies scale
with the speed. Weighted wow and flutter is the two-sigma figure of AES6-2008, of a tape replayed after rewinding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.fft import rfft, rfftfreq

from revox_lightning.dsp.weighting import flutter_weighting, weighted
from revox_lightning.errors import UserError
from revox_lightning.tape.fluctuation import (
    band,
    bump,
    check_range,
    check_speed,
    compiled,
    integrated,
    noise_spectrum,
    period_samples,
    read_spline,
    read_spline_evenly,
    spline,
    streams,
    unit_rms,
)

MODES = ("monitor", "second_pass")
GRID_HZ = 2000.0  # of the speed errors
HIGHEST_HZ = 800.0  # of any component; the spline of the grid is good to here
CALIBRATION_SECONDS = 60.0  # the least stretch over which the weighted figure is set
EDGE_SECONDS = 8.0  # the weighting's memory, cut off at either end of it
DRIFT_HZ, DRIFT_WIDTH = 0.045, 0.35  # centre, and width in nepers: about 0.02 to 0.1 Hz
REEL_WIDTH = 0.3  # the radii of the two reels differ, and change as the tape winds
BROAD_HZ = (2.0, 30.0)  # corners of the flutter at 7.5 ips
SCRAPE_HZ, SCRAPE_WIDTH = 150.0, 0.5  # at 7.5 ips
CAPSTAN_COHERENCE_SECONDS = 1.5  # time in which the phase of the capstan's line wanders by a radian
SECOND_HARMONIC = 0.4  # of the capstan's line, re its fundamental: a bent or oval shaft
TOLERANCE_SECONDS = 1e-10  # of a round that brings the error down to a third or far less


@compiled
def _delays(
    samples: int, rate_hz: float, start: float, slope: float, share: float, replay: np.ndarray, record: np.ndarray
) -> np.ndarray:
    """Positions (samples,): the delay d of the moment t solves d = start - slope t - share P(t) + R(t - d).

    P and R are the splines `replay` and `record`, in seconds. As R changes by far less than a second in a second, a
    round or two from where the last two delays point suffice.
    """
    out = np.empty(samples)
    last = last_but_one = start
    for n in range(samples):
        t = n / rate_hz
        fixed = start - slope * t - share * read_spline(replay, t * GRID_HZ)
        delay = 2 * last - last_but_one
        for _ in range(60):
            before = delay
            delay = fixed + read_spline(record, (t - delay) * GRID_HZ)
            if abs(delay - before) < TOLERANCE_SECONDS:
                break
        last_but_one, last = last, delay
        out[n] = n - delay * rate_hz
    return out


@dataclass(frozen=True)
class Transport:
    """Speed errors of a machine, and the delay they leave between the dry signal and the tape's.

    `mode`: "monitor" replays while it records, from a head `head_distance_mm` behind, at one speed error; the delay is
    the time the tape needs for that way, so its variation has nulls at the multiples of 1 / delay. "second_pass"
    replays after rewinding, at a second, independent speed error and off by the constant `speed_error_percent`
    (in monitor mode that only shortens the delay); its delay starts at 0.

    `wow_flutter_percent` is the weighted two-sigma figure (AES6-2008) of a second pass, set on this very tape over at
    least 60 s, drift apart; a monitor pass has the errors of the same machine and no figure of its own.
    `drift_percent` is the rms of the slow drift in each pass. The shares are parts of the mean square of the
    unweighted rest, and need not add up to 1.
    Defaults: the A77's 0.08 % at 7.5 ips; its head distance, capstan and shares are not published, these are
    plausible (30 mm at 7.5 ips give a delay of 157 ms, and the unweighted figure is about twice the weighted one).
    """

    mode: str = "monitor"
    wow_flutter_percent: float = 0.08
    drift_percent: float = 0.03
    speed_error_percent: float = 0.0
    head_distance_mm: float = 30.0
    capstan_diameter_mm: float = 6.0
    reel_radius_mm: float = 70.0
    reel_share: float = 0.1
    capstan_share: float = 0.1
    flutter_share: float = 0.7
    scrape_share: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"unknown transport mode {self.mode!r}: choose one of {', '.join(MODES)}.")
        check_range("the transport's wow_flutter_percent", self.wow_flutter_percent, 0, 10)
        check_range("the transport's drift_percent", self.drift_percent, 0, 10)
        check_range("the transport's speed_error_percent", self.speed_error_percent, -50, 100)
        check_range("the transport's head_distance_mm", self.head_distance_mm, 1, 1000)
        check_range("the transport's capstan_diameter_mm", self.capstan_diameter_mm, 1, 100)
        check_range("the transport's reel_radius_mm", self.reel_radius_mm, 10, 1000)
        for name in ("reel_share", "capstan_share", "flutter_share", "scrape_share"):
            check_range(f"the transport's {name}", getattr(self, name), 0, 1e6)

    def positions(self, samples: int, sample_rate_hz: float, speed_ips: float, seed: int | Sequence[int]) -> np.ndarray:
        """Place in the dry signal, in samples, that is heard at each wet sample: float64 (samples,).

        The delay is n - positions[n]. Before the tape has come from head to head, in monitor mode, places are negative.
        Raises UserError for a speed that is not above 0, and where the shares leave the weighting nothing to weigh.

        >>> still = Transport(wow_flutter_percent=0, drift_percent=0, head_distance_mm=19.05)
        >>> still.positions(3, 44_100, 7.5, seed=0).round(6).tolist()
        [-4410.0, -4409.0, -4408.0]
        """
        check_speed(speed_ips)
        if not sample_rate_hz > 0:
            raise UserError(f"the sample rate is {sample_rate_hz} Hz: give a rate above 0, such as 44100.")
        record, replay = (
            spline(integrated(e, GRID_HZ)) for e in self._errors(samples / sample_rate_hz, speed_ips, seed)
        )
        if self.mode == "monitor":
            start = self.head_distance_mm / (speed_ips * 25.4 * self._ratio)
            return _delays(samples, sample_rate_hz, start, 0.0, 1.0, record, record)
        start = self._ratio * read_spline(replay, 0.0) - read_spline(record, 0.0)
        return _delays(samples, sample_rate_hz, start, self._ratio - 1, self._ratio, replay, record)

    def deviation(self, samples: int, sample_rate_hz: float, speed_ips: float, seed: int | Sequence[int]) -> np.ndarray:
        """Truth of the speed deviation that is heard, (samples,), relative: 0.01 is one percent fast."""
        return np.gradient(self.positions(samples, sample_rate_hz, speed_ips, seed)) - 1

    @property
    def _ratio(self) -> float:
        return 1 + self.speed_error_percent / 100

    def _errors(self, seconds: float, speed_ips: float, seed: int | Sequence[int]) -> list[np.ndarray]:
        """Half spectra of the speed error while recording and while replaying, on the grid of 2 kHz."""
        stretch = max(seconds, CALIBRATION_SECONDS)
        period = period_samples((stretch + 2 * EDGE_SECONDS) * max(self._ratio, 1.0) + 4 * EDGE_SECONDS, GRID_HZ)
        generators = streams(seed, 4)
        errors = [self._flutter(period, speed_ips, rng) for rng in generators[:2]]
        if self.wow_flutter_percent:
            figure = self._two_sigma_percent(errors[0], errors[1], stretch)
            if figure < 1:  # the unit error's own figure is about 100 x 1.96 x 1.4 x the weighting's gain
                raise UserError(
                    f"at {speed_ips:g} ips the transport's shares leave no speed error between 0.1 and 200 Hz, where "
                    f"wow and flutter is weighed: raise flutter_share or lower wow_flutter_percent to 0."
                )
            errors = [self.wow_flutter_percent / figure * e for e in errors]
        frequency_hz = rfftfreq(period, 1 / GRID_HZ)
        drift = 0.01 * self.drift_percent
        for e, rng in zip(errors, generators[2:], strict=True):
            e += drift * noise_spectrum(bump(frequency_hz, DRIFT_HZ, DRIFT_WIDTH), rng)
        return errors

    def _flutter(self, period: int, speed_ips: float, rng: np.random.Generator) -> np.ndarray:
        """Half spectrum of the error without drift, of rms 1; zero where wow and flutter is switched off."""
        frequency_hz = rfftfreq(period, 1 / GRID_HZ)
        total = np.zeros(frequency_hz.size, complex)
        speed_mm, scale = speed_ips * 25.4, speed_ips / 7.5
        reel_hz = speed_mm / (2 * np.pi * self.reel_radius_mm)
        parts = (
            (self.reel_share, bump(frequency_hz, reel_hz, REEL_WIDTH)),
            (self.flutter_share, band(frequency_hz, BROAD_HZ[0] * scale, BROAD_HZ[1] * scale)),
            (self.scrape_share, bump(frequency_hz, SCRAPE_HZ * scale, SCRAPE_WIDTH)),
        )
        weight = sum(share for share, _ in parts) + self.capstan_share
        if not self.wow_flutter_percent or not weight:
            return total
        for share, gain in parts:
            if share:
                total += np.sqrt(share / weight) * noise_spectrum(np.where(frequency_hz <= HIGHEST_HZ, gain, 0), rng)
        if self.capstan_share:
            capstan_hz = speed_mm / (np.pi * self.capstan_diameter_mm)
            total += np.sqrt(self.capstan_share / weight) * _capstan(period, capstan_hz, rng)
        return total

    def _two_sigma_percent(self, record: np.ndarray, replay: np.ndarray, seconds: float) -> float:
        """Weighted two-sigma figure of a second pass with these errors, over its first `seconds`.

        Its deviation is e_p(t) - e_r(tau), with tau = (1 + s) t: what drift and flutter move tau is far less than a
        period of what the weighting passes.
        """
        edge = round(EDGE_SECONDS * GRID_HZ)
        samples = period_samples(seconds + 2 * EDGE_SECONDS, GRID_HZ)
        replayed = read_spline_evenly(spline(replay), -edge, 1.0, samples)
        recorded = read_spline_evenly(spline(record), -edge * self._ratio, self._ratio, samples)
        heard = weighted(replayed - recorded, GRID_HZ, flutter_weighting)
        return 100 * float(np.quantile(np.abs(heard[edge : edge + round(seconds * GRID_HZ)]), 0.95))


def _capstan(period: int, capstan_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Half spectrum of the capstan's line and its second harmonic, of rms 1.

    The amplitude is constant; the phase wanders at random. Over the period it closes on itself.
    """
    cycles = round(capstan_hz * period / GRID_HZ)
    walk = np.cumsum(rng.standard_normal(period)) / np.sqrt(CAPSTAN_COHERENCE_SECONDS * GRID_HZ)
    closing = np.arange(period) / period
    phase = 2 * np.pi * (cycles * closing + rng.random()) + walk - walk[-1] * closing
    line = np.cos(phase) + SECOND_HARMONIC * np.cos(2 * phase + 2 * np.pi * rng.random())
    spectrum = rfft(line)
    spectrum[rfftfreq(period, 1 / GRID_HZ) > HIGHEST_HZ] = 0
    spectrum[0] = 0
    return unit_rms(spectrum)
