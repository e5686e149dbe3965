"""Responses by sweep and by programme, on filters and polynomials whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, freqz, resample, sosfilt, sosfreqz

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.measure.response import (
    group_delay_seconds,
    level_at_db,
    minus_3db_points,
    response_db,
    smoothed,
    sweep_responses,
    transfer,
)
from revox_lightning.measure.signals import Sweep

RATE = 48_000
SWEEP = Sweep(20.0, 20_000.0, 8.0, RATE, -12.0)
FILTER = np.vstack([butter(2, 35, "high", fs=RATE, output="sos"), butter(1, 12_000, "low", fs=RATE, output="sos")])
POLYNOMIAL = np.array([0.08, 0.1, 0.15, 0.2, 1.0, 0.0])


@pytest.fixture(scope="module")
def filtered():
    return sweep_responses(sosfilt(FILTER, np.pad(SWEEP.signal(), (700, 20_000))), SWEEP)


def truth_db(hz):
    return 20 * np.log10(np.abs(sosfreqz(FILTER, 2 * np.pi * np.asarray(hz) / RATE)[1]))


def test_the_response_of_a_filter_is_found_within_a_twentieth_of_a_db_over_the_band(filtered):
    error = 20 * np.log10(np.abs(filtered.gain[0])) - truth_db(filtered.frequency_hz)
    assert filtered.frequency_hz[0] <= 20 and filtered.frequency_hz[-1] >= 20_000
    assert np.abs(error).max() < 0.05
    at = np.array([20.0, 50.0, 1000.0, 20_000.0])
    assert np.allclose(response_db(filtered, at, 1000.0), truth_db(at) - truth_db(1000.0), atol=0.05)
    assert np.isnan(response_db(filtered, np.array([10.0, 21_000.0]))).all()


def test_its_group_delay_and_its_corners_too(filtered):
    hz = np.linspace(1, RATE / 2 - 1, RATE)
    own = -np.gradient(np.unwrap(np.angle(sosfreqz(FILTER, 2 * np.pi * hz / RATE)[1])), 2 * np.pi * hz)
    at = np.array([50.0, 200.0, 1000.0, 10_000.0])
    assert np.allclose(group_delay_seconds(filtered, at) * RATE, np.interp(at, hz, own) * RATE + 700, atol=0.1)
    low, high = minus_3db_points(filtered.frequency_hz, filtered.gain[0])
    assert np.allclose([low, high], [35.0, 12_000.0], rtol=0.01)


def test_hiss_is_averaged_away_by_smoothing():
    wet = sosfilt(FILTER, np.pad(SWEEP.signal(), (0, 20_000)))
    wet = wet + 1e-3 * np.random.default_rng(0).standard_normal(wet.size)
    found = sweep_responses(wet, SWEEP)
    at = np.array([60.0, 300.0, 1000.0, 5000.0])
    level = level_at_db(found.frequency_hz, smoothed(found.frequency_hz, found.gain[0], 1 / 12), at)
    assert np.allclose(level, truth_db(at), atol=0.1)


@pytest.mark.parametrize("delay", [0.0, 0.5, 100.37, 5000.123])
@pytest.mark.parametrize("polarity", [1, -1])
def test_a_delay_is_found_within_a_hundredth_of_a_sample(delay, polarity):
    wet = polarity * read_at(SWEEP.signal(), np.arange(9.0 * RATE) - delay)
    found = sweep_responses(wet, SWEEP)
    assert abs(found.delay_seconds * RATE - delay) < 0.01 and found.polarity == polarity
    assert np.abs(np.angle(found.gain[0] * polarity)).max() < 1e-2
    assert np.allclose(group_delay_seconds(found, np.array([100.0, 1e4])) * RATE, delay, atol=0.05)


def test_a_delay_is_found_under_hiss_at_40_db():
    wet = read_at(SWEEP.signal(), np.arange(9.0 * RATE) - 77.7)
    wet += 10 ** (-40 / 20) * np.std(SWEEP.signal()) * np.random.default_rng(0).standard_normal(wet.size)
    assert abs(sweep_responses(wet, SWEEP).delay_seconds * RATE - 77.7) < 0.01


def test_each_harmonic_of_a_polynomial_is_found_within_a_tenth_of_a_db():
    """Distorted at 8 times the rate, so that what the polynomial puts above half the rate does not fold back."""
    fine = np.polyval(POLYNOMIAL, replace(SWEEP, sample_rate_hz=8 * RATE).signal())
    found = sweep_responses(np.pad(resample(fine, len(fine) // 8), (500, 3000)), SWEEP)
    amplitude = 10 ** (-12 / 20)
    period = np.polyval(POLYNOMIAL, amplitude * np.sin(2 * np.pi * np.arange(4096) / 4096))
    truth = np.abs(np.fft.rfft(period))[1:6] / 2048 / amplitude
    for row, gain in zip(found.gain, truth, strict=True):
        known = np.isfinite(row)
        assert np.abs(20 * np.log10(np.abs(row[known]) / gain)).max() < 0.1
    highest = [found.frequency_hz[np.isfinite(row)][-1] for row in found.gain]
    assert np.allclose(highest, 20_000 / np.arange(1, 6), rtol=1e-3)
    middle = np.searchsorted(found.frequency_hz, 1000)
    assert np.allclose(found.harmonic_percent[:, middle], 100 * truth / truth[0], rtol=0.01)


def test_the_gain_holds_where_the_transport_wavers():
    n = np.arange(9.0 * RATE)
    waver = RATE * 1e-3 / (4 * np.pi) * np.sin(4 * np.pi * n / RATE)  # 0.1 % at 2 Hz
    found = sweep_responses(read_at(SWEEP.signal(), n - 300 - waver), SWEEP)
    level = smoothed(found.frequency_hz, found.gain[0], 1 / 6)
    assert np.abs(level_at_db(found.frequency_hz, level, np.geomspace(25, 18_000, 40))).max() < 0.1


def test_smoothing_keeps_a_constant_and_averages_power():
    hz = np.arange(20.0, 20_000.0)
    assert np.allclose(smoothed(hz, np.full(hz.size, 0.5j)), 0.5)
    ripple = smoothed(hz, 1 + np.cos(2 * np.pi * hz / 10), 1 / 3)
    assert np.allclose(ripple[2000:-4000], np.sqrt(1.5), rtol=0.01)
    gaps = np.where(hz > 5000, np.nan, 1.0)
    assert np.allclose(smoothed(hz, gaps)[:4000], 1)


def test_corners_that_are_not_there_are_none():
    hz = np.geomspace(20, 20_000, 500)
    assert minus_3db_points(hz, np.ones(500)) == (None, None)
    low, high = minus_3db_points(hz, 1 / (1 + (hz / 5000) ** 2))
    assert low is None and high == pytest.approx(5000 * np.sqrt(1.04 * 10**0.15 - 1), rel=1e-3)
    with pytest.raises(UserError, match="reference"):
        minus_3db_points(hz, np.ones(500), reference_hz=10.0)
    with pytest.raises(UserError, match="one length"):
        minus_3db_points(hz, np.ones(499))
    with pytest.raises(UserError, match="without any gain"):
        smoothed(hz, np.zeros(500))


def test_a_programme_tells_the_filter_it_passed_and_where_to_believe_it():
    random = np.random.default_rng(0)
    dry = sosfilt(butter(4, 8000, fs=RATE, output="sos"), random.standard_normal(20 * RATE))
    taps = [0.5, 0.3, -0.1]
    wet = np.convolve(dry, taps)[: dry.size] + 0.01 * random.standard_normal(dry.size)
    hz, gain, coherence = transfer(dry, wet, RATE)
    inside = (hz > 20) & (hz < 8000)
    truth = freqz(taps, worN=hz, fs=RATE)[1]
    assert np.abs(20 * np.log10(np.abs(gain / truth)))[inside].max() < 0.05
    assert coherence[inside].min() > 0.99 and coherence[hz > 20_000].max() < 0.5


def test_a_programme_against_itself_has_gain_one():
    dry = np.random.default_rng(0).standard_normal(RATE)
    _, gain, coherence = transfer(dry, dry, RATE)
    assert np.allclose(gain, 1) and np.allclose(coherence, 1)
    with pytest.raises(UserError, match="cut them to one length"):
        transfer(dry, dry[:-1], RATE)
