"""What stereo adds to a tape machine: azimuth, crosstalk, imbalance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.fft import rfftfreq

from revox_lightning.tape.fluctuation import (
    check_range,
    check_speed,
    noise_spectrum,
    period_samples,
    read_spline_evenly,
    spline,
    streams,
)
from revox_lightning.tape.losses import METRES_PER_INCH


@dataclass(frozen=True)
class Azimuth:
    """Angle between the gaps of the record and the playback head, in minutes of arc, and how it wanders.

    `error_minutes` is constant (a positive angle delays the higher channels); `wander_minutes` is the rms of a random
    skew of the tape, Gaussian and band-limited at `wander_hz`. Defaults: no error; the tracks of a half-track stereo
    head of 2.0 mm at the edges of a 6.25 mm tape, so 4.25 mm apart.
    """

    error_minutes: float = 0.0
    wander_minutes: float = 0.0
    wander_hz: float = 0.5
    track_width_mm: float = 2.0
    track_distance_mm: float = 4.25

    def __post_init__(self) -> None:
        check_range("the azimuth's error_minutes", self.error_minutes, -300, 300)
        check_range("the azimuth's wander_minutes", self.wander_minutes, 0, 100)
        check_range("the azimuth's wander_hz", self.wander_hz, 0.01, 50)
        check_range("the azimuth's track_width_mm", self.track_width_mm, 0.01, 50)
        check_range("the azimuth's track_distance_mm", self.track_distance_mm, 0.01, 50)

    def delays_seconds(
        self, channels: int, samples: int, sample_rate_hz: float, speed_ips: float, seed: int | Sequence[int]
    ) -> np.ndarray:
        """How much later (channels, samples) each channel's track passes the tilted gap than the middle of the tape.

        The distance of the track from the middle, times the tangent of the angle, over the speed: half as long at
        twice the speed. The channels lie symmetrically, so a mono tape has no delay.

        >>> (1e6 * Azimuth(error_minutes=6).delays_seconds(2, 1, 44_100, 7.5, seed=0)).round(2).tolist()
        [[-19.47], [19.47]]
        """
        check_speed(speed_ips)
        tangent = np.tan(np.radians(self._angle_minutes(samples, sample_rate_hz, seed) / 60))
        places_m = (np.arange(channels) - (channels - 1) / 2) * self.track_distance_mm / 1000
        return places_m[:, None] / (speed_ips * METRES_PER_INCH) * tangent

    def loss(self, frequency_hz: np.ndarray, speed_ips: float) -> np.ndarray:
        """Gain at each frequency that a track keeps at the constant angle, as its width averages over the tilt.

        sin(x) / x with x = pi f w tan(angle) / v: the mean of a wave over a tilted line; beyond the null it turns.

        >>> Azimuth(error_minutes=60).loss(np.array([0.0, 1000.0]), 7.5).round(3).tolist()
        [1.0, 0.946]
        """
        check_speed(speed_ips)
        skew_m = self.track_width_mm / 1000 * np.tan(np.radians(self.error_minutes / 60))
        return np.sinc(np.asarray(frequency_hz, dtype=np.float64) * skew_m / (speed_ips * METRES_PER_INCH))

    def _angle_minutes(self, samples: int, sample_rate_hz: float, seed: int | Sequence[int]) -> np.ndarray:
        """Angle (samples,) over time; the wander's rms is that over a stretch a quarter longer than the tape."""
        if not self.wander_minutes:
            return np.full(samples, self.error_minutes)
        grid_hz = 32 * self.wander_hz
        period = period_samples(1.25 * samples / sample_rate_hz + 8 / self.wander_hz, grid_hz)
        gain = 1 / (1 + (rfftfreq(period, 1 / grid_hz) / self.wander_hz) ** 4)
        wander = spline(noise_spectrum(gain, streams(seed, 1)[0]))
        return self.error_minutes + self.wander_minutes * read_spline_evenly(
            wander, 0.0, grid_hz / sample_rate_hz, samples
        )


@dataclass(frozen=True)
class Crosstalk:
    """Each of two channels hears the other one at `level_db`, the same at every frequency.

    Default: the 45 dB of the A77's data sheet.
    """

    level_db: float = -45.0

    def __post_init__(self) -> None:
        check_range("the crosstalk's level_db", self.level_db, -300, 0)

    def mix(self, flux: np.ndarray) -> np.ndarray:
        """`flux` (channels, time) with the leak; anything but two channels comes back as it is.

        >>> Crosstalk(-20).mix(np.array([[1.0], [0.0]])).tolist()
        [[1.0], [0.1]]
        """
        if len(flux) != 2:
            return flux
        return flux + 10 ** (self.level_db / 20) * flux[::-1]


@dataclass(frozen=True)
class Imbalance:
    """The right channel is `db` louder than the left."""

    db: float = 0.0

    def __post_init__(self) -> None:
        check_range("the imbalance's db", self.db, -60, 60)

    def gains(self, channels: int) -> np.ndarray:
        """Gain (channels,) of each channel: half of `db` up right, half down left; 1 unless there are two.

        >>> Imbalance(2.0).gains(2).round(3).tolist()
        [0.891, 1.122]
        """
        return 10 ** (np.array([-self.db, self.db]) / 40) if channels == 2 else np.ones(channels)
