"""Distortion, intermodulation, modulation noise, aliasing and the loop, on polynomials whose harmonics are known."""

import numpy as np
import pytest

from revox_lightning.errors import UserError
from revox_lightning.measure.aliasing import aliasing_db, coherent_tone_hz
from revox_lightning.measure.distortion import (
    harmonics,
    intermodulation_difference,
    intermodulation_smpte,
    maximum_output_level,
    modulation_noise,
    saturated_output_level,
)
from revox_lightning.measure.transfer import dynamic_transfer

RATE = 48_000
POLYNOMIAL = np.array([0.08, 0.1, 0.15, 0.2, 1.0, 0.0])
TIME = np.arange(2 * RATE) / RATE
RANDOM = np.random.default_rng(0)


def wavering(hz, time=TIME):
    """Phase of a tone that runs 1.3 % fast, with 0.2 % of wow at 5 Hz and 0.05 % of flutter at 30 Hz."""
    wow = 0.002 / (10 * np.pi) * np.sin(10 * np.pi * time) + 0.0005 / (60 * np.pi) * np.sin(60 * np.pi * time)
    return 2 * np.pi * hz * 1.013 * (time + wow)


@pytest.mark.parametrize(
    "phase", [2 * np.pi * 1000 * TIME, wavering(1000.0), wavering(315.0)], ids=["steady", "waver", "low"]
)
@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_each_harmonic_is_found_within_a_tenth_of_a_db(phase, noise):
    amplitude = 0.5
    found = harmonics(
        np.polyval(POLYNOMIAL, amplitude * np.sin(phase)) + noise * RANDOM.standard_normal(phase.size),
        phase[-1] / TIME[-1] / 2 / np.pi / 1.01,
        RATE,
    )
    truth = (
        np.abs(np.fft.rfft(np.polyval(POLYNOMIAL, amplitude * np.sin(2 * np.pi * np.arange(4096) / 4096))))[:8] / 2048
    )
    assert np.abs(20 * np.log10(found.relative[1:5] / (truth[2:6] / truth[1]))).max() < 0.1
    assert found.level_dbfs == pytest.approx(20 * np.log10(truth[1]), abs=0.01)
    assert found.thd_percent == pytest.approx(100 * np.linalg.norm(truth[2:]) / truth[1], rel=0.01)
    assert found.third_percent == pytest.approx(100 * truth[3] / truth[1], rel=0.01)
    assert found.relative[0] == 1 and found.relative.shape == (7,)
    assert found.frequency_hz == pytest.approx(phase[-1] / TIME[-1] / 2 / np.pi, rel=3e-3)


def test_a_clean_tone_has_no_distortion_and_noise_is_told_from_it():
    x = 0.1 * np.sin(2 * np.pi * 1000 * TIME)
    clean = harmonics(x, 1000.0, RATE)
    assert (
        clean.thd_percent < 1e-4 and clean.thd_noise_percent < 1e-3 and clean.level_dbfs == pytest.approx(-20, abs=1e-4)
    )
    noisy = harmonics(x + 1e-3 * RANDOM.standard_normal(x.size), 1000.0, RATE)
    share = 100 * 1e-3 * np.sqrt(19_980 / 24_000) / (0.1 / np.sqrt(2))
    assert noisy.thd_noise_percent == pytest.approx(share, rel=0.03) and noisy.thd_percent < share / 20


