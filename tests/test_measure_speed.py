"""Speed, wow and flutter of tones whose modulation is known, and the ballistics of the older meter."""

import numpy as np
import pytest

from revox_lightning.errors import UserError
from revox_lightning.measure.speed import (
    Speed,
    demodulate,
    flutter_spectrum,
    quasi_peak,
    speed_error_percent,
    wow_and_flutter,
)

RATE = 48_000


def recorded(flutter_hz, percent=0.1, seconds=12.0, fast_percent=0.0, noise_db=-50.0, rate=RATE, phase=0.4):
    """The 3,150 Hz tone with sinusoidal flutter of that peak, and white noise so far below it."""
    time = np.arange(int(seconds * rate)) / rate
    angle = time + percent / 100 / (2 * np.pi * flutter_hz) * np.sin(2 * np.pi * flutter_hz * time + phase)
    tone = 0.3 * np.sin(2 * np.pi * 3150 * (1 + fast_percent / 100) * angle)
    return tone + 0.3 * np.sqrt(0.5) * 10 ** (noise_db / 20) * np.random.default_rng(0).standard_normal(time.size)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize(("flutter_hz", "curve_db"), [(0.8, -6.0), (4.0, 0.0), (20.0, -5.9)])
def test_a_sinusoid_reads_its_peak_on_the_curve_of_the_standard(flutter_hz, curve_db, rate):
    speed = demodulate(recorded(flutter_hz, rate=rate), rate)
    assert wow_and_flutter(speed) == pytest.approx(0.1 * 10 ** (curve_db / 20), rel=0.02)
    assert wow_and_flutter(speed, "unweighted") == pytest.approx(0.1, rel=0.02)
    assert wow_and_flutter(speed, detector="rms") == pytest.approx(0.1 / np.sqrt(2) * 10 ** (curve_db / 20), rel=0.02)
    # The older meter's peak-to-peak memory is short at low rates and leaks at high ones: within half a dB.
    assert wow_and_flutter(speed, detector="quasi_peak") == pytest.approx(0.1 * 10 ** (curve_db / 20), rel=0.06)


def test_flutter_is_seen_flat_to_200_hz_and_not_beyond():
    for hz, share in ((100.0, 1.0), (195.0, 1.0), (300.0, 0.0)):
        speed = demodulate(recorded(hz, percent=0.3, noise_db=-80), RATE)
        assert np.std(speed.deviation) * np.sqrt(2) * 100 == pytest.approx(0.3 * share, rel=0.01, abs=0.003)


def test_two_sigma_is_exceeded_a_twentieth_of_the_time():
    deviation = 1e-3 * np.random.default_rng(0).standard_normal(200_000)
    spectrum = np.fft.rfft(deviation)
    spectrum[np.fft.rfftfreq(200_000, 1 / 1600) > 200] = 0
    deviation = np.fft.irfft(spectrum)
    figure = wow_and_flutter(Speed(deviation, 1600.0), "unweighted")
    assert figure == pytest.approx(196 * np.std(deviation), rel=0.02)


@pytest.mark.parametrize("fast", [-3.9, -0.5, 0.0, 0.1234, 2.0, 3.9])
def test_the_speed_error_is_found_within_a_thousandth_of_a_percent(fast):
    assert speed_error_percent(demodulate(recorded(4.0, fast_percent=fast), RATE)) == pytest.approx(fast, abs=1e-3)


def test_a_noisy_tone_of_30_db_is_followed():
    speed = demodulate(recorded(4.0, noise_db=-30), RATE)
    assert wow_and_flutter(speed) == pytest.approx(0.1, rel=0.03)
    assert speed_error_percent(speed) == pytest.approx(0, abs=1e-3)


def test_a_steady_tone_has_no_flutter():
    speed = demodulate(recorded(4.0, percent=0.0, noise_db=-200), RATE)
    assert wow_and_flutter(speed) < 1e-6 and wow_and_flutter(speed, "unweighted", "rms") < 1e-5


def test_the_figure_is_of_the_machine_s_own_speed_and_slow_drift_is_not_in_it():
    time = np.arange(60 * 1600) / 1600
    wow = 1e-3 * np.sin(2 * np.pi * 4 * time)
    alone = wow_and_flutter(Speed(wow, 1600.0))
    assert wow_and_flutter(Speed(1.02 * (1 + wow) - 1, 1600.0)) == pytest.approx(alone, rel=1e-3)
    assert wow_and_flutter(Speed(wow + 1e-3 * np.sin(2 * np.pi * 0.03 * time), 1600.0)) == pytest.approx(
        alone, rel=0.01
    )


def test_the_spectrum_shows_each_line_at_its_rms():
    time = np.arange(40 * 1600) / 1600
    speed = Speed(1e-3 * np.sin(2 * np.pi * 6.4 * time) + 2e-4 * np.sin(2 * np.pi * 50 * time), 1600.0)
    hz, percent = flutter_spectrum(speed)
    assert percent[np.abs(hz - 6.4) < 0.3].max() == pytest.approx(0.1 / np.sqrt(2), rel=0.01)
    assert percent[np.abs(hz - 50) < 0.3].max() == pytest.approx(0.02 / np.sqrt(2), rel=0.01)
    assert percent[np.abs(hz - 30) < 3].max() < 1e-5 and hz[1] - hz[0] <= 0.2


@pytest.mark.parametrize("rate", [1000.0, 1600.0, 4000.0])
def test_the_older_meter_reads_pulses_as_its_standard_says(rate):
    """IEC 60386: one pulse a second, as high as the sinusoid of 4 Hz is from peak to peak."""
    time = np.arange(int(10 * rate)) / rate
    for milliseconds, percent, tolerance in ((10, 21, 3), (30, 62, 6), (60, 90, 6), (100, 100, 4)):
        reading = 100 * quasi_peak(np.where(time % 1 < milliseconds / 1000 - 1e-9, 2.0, 0.0), rate)[int(6 * rate) :]
        assert reading.max() == pytest.approx(percent, abs=tolerance)
    assert reading.min() == pytest.approx(40, abs=4)
    assert quasi_peak(3 * np.sin(8 * np.pi * time), rate).max() == pytest.approx(3, rel=0.01)
    assert not quasi_peak(np.zeros(100), rate).any()


def test_what_is_too_short_or_not_known_is_said():
    speed = demodulate(recorded(4.0, seconds=4.0), RATE)
    assert speed.seconds == pytest.approx(3.8, abs=0.01)
    with pytest.raises(UserError, match=r"lasts 3\.8 s; give it at least 5 s"):
        wow_and_flutter(speed)
    with pytest.raises(UserError, match="'peak'"):
        wow_and_flutter(speed, detector="peak")
    with pytest.raises(UserError, match="no room"):
        demodulate(recorded(4.0), 6000)
    with pytest.raises(UserError, match="4 % of 3150 Hz"):
        demodulate(recorded(4.0, fast_percent=100.0), RATE)
    with pytest.raises(UserError, match="is empty"):
        speed_error_percent(Speed(np.zeros(0), 1600.0))
    with pytest.raises(UserError, match="no numbers"):
        wow_and_flutter(Speed(np.full(16_000, np.nan), 1600.0))
