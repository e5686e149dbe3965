"""Test signals, and what every instrument says of input that cannot be measured."""

import numpy as np
import pytest

from revox_lightning.errors import UserError
from revox_lightning.measure import aliasing, distortion, noise, response, speed, stereo, transfer
from revox_lightning.measure.signals import Sweep, level_dbfs, tone, two_tones

RATE = 48_000
SWEEP = Sweep(20.0, 20_000.0, 2.0, RATE, -12.0)
GOOD = tone(1000.0, 2.0, RATE, -20.0)
INSTRUMENTS = {
    "sweep_responses": lambda x: response.sweep_responses(x, SWEEP),
    "transfer, dry": lambda x: response.transfer(x, GOOD, RATE),
    "transfer, wet": lambda x: response.transfer(GOOD, x, RATE),
    "harmonics": lambda x: distortion.harmonics(x, 1000.0, RATE),
    "intermodulation_smpte": lambda x: distortion.intermodulation_smpte(x, RATE),
    "intermodulation_difference": lambda x: distortion.intermodulation_difference(x, RATE),
    "modulation_noise": lambda x: distortion.modulation_noise(x, 1000.0, RATE),
    "demodulate": lambda x: speed.demodulate(x, RATE),
    "noise_level_dbfs": lambda x: noise.noise_level_dbfs(x, RATE),
    "noise_level_dbfs, quasi-peak": lambda x: noise.noise_level_dbfs(x, RATE, "itu_r_468", "quasi_peak"),
    "noise_spectrum": lambda x: noise.noise_spectrum(x, RATE),
    "hum": lambda x: noise.hum(x, RATE),
    "channel_balance_db": lambda x: stereo.channel_balance_db(GOOD, x, RATE),
    "channel_balance_db, tone": lambda x: stereo.channel_balance_db(x, GOOD, RATE, 1000.0),
    "crosstalk_db": lambda x: stereo.crosstalk_db(x, GOOD, 1000.0, RATE),
    "azimuth": lambda x: stereo.azimuth(x, GOOD, RATE),
    "dynamic_transfer, dry": lambda x: transfer.dynamic_transfer(x, GOOD, 1000.0, RATE),
    "dynamic_transfer, wet": lambda x: transfer.dynamic_transfer(GOOD, x, 1000.0, RATE),
    "aliasing_db": lambda x: aliasing.aliasing_db(x, 1000.5, RATE),
}
BAD = {
    "empty": (np.zeros(0), "is empty"),
    "short": (GOOD[2000:2500], "lasts|periods"),
    "silent": (np.zeros(2 * RATE), "silent"),
    "not a number": (np.where(np.arange(2 * RATE) == 99, np.nan, GOOD), "holds 1 samples that are no numbers"),
    "stereo": (np.zeros((2, RATE)), r"shape \(2, 48000\)"),
    "complex": (GOOD + 0j, "complex128"),
}


@pytest.mark.parametrize("instrument", INSTRUMENTS)
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_measured_is_named_in_one_sentence(instrument, bad):
    x, says = BAD[bad]
    with pytest.raises(UserError, match=says) as error:
        INSTRUMENTS[instrument](x)
    assert "\n" not in str(error.value) and ";" in str(error.value)


@pytest.mark.parametrize("rate", [0, -1, np.nan, np.inf])
def test_a_sample_rate_is_a_positive_number(rate):
    with pytest.raises(UserError, match="sample rate"):
        noise.noise_level_dbfs(GOOD, rate)
    with pytest.raises(UserError, match="cannot be made"):
        tone(1000.0, 1.0, rate, -20.0)


@pytest.mark.parametrize(
    "name", ["harmonics", "demodulate", "crosstalk_db", "modulation_noise", "dynamic_transfer, wet"]
)
def test_noise_is_no_tone(name):
    with pytest.raises(UserError, match="stands out"):
        INSTRUMENTS[name](np.random.default_rng(0).standard_normal(2 * RATE))


def test_a_tone_has_its_level_and_frequency_and_no_click():
    x = tone(1000.0, 1.0, RATE, -20.0)
    assert np.isclose(level_dbfs(x[1000:-1000]), -20, atol=1e-3)
    assert np.argmax(np.abs(np.fft.rfft(x))) == 1000
    assert abs(x[0]) < 1e-6 and abs(x[-1]) < 1e-4 and x.dtype == np.float64


def test_two_tones_have_the_peak_of_one_and_their_ratio():
    x = two_tones((60.0, 7000.0), 4.0, 2.0, RATE, -6.0, fade_seconds=0.0)
    line = np.abs(np.fft.rfft(x)) / RATE
    assert np.isclose(line[120] / line[14_000], 4, rtol=1e-6)
    assert np.isclose(line[120] + line[14_000], 10 ** (-6 / 20), rtol=1e-6)


def test_tones_beyond_half_the_rate_are_refused():
    with pytest.raises(UserError, match="below its half"):
        tone(24_000.0, 1.0, RATE, -20.0)
    with pytest.raises(UserError, match="below 0"):
        Sweep(20.0, 23_500.0, 2.0, RATE, -12.0)
    with pytest.raises(UserError, match="rise"):
        Sweep(2000.0, 20.0, 2.0, RATE, -12.0)


def test_a_sweep_passes_each_frequency_when_it_says_at_full_level():
    sweep = Sweep(20.0, 20_000.0, 6.0, RATE, -12.0)
    x = sweep.signal()
    assert len(x) == 6 * RATE and abs(x[0]) < 1e-6 and abs(x[-1]) < 1e-3
    for hz in (100.0, 1000.0, 10_000.0):
        at = round(sweep.passes_seconds(hz) * RATE)
        around = x[at - 960 : at + 960]
        crossings = np.count_nonzero(np.diff(np.signbit(around))) / 2 / 0.04
        assert np.isclose(crossings, hz, rtol=0.15 if hz == 100 else 0.01)
        assert np.isclose(np.abs(around).max(), 10 ** (-12 / 20), rtol=0.02)


def test_the_harmonics_of_a_sweep_are_the_sweep_itself_earlier():
    sweep = Sweep(20.0, 4000.0, 4.0, RATE, 0.0)
    t = np.arange(RATE, 2 * RATE) / RATE
    phase = 2 * np.pi * sweep.lowest_hz * sweep.seconds_per_e * np.exp(t / sweep.seconds_per_e)
    later = t + sweep.lead_seconds(3)
    earlier = np.interp(later, np.arange(4 * RATE) / RATE, sweep.signal())
    assert np.abs(np.sin(3 * phase) - earlier).max() < 0.01  # linear interpolation
