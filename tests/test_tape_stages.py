"""Hiss, asperity, azimuth, crosstalk, imbalance, dropouts and print-through: levels, geometry, statistics."""

import numpy as np
import pytest
from scipy.signal import welch

from revox_lightning.dsp.weighting import NOISE_WEIGHTINGS, weighted
from revox_lightning.errors import UserError
from revox_lightning.tape.defects import Dropouts, PrintThrough
from revox_lightning.tape.equalisation import playback_equaliser
from revox_lightning.tape.noise import Asperity, Hiss
from revox_lightning.tape.stereo import Azimuth, Crosstalk, Imbalance

RATE = 44_100


def level_dbfs(x):
    return 10 * np.log10(2 * np.mean(x**2))


@pytest.mark.parametrize("weighting", list(NOISE_WEIGHTINGS))
@pytest.mark.parametrize("rate", [44_100, 96_000])
def test_hiss_has_the_weighted_level_that_was_asked(weighting, rate):
    shape = playback_equaliser("nab", 7.5, rate).impulse_response(rate // 10)
    noise = Hiss(58.0, weighting, reference_db=6.0).noise(20 * rate, rate, -18.0, shape, [1])
    heard = weighted(noise, rate, NOISE_WEIGHTINGS[weighting])[rate:-rate]
    assert level_dbfs(heard) == pytest.approx(-18.0 + 6.0 - 58.0, abs=0.1)


def test_hiss_has_the_shape_of_the_playback_chain_from_its_first_sample():
    slow = 0.99 ** np.arange(2000)  # a long memory, which a filter at rest would have to fill first
    starts = [Hiss(weighting="unweighted").noise(50, RATE, 0.0, slow, [s]).std() for s in range(2)]
    runs = np.stack([Hiss(weighting="unweighted").noise(400, RATE, 0.0, slow, [s]) for s in range(800)])
    assert starts[0] != starts[1]
    assert runs[:, 0].std() == pytest.approx(runs[:, -1].std(), rel=0.1)


def test_a_measured_spectrum_replaces_the_shape_and_keeps_the_level():
    measured = [[50.0, 20.0], [500.0, 0.0], [5000.0, 0.0], [15_000.0, -30.0]]
    hiss = Hiss(50.0, "unweighted", spectrum=measured)
    noise = hiss.noise(40 * RATE, RATE, -10.0, np.ones(1), [2])
    assert level_dbfs(weighted(noise, RATE, NOISE_WEIGHTINGS["unweighted"])) == pytest.approx(-60.0, abs=0.1)
    f, power = welch(noise, RATE, nperseg=8192)
    at = 10 * np.log10(np.interp([100, 500, 2000, 15_000], f, power))
    expected = np.array([20 - 20 * np.log10(2), 0.0, 0.0, -30.0])
    assert np.allclose(at - at[1], expected, atol=1.0)


def test_hiss_is_told_apart_by_its_seed_only():
    a, b, c = (Hiss().noise(1000, RATE, -18.0, np.ones(3), [0, s]) for s in (0, 0, 1))
    assert np.array_equal(a, b) and abs(np.corrcoef(a, c)[0, 1]) < 0.15
    assert Hiss().noise(0, RATE, -18.0, np.ones(3), [0]).shape == (0,)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"weighting": "b"}, "itu_r_468"),
        ({"signal_to_noise_db": -1.0}, "signal_to_noise_db"),
        ({"spectrum": []}, "pairs"),
        ({"spectrum": [[100.0]]}, "pairs"),
        ({"spectrum": [[100.0, 0.0], [50.0, 0.0]]}, "rising"),
    ],
)
def test_hiss_that_cannot_be_is_refused(fields, word):
    with pytest.raises(UserError, match=word):
        Hiss(**fields)


def test_hiss_that_its_weighting_does_not_hear_is_refused():
    with pytest.raises(UserError, match="weighting"):
        Hiss().noise(10, RATE, -18.0, np.zeros(4), [0])


