import math
import pickle

import numpy as np
import pytest
import torch

from revox_lightning import losses
from revox_lightning.dsp.loudness import Loudness, k_weighting
from revox_lightning.metrics import EffectMetrics, ErrorToSignalRatio, GainAlignedErrorToSignalRatio

torch.set_num_threads(1)
RATE_HZ = 44_100
STORED = {
    "esr_band_63hz": 0.02046477,
    "esr_band_125hz": 0.02339822,
    "esr_band_250hz": 0.02180548,
    "esr_band_500hz": 0.02368907,
    "esr_band_1khz": 0.02294733,
    "esr_band_2khz": 0.02315463,
    "esr_band_4khz": 0.02538674,
    "esr_band_8khz": 0.03017976,
    "esr_band_16khz": 0.03239919,
    "mrstft": 0.5075909,
    "spectral_centroid_error_hz": 352.0201,
    "lufs_error_db": 1.206359,
    "esr": 0.02408518,
    "esr_gain_aligned": 0.001863874,
    "esr_delay_aligned": 0.001857795,
    "esr_preemphasis": 0.02935072,
    "mae": 0.01475278,
    "rms_error_db": 1.199865,
}


def pair(frames=60_000, channels=1, seed=0):
    """Low-passed noise in bursts and a saturated, slightly noisy version of it, `(channels, frames)`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(channels, frames + 7, generator=generator)
    y = 0.3 * torch.nn.functional.avg_pool1d(noise, 8, 1) * (1 + torch.sin(torch.arange(frames) / 5000))
    return torch.tanh(1.2 * y) + 1e-3 * noise[:, :frames], y


def measured(*files, chunk=10_000, rate_hz=RATE_HZ):
    metrics = EffectMetrics(rate_hz)
    for y_hat, y in files:
        metrics.start_file()
        for parts in zip(y_hat.split(chunk, dim=1), y.split(chunk, dim=1), strict=True):
            metrics.update(*parts)
        metrics.end_file()
    return metrics.compute()


def test_empty_input_is_undefined_but_not_an_error():
    with pytest.raises(ValueError, match="no file"):
        EffectMetrics(RATE_HZ).compute()
    nothing = torch.zeros(1, 0)
    scores = measured((nothing, nothing))
    assert set(scores) == set(STORED)
    assert all(math.isnan(score) for score in scores.values())
    metrics = EffectMetrics(RATE_HZ)
    metrics.start_file()
    metrics.end_file()
    assert math.isnan(metrics.compute()["esr"])


def test_silence_and_nan_are_defined():
    y_hat, y = pair()
    silent = torch.zeros_like(y)
    for name, score in measured((y_hat, silent)).items():
        assert math.isnan(score) == (name not in {"mae", "mrstft"}), name
    scores = measured((silent, y))
    assert scores["esr"] == scores["esr_gain_aligned"] == scores["esr_delay_aligned"] == 1.0
    assert math.isnan(scores["lufs_error_db"])
    diverged = measured((y * math.nan, y))
    assert all(math.isnan(diverged[name]) for name in diverged if name != "spectral_centroid_error_hz")
    both = measured((silent, silent), (y_hat, y))  # a silent file adds nothing to the ratios of sums
    assert both["esr"] == pytest.approx(measured((y_hat, y))["esr"])
    assert both["lufs_error_db"] == pytest.approx(measured((y_hat, y))["lufs_error_db"])


def test_malformed_input_is_refused():
    metrics = EffectMetrics(RATE_HZ)
    with pytest.raises(ValueError, match="start_file"):
        metrics.update(*pair())
    with pytest.raises(ValueError, match="start_file"):
        metrics.end_file()
    metrics.start_file()
    with pytest.raises(ValueError, match="end_file"):
        metrics.start_file()
    metrics.update(*pair())
    for shapes in (((1, 10), (1, 11)), ((10,), (10,)), ((2, 10), (2, 10)), ((0, 10), (0, 10))):
        with pytest.raises(ValueError, match="shape"):
            metrics.update(*map(torch.zeros, shapes))


def test_identical_input_scores_perfectly():
    _, y = pair(channels=2)
    for name, score in measured((y, y)).items():
        assert abs(score) < 1e-9, name


def test_stored_input_gives_the_stored_scores():
    assert measured(pair()) == pytest.approx(STORED, rel=1e-4)


@pytest.mark.parametrize("chunk", [1, 999, 130_048])
def test_chunks_do_not_matter(chunk):
    files = (pair(3000 if chunk == 1 else 150_000, 2), pair(1500, 2, seed=1))
    assert measured(*files, chunk=chunk) == pytest.approx(measured(*files, chunk=12_345), rel=1e-6, nan_ok=True)


def test_memory_does_not_grow_with_the_length_of_a_file():
    metrics, sizes = EffectMetrics(RATE_HZ), []
    metrics.start_file()
    y_hat, y = pair(65_536)
    for blocks in (4, 20):
        for _ in range(blocks):
            metrics.update(y_hat, y)
        sizes.append(len(pickle.dumps(metrics)))
    assert abs(sizes[1] - sizes[0]) < 80_000  # what waits for the next block; the 20 blocks hold 10 MB


def test_ratios_are_of_sums_over_files():
    first, second = pair(), pair(20_000, seed=1)
    second = (2 * second[0], second[1])
    errors, targets = zip(
        *(((y - y_hat).square().sum(), y.square().sum()) for y_hat, y in (first, second)), strict=True
    )
    assert measured(first, second)["esr"] == pytest.approx((sum(errors) / sum(targets)).item(), rel=1e-5)


def test_waveform_scores_equal_their_definitions():
    y_hat, y = (signal.double() for signal in pair())
    scores = measured((y_hat, y))
    gain = (y_hat * y).sum() / y_hat.square().sum()
    expected = {
        "esr": (y - y_hat).square().sum() / y.square().sum(),
        "esr_gain_aligned": (y - gain * y_hat).square().sum() / y.square().sum(),
        "mae": (y - y_hat).abs().mean(),
        "rms_error_db": 10 * torch.log10(y_hat.square().sum() / y.square().sum()),
    }
    error, target = (losses.preemphasis(signal, 0.85) for signal in (y - y_hat, y))
    expected["esr_preemphasis"] = error.square().sum() / target.square().sum()
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value.item(), rel=1e-5), name


def test_small_metrics_stand_alone():
    y_hat, y = pair()
    for metric, name in ((ErrorToSignalRatio(), "esr"), (GainAlignedErrorToSignalRatio(), "esr_gain_aligned")):
        for parts in zip(y_hat.split(999, dim=1), y.split(999, dim=1), strict=True):
            metric.update(*parts)
        assert metric.compute().item() == pytest.approx(measured((y_hat, y))[name], rel=1e-9)


@pytest.mark.parametrize("delay", [0.0, 0.1, -3.37, 20.5])
def test_gain_and_fractional_delay_are_forgiven(delay):
    _, y = pair(2**16)
    y = torch.nn.functional.pad(y[:, 500:-500] * torch.hann_window(2**16 - 1000), (500, 500))
    turn = torch.exp(-2j * torch.pi * torch.fft.rfftfreq(2**16) * delay)
    y_hat = -0.5 * torch.fft.irfft(torch.fft.rfft(y) * turn)
    scores = measured((y_hat, y))
    assert scores["esr_delay_aligned"] < 2e-5
    if delay:
        assert scores["esr_gain_aligned"] > 1e-4


def test_a_delay_of_a_tenth_of_a_sample_costs_what_it_must_at_10_khz():
    t = torch.arange(RATE_HZ, dtype=torch.float64)
    late, tone = (torch.sin(2 * torch.pi * 9000 / RATE_HZ * (t - d))[None] for d in (0.1, 0.0))
    expected = 4 * math.sin(math.pi * 9000 / RATE_HZ * 0.1) ** 2
    assert measured((late, tone))["esr_band_8khz"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("name", "centre_hz"), [("63hz", 63), ("500hz", 500), ("4khz", 4000), ("16khz", 16_000)])
def test_each_octave_band_hears_its_own_error(name, centre_hz):
    t = torch.arange(3 * RATE_HZ) / RATE_HZ
    bands = {"63hz": 63, "125hz": 125, "250hz": 250, "500hz": 500, "1khz": 1000, "2khz": 2000, "4khz": 4000}
    bands |= {"8khz": 8000, "16khz": 16_000}
    y = sum(torch.sin(2 * torch.pi * f * t + f) for f in bands.values())[None]
    y_hat = y + 0.1 * torch.sin(2 * torch.pi * centre_hz * t + centre_hz)[None]
    scores = measured((y_hat, y))
    for band in bands:
        expected = 0.01 if band == name else 0.0
        assert scores[f"esr_band_{band}"] == pytest.approx(expected, rel=0.02, abs=1e-5), band


def test_bands_above_the_nyquist_frequency_are_left_out():
    scores = measured(pair(), rate_hz=16_000)
    assert "esr_band_4khz" in scores
    assert "esr_band_8khz" not in scores


def test_mrstft_agrees_with_the_loss():
    y_hat, y = pair(100_000)
    assert measured((y_hat, y))["mrstft"] == pytest.approx(losses.mrstft(y_hat[None], y[None]).item(), rel=0.01)


def test_gains_show_as_level_and_loudness():
    _, y = pair()
    scores = measured((0.5 * y, y))
    assert scores["rms_error_db"] == pytest.approx(-6.0206, abs=1e-4)
    assert scores["lufs_error_db"] == pytest.approx(-6.0206, abs=1e-4)
    assert scores["spectral_centroid_error_hz"] < 10


def test_the_centroid_moves_with_a_tone():
    t = torch.arange(RATE_HZ) / RATE_HZ
    tones = [torch.sin(2 * torch.pi * hz * t)[None] for hz in (3000, 2000)]
    assert measured(tones)["spectral_centroid_error_hz"] == pytest.approx(1000, rel=0.02)


def test_k_weighting_is_the_table_of_the_standard():
    """ITU-R BS.1770-4, annex 1, tables 1 and 2, 48 kHz."""
    expected = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_allclose(k_weighting(48_000), expected, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_loudness_of_the_reference_tone_and_its_gates(rate_hz):
    """EBU Tech 3341: a stereo 1 kHz tone at -23 dBFS is -23 LUFS; quiet parts 10 LU below do not count."""
    tone = np.sin(2 * np.pi * 1000 / rate_hz * np.arange(20 * rate_hz))
    level = np.where(np.arange(len(tone)) < 12 * rate_hz, 10 ** (-23 / 20), 10 ** (-36 / 20))
    meter = Loudness(rate_hz, channels=2)
    for part in np.array_split(np.stack([tone * level] * 2), 13, axis=1):
        meter.update(part)
    assert meter.lufs == pytest.approx(-23.0, abs=0.1)
    short = Loudness(rate_hz, channels=1)
    short.update(tone[None, : int(0.39 * rate_hz)])
    assert math.isnan(short.lufs)
