"""The laws that make a hysteresis a Preisach hysteresis (Mayergoyz: wiping-out and congruency), and its shape."""

from itertools import pairwise

import numpy as np
import pytest

from revox_lightning.errors import UserError
from revox_lightning.tape.preisach import preisach


def ramps(*turning, steps=200):
    """Field from 0 through the turning points, in even steps."""
    points = [0.0, *turning]
    return np.concatenate([np.linspace(a, b, steps) for a, b in pairwise(points)])


def last_loop(h0, h1, *history):
    """Minor loop between h0 and h1 (2, steps) after a history."""
    m = preisach(ramps(*history, h0, h1, h0, h1, h0))
    return m[-400:].reshape(2, 200)


def test_a_minor_excursion_is_wiped_out():
    """After the field has passed its old extremes, the detours between them are forgotten."""
    plain, detour = ramps(1.0, -0.6, 1.2), ramps(1.0, -0.6, 0.5, -0.3, 0.2, 0.1, 0.4, -0.6, 1.2)
    a, b = preisach(plain), preisach(detour)
    assert np.allclose(a[-200:], b[-200:], atol=1e-13)
    assert np.abs(preisach(ramps(1.0, -0.6, 0.5, 0.0))[-1] - preisach(ramps(1.0, -0.6, 0.0))[-1]) > 0.05


def test_minor_loops_between_the_same_fields_are_congruent():
    up = last_loop(-0.2, 0.7, 3.0)
    down = last_loop(-0.2, 0.7, -3.0)
    assert np.abs(up - down).mean() > 0.1  # at different heights
    assert np.allclose(up - up[0, 0], down - down[0, 0], atol=1e-12)


def test_a_loop_closes_and_loses_energy():
    h = np.tile(np.sin(np.linspace(0, 2 * np.pi, 400, endpoint=False)), 3)
    m = preisach(h)
    assert np.allclose(m[400:800], m[800:], atol=1e-13)
    area = np.sum(m[800:] * -np.gradient(h)[800:])
    assert area > 0.5


def test_time_does_not_matter():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.5, 1.5, 30)
    fast, slow = preisach(ramps(*points, steps=2)), preisach(ramps(*points, steps=301))
    assert np.allclose(fast[1::2], slow[300::301], atol=1e-12)
    assert np.allclose(preisach(np.repeat(ramps(*points), 3))[::3], preisach(ramps(*points)), atol=1e-14)


def test_it_is_odd_and_causal():
    x = np.random.default_rng(1).standard_normal(3000)
    m = preisach(x)
    assert np.allclose(preisach(-x), -m, atol=1e-14)
    assert np.array_equal(preisach(x[:1000]), m[:1000])


def test_it_saturates_at_one_and_rises_with_the_field():
    m = preisach(ramps(1e9))
    assert m[-1] == pytest.approx(1.0, abs=1e-9) and (np.diff(m) >= 0).all()
    assert np.abs(preisach(10 * np.random.default_rng(2).standard_normal(5000))).max() <= 1


def test_the_initial_curve_lies_between_the_branches():
    m = preisach(ramps(2.0, -2.0, 2.0, steps=401))
    initial, falling, rising = m[:401], m[401:802][::-1], m[802:]
    h = np.linspace(0, 2, 401)
    falling, rising = (np.interp(h, np.linspace(-2, 2, 401), branch) for branch in (falling, rising))
    assert (initial <= falling + 1e-9).all() and (initial >= rising - 1e-9).all()
    assert (falling - rising)[0] > 0.5 and rising[0] < 0 < falling[0]


def test_the_coercive_field_is_about_the_one_that_was_asked():
    m = preisach(ramps(5.0, -5.0, steps=2001))[2001:]
    crossing = np.interp(0.0, -m, np.linspace(5, -5, 2001))
    assert crossing == pytest.approx(-0.5, abs=0.06)


def test_with_a_fading_bias_the_remanence_is_linear_in_a_small_field():
    """Anhysteretic magnetisation, which makes tape usable: field and bias fade together as the tape leaves the gap."""
    fade = np.exp(-np.arange(6000) / 800)
    fade[-1] = 0.0
    bias = np.cos(2 * np.pi * np.arange(6000) / 20.01)

    def remanence(field, amplitude):
        return preisach(fade * (amplitude * bias + field))[-1]

    fields = np.array([0.01, 0.02, 0.04, 0.08])
    with_bias = np.array([remanence(f, 1.5) for f in fields]) / fields
    assert with_bias.min() > 0.3 and np.ptp(with_bias) < 0.06 * with_bias.mean()
    assert remanence(-0.04, 1.5) == pytest.approx(-remanence(0.04, 1.5), abs=0.002)
    assert abs(remanence(0.08, 0.0)) < 0.05 * abs(remanence(0.08, 1.5))  # without it hardly anything stays


def test_more_switches_change_little():
    x = np.sin(np.linspace(0, 60, 4000)) * np.linspace(0.2, 2, 4000)
    few, many = preisach(x), preisach(x, hysterons=1000)
    assert 10 * np.log10(np.mean((few - many) ** 2) / np.mean(many**2)) < -50


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1.7e308])
def test_any_finite_field_gives_a_finite_answer(scale):
    x = scale * np.array([1.0, -1.0, 0.3, 0.0, 1.0, 1.0, -0.2])
    m = preisach(x)
    assert np.isfinite(m).all() and np.abs(m).max() <= 1


def test_silence_stays_silent_and_nothing_stays_nothing():
    assert not preisach(np.zeros(100)).any() and preisach(np.zeros(0)).shape == (0,)


def test_one_channel_of_numbers_at_a_time():
    with pytest.raises(ValueError, match="time"):
        preisach(np.zeros((2, 5)))
    with pytest.raises(UserError, match="NaN"):
        preisach(np.array([0.0, np.nan]))


@pytest.mark.parametrize(
    "fields",
    [{"coercivity": 0.0}, {"coercivity_spread": -1.0}, {"interaction": 0.0}, {"reversible": 1.1}, {"hysterons": 0}],
)
def test_parameters_out_of_range_are_refused_by_name(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        preisach(np.zeros(3), **fields)
