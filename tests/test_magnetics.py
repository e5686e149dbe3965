"""Bias: the shapes every technician knows, for both models of hysteresis."""

import numpy as np
import pytest

from revox_lightning.errors import UserError
from revox_lightning.tape.magnetics import (
    Bias,
    JilesAtherton,
    Preisach,
    Tape,
    anhysteretic_curve,
    bias_amplitude,
    bias_curves,
)

MODELS = [JilesAtherton(), Preisach()]


@pytest.mark.parametrize("hysteresis", MODELS, ids=repr)
def test_output_and_distortion_against_bias_have_the_known_shapes(hysteresis):
    curves = bias_curves(hysteresis, Bias(), 7.5)
    peak, treble_peak = np.argmax(curves.sensitivity_db), np.argmax(curves.output_10khz_db)
    assert 0 < peak < len(curves.amplitude) - 1  # rises, peaks, falls
    assert curves.sensitivity_db[peak] > curves.sensitivity_db[0] + 6
    assert curves.sensitivity_db[peak] > curves.sensitivity_db[-1] + 3
    past = curves.amplitude > curves.amplitude[treble_peak]
    fall_10khz = curves.output_10khz_db[treble_peak] - curves.output_10khz_db[past]
    fall_1khz = curves.sensitivity_db[treble_peak] - curves.sensitivity_db[past]
    assert (fall_10khz > fall_1khz)[fall_10khz > 0.5].all()  # the treble falls faster
    least = np.argmin(curves.thd_percent)
    assert peak < least < len(curves.amplitude) - 1  # falls to a minimum past the sensitivity's peak, and rises
    assert curves.thd_percent[0] > 5 and curves.thd_percent[least] < 0.25 * curves.thd_percent[0]
    assert curves.thd_percent[-1] > 1.3 * curves.thd_percent[least]


def test_slow_tape_loses_its_treble_to_less_bias():
    set_for = [bias_amplitude(JilesAtherton(), Bias(3.0), speed) for speed in (3.75, 7.5, 15.0)]
    assert set_for[0] < set_for[1] < set_for[2]
    curves = bias_curves(JilesAtherton(), Bias(), 7.5)
    fall = curves.output_10khz_db.max() - np.interp(set_for[1], curves.amplitude, curves.output_10khz_db)
    assert fall == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize("hysteresis", MODELS, ids=repr)
def test_the_anhysteretic_curve_is_odd_monotone_and_saturates(hysteresis):
    curve = anhysteretic_curve(hysteresis, 120_000.0, 0.7)
    field = np.linspace(-8, 8, 401)
    m = curve.curve(field)
    np.testing.assert_allclose(m, -m[::-1], atol=1e-12)
    assert (np.diff(m) > -2e-3).all()
    assert m[-1] - m[-101] < 0.3 * (m[251] - m[201])
    assert 0 <= curve.lag_seconds < 2e-5
    assert np.isfinite(curve.magnetise(np.array([1e300, -1e300, 0.0]), 48_000)).all()


def test_the_bare_loop_remembers_and_the_biased_tape_does_not():
    field = np.concatenate([np.linspace(0, 2, 400), np.linspace(2, 0, 400), np.zeros(2000)])
    for bias, remains in ((None, True), (Bias(), False), (Bias(mode="ac"), False)):
        m = Tape(JilesAtherton(), bias, 7.5).magnetise(field, 48_000)
        assert (abs(m[-500:].mean()) > 0.2) == remains


@pytest.mark.parametrize("mode", ["ac", "anhysteretic"])
@pytest.mark.parametrize("hysteresis", MODELS, ids=repr)
def test_any_field_gives_finite_magnetisation(hysteresis, mode):
    tape = Tape(hysteresis, Bias(mode=mode), 7.5)
    for field in (np.zeros(300), np.full(300, 1e3), 1e-30 * np.ones(300), 50 * (-1.0) ** np.arange(300)):
        assert np.isfinite(tape.magnetise(field, 48_000)).all()


def test_wrong_bias_is_named():
    with pytest.raises(UserError, match="ac or anhysteretic"):
        Bias(mode="dc")
    with pytest.raises(UserError, match="give 0 to"):
        bias_amplitude(JilesAtherton(), Bias(over_peak_db=100.0), 7.5)
