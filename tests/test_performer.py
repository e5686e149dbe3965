"""The built-in performer: repeatable, different by seed, and wide in level and pitch."""

import numpy as np
import pytest

from revox_lightning.data import instruments
from revox_lightning.data.performer import perform
from revox_lightning.errors import UserError


@pytest.fixture(scope="module")
def half_minute():
    return perform(30.0, 44_100, seed=1)


def test_same_seed_same_samples():
    first = perform(6.0, 22_050, seed=3)
    np.testing.assert_array_equal(first, perform(6.0, 22_050, seed=3))
    other = perform(6.0, 22_050, seed=4)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("seconds", [0.01, 1.5])
def test_any_rate_and_length(rate, seconds):
    x = perform(seconds, rate, seed=0)
    assert x.shape == (round(seconds * rate),)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 10 ** (-1 / 20) + 1e-6


def test_peak_and_level_range(half_minute):
    assert -3.01 < 20 * np.log10(np.abs(half_minute).max()) < -0.99
    blocks = half_minute[: half_minute.size // 8820 * 8820].reshape(-1, 8820).astype(np.float64)
    level_db = 10 * np.log10(np.mean(blocks**2, axis=1) + 1e-12)
    quiet, middle, loud = np.percentile(level_db, [8, 50, 92])
    assert loud > -18
    assert middle > -30
    assert quiet < loud - 20
    assert level_db.min() < -45  # a rest


def test_every_octave_is_played(half_minute):
    power = np.abs(np.fft.rfft(half_minute.astype(np.float64))) ** 2
    hz = np.fft.rfftfreq(half_minute.size, 1 / 44_100)
    for centre in 62.5 * 2.0 ** np.arange(9):
        band = power[(hz > centre / 2**0.5) & (hz < centre * 2**0.5)].sum()
        assert 10 * np.log10(band / power.sum()) > -30, centre
    assert power[hz > 20_000].sum() < 1e-6 * power.sum()
    assert abs(half_minute.mean()) < 1e-3


@pytest.mark.parametrize("f0", [55.0, 220.0, 1000.0])
def test_string_is_in_tune(f0):
    x = instruments.pluck(44_100, f0, 1.0, 0.7, np.random.default_rng(0))[4410:]
    spectrum = np.abs(np.fft.rfft(x * np.hanning(x.size), 1 << 20))
    near = np.arange(spectrum.size) * 44_100 / (1 << 20)
    band = (near > 0.9 * f0) & (near < 1.1 * f0)
    assert near[band][spectrum[band].argmax()] == pytest.approx(f0, rel=0.004)


def test_impossible_performances_are_named():
    with pytest.raises(UserError, match="more than 0 s"):
        perform(0.0, 44_100, seed=0)
    with pytest.raises(UserError, match="at least 8,000 Hz"):
        perform(1.0, 4_000, seed=0)