def test_asperity_noise_lies_beside_a_tone_at_its_level_and_falls_away_from_it():
    t = np.arange(60 * RATE) / RATE
    tone = np.sin(2 * np.pi * 8000 * t)
    beside = tone * (Asperity(-40.0, 500.0).gain(t.size, RATE, [0]) - 1)
    assert level_dbfs(beside) == pytest.approx(-40.0, abs=0.15)
    f, power = welch(beside, RATE, nperseg=8192)
    near, corner, far = (np.interp(8000 + d, f, power) for d in (50, 500, 4000))
    assert 10 * np.log10(near / corner) == pytest.approx(3, abs=0.7)
    assert 10 * np.log10(corner / far) == pytest.approx(18 - 3, abs=0.8)


def test_asperity_leaves_silence_silent_and_its_mean_alone():
    gain = Asperity().gain(20 * RATE, RATE, [1])
    assert gain.mean() == pytest.approx(1.0, abs=1e-4)
    first = [Asperity(-20.0, 10.0).gain(1, RATE, [s])[0] for s in range(500)]
    assert np.std(first) == pytest.approx(0.1, rel=0.15)  # stationary from the first sample


def test_the_azimuth_delays_the_tracks_by_geometry():
    angle = np.radians(10 / 60)
    delays = Azimuth(error_minutes=10.0).delays_seconds(2, 4, RATE, 7.5, [0])
    assert np.allclose(delays[1] - delays[0], 4.25e-3 * np.tan(angle) / 0.1905)
    assert np.allclose(delays.sum(axis=0), 0) and np.ptp(delays, axis=1).max() == 0
    assert np.allclose(Azimuth(error_minutes=10.0).delays_seconds(2, 4, RATE, 15.0, [0]), delays / 2)
    assert not Azimuth(error_minutes=10.0, wander_minutes=1.0).delays_seconds(1, 50, RATE, 7.5, [0]).any()


def test_the_azimuth_wanders_with_its_rms_below_its_corner():
    wandering = Azimuth(wander_minutes=2.0, wander_hz=0.5)
    rate, seconds = 200.0, 2000
    right = wandering.delays_seconds(2, int(seconds * rate), rate, 7.5, [0])[1]
    minutes = 60 * np.degrees(np.arctan(right * 0.1905 / 2.125e-3))
    assert minutes.std() == pytest.approx(2.0, rel=0.1) and abs(minutes.mean()) < 0.3
    f, power = welch(minutes, rate, nperseg=8192)
    assert power[f < 1.0].sum() > 0.98 * power.sum()
    other = wandering.delays_seconds(2, 2000, rate, 7.5, [1])
    assert np.abs(other - wandering.delays_seconds(2, 2000, rate, 7.5, [2])).max() > 0


def test_the_azimuth_loss_is_the_mean_over_the_tilted_track():
    azimuth, f = Azimuth(error_minutes=15.0), np.array([0.0, 5000.0, 15_000.0])
    across = np.linspace(-1e-3, 1e-3, 20_001) * np.tan(np.radians(0.25)) / 0.1905
    mean = np.cos(2 * np.pi * f[:, None] * across).mean(axis=1)
    assert np.allclose(azimuth.loss(f, 7.5), mean, atol=1e-4)
    assert np.allclose(azimuth.loss(2 * f, 15.0), azimuth.loss(f, 7.5))


def test_crosstalk_and_imbalance_touch_stereo_only():
    left = np.stack([np.ones(5), np.zeros(5)])
    leak = Crosstalk(-45.0).mix(left)
    assert np.allclose(20 * np.log10(leak[1] / leak[0]), -45.0)
    for channels in (1, 3):
        x = np.ones((channels, 5))
        assert Crosstalk().mix(x) is x and (Imbalance(3.0).gains(channels) == 1).all()
    left_gain, right_gain = Imbalance(1.5).gains(2)
    assert 20 * np.log10(right_gain / left_gain) == pytest.approx(1.5) and left_gain * right_gain == pytest.approx(1)


def dips(gain):
    return int(np.count_nonzero(np.diff(np.concatenate([[0], (gain < 1 - 1e-9).astype(int)])) == 1))


