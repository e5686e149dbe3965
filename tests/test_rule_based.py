"""The matcher without learning: equaliser, threshold search, peaks; any length and any number of channels."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import firwin2, freqz, lfilter

from revox_lightning.dsp import rule_based
from revox_lightning.errors import UserError

torch.set_num_threads(1)
RATE_HZ = 24_000


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def accented(seconds=1.5, channels=1, accent_db=12.0):
    """Noise with loud passages of a tenth of a second: room for a compressor."""
    samples = int(seconds * RATE_HZ)
    loud = (1 - torch.cos(2 * math.pi * torch.arange(samples) / 2400)) / 2 * (torch.arange(samples) % 12_000 < 2400)
    begins = (torch.arange(samples) / 2400).clamp(max=1.0)  # no attack lets the first sample through uncompressed
    return begins * noise(channels, samples) * 10 ** (accent_db / 20 * loud)


def test_a_signal_matches_itself():
    x = accented()
    y, chosen = rule_based.match(x, x, RATE_HZ)
    expected = x * 10 ** (-12 / 20) / x.abs().max()
    assert chosen["threshold_db"] is None
    # only the tap that closes the filter at half the sample rate is missing
    assert (y - expected).square().sum() < 0.02 * expected.square().sum()
    assert torch.argmax(torch.tensor(chosen["taps"])) == 31


def test_the_response_of_a_filter_is_found_and_the_sample_stays_in_its_place():
    taps = firwin2(63, [0, 3000, 6000, 12000], [1, 1, 0.25, 0.25], fs=RATE_HZ)
    x = noise(1, 6 * RATE_HZ)
    wet = torch.from_numpy(lfilter(taps, 1, x.numpy()))
    y, chosen = rule_based.match(x, wet, RATE_HZ)
    hz, gain = freqz(chosen["taps"], worN=400, fs=RATE_HZ)
    inside = (hz > 200) & (hz < 10_500)
    gain_db = 20 * np.log10(np.abs(gain)[inside]) - 20 * np.log10(np.abs(freqz(taps, worN=400, fs=RATE_HZ)[1][inside]))
    assert np.abs(gain_db - np.median(gain_db)).max() < 1.0
    aligned = wet[:, 31:].float()
    cosine = torch.nn.functional.cosine_similarity(y[:, : aligned.shape[1]], aligned)
    assert cosine.item() > 0.99


def test_a_compressors_threshold_is_that_of_all_steps_one_after_another():
    x = accented()
    y, chosen = rule_based.match(x, accented(accent_db=8.0), RATE_HZ)
    assert chosen["threshold_db"] is not None and chosen["threshold_db"] % 0.5 == 0
    assert chosen["reference_lufs"] - chosen["output_lufs"] <= 0.5 < chosen["reference_lufs"] - chosen["input_lufs"]
    assert y.abs().max().item() == pytest.approx(10 ** (-12 / 20), rel=1e-5)

    taps = np.array(chosen["taps"])
    dry = rule_based._at_peak(x.double().numpy())
    dry = rule_based._at_peak(np.convolve(dry[0], taps)[None, 31 : 31 + dry.shape[1]])
    step = 0
    while True:
        loudness = rule_based._lufs(rule_based._compressed(dry, -0.5 * step, RATE_HZ), RATE_HZ)
        if chosen["reference_lufs"] - loudness <= 0.5:
            break
        step += 1
    assert chosen["threshold_db"] == -0.5 * step


@pytest.mark.parametrize("first", [0, 1, 15, 16, 17, 100, 160])
def test_the_search_meets_the_grid(first):
    assert rule_based._threshold_db(lambda t: float(t <= -0.5 * first) - 1, 0.0) == -0.5 * first


def test_out_of_reach_the_threshold_is_the_lowest():
    assert rule_based._threshold_db(lambda t: -30.0, -10.0) == -80.0


@pytest.mark.parametrize(("time", "channels", "other"), [(1, 1, 50_000), (70_001, 2, 300), (9_000, 2, 9_000)])
def test_any_length_any_channels(time, channels, other):
    y, chosen = rule_based.match(noise(channels, time), noise(1, other, seed=1), RATE_HZ)
    assert y.shape == (channels, time) and y.dtype == torch.float32 and torch.isfinite(y).all()
    assert y.abs().max().item() == pytest.approx(10 ** (-12 / 20), rel=1e-5)
    assert all(value is None or np.isfinite(value).all() for value in chosen.values())


def test_levels_of_input_and_reference_do_not_matter():
    x, reference = accented(), accented(accent_db=8.0)
    y, _ = rule_based.match(x, reference, RATE_HZ)
    again, _ = rule_based.match(0.01 * x, 3 * reference, RATE_HZ)
    torch.testing.assert_close(again, y, atol=1e-5, rtol=1e-4)


def test_the_average_spectrum_of_a_tone():
    tone = np.sin(2 * math.pi * 3000 * np.arange(4 * 65_536) / RATE_HZ)[None]
    spectrum = rule_based.average_spectrum(tone)
    assert spectrum.argmax() == round(3000 * 65_536 / RATE_HZ)


def test_silence_and_malformed_input_are_refused():
    x = noise(1, 1000)
    for pair, name in (((torch.zeros(1, 1000), x), "input"), ((x, torch.zeros(1, 0)), "reference")):
        with pytest.raises(UserError, match=f"the {name} is silent or empty"):
            rule_based.match(*pair, RATE_HZ)
    with pytest.raises(ValueError, match="channels, time"):
        rule_based.match(x[0], x, RATE_HZ)
