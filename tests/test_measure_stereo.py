"""Balance, crosstalk and azimuth of two channels whose difference is known."""

import numpy as np
import pytest

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.measure.stereo import azimuth, channel_balance_db, crosstalk_db

RATE = 48_000
TIME = np.arange(2 * RATE) / RATE
RANDOM = np.random.default_rng(0)
PHASE = 2 * np.pi * 1004 * TIME + 0.5 * np.sin(6 * np.pi * TIME)


def test_balance_by_rms_and_by_tone():
    noise = RANDOM.standard_normal(RATE)
    assert channel_balance_db(noise, noise, RATE) == 0
    assert channel_balance_db(noise, -0.5 * noise, RATE) == pytest.approx(6.0206, abs=1e-3)
    left, right = np.sin(PHASE), 0.9 * np.sin(PHASE + 1) + 0.3 * RANDOM.standard_normal(PHASE.size)
    assert channel_balance_db(left, right, RATE, 1000.0) == pytest.approx(-20 * np.log10(0.9), abs=0.03)


@pytest.mark.parametrize("leak_db", [-20.0, -45.0, -60.0])
def test_crosstalk_is_found_under_hiss_and_wow(leak_db):
    driven = np.sin(PHASE)
    other = 10 ** (leak_db / 20) * np.sin(PHASE - 0.4) + 1e-3 * RANDOM.standard_normal(PHASE.size)
    assert crosstalk_db(driven, other, 1000.0, RATE) == pytest.approx(leak_db, abs=0.3)
    assert crosstalk_db(driven, driven, 1000.0, RATE) == pytest.approx(0, abs=1e-9)
    assert crosstalk_db(driven, 0 * driven, 1000.0, RATE) == -400
    with pytest.raises(UserError, match="one length"):
        crosstalk_db(driven, other[:-1], 1000.0, RATE)


@pytest.mark.parametrize("delay", [0.0, 0.37, -3.21, 12.004])
def test_azimuth_is_found_within_a_fiftieth_of_a_sample_at_40_db(delay):
    noise = RANDOM.standard_normal(4 * RATE)
    noise = np.fft.irfft(np.fft.rfft(noise) * (np.arange(noise.size // 2 + 1) < 0.42 * noise.size))
    later = read_at(noise, np.arange(noise.size) - delay)
    left, right = (x + 0.01 * RANDOM.standard_normal(noise.size) for x in (noise, later))
    assert azimuth(left, right, RATE) * RATE == pytest.approx(delay, abs=0.01)
    assert azimuth(right, left, RATE) * RATE == pytest.approx(-delay, abs=0.01)


def test_azimuth_of_a_tone_and_of_unequal_channels():
    later = np.sin(2 * np.pi * 1000 * (TIME - 2e-5))
    assert azimuth(np.sin(2 * np.pi * 1000 * TIME), 0.7 * later, RATE) == pytest.approx(2e-5, abs=1e-6)
    with pytest.raises(UserError, match="one length"):
        azimuth(later, later[1:], RATE)
