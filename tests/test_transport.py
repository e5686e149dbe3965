"""The transport's laws: what the delay must do, and the figure it must have."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import welch

from revox_lightning.dsp.weighting import flutter_weighting, weighted
from revox_lightning.errors import UserError
from revox_lightning.tape.transport import Transport

RATE = 2000.0  # enough for the speed errors that are weighed
STILL = {"wow_flutter_percent": 0.0, "drift_percent": 0.0}


def two_sigma_percent(deviation):
    """AES6-2008: 95 % of the weighted deviation lies below. The weighting's start and end are cut off."""
    heard = np.abs(weighted(deviation, RATE, flutter_weighting))[8000:-8000]
    return 100 * np.quantile(heard, 0.95)


def delay(transport, seconds, seed=0, rate=RATE, speed=7.5):
    n = round(seconds * rate)
    return np.arange(n) - transport.positions(n, rate, speed, [seed])


@pytest.mark.parametrize("speed", [3.75, 7.5, 15.0])
def test_a_second_pass_has_the_weighted_figure_that_was_asked(speed):
    transport = Transport(mode="second_pass", wow_flutter_percent=0.1)
    for seed in range(2):
        n = int(90 * RATE)
        assert two_sigma_percent(transport.deviation(n, RATE, speed, [seed])) == pytest.approx(0.1, rel=0.015)


def test_a_minute_cut_out_of_a_longer_tape_is_near_the_figure():
    transport, figures = Transport(mode="second_pass"), []
    for seed in range(6):
        deviation = transport.deviation(int(140 * RATE), RATE, 7.5, [7, seed])
        figures += [two_sigma_percent(deviation[int(s * RATE) : int((s + 68) * RATE)]) / 0.08 for s in (0, 70)]
    assert np.std(figures) < 0.025 and np.max(np.abs(np.array(figures) - 1)) < 0.05


def test_the_figure_holds_at_the_audio_rate_on_a_short_tape_and_beside_a_speed_error():
    """Five seconds say little; the law that is set is that of the first minute of the same realisation."""
    transport = Transport(mode="second_pass", speed_error_percent=0.5)
    deviation = transport.deviation(60 * 44_100, 44_100, 7.5, [3]) - 0.005
    heard = np.abs(weighted(deviation, 44_100, flutter_weighting))[4 * 44_100 : -4 * 44_100]
    assert 100 * np.quantile(heard, 0.95) == pytest.approx(0.08, rel=0.03)
    short = transport.positions(5 * 44_100, 44_100, 7.5, [3])
    assert np.array_equal(short, transport.positions(60 * 44_100, 44_100, 7.5, [3])[: short.size])


def test_the_speed_scales_the_frequencies():
    """Reel, capstan and broad flutter: half the error's power lies below twice the frequency at twice the speed."""
    transport, medians = Transport(mode="second_pass", drift_percent=0.0, scrape_share=0.0), []
    for speed in (3.75, 7.5, 15.0):
        f, power = welch(transport.deviation(int(160 * RATE), RATE, speed, [1]), RATE, nperseg=32_768)
        medians.append(f[np.searchsorted(np.cumsum(power), 0.5 * power.sum())])
    assert np.allclose(np.diff(np.log2(medians)), 1.0, atol=0.15)


def test_the_capstan_is_a_line_and_its_second_harmonic():
    transport = Transport(mode="second_pass", drift_percent=0.0, reel_share=0.0, flutter_share=0.0, scrape_share=0.0)
    f, power = welch(transport.deviation(int(160 * RATE), RATE, 7.5, [2]), RATE, nperseg=32_768)
    line = 190.5 / (np.pi * transport.capstan_diameter_mm)
    near = [np.abs(f - m * line) < 1.5 for m in (1, 2)]
    assert power[near[0] | near[1]].sum() > 0.93 * power.sum()
    assert power[near[1]].sum() / power[near[0]].sum() == pytest.approx(0.16, rel=0.3)


def test_monitoring_combs_the_delay_with_nulls_at_the_multiples_of_one_over_the_delay():
    transport = Transport(head_distance_mm=0.160 * 190.5, drift_percent=0.0)
    f, power = welch(delay(transport, 300), RATE, nperseg=65_536)
    density = lambda hz: power[np.abs(f - hz) < 0.06].mean()  # noqa: E731
    for null in (6.25, 12.5, 18.75):
        assert density(null) < 0.01 * min(density(null - 2.2), density(null + 2.2))


