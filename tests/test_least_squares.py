import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from revox_lightning import audio
from revox_lightning.dsp.least_squares import Correlations, best_filter
from revox_lightning.errors import UserError

torch.set_num_threads(1)


def coloured_noise(frames, seed=0):
    return lfilter([1.0], [1.0, -0.95], np.random.default_rng(seed).standard_normal(frames))


def test_a_known_filter_is_found_with_and_without_lookahead():
    dry = coloured_noise(30_000)
    h = np.random.default_rng(1).standard_normal(100) * 0.95 ** np.arange(100)
    wet = np.convolve(dry, h)[: len(dry)]
    data = Correlations(max_taps=256, max_lookahead=16)
    data.update(dry, wet)
    found = data.solve(128, 0, ridge=0.0)
    assert np.abs(found.numpy()[:100] - h).max() < 1e-6
    assert data.esr(found, 0) < 1e-11
    ahead = Correlations(max_taps=256, max_lookahead=16)
    ahead.update(dry[:-5], wet[5:], lead=200, tail=16)  # wet now leads dry by 5 samples
    found = ahead.solve(128, 16, ridge=0.0)
    assert np.abs(found.numpy()[11:111] - h).max() < 1e-6
    assert ahead.esr(found, 16) < 1e-11
    assert ahead.esr(ahead.solve(128, 0), 0) > 1e-3


def test_the_solution_and_its_esr_equal_dense_least_squares_on_a_short_excerpt():
    dry = coloured_noise(900, seed=2)
    wet = np.tanh(0.3 * dry) + 0.1 * np.random.default_rng(3).standard_normal(900)
    taps, lookahead, lead, tail = 40, 7, 60, 10
    data = Correlations(max_taps=60, max_lookahead=10)
    data.update(dry, wet, lead=lead, tail=tail)
    rows = np.arange(lead, len(dry) - tail)
    columns = np.stack([dry[rows + lookahead - k] for k in range(taps)], axis=1)
    h = np.linalg.lstsq(columns, wet[rows], rcond=None)[0]
    found = data.solve(taps, lookahead, ridge=0.0)
    np.testing.assert_allclose(found.numpy(), h, atol=1e-7)
    some = np.random.default_rng(4).standard_normal(taps)
    esr = ((wet[rows] - columns @ some) ** 2).sum() / (wet[rows] ** 2).sum()
    assert data.esr(some, lookahead) == pytest.approx(esr, rel=1e-9)


def test_parts_of_a_take_count_as_the_take():
    dry = coloured_noise(5000, seed=5)
    wet = np.tanh(dry)
    whole, parts = Correlations(100, 20), Correlations(100, 20)
    whole.update(dry, wet, lead=100, tail=20)
    for start in range(100, 4980, 610):
        part = slice(start - 100, min(start + 610, 4980) + 20)
        parts.update(torch.from_numpy(dry[part]), torch.from_numpy(wet[part]), lead=100, tail=20)
    assert parts.samples == whole.samples == 4880
    assert len(parts._edges) == len(whole._edges) == 2
    h = whole.solve(64, 20)
    assert (parts.solve(64, 20) - h).abs().max() < 1e-7
    assert parts.esr(h, 20) == pytest.approx(whole.esr(h, 20), rel=1e-9)


def test_a_shorter_delay_of_silence_does_not_matter():
    dry = coloured_noise(4000, seed=6)
    wet = 0.7 * dry
    data = Correlations(64, 8)
    data.update(dry, wet)
    reference = toeplitz([0.7] + [0.0] * 31, [0.7] + [0.0] * 31)[:, 0]
    np.testing.assert_allclose(data.solve(32, 0).numpy(), reference, atol=1e-5)
    np.testing.assert_allclose(data.solve(32, 8).numpy(), np.roll(reference, 8), atol=1e-5)


