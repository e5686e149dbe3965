import numpy as np
import pytest
import torch
from scipy.signal import butter, firwin, lfilter, oaconvolve

from revox_lightning.data.performer import perform
from revox_lightning.dsp.alignment import DelaySearch, delay_samples, fractional_delay, peak_of
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError

torch.set_num_threads(1)


def programme(frames=60_000, seed=0):
    return lfilter([1.0], [1.0, -0.98], np.random.default_rng(seed).standard_normal(frames))


@pytest.mark.parametrize("delay", [-3000, -1, 0, 7, 7056])
def test_a_delay_is_found_through_tape_like_changes(delay):
    x = programme()
    dry, wet = (x[8000 : 8000 + 40_000], x[8000 - delay : 8000 - delay + 40_000])
    noise = np.random.default_rng(1).standard_normal(40_000)
    worn = -np.tanh(0.3 * lfilter(*butter(1, 0.5), wet)) + 0.05 * noise  # inverted, saturated, dulled, noisy
    assert delay_samples(dry, wet) == delay
    assert abs(delay_samples(torch.from_numpy(dry), torch.from_numpy(worn)) - delay) <= 1


def test_the_search_stays_within_max_delay():
    x = programme()
    assert abs(delay_samples(x[5000:], x[:-5000], max_delay=100)) <= 100


def test_silence_and_malformed_input():
    assert delay_samples(np.zeros(1000), programme(1000)) == 0
    assert delay_samples(programme(1000), np.zeros(900)) == 0
    for dry, wet in ((np.zeros(0), np.zeros(0)), (np.zeros((1, 10)), np.zeros((1, 10)))):
        with pytest.raises(ValueError, match="expected dry and wet"):
            delay_samples(dry, wet)


def test_a_fraction_of_a_sample_is_found_in_a_stream():
    dry = np.random.default_rng(2).standard_normal(2**15) * np.hanning(2**15)
    frequency = np.fft.rfftfreq(2**15)
    wet = np.fft.irfft(np.fft.rfft(dry) * (frequency < 0.45) * np.exp(-2j * np.pi * frequency * 0.3))
    dry = np.fft.irfft(np.fft.rfft(dry) * (frequency < 0.45))
    search = DelaySearch()
    search.start_file(1)
    for start in range(0, len(wet), 4096):
        search.update(dry[None, start : start + 4096], wet[None, start : start + 4096])
    search.end_file()
    delay, correlation = search.best()
    assert delay == pytest.approx(0.3, abs=1e-3)
    assert correlation**2 == pytest.approx((dry @ dry) * (wet @ wet), rel=1e-5)


def worn(x, delay, polarity, band_hz, rate=44_100):
    """`x` late by any delay, through a filter that is the same forwards and backwards, and noise 40 dB below."""
    y = read_at(x, np.arange(len(x)) - delay)
    if band_hz:
        y = oaconvolve(y, firwin(1001, band_hz, fs=rate, pass_zero=False), mode="same")
    noise = np.random.default_rng(9).standard_normal(len(y))
    return polarity * 0.7 * (y + 0.01 * y.std() * noise)


SOURCES = {
    "noise": lambda: np.random.default_rng(0).standard_normal(132_300),
    "dull noise": lambda: programme(132_300),
    "programme": lambda: perform(6, 44_100, 0).astype(float),
}


@pytest.mark.parametrize("source", list(SOURCES))
@pytest.mark.parametrize("band_hz", [None, [60, 12_000], [300, 3_000]], ids=["full", "tape", "telephone"])
@pytest.mark.parametrize(("delay", "polarity"), [(0.37, 1), (-777.25, -1), (88_200.49, -1)])
def test_a_delay_is_found_to_a_hundredth_of_a_sample(source, band_hz, delay, polarity):
    x = SOURCES[source]()
    found, sign = fractional_delay(x, worn(x, delay, polarity, band_hz), max_delay=100_000)
    assert found == pytest.approx(delay, abs=0.01) and sign == polarity


def test_identical_signals_have_no_delay():
    x = programme(5000)
    delay, polarity = fractional_delay(x, torch.from_numpy(x))
    assert abs(delay) < 1e-6 and polarity == 1


def test_no_delay_is_read_off_silence_or_too_little():
    x = programme(5000)
    for dry, wet in ((x, np.zeros(5000)), (np.zeros(5000), x)):
        with pytest.raises(UserError, match="silent"):
            fractional_delay(dry, wet)
    with pytest.raises(UserError, match="overlap"):
        fractional_delay(x[:300], x[:300])
    with pytest.raises(ValueError, match="expected dry and wet"):
        fractional_delay(np.zeros((1, 10)), np.zeros((1, 10)))


def test_the_peak_of_a_pulse_between_samples_and_upside_down():
    n = np.arange(200)
    assert peak_of(-np.exp(-((n - 80.3) ** 2) / 30)) == pytest.approx(80.3, abs=1e-3)
    assert abs(peak_of(np.exp(-((n - 199.0) ** 2) / 30)) - 199) <= 1  # cut off at its top
