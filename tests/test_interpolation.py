"""Reading between samples, and the weighting curves."""

import numpy as np
import pytest

from revox_lightning.dsp.interpolation import HALF_WIDTH, read_at
from revox_lightning.dsp.weighting import a_weighting, flutter_weighting, itu_r_468, weighted


@pytest.mark.parametrize("frequency", [0.001, 0.1, 0.3, 0.44])
def test_a_tone_is_read_between_its_samples(frequency):
    positions = np.linspace(100, 3800.3, 3000)
    x = np.sin(2 * np.pi * frequency * np.arange(4000))
    error = read_at(x, positions) - np.sin(2 * np.pi * frequency * positions)
    assert 10 * np.log10(2 * np.mean(error**2)) < -90


def test_whole_positions_give_the_samples_and_beyond_the_ends_is_silence():
    x = np.random.default_rng(0).standard_normal(200)
    assert np.allclose(read_at(x, np.arange(200.0)), x, atol=1e-12)
    assert not read_at(x, np.array([-1e9, -HALF_WIDTH - 1.0, 200.0 + HALF_WIDTH, 1e9, np.nan, np.inf])).any()
    assert read_at(x, np.zeros(0)).shape == (0,) and not read_at(np.zeros(0), np.zeros(3)).any()


def test_only_one_signal_at_a_time():
    with pytest.raises(ValueError, match="time"):
        read_at(np.zeros((2, 5)), np.zeros(3))


def test_reading_back_undoes_a_wandering_delay():
    n = np.arange(20_000.0)
    x = np.sin(2 * np.pi * 0.05 * n) + 0.5 * np.sin(2 * np.pi * 0.31 * n + 1)
    delay = 30 + 8 * np.sin(2 * np.pi * n / 9000)
    wet = read_at(x, n - delay)
    back = n + delay  # fixed point of t = n + delay(t)
    for _ in range(20):
        back = n + np.interp(back, n, delay)
    middle = slice(200, -200)
    error = (read_at(wet, back) - x)[middle]
    assert 10 * np.log10(np.mean(error**2) / np.mean(x**2)) < -80


def test_weightings_are_the_standards():
    """IEC 61672-1 table 3, ITU-R BS.468-4 table 1, IEC 60386 table."""
    exact = 1000 * 10.0 ** np.array([-1.5, -0.7, 0.0, 0.7, 1.2])  # the nominal 31.5, 200, 1,000, 5,000, 16,000 Hz
    assert np.allclose(20 * np.log10(a_weighting(exact)), [-39.4, -10.9, 0.0, 0.5, -6.6], atol=0.06)
    f = np.array([31.5, 200.0, 1000.0, 5000.0, 16_000.0])
    assert np.allclose(20 * np.log10(itu_r_468(f)), [-29.9, -13.8, 0.0, 11.7, -11.7], atol=0.15)
    assert flutter_weighting(np.array([0.05, 500.0])).tolist() == [0.0, 0.0]


def test_a_weighted_tone_has_the_gain_of_the_curve():
    t = np.arange(96_000) / 48_000
    x = np.sin(2 * np.pi * 100 * t)
    y = weighted(x, 48_000, a_weighting)[10_000:-10_000]
    assert np.isclose(20 * np.log10(np.std(y) * np.sqrt(2)), -19.1, atol=0.1)
