"""The virtual tape machine: laws of hysteresis, losses and equalisers, then the published vectors, then the whole."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from revox_lightning.dsp.oversampling import change_rate
from revox_lightning.errors import UserError
from revox_lightning.tape import magnetics
from revox_lightning.tape.equalisation import Equalisation, playback_equaliser, time_constants
from revox_lightning.tape.hysteresis import SOLVERS, jiles_atherton
from revox_lightning.tape.losses import PlaybackHead, frequency_grid_hz, loss_fir, minimum_phase_fir, playback_loss
from revox_lightning.tape.machine import STAGES, TapeMachine
from revox_lightning.tape.magnetics import Bias, JilesAtherton, Preisach
from revox_lightning.tape.noise import Asperity, Hiss
from revox_lightning.tape.stereo import Azimuth

QUIET = TapeMachine()
LEVEL = replace(QUIET, head=PlaybackHead(bump_db=0.0))
HEAD = {"spacing_um": 1.5, "thickness_um": 12.0, "gap_um": 2.5}
INPUTS = {
    "steps": np.repeat([0.0, 1.0, -1.0, 1.0, 0.0], 200),
    "20 kHz at full scale": np.sin(2 * np.pi * 20_000 / 44_100 * np.arange(1000)),
    "huge": 1e300 * (-1.0) ** np.arange(1000),
    "dc": np.ones(1000),
    "silence": np.zeros(1000),
    "1e-30": 1e-30 * np.sin(np.arange(1000)),
}


def sine(hz, rate, seconds=0.15, level_db=0.0):
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def gain_db(x, y, hz, rate):
    tone = np.exp(-2j * np.pi * hz * np.arange(x.size) / rate) * np.hanning(x.size)
    return 20 * np.log10(abs(y @ tone) / abs(x @ tone))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", INPUTS)
def test_hysteresis_stays_finite(solver, name):
    for saturation in (0.0, 0.5, 1.0):
        for width in (0.0, 0.5, 1.0):
            m = jiles_atherton(INPUTS[name], 44_100, drive=1.0, width=width, saturation=saturation, solver=solver)
            assert np.isfinite(m).all()
            assert name != "silence" or not m.any()


def test_tape_remembers_and_saturates():
    field = np.concatenate([np.linspace(0, 5, 2000), np.linspace(5, 0, 2000)])
    m = jiles_atherton(field, 48_000)
    assert m.max() < 1.25  # Ms for saturation 0.5
    assert m[1999] > 1.1
    assert m[-1] > 0.05  # remanence: the field is back at zero, the magnetisation is not
    np.testing.assert_allclose(jiles_atherton(-field, 48_000), -m, atol=1e-12)


def test_solvers_agree_as_the_rate_grows():
    error = []
    for rate in (96_000, 384_000, 1_536_000):
        x = sine(1000, rate, 0.004)
        m = {solver: jiles_atherton(x, rate, solver=solver) for solver in SOLVERS}
        error.append([np.abs(m["rk2"] - m["rk4"]).max(), np.abs(m["nr4"] - m["nr8"]).max()])
        # The Newton rule steps by T / 1.9 where the trapezoid has T / 2: a little off at any rate, as published.
        assert 0.005 < np.abs(m["nr8"] - m["rk4"]).max() < 0.03
    runge_kutta, newton = np.array(error).T
    assert runge_kutta[2] < 0.5 * runge_kutta[1] < 0.25 * runge_kutta[0]
    assert newton.max() < 1e-9


@pytest.mark.parametrize("samples", [63, 4096, 9001])
@pytest.mark.parametrize("factor", [2, 8])
def test_oversampling_has_no_delay_and_no_seams(samples, factor):
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(samples + 600))
    spectrum[int(0.85 * spectrum.size) :] = 0
    x = np.fft.irfft(spectrum, samples + 600)[300 : 300 + samples] * np.hanning(samples + 2)[1:-1]
    x = np.pad(x, 40)  # so that the resampler's ringing is inside
    up = change_rate(x, factor, up=True)
    assert up.shape == (factor * x.size,)
    np.testing.assert_allclose(up[::factor], x, atol=2e-3)
    np.testing.assert_allclose(change_rate(up, factor, up=False), x, atol=2e-3)


@pytest.mark.skipif("REVOX_GOLDEN" not in os.environ, reason="REVOX_GOLDEN does not point to the golden data")
def test_hysteresis_matches_the_published_vectors():
    with np.load(Path(os.environ["REVOX_GOLDEN"]) / "tape/hysteresis/ja_drive.5_width.5_sat.5.npz") as golden:
        for solver in SOLVERS:
            m = jiles_atherton(golden["x"], float(golden["fs"]), solver=solver)
            np.testing.assert_allclose(m, golden[solver.upper()], atol=1e-6)
        m = jiles_atherton(golden["unit_x"], 48_000, solver="nr4")
        np.testing.assert_allclose(m, golden["unit_y_NR4_48k"], atol=1e-6)


def test_losses_at_known_wavelengths():
    speed = 7.5 * 0.0254
    none = {"spacing_um": 0.0, "thickness_um": 0.0, "gap_um": 0.0}
    hz = np.array([0.0, speed / 10e-6])  # direct current, and a wavelength of 10 um
    np.testing.assert_allclose(playback_loss(hz, 7.5, **none), 1.0)
    spacing = playback_loss(hz, 7.5, **(none | {"spacing_um": 10.0}))
    assert 20 * np.log10(spacing[1]) == pytest.approx(-54.6, abs=0.05)  # Wallace: 54.6 dB per wavelength of distance
    thickness = playback_loss(hz, 7.5, **(none | {"thickness_um": 10 / (2 * np.pi)}))
    assert thickness[1] == pytest.approx(1 - np.exp(-1))
    assert playback_loss(hz, 7.5, **(none | {"gap_um": 10.0}))[1] == pytest.approx(0, abs=1e-12)  # the gap's null
    np.testing.assert_allclose(playback_loss(2 * hz, 15.0, **HEAD), playback_loss(hz, 7.5, **HEAD))


def test_minimum_phase_returns_a_minimum_phase_filter():
    h = np.array([1.0, 0.5, -0.2])
    np.testing.assert_allclose(minimum_phase_fir(np.abs(np.fft.rfft(h, 1024)), 3), h, atol=1e-10)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_filters_follow_their_formulas(rate):
    hz = np.array([20.0, 50, 200, 1000, 5000, 10_000, 16_000])
    omega = 2j * np.pi * hz
    z = np.exp(-omega[:, None] / rate * np.arange(8192))
    bass, treble = time_constants("nab", 7.5)
    ideal = np.abs((1 + omega * treble) * omega * bass / (1 + omega * bass))
    ours = np.abs(z @ playback_equaliser("nab", 7.5, rate).impulse_response(8192))
    np.testing.assert_allclose(20 * np.log10(ours / ideal), 0, atol=0.05)
    head = loss_fir(PlaybackHead(**HEAD).gain(frequency_grid_hz(rate), 7.5), rate)
    np.testing.assert_allclose(np.abs(z[:, : head.size] @ head), playback_loss(hz, 7.5, **HEAD), rtol=0.006)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    "machine",
    [LEVEL, replace(LEVEL, speed_ips=15.0), replace(LEVEL, equalisation=Equalisation("iec", "iec"))],
    ids=["nab", "15 ips", "iec"],
)
def test_machine_is_aligned_flat(machine, rate):
    for hz, low, high in ((40, -1.0, 0.5), (100, -0.3, 0.3), (1000, -0.1, 0.1), (5000, -0.3, 0.3), (14_000, -0.8, 0.3),
                          (20_000, -4.0, -2.0)):  # fmt: skip
        x = sine(hz, rate, level_db=-38)
        assert low < gain_db(x, machine.play(x[None], rate, 0).wet[0], hz, rate) < high, hz


def harmonics(machine, level_db, rate=48_000):
    """Output re 0 VU in dB and third harmonic in percent of a 1 kHz sine at a level re 0 VU."""
    x = sine(1000, rate, level_db=machine.zero_vu_dbfs + level_db)
    wet = machine.play(x[None], rate, 0).wet[0][rate // 20 :]
    spectrum = np.abs(np.fft.rfft(wet * np.hanning(wet.size)))
    first = wet.size // (rate // 1000)
    fundamental = spectrum[first] * 4 / wet.size
    return 20 * np.log10(fundamental) - machine.zero_vu_dbfs, 100 * spectrum[3 * first] / spectrum[first]


def test_distortion_grows_with_level_and_reaches_3_percent_where_asked():
    for machine in (QUIET, replace(QUIET, mol_db=5.0), replace(QUIET, speed_ips=15.0, bias=Bias(over_peak_db=2.0))):
        levels = np.linspace(0, 16, 9)
        output, third = np.array([harmonics(machine, level) for level in levels]).T
        assert (np.diff(third) > 0).all() and third[0] < 1
        assert np.interp(3.0, third, output) == pytest.approx(machine.mol_db, abs=0.15)


def test_record_level_drives_the_tape_and_is_taken_back():
    low, hot = (harmonics(replace(QUIET, record_level_db=level), -6) for level in (0, 10))
    assert hot[0] == pytest.approx(low[0], abs=0.5) and hot[1] > 5 * low[1]
    assert harmonics(replace(QUIET, input_gain_db=6.0), -26)[0] == pytest.approx(-20, abs=0.05)


@pytest.mark.parametrize("machine", [QUIET, replace(QUIET, bias=Bias(6.0), aligned_over_peak_db=3.0, speed_ips=7.5)])
def test_the_response_is_what_the_formulas_say(machine):
    rate = 48_000
    for hz in (40, 200, 5000, 10_000, 15_000):
        tone = sine(hz, rate, 0.3, -38)
        low = gain_db(tone, machine.play(tone[None], rate, 0).wet[0], hz, rate)
        kilo = sine(1000, rate, 0.3, -38)
        low -= gain_db(kilo, machine.play(kilo[None], rate, 0).wet[0], 1000, rate)
        assert low == pytest.approx(float(machine.response_db(np.array([hz]), rate)[0]), abs=0.1), hz


def test_too_much_bias_dulls_the_treble_and_lowers_the_output():
    dull = replace(QUIET, bias=Bias(6.0), aligned_over_peak_db=3.0)
    assert dull.response_db(np.array([10_000.0]), 48_000)[0] < -1
    assert -4 < harmonics(dull, -20)[0] + 20 < -0.5


def test_machine_answers_at_once():
    rng = np.random.default_rng(0)
    x = np.zeros((1, 8000))
    x[0, 4000:] = 0.1 * rng.standard_normal(4000)
    wet = QUIET.play(x, 48_000, 0).wet
    assert np.sum(wet[0, :4000] ** 2) < 1e-3 * np.sum(wet[0, 4000:4100] ** 2)
    lags = [np.dot(wet[0, 4100:7900], x[0, 4100 - lag : 7900 - lag]) for lag in range(-3, 4)]
    assert int(np.argmax(lags)) == 3


def test_noise_is_known_and_repeatable():
    machine = replace(QUIET, hiss=Hiss(signal_to_noise_db=50.0), asperity=Asperity(-45.0))
    x = np.stack([sine(440, 48_000, 0.5, -12)] * 2)
    first, again, other = machine.play(x, 48_000, 7), machine.play(x, 48_000, 7), machine.play(x, 48_000, 8)
    np.testing.assert_array_equal(first.wet, again.wet)
    assert not np.array_equal(first.noise, other.noise)
    assert first.wet.dtype == first.noise.dtype == np.float32
    np.testing.assert_allclose(first.wet - first.noise, QUIET.play(x, 48_000, 7).wet, atol=1e-6)
    assert abs(np.corrcoef(first.noise)[0, 1]) < 0.05


def test_a_linear_tape_with_everything_else_off_is_a_wire():
    x = 0.3 * np.random.default_rng(0).standard_normal((2, 5000))
    playback = QUIET.only().play(x, 44_100, 0)
    np.testing.assert_allclose(playback.wet, x.astype(np.float32), atol=1e-6)
    assert not playback.delay_samples.any() and not playback.noise.any() and (playback.gain == 1).all()


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_can_be_switched_off(stage):
    x = 0.1 * np.random.default_rng(0).standard_normal((2, 2000))
    assert np.isfinite(QUIET.without(stage).play(x, 44_100, 0).wet).all()


def test_another_hysteresis_is_another_machine():
    x = np.stack([sine(300, 48_000, 0.1, -6)])
    ours = QUIET.play(x, 48_000, 0).wet
    for change in ({"hysteresis": Preisach()}, {"bias": None}, {"bias": Bias(mode="ac")}, {"hysteresis": None}):
        wet = replace(QUIET, **change).play(x, 48_000, 0).wet
        assert np.isfinite(wet).all() and 1e-4 < np.abs(wet - ours).max() < 1


def test_bias_itself_and_its_effect_alone_agree():
    rng = np.random.default_rng(1)
    x = np.convolve(rng.standard_normal(6000), np.hanning(12) / 6, "same")[None]
    x *= 0.5 / np.abs(x).max()
    itself = replace(QUIET, bias=Bias(mode="ac")).play(x, 48_000, 0).wet[0, 500:].astype(float)
    effect = QUIET.play(x, 48_000, 0).wet[0, 500:]
    assert 10 * np.log10(np.sum((effect - itself) ** 2) / np.sum(itself**2)) < -40


def test_channels_are_independent():
    x = np.stack([sine(200, 44_100, 0.1), sine(300, 44_100, 0.1)])
    both = QUIET.play(x, 44_100, 0).wet
    for channel in range(2):
        np.testing.assert_array_equal(both[channel], QUIET.play(x[channel : channel + 1], 44_100, 0).wet[0])


def test_no_time_in_no_time_out():
    assert TapeMachine().play(np.zeros((2, 0)), 44_100, 0).wet.shape == (2, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hysteresis": JilesAtherton(solver="euler")}, "rk2, rk4, nr4, nr8"),
        ({"equalisation": Equalisation("ccir", "nab")}, "nab at 7.5 ips"),
        ({"speed_ips": 8.0}, "nab at 7.5 ips"),
        ({"hysteresis": JilesAtherton(drive=2.0)}, "from 0 to 1"),
        ({"oversampling": 0}, "at least 1"),
        ({"bias": Bias(over_peak_db=60.0)}, "over_peak_db"),
    ],
)
def test_wrong_settings_are_named(change, words):
    with pytest.raises(UserError, match=words):
        replace(TapeMachine(), **change).play(np.zeros((1, 100)), 44_100, 0)


def test_broken_input_is_named():
    with pytest.raises(UserError, match="NaN or infinite"):
        TapeMachine().play(np.full((1, 10), np.nan), 44_100, 0)
    with pytest.raises(ValueError, match="channels, time"):
        TapeMachine().play(np.zeros(10), 44_100, 0)


def test_the_record_equaliser_does_not_make_up_for_a_tilted_head():
    hz = np.array([10_000.0])
    straight, tilted = (replace(QUIET, azimuth=Azimuth(error_minutes=minutes)) for minutes in (0.0, 10.0))
    lost = tilted.response_db(hz, 48_000) - straight.response_db(hz, 48_000)
    assert lost[0] == pytest.approx(20 * np.log10(Azimuth(10.0).loss(hz, 7.5)[0]), abs=0.05) and lost[0] < -1


def test_long_tapes_are_magnetised_in_blocks_without_seams():
    x = 0.5 * np.random.default_rng(0).standard_normal(magnetics._BLOCK_SAMPLES + 5000)
    tape = magnetics.Tape(JilesAtherton(), Bias(), 7.5, oversampling=2)
    whole, late = tape.magnetise(x, 48_000), tape.magnetise(x[4000:], 48_000)
    np.testing.assert_allclose(whole[5000:-10], late[1000:-10], atol=1e-9)


def test_levels_out_of_reach_are_named():
    with pytest.raises(UserError, match="mol_db"):
        TapeMachine(mol_db=100.0)
