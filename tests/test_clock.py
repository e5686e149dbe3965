"""Clocks that run apart."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from revox_lightning.data.performer import perform
from revox_lightning.dsp.clock import clock_drift, drift_of
from revox_lightning.dsp.trajectory import Trajectory, modulate
from revox_lightning.errors import UserError

RATE = 8_000


@pytest.fixture(scope="module")
def minute():
    return perform(60, RATE, 3).astype(float)


def machine(x):
    """Upside down, filtered, saturated, with hiss; no transport."""
    x = np.tanh(1.5 * sosfilt(butter(2, [30, 3_500], "bandpass", fs=RATE, output="sos"), x)) / 1.5
    return -x - 10 ** (-45 / 20) / np.sqrt(2) * np.random.default_rng(1).standard_normal(len(x))


@pytest.mark.parametrize("ppm", [1.0, -200.0])
def test_drift_is_found_within_half_a_millionth(minute, ppm):
    n = np.arange(len(minute))
    drift = clock_drift(minute, machine(modulate(minute, 1234.5 + 1e-6 * ppm * n)), RATE)
    assert drift.ppm == pytest.approx(ppm, abs=0.1) and drift.ppm_error < 0.5
    assert drift.delay_samples == pytest.approx(1234.5, abs=1) and drift.wander_samples < 0.5


def test_a_transport_shows_as_wander_and_as_a_wider_error():
    n = np.arange(0, 60 * 44_100, 100.0)
    wow = 30 * np.sin(2 * np.pi * n / 1.7e6)
    drift = drift_of(Trajectory(n, 50 + 20e-6 * n + wow, np.ones(len(n))))
    assert drift.wander_samples > 10 and drift.ppm_error > 0.5


def test_only_what_is_sure_counts():
    n = np.arange(0.0, 1e6, 1000)
    confidence = np.where(n < 5e5, 1.0, 0.1)
    delay = np.where(n < 5e5, 10 + 5e-6 * n, 999.0)
    assert drift_of(Trajectory(n, delay, confidence)).ppm == pytest.approx(5, abs=1e-6)
    with pytest.raises(UserError, match="nowhere well enough"):
        drift_of(Trajectory(n, delay, np.full(len(n), 0.2)))


def test_silence_and_scraps_are_refused():
    for x in (np.zeros(RATE), np.ones(100)):
        with pytest.raises(UserError):
            clock_drift(x, x, RATE)