def test_monitoring_keeps_the_way_between_the_heads_constant():
    """s(t) - s(tau) = D: half the head distance twice is the whole, at one speed error."""
    whole = Transport(head_distance_mm=40.0)
    half = dataclasses.replace(whole, head_distance_mm=20.0)
    n = int(20 * RATE)
    p = half.positions(n, RATE, 7.5, [5])
    inside = p > 0
    twice = np.interp(p[inside], np.arange(n), p)
    assert np.abs(twice - whole.positions(n, RATE, 7.5, [5])[inside]).max() < 2e-4


def test_a_second_pass_starts_together_and_composes_two_independent_passes():
    transport = Transport(mode="second_pass", drift_percent=0.0)
    d = delay(transport, 60)
    assert abs(d[0]) < 1e-9
    slower = delay(dataclasses.replace(transport, speed_error_percent=-1.0), 60)
    assert slower[-1] == pytest.approx(0.01 * d.size + d[-1], abs=3.0)  # a slow tape comes ever later
    one = Transport(drift_percent=0.0).deviation(int(60 * RATE), RATE, 7.5, [0])
    assert 0.5 < np.std(one) / np.std(transport.deviation(int(60 * RATE), RATE, 7.5, [0])) < 1.5


def test_a_constant_speed_error_only_shortens_the_monitor_delay():
    for percent in (-2.0, 0.0, 3.0):
        d = delay(Transport(**STILL, speed_error_percent=percent), 5)
        assert np.ptp(d) < 1e-8
        assert d[0] == pytest.approx(30.0 / 190.5 * RATE / (1 + percent / 100), abs=1e-8)


@pytest.mark.parametrize("mode", ["monitor", "second_pass"])
def test_a_perfect_transport_has_a_constant_delay(mode):
    assert np.ptp(delay(Transport(mode=mode, **STILL), 10, rate=44_100)) < 1e-9


def test_drift_has_the_rms_that_was_asked_and_is_not_weighed():
    drifting = Transport(mode="second_pass", wow_flutter_percent=0.0, drift_percent=0.2)
    deviation = drifting.deviation(int(600 * RATE), RATE, 7.5, [4])
    assert np.std(deviation) == pytest.approx(0.002 * np.sqrt(2), rel=0.1)
    assert two_sigma_percent(deviation) < 0.01
    f, power = welch(deviation, RATE, nperseg=int(150 * RATE))
    assert power[(f > 0.015) & (f < 0.12)].sum() > 0.97 * power.sum()


def test_the_same_seed_gives_the_same_tape_and_another_another():
    a, b, c = (delay(Transport(), 3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a, b) and np.abs(a - c).max() > 0.01


def test_time_runs_forward_even_on_the_worst_transport():
    for mode in ("monitor", "second_pass"):
        p = Transport(mode=mode, wow_flutter_percent=10.0, drift_percent=5.0).positions(100_000, RATE, 7.5, [0])
        assert np.isfinite(p).all() and (np.diff(p) > 0).all()


def test_no_samples_no_positions():
    assert Transport().positions(0, 44_100, 7.5, [0]).shape == (0,)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"mode": "rewind"}, "monitor"),
        ({"wow_flutter_percent": -0.1}, "wow_flutter_percent"),
        ({"drift_percent": float("nan")}, "drift_percent"),
        ({"speed_error_percent": -100.0}, "speed_error_percent"),
        ({"head_distance_mm": 0.0}, "head_distance_mm"),
        ({"reel_share": -1.0}, "reel_share"),
    ],
)
def test_what_no_transport_can_be_is_refused(fields, word):
    with pytest.raises(UserError, match=word):
        Transport(**fields)


def test_speeds_and_shares_that_cannot_work_are_refused():
    with pytest.raises(UserError, match="speed"):
        Transport().positions(10, 44_100, 0.0, [0])
    with pytest.raises(UserError, match="rate"):
        Transport().positions(10, 0.0, 7.5, [0])
    nothing = Transport(reel_share=0, capstan_share=0, flutter_share=0, scrape_share=0)
    with pytest.raises(UserError, match="shares"):
        nothing.positions(10, 44_100, 7.5, [0])
