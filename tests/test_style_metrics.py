"""The figures of a production style: empty, malformed, identical and stored input for each, and their references."""

import math
import sys

import auraloss
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from revox_lightning.errors import UserError
from revox_lightning.measure import style, style_spectra

torch.set_num_threads(1)
RATE_HZ = 24_000
STORED = {
    "stft_distance": 2.90772,
    "mel_distance": 57.20577,
    "spectral_centroid_error_hz": 130.1388,
    "crest_factor_error_db": 4.645542,
    "rms_error_db": 5.081772,
    "lufs_error_db": 4.906046,
}


def pair(samples=70_000, channels=1, seed=0):
    """Low-passed noise that swells, and a saturated, slightly noisy version of it, (channels, samples)."""
    noise = torch.randn(channels, samples + 7, generator=torch.Generator().manual_seed(seed))
    y = 0.3 * torch.nn.functional.avg_pool1d(noise, 8, 1) * (1 + torch.sin(torch.arange(samples) / 5000))
    return torch.tanh(2 * y) + 1e-3 * noise[:, :samples], y


def vowel(seconds=1.6, rate_hz=16_000):
    """A buzz whose pitch and colour move, with pauses: enough of a voice for PESQ."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * t)) / rate_hz
    buzz = sum(np.cos(k * phase) / k * (1 + np.sin(2 * np.pi * 2 * t + k)) for k in range(1, 25))
    return torch.from_numpy(0.05 * buzz * (np.sin(2 * np.pi * 1.2 * t) > -0.5)).float()[None]


def features(frames=900, dimensions=8, seed=0):
    return torch.randn(frames, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_empty_and_silent_input_say_nothing_instead_of_something_wrong():
    for samples in (0, 1, 500):
        found = style.style_metrics(torch.zeros(1, samples), torch.zeros(1, samples), RATE_HZ)
        assert set(found) == set(STORED)
        assert all(value is None for name, value in found.items() if name != "stft_distance")
    silent, (_, y) = torch.zeros(1, 70_000), pair()
    found = style.style_metrics(silent, y, RATE_HZ, paper_exact=True)
    assert found["rms_error_db"] is found["rms_error_published"] is found["lufs_error_db"] is None
    assert found["stft_distance"] > 1 and found["mel_distance"] > 1


def test_malformed_input_is_refused():
    for shapes in (((1, 10), (1, 11)), ((10,), (10,)), ((1, 1, 10), (1, 1, 10))):
        with pytest.raises(ValueError, match="shape"):
            style.style_metrics(*map(torch.zeros, shapes), RATE_HZ)
    with pytest.raises(ValueError, match="shape"):
        style_spectra.mel_distance(torch.zeros(1, 40_000), torch.zeros(1, 40_001), RATE_HZ)
    with pytest.raises(UserError, match="longer audio"):
        style_spectra.stft_distance(torch.zeros(1, 16), torch.zeros(1, 16))
    with pytest.raises(ValueError, match="sample rate"):
        style_spectra.stft_distance(torch.zeros(1, 900), torch.zeros(1, 900), limit_hz=100.0)


def test_identical_input_scores_perfectly():
    _, y = pair(channels=2)
    assert all(value == 0 for value in style.style_metrics(y, y, RATE_HZ, paper_exact=True).values())


def test_stored_input_gives_the_stored_scores():
    assert style.style_metrics(*pair(), RATE_HZ) == pytest.approx(STORED, rel=1e-4)


def test_spectral_distances_are_those_of_auraloss():
    y_hat, y = (x[None] for x in pair())
    sizes = list(style_spectra.STFT_SIZES)
    weights = {"w_sc": 0.0, "w_log_mag": 1.0, "w_lin_mag": 1.0}
    published = auraloss.freq.MultiResolutionSTFTLoss(sizes, [n // 2 for n in sizes], sizes, **weights)
    assert style_spectra.stft_distance(y_hat, y).item() == pytest.approx(published(y_hat, y).item(), rel=1e-5)


@pytest.mark.parametrize(("bands", "size", "rate_hz"), [(128, 65_536, 44_100), (64, 2048, 24_000)])
def test_mel_filters_are_those_of_torchaudio(bands, size, rate_hz):
    from torchaudio.functional import melscale_fbanks

    expected = melscale_fbanks(size // 2 + 1, 0.0, rate_hz / 2, bands, rate_hz, "slaney", "slaney").T
    torch.testing.assert_close(style_spectra.mel_filters(bands, size, rate_hz), expected, atol=1e-6, rtol=1e-3)


def test_levels_of_known_signals():
    t = torch.arange(2 * RATE_HZ) / RATE_HZ
    sine, square = torch.sin(2 * math.pi * 1000 * t)[None], torch.ones(1, 2 * RATE_HZ)
    assert style.crest_factor_db(sine) == pytest.approx(10 * math.log10(2), abs=1e-3)
    assert style.crest_factor_db(square) == 0.0 and style.rms_db(0.1 * square) == pytest.approx(-20.0, abs=1e-5)
    assert style.lufs(sine, RATE_HZ) == pytest.approx(-3.01, abs=0.05)
    found = style.style_metrics(sine, 0.1 * sine, RATE_HZ, paper_exact=True)
    assert found["rms_error_db"] == pytest.approx(20.0, abs=1e-4)
    assert found["lufs_error_db"] == pytest.approx(20.0, abs=1e-3)
    assert found["crest_factor_error_db"] == pytest.approx(0.0, abs=1e-4)
    assert found["rms_error_published"] == pytest.approx(20 * math.log(10), abs=1e-3)
    low = torch.sin(2 * math.pi * 250 * t)[None]
    assert style.style_metrics(low, sine, RATE_HZ)["spectral_centroid_error_hz"] == pytest.approx(750, rel=0.02)


def test_nothing_counts_above_the_limit():
    t = torch.arange(70_000) / RATE_HZ
    _, y = pair()
    whistling = y + 0.2 * torch.sin(2 * math.pi * 10_000 * t)
    names = ("stft_distance", "mel_distance", "spectral_centroid_error_hz")
    free, limited = (style.style_metrics(whistling, y, RATE_HZ, limit_hz=limit) for limit in (None, 6000.0))
    assert all(limited[name] < 0.25 * free[name] for name in names), (free, limited)
    assert style_spectra.mel_distance(*pair(), RATE_HZ, 6000.0).item() > 0


def test_the_distance_can_be_trained_on():
    y_hat, y = (x.double() for x in pair(400))
    y_hat.requires_grad_()
    distance = lambda x: style_spectra.stft_distance(x, y, sizes=(32, 128))  # noqa: E731
    assert torch.autograd.gradcheck(distance, (y_hat,), atol=1e-5, fast_mode=True)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(distance(0 * y), y)
    assert torch.isfinite(gradient).all()


def test_a_mean_leaves_out_what_is_unknown():
    rows = [{"pesq": 4.0, "a": 1.0}, {"pesq": None, "a": 3.0}, {"a": None}]
    assert style.mean_scores(rows) == {"pesq": 4.0, "a": 2.0}
    assert style.mean_scores([{"pesq": None}]) == {"pesq": None} and style.mean_scores([]) == {}


def test_pesq_scores_a_voice_and_fails_with_none():
    pytest.importorskip("pesq", reason="the extra `style` is not installed")
    y = vowel()
    hiss = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    same, noisy, bad = (style.pesq_score(y + level * hiss, y, 16_000) for level in (0.0, 1e-3, 1e-1))
    assert same == pytest.approx(4.64, abs=0.01) and same > noisy > bad >= 1.0
    assert noisy == pytest.approx(1.525, abs=5e-3)
    assert style.pesq_score(torch.zeros(1, 0), torch.zeros(1, 0), 16_000) is None
    assert style.pesq_score(torch.zeros_like(y), y, 16_000) is None
    assert style.pesq_score(y[:, :1000], y[:, :1000], 16_000) is None
    assert style.style_metrics(y, y, 16_000, pesq=True)["pesq"] == same
    with pytest.raises(ValueError, match="shape"):
        style.style_metrics(y, y[:, 1:], 16_000, pesq=True)


def test_without_the_package_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(UserError, match=r"pip install 'revox_lightning\[style\]'"):
        style.style_metrics(*pair(2000), RATE_HZ, pesq=True)


def test_frechet_distance_of_known_gaussians():
    a, b = features(), features(seed=1) @ features(8, 8, seed=2) + 0.5
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert style_spectra.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert style_spectra.frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    assert style_spectra.frechet_distance(a, a + 3.0) == pytest.approx(8 * 9.0)


def test_frechet_distance_empty_malformed_identical_stored():
    for few in (torch.zeros(0, 8), features(79)):
        with pytest.raises(UserError, match="needs 80 frames, got"):
            style_spectra.frechet_distance(few, features())
    with pytest.raises(UserError, match="needs 640 frames, got 0"):
        style_spectra.fd_logmel([], [torch.zeros(1, 0)], RATE_HZ)
    with pytest.raises(ValueError, match="frames, dimensions"):
        style_spectra.frechet_distance(features(), features(dimensions=9))
    y_hat, y = pair(700 * 1024, channels=2)
    assert style_spectra.fd_logmel([y], [y], RATE_HZ) < 1e-6
    stored = style_spectra.fd_logmel([y_hat], [y], RATE_HZ)
    assert stored == pytest.approx(24.8616, rel=1e-3)
    worse = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    assert style_spectra.fd_logmel([worse], [y], RATE_HZ) > stored
    assert style_spectra.log_mel(y, RATE_HZ).shape == (701, 64)


def test_a_probe_tells_styles_that_a_plane_parts():
    names = torch.tensor([3, 7, 9]).repeat(40)
    points = 2.5 * torch.eye(6)[names // 3] + torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
    split = torch.arange(120) < 90
    held_out = points[~split], names[~split]
    assert style.probe_accuracy(4 * torch.eye(10)[names], names, 4 * torch.eye(10)[names], names) == 1.0
    assert style.probe_accuracy(points[split], names[split], *held_out) == pytest.approx(26 / 30, abs=1e-6)
    shuffled = points.roll(1, 0)[~split], names[~split]
    assert style.probe_accuracy(points[split], names[split], *shuffled) < 0.2


def test_a_probe_of_nothing_or_of_one_style_is_refused():
    with pytest.raises(ValueError, match="features"):
        style.probe_accuracy(torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3), torch.zeros(0))
    with pytest.raises(ValueError, match="features"):
        style.probe_accuracy(torch.zeros(4, 3), torch.zeros(5), torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(UserError, match="two styles"):
        style.probe_accuracy(torch.randn(4, 3), torch.ones(4), torch.randn(4, 3), torch.ones(4))
