"""Delays over time: reading them, turning them between the two files' times, taking them out."""

import numpy as np
import pytest

from revox_lightning.dsp.trajectory import (
    Trajectory,
    confidence_of,
    demodulate,
    dry_time_delay,
    modulate,
    standard_error_of,
    wet_time_delay,
)


def wandering(samples, base=3000.0, depth=12.0):
    n = np.arange(samples)
    return base + depth * np.sin(2 * np.pi * n / 30_000) + 0.5 * np.sin(2 * np.pi * n / 4000) + 2e-4 * n


def music(samples, seed=0):
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples)
    return np.fft.irfft(spectrum * (frequency < 0.42) / (frequency + 0.01), samples)


def test_a_cubic_runs_through_the_points_and_the_ends_are_held():
    times = np.linspace(100, 9_000, 60)
    curve = Trajectory(times, 5 + np.sin(times / 1500), np.linspace(0, 1, 60))
    inside = np.linspace(100, 9_000, 999)
    assert np.allclose(curve.at(inside), 5 + np.sin(inside / 1500), atol=1e-4)
    assert np.allclose(curve.at(np.array([-1e6, 1e6])), curve.delay_samples[[0, -1]])
    assert np.allclose(curve.per_sample(50), curve.delay_samples[0])
    assert np.allclose(curve.confidence_at(np.array([0.0, 4_550.0, 1e6])), [0, 0.5, 1])
    assert curve.mean == np.mean(curve.delay_samples) and curve.std == np.std(curve.delay_samples)
    assert np.allclose(curve.shifted(-3.5).at(inside), curve.at(inside) - 3.5)


def test_one_point_is_a_constant():
    curve = Trajectory(np.array([7.0]), np.array([3.0]), np.array([1.0]))
    assert curve.per_sample(3).tolist() == [3, 3, 3] and curve.std == 0


@pytest.mark.parametrize(
    ("times", "delays"), [([], []), ([1.0, 1.0], [0.0, 0.0]), ([1.0, 2.0], [0.0]), ([1.0, 2.0], [0.0, np.nan])]
)
def test_malformed_curves_are_refused(times, delays):
    with pytest.raises(ValueError, match="a trajectory takes"):
        Trajectory(np.array(times), np.array(delays), np.ones(len(delays)))


def test_confidence_is_one_half_at_a_quarter_of_a_sample_and_falls():
    assert confidence_of(np.array([0.0, 0.25])).tolist() == [1, 0.5]
    assert (np.diff(confidence_of(np.linspace(0, 10, 50))) < 0).all() and confidence_of(np.array([np.inf])) == 0
    assert np.allclose(standard_error_of(confidence_of(np.array([0.0, 0.3, 70.0]))), [0, 0.3, 70])


@pytest.mark.parametrize("base", [0.0, 300.0, 130_000.0, -2000.0])
def test_both_times_tell_the_same_delay(base):
    wet_time = wandering(400_000, base)
    dry_time = dry_time_delay(wet_time, 200_000)
    m = np.arange(200_000)
    inside = (m + dry_time > 0) & (m + dry_time < 399_999)
    assert np.allclose(np.interp(m + dry_time, np.arange(400_000), wet_time)[inside], dry_time[inside], atol=1e-6)
    back = wet_time_delay(dry_time, 400_000)
    n = np.arange(400_000)
    known = (n - wet_time > 0) & (n - wet_time < 199_999)
    assert np.allclose(back[known], wet_time[known], atol=1e-5)


def test_empty_delays_are_refused():
    with pytest.raises(ValueError, match="delay"):
        dry_time_delay(np.zeros(0), 5)


def test_a_constant_whole_delay_is_only_a_shift():
    x = music(2000)
    wet = modulate(x, np.full(2500, 40.0))
    assert np.allclose(wet[40:2040], x) and not wet[:8].any()
    assert np.allclose(demodulate(wet, np.full(2500, 40.0), 2000), x)


def test_demodulation_undoes_the_transport():
    x = music(200_000)
    delay = wandering(204_000)
    back = demodulate(modulate(x, delay), delay, len(x))
    middle = slice(1000, -1000)
    error = 10 * np.log10(np.mean((back - x)[middle] ** 2) / np.mean(x[middle] ** 2))
    assert error < -70


def test_demodulation_wants_a_delay_for_every_sample():
    with pytest.raises(ValueError, match="samples"):
        demodulate(np.zeros(10), np.zeros(9))
