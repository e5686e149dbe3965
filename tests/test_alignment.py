import numpy as np
import pytest
import torch
from scipy.signal import butter, lfilter

from revox_lightning.dsp.alignment import DelaySearch, delay_samples

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
