"""Noise of known level by each weighting, its spectrum, hum, and the quasi-peak meter of ITU-R BS.468-4."""

import numpy as np
import pytest

from revox_lightning.dsp.weighting import NOISE_WEIGHTINGS
from revox_lightning.errors import UserError
from revox_lightning.measure.noise import hum, noise_level_dbfs, noise_spectrum, quasi_peak, signal_to_noise_db

RATE = 48_000
RANDOM = np.random.default_rng(0)
WHITE = 0.01 * RANDOM.standard_normal(20 * RATE)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("weighting", NOISE_WEIGHTINGS)
def test_white_noise_reads_the_integral_of_the_weighting(rate, weighting):
    hz = np.arange(0.5, rate / 2)
    truth = 10 * np.log10(2 * 0.01**2 * np.sum(NOISE_WEIGHTINGS[weighting](hz) ** 2) / (rate / 2))
    assert noise_level_dbfs(0.01 * RANDOM.standard_normal(20 * rate), rate, weighting) == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize("detector", ["rms", "quasi_peak"])
@pytest.mark.parametrize("weighting", NOISE_WEIGHTINGS)
def test_a_full_scale_sine_of_1_khz_reads_zero(weighting, detector):
    sine = np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    assert noise_level_dbfs(sine, RATE, weighting, detector) == pytest.approx(0, abs=0.02)


def test_signal_to_noise_is_the_distance_from_the_reference():
    level = noise_level_dbfs(WHITE, RATE, "a")
    assert signal_to_noise_db(-12.0, WHITE, RATE, "a") == pytest.approx(-12 - level)
    assert noise_level_dbfs(WHITE, RATE) == pytest.approx(-37.0 + 10 * np.log10(19_980 / 24_000), abs=0.1)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_the_meter_of_itu_r_468_reads_bursts_within_the_limits_of_the_recommendation(rate):
    sine = np.sin(2 * np.pi * 5000 * np.arange(2 * rate) / rate)
    steady = quasi_peak(sine, rate)[-1]
    assert steady == pytest.approx(np.sqrt(0.5), rel=0.01)
    single = {1: (13.5, 21.4), 2: (22.4, 31.6), 5: (34, 46), 10: (41, 55), 20: (44, 60), 50: (50, 68), 100: (58, 78), 200: (68, 92)}  # fmt: skip
    for milliseconds, (low, high) in single.items():
        burst = np.where(np.arange(2 * rate) < milliseconds * rate / 1000, sine, 0)
        assert low < 100 * quasi_peak(burst, rate).max() / steady < high
    for a_second, (low, high) in {2: (43, 53), 10: (72, 82), 100: (94, 100)}.items():
        since = np.arange(2 * rate) % (rate // a_second)
        bursts = np.where(since < 0.005 * rate, sine[since], 0)
        assert low < 100 * quasi_peak(bursts, rate)[rate:].max() / steady < high


def test_quasi_peak_reads_above_rms_on_noise_and_scales():
    rms, quasi = (noise_level_dbfs(WHITE, RATE, "itu_r_468", detector) for detector in ("rms", "quasi_peak"))
    assert 3 < quasi - rms < 6
    assert noise_level_dbfs(2 * WHITE, RATE, "itu_r_468", "quasi_peak") == pytest.approx(
        quasi + 20 * np.log10(2), abs=1e-6
    )


def test_third_octaves_and_density_of_white_noise():
    found = noise_spectrum(WHITE, RATE)
    width = found.band_hz * (10**0.05 - 10**-0.05)
    error = found.band_dbfs - 10 * np.log10(2e-4 * width / 24_000)
    assert np.allclose(found.band_hz[[0, 16, 29]], [25.12, 1000, 19_952.6], rtol=1e-4)
    assert np.abs(error[found.band_hz > 400]).max() < 0.3 and np.abs(error).max() < 2
    assert np.median(found.density_dbfs[10:-10]) == pytest.approx(10 * np.log10(2e-4 / 24_000), abs=0.3)
    assert noise_spectrum(WHITE, 16_000).band_hz[-1] < 8000


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_hum_is_told_from_noise_and_its_mains_named(mains):
    time = np.arange(10 * RATE) / RATE
    x = 0.1 * WHITE[: time.size]
    x = x + 3e-3 * np.sin(2 * np.pi * mains * 1.001 * time) + 1e-3 * np.sin(6 * np.pi * mains * 1.001 * time)
    found = hum(x, RATE, 5)
    assert found.mains_hz == mains and np.allclose(found.frequency_hz, mains * np.arange(1, 6))
    assert found.level_dbfs[[0, 2]] == pytest.approx(20 * np.log10([3e-3, 1e-3]), abs=0.1)
    assert found.level_dbfs[[1, 3, 4]].max() < -85
    assert found.above_noise_db[[0, 2]].min() > 30 and found.above_noise_db[[1, 3, 4]].max() < 6


def test_names_that_are_not_listed_are_refused():
    with pytest.raises(UserError, match="'c' 'rms'"):
        noise_level_dbfs(WHITE, RATE, "c")
    with pytest.raises(UserError, match="'peak'"):
        noise_level_dbfs(WHITE, RATE, "a", "peak")
    with pytest.raises(UserError, match="1 or more"):
        hum(WHITE, RATE, 0)