def test_harmonics_past_the_band_are_not_numbers_and_silence_around_the_tone_is_left_out():
    x = np.pad(np.sin(2 * np.pi * 9000 * TIME[:RATE]), (RATE // 2, RATE // 4))
    found = harmonics(x, 9000.0, RATE)
    assert np.isfinite(found.relative[:2]).all() and np.isnan(found.relative[2:]).all()
    assert found.level_dbfs == pytest.approx(0, abs=1e-3)
    with pytest.raises(UserError, match="3 or more"):
        harmonics(x, 9000.0, RATE, count=2)
    with pytest.raises(UserError, match="stands out"):
        harmonics(x, 7000.0, RATE)


def test_maximum_output_is_where_the_third_harmonic_reaches_three_percent():
    level = np.arange(-12.0, 9.0, 3.0)
    third = 3.0 * 10 ** ((level - 4.2) / 10)  # grows with the square of the level
    assert maximum_output_level(level, third) == pytest.approx(4.2, abs=1e-6)
    assert maximum_output_level(level, third, at=1.0) == pytest.approx(4.2 - 10 * np.log10(3), abs=1e-6)
    assert maximum_output_level(level[:3], third[:3]) is None  # not reached
    assert maximum_output_level(level, third + 5) is None  # always past it
    assert maximum_output_level(level, np.where(level == 0, np.nan, third)) == pytest.approx(4.2, abs=1e-6)
    with pytest.raises(UserError, match="one length"):
        maximum_output_level(level, third[:-1])
    with pytest.raises(UserError, match="0 points"):
        maximum_output_level(np.zeros(0), np.zeros(0))


def test_saturated_output_is_the_most_that_comes_out():
    drive = np.arange(-10.0, 12.0, 2.0)
    out = 3.0 - 0.05 * (drive - 6.7) ** 2
    assert saturated_output_level(drive, out) == pytest.approx(3.0, abs=1e-9)
    assert saturated_output_level(drive[::-1], out[::-1]) == pytest.approx(3.0, abs=1e-9)
    assert saturated_output_level(drive, drive) is None
    assert saturated_output_level(drive, np.minimum(drive, 4.0)) == pytest.approx(4.0, abs=0.3)
    with pytest.raises(UserError, match="two levels"):
        saturated_output_level(drive[:1], out[:1])


def test_smpte_intermodulation_of_a_polynomial_while_flutter_does_not_read():
    low, high, second, third = 0.4, 0.1, 0.05, 0.1
    flutter = 0.3 * np.sin(4 * np.pi * TIME) + 0.05 * np.sin(2 * np.pi * 55 * TIME)
    x = low * np.sin(wavering(60.0)) + high * np.sin(2 * np.pi * 7020 * TIME + flutter)
    y = x + second * x**2 + third * x**3
    carrier = 1 + 3 * third * (low**2 / 2 + high**2 / 4)
    truth = np.hypot(2 * second * low / carrier, 1.5 * third * low**2 / carrier)
    assert intermodulation_smpte(y, RATE) == pytest.approx(100 * truth, rel=0.01)
    assert intermodulation_smpte(x, RATE) < 0.01
    with pytest.raises(UserError, match="7000 Hz"):
        intermodulation_smpte(low * np.sin(2 * np.pi * 60 * TIME) + 1e-3 * RANDOM.standard_normal(TIME.size), RATE)


def test_difference_tones_of_a_polynomial():
    each, second, third = 0.3, 0.05, 0.1
    x = each * (np.sin(wavering(13_000.0)) + np.sin(wavering(14_000.0)))
    both = 2 * each * (1 + third * 2.25 * each**2)
    found = intermodulation_difference(x + second * x**2 + third * x**3, RATE)
    assert found.second_percent == pytest.approx(100 * second * each**2 / both, rel=0.01)
    assert found.third_percent == pytest.approx(100 * 1.5 * third * each**3 / both, rel=0.01)
    clean = intermodulation_difference(x, RATE)
    assert clean.second_percent < 1e-3 and clean.third_percent < 1e-3


def test_modulation_noise_of_a_known_modulation_and_hiss_taken_off():
    time = np.arange(10 * RATE) / RATE
    random = np.random.default_rng(1)
    spectrum = np.fft.rfft(random.standard_normal(time.size))
    hz = np.fft.rfftfreq(time.size, 1 / RATE)
    modulation = np.fft.irfft(np.where((hz > 50) & (hz < 500), spectrum, 0), time.size)
    modulation *= 0.01 / np.std(modulation)
    x = np.sin(2 * np.pi * 1000 * time) * (1 + modulation)
    assert modulation_noise(x, 1000.0, RATE) == pytest.approx(-40, abs=0.05)
    hiss = 0.05 * random.standard_normal((2, time.size))
    noisy = modulation_noise(x + hiss[0], 1000.0, RATE)
    share = 10 * np.log10(0.0001 + 0.0025 * 900 / 24_000 * 2)
    assert noisy == pytest.approx(share, abs=0.15)
    assert modulation_noise(x + hiss[0], 1000.0, RATE, hiss[1]) == pytest.approx(-40, abs=0.4)
    assert modulation_noise(x, 1000.0, RATE, hiss[1]) == -400  # the hiss is more than all there is
    assert modulation_noise(np.sin(wavering(1000.0)), 1000.0, RATE) < -60
    with pytest.raises(UserError, match="below the tone"):
        modulation_noise(x, 1000.0, RATE, reach_hz=2000.0)


def test_aliasing_is_what_folds_back():
    samples = RATE
    hz = coherent_tone_hz(5000.0, samples, RATE)
    x = np.sin(2 * np.pi * hz * np.arange(samples) / RATE)
    assert hz == 4999 and aliasing_db(x, hz, RATE) < -200
    assert aliasing_db(x + 0.1 * x**3 + 0.2, hz, RATE) < -200  # the third harmonic fits
    folded = 0.1 * np.hypot(7, 1) / 64  # the fifth and seventh harmonics of a sine to the seventh, at 23 and 13 kHz
    truth = 20 * np.log10(folded / (1 + 0.1 * 35 / 64))
    assert aliasing_db(x + 0.1 * x**7, hz, RATE) == pytest.approx(truth, abs=1e-3)


def test_aliasing_refuses_tones_that_would_hide_it():
    x = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    with pytest.raises(UserError, match="fall onto harmonics; take a tone of 1001 Hz"):
        aliasing_db(x, 1000.0, RATE)
    with pytest.raises(UserError, match="whole number"):
        aliasing_db(x, 1000.3, RATE)
    with pytest.raises(UserError, match="holds no tone at 1001 Hz"):
        aliasing_db(x, 1001.0, RATE)
    with pytest.raises(UserError, match="hold no tone"):
        coherent_tone_hz(1000.0, 10, RATE)


def test_the_loop_of_a_curve_is_the_curve():
    dry = 0.5 * np.sin(2 * np.pi * 1000 * TIME)
    wet = np.sin(wavering(1000.0))
    wet = 0.5 * wet + 0.05 * wet**3 + 1e-4 * RANDOM.standard_normal(wet.size)
    x, y = dynamic_transfer(dry, wet, 1000.0, RATE)
    assert x.shape == y.shape == (512,)
    assert np.abs(y - (x + 0.4 * x**3)).max() < 1e-3
    assert all(np.allclose(*pair) for pair in [dynamic_transfer(dry, dry, 1000.0, RATE)])
    with pytest.raises(UserError, match="points"):
        dynamic_transfer(dry, wet, 1000.0, RATE, points=1)


def test_the_loop_of_a_lag_in_the_third_harmonic_is_open():
    phase = 2 * np.pi * 1000 * TIME
    x, y = dynamic_transfer(np.cos(phase), np.cos(phase) + 0.1 * np.cos(3 * phase - np.pi / 2), 1000.0, RATE, 64)
    angle = 2 * np.pi * np.arange(64) / 64
    assert np.allclose(x, np.cos(angle), atol=1e-6) and np.allclose(
        y, np.cos(angle) + 0.1 * np.sin(3 * angle), atol=1e-6
    )