def test_dropouts_come_as_often_as_long_and_as_deep_as_asked():
    rate, minutes = 4000, 20
    gain = Dropouts(per_minute=30, depth_db=20, duration_ms=10).gain(2, 60 * minutes * rate, rate, [0])
    for channel in gain:
        assert dips(channel) == pytest.approx(600, rel=0.12)  # three standard deviations of Poisson's law
        assert 0.1 - 1e-12 <= channel.min() < 0.15 and channel.max() == 1.0
        assert np.mean(channel < 1) == pytest.approx(30 / 60 * 0.010 * np.exp(0.125), rel=0.15)
    below = gain < 1
    assert (below[0] & below[1]).sum() == pytest.approx(0.5 * below[0].sum(), rel=0.15)


def test_no_dropouts_on_a_perfect_or_an_empty_tape():
    assert (Dropouts(per_minute=0).gain(2, 1000, RATE, [0]) == 1).all()
    assert Dropouts().gain(2, 0, RATE, [0]).shape == (2, 0)
    some = Dropouts(per_minute=1000).gain(1, RATE, RATE, [5])
    assert np.array_equal(some, Dropouts(per_minute=1000).gain(1, RATE, RATE, [5])) and some.min() < 1


def test_print_through_is_an_echo_one_turn_before_and_after():
    """At its best wavelength, 2 pi t, the echoes have their levels; a tone burst keeps its phase."""
    printed = PrintThrough(level_db=-50.0, difference_db=4.0)
    best_hz = 0.1905 / (2e-6 * np.pi * printed.tape_thickness_um)
    n, turn = 6 * RATE, round(2e-3 * np.pi * 60 / 0.1905 * RATE)
    burst = np.zeros(n)
    middle = slice(3 * RATE - 4000, 3 * RATE + 4000)
    burst[middle] = np.hanning(8000) * np.sin(2 * np.pi * best_hz / RATE * np.arange(8000))
    echoes = printed.add(burst, RATE, 7.5) - burst
    for shift, level in ((-turn, -50.0), (turn, -54.0)):
        found = np.roll(echoes, -shift)
        gain = found @ burst / (burst @ burst)
        assert 20 * np.log10(gain) == pytest.approx(level, abs=0.05)
        assert np.abs(found[middle] - gain * burst[middle]).max() < 0.02 * gain
    assert np.abs(echoes[: 3 * RATE - turn - 8000]).max() < 1e-7


def test_print_through_favours_its_wavelength_and_can_lie_tail_out():
    impulse = np.zeros(6 * RATE)
    impulse[3 * RATE] = 1
    turn = round(2e-3 * np.pi * 60 / 0.1905 * RATE)
    echoes = PrintThrough(difference_db=-3.0).add(impulse, RATE, 7.5) - impulse
    before, after = (np.abs(np.fft.rfft(echoes[3 * RATE + s - 3000 : 3 * RATE + s + 3000])) for s in (-turn, turn))
    assert np.allclose(20 * np.log10(after[10:200] / before[10:200]), 3.0, atol=1e-6)
    f = np.arange(3001) * RATE / 6000
    depth = f / 866.25
    assert np.allclose(after[10:1500], 10 ** (-55 / 20) * (depth * np.exp(1 - depth))[10:1500], atol=2e-5)


def test_a_short_tape_has_no_second_turn():
    x = np.random.default_rng(0).standard_normal(1000)
    assert np.array_equal(PrintThrough().add(x, RATE, 7.5), x)
    with pytest.raises(UserError, match="speed"):
        PrintThrough().add(x, RATE, -1.0)


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        (Asperity, {"level_db": 0.0}),
        (Asperity, {"bandwidth_hz": 0.0}),
        (Azimuth, {"error_minutes": float("nan")}),
        (Azimuth, {"wander_hz": 0.0}),
        (Crosstalk, {"level_db": 3.0}),
        (Imbalance, {"db": float("inf")}),
        (Dropouts, {"per_minute": -1.0}),
        (Dropouts, {"duration_ms": 0.0}),
        (PrintThrough, {"reel_radius_mm": 0.0}),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(stage, fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        stage(**fields)