def test_a_band_without_programme_stays_quiet():
    t = np.arange(60_000)
    dry = sum(np.sin(2 * np.pi * f * t + f) for f in np.linspace(0.001, 0.1, 200))  # nothing above 0.1 of the rate
    data = Correlations(512, 0)
    data.update(dry, 0.5 * dry + 1e-3 * np.random.default_rng(0).standard_normal(len(t)))
    response = np.abs(np.fft.rfft(data.solve(256, 0).numpy(), 4096))
    assert response.max() < 3.0


def test_best_filter_chooses_on_validation():
    rng = np.random.default_rng(7)
    dry = rng.standard_normal(12_000)
    h = np.zeros(300)
    h[[0, 150, 280]] = 1.0, 0.5, -0.4
    wet = np.convolve(dry, h)[:12_000] + 0.01 * rng.standard_normal(12_000)
    train, val = Correlations(1024, 64), Correlations(1024, 64)
    train.update(dry[:9000], wet[:9000])
    val.update(dry[9000:], wet[9000:], lead=1024)
    best = best_filter(train, val, taps=(256, 512, 1024), lookaheads=(0, 64))
    assert (best.taps, best.lookahead, best.h.shape) == (512, 0, (512,))
    assert best.val_esr == val.esr(best.h, 0) < 2e-4


def test_bad_input():
    data = Correlations(64, 8)
    with pytest.raises(ValueError, match="shape"):
        data.update(np.zeros(10), np.zeros(11))
    with pytest.raises(UserError, match="too few"):
        best_filter(data, data, taps=(32,), lookaheads=(0,))
    data.update(np.zeros(1000), np.ones(1000))
    with pytest.raises(UserError, match="silent"):
        data.solve(32, 0)
    with pytest.raises(ValueError, match="max_taps"):
        data.solve(65, 0)
    assert np.isnan(Correlations(64, 8).esr(np.ones(4), 0))


def akai_clip(number):
    folder = Path(os.environ["REVOX_GOLDEN"], "tape", "real_tape")
    dry, wet = (
        audio.read(folder / f"akai_maxell_7.5ips_{number}_{side}.flac")[0].numpy() for side in ("input", "target")
    )
    with np.load(folder / "trajectories.npz") as stored:
        delay = stored[f"clip{number}_delay_samples_at_pulse_subsample"].astype(np.float64)
        at = stored[f"clip{number}_input_pulses"][: len(delay)] + delay
    n = np.arange(len(wet))
    late = n - CubicSpline(at, delay)(np.clip(n, at[0], at[-1]))
    return np.where(late >= 0, CubicSpline(n, dry)(np.maximum(late, 0)), 0.0), wet


@pytest.mark.skipif("REVOX_GOLDEN" not in os.environ, reason="REVOX_GOLDEN does not name the golden data")
def test_real_tape_gives_the_stored_figures():
    clips = [akai_clip(number) for number in (1, 2, 3)]
    train = Correlations()
    for dry, wet in clips[:2]:
        train.update(dry, wet, lead=8192)
    dry, wet = clips[2]
    for taps, lookahead, esr, gain_aligned in ((1024, 64, 0.0129, 0.0059), (4096, 512, 0.0097, 0.0069)):
        h = train.solve(taps, lookahead)
        y = wet[8192:]
        y_hat = np.convolve(dry, h.numpy())[8192 + lookahead :][: len(y)]
        direct = ((y - y_hat) ** 2).sum() / (y**2).sum()
        aligned = 1 - (y @ y_hat) ** 2 / ((y @ y) * (y_hat @ y_hat))
        test = Correlations()
        test.update(dry, wet, lead=8192)
        assert test.esr(h, lookahead) == pytest.approx(direct, rel=1e-3)
        assert direct == pytest.approx(esr, rel=0.05)
        assert aligned == pytest.approx(gain_aligned, rel=0.08)
    start = time.perf_counter()
    train.solve(8192, 512)
    assert time.perf_counter() - start < 10
