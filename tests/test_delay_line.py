"""The delay line: what a transport does to a signal, by its laws."""

import math
import time

import numpy as np
import pytest
import torch
from scipy.signal import firwin

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.models.delay_line import INTERPOLATIONS, DelayLine

torch.set_num_threads(1)
each_interpolation = pytest.mark.parametrize("interpolation", INTERPOLATIONS)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wandering(batch: int, samples: int) -> torch.Tensor:
    """Delays of 20 to 60 samples that move at every sample, another way for each item."""
    return 20 + 40 * torch.sin(torch.arange(samples) * torch.tensor([0.011, 0.017, 0.003])[:batch, None])[:, None] ** 2


@each_interpolation
@pytest.mark.parametrize("samples", [15, 16, 400, 1000])
def test_a_whole_delay_is_a_shift(interpolation, samples):
    x = noise(2, 2, 1500)
    y, _ = DelayLine(1000, interpolation)(x, torch.full((2, 1, 1), float(samples)))
    assert torch.equal(y[..., samples:], x[..., : 1500 - samples]) and y[..., :samples].eq(0).all()


def test_no_delay_is_the_signal_itself():
    x = noise(2, 1, 300)
    assert torch.equal(DelayLine(10)(x, torch.zeros(2, 1, 300))[0], x)


def test_linear_interpolation_is_the_published_sum():
    x, d = noise(1, 1, 200), 12 * torch.rand(1, 1, 200, generator=torch.Generator().manual_seed(1))
    y, _ = DelayLine(12)(x, d)
    k = torch.arange(13)
    past = torch.nn.functional.pad(x, (12, 0)).unfold(-1, 13, 1).flip(-1)  # (1, 1, time, k)
    expected = (torch.relu(1 - (k - d[..., None]).abs()) * past).sum(-1)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


@each_interpolation
def test_linear_in_the_signal(interpolation):
    line, (a, b), d = DelayLine(100, interpolation), noise(2, 3, 1, 500), wandering(3, 500)
    torch.testing.assert_close(line(2 * a - b, d)[0], 2 * line(a, d)[0] - line(b, d)[0], rtol=0, atol=2e-6)


@each_interpolation
@pytest.mark.parametrize("block", [1, 64, 999])
def test_blocks_equal_one_call(interpolation, block):
    samples = 90 if block == 1 else 2100
    line, x, d = DelayLine(100, interpolation), noise(3, 2, samples), wandering(3, samples)
    state = noise(3, 2, line.history_samples, seed=2)
    whole, last = line(x, d, state)
    parts = []
    for n in range(0, samples, block):
        y, state = line(x[..., n : n + block], d[..., n : n + block], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=0, atol=1e-6)
    assert torch.equal(state, last) and state.shape == (3, 2, line.history_samples)


@each_interpolation
def test_the_future_is_not_heard_at_the_least_delay_and_silence_is_the_start(interpolation):
    line = DelayLine(40, interpolation)
    x, d = noise(1, 1, 200), torch.full((1, 1, 1), line.least_delay_samples + 0.37)
    y, _ = line(x, d, torch.zeros(1, 1, line.history_samples))
    other = torch.cat([x[..., :100], noise(1, 1, 100, seed=5)], dim=-1)
    assert torch.equal(line(x, d)[0], y)
    torch.testing.assert_close(line(other, d)[0][..., :100], y[..., :100], rtol=0, atol=1e-6)
    assert (line(other, d)[0] - y)[..., 100:102].abs().min() > 0


@each_interpolation
def test_nothing_older_than_the_reach_is_heard(interpolation):
    line = DelayLine(40, interpolation).double()
    x = torch.zeros(1, 1, line.reach_samples + 2, dtype=torch.float64).requires_grad_()
    d = torch.tensor([[[40.0]]]) - torch.tensor([0.0, 0.5])[:, None, None]
    heard = torch.autograd.grad(line(x.expand(2, -1, -1), d)[0][..., -1].sum(), x)[0][0, 0]
    assert heard[0] == 0 and heard[1] != 0


def test_gradients_of_signal_and_delay_are_those_of_finite_differences():
    d = (wandering(2, 12) + 0.313).double().requires_grad_()
    for interpolation in INTERPOLATIONS:
        line = DelayLine(80, interpolation).double()
        x, state = noise(2, 2, 12).double().requires_grad_(), noise(2, 2, line.history_samples, seed=1).double()
        assert torch.autograd.gradcheck(lambda x, d, state, line=line: line(x, d, state)[0], (x, d, state))


@each_interpolation
def test_the_slope_along_the_delay_is_that_of_the_signal(interpolation):
    line = DelayLine(80, interpolation).double()
    hz, n = 1000 / 44100, torch.arange(800.0, dtype=torch.float64)
    d = torch.full((1, 1, 800), 31.4, dtype=torch.float64).requires_grad_()
    y = line(torch.sin(2 * math.pi * hz * n)[None, None], d)[0]
    (slope,) = torch.autograd.grad(y.sum(), d)
    expected = -2 * math.pi * hz * torch.cos(2 * math.pi * hz * (n - 31.4))
    error = (slope[0, 0] - expected)[100:].abs().max() / expected.abs().max()
    assert error < (5e-4 if interpolation == "band_limited" else 0.1)


def error_db(interpolation: str, hz: float) -> float:
    """Largest error against a sine delayed exactly, over all fractions of a sample."""
    n = torch.arange(6000, dtype=torch.float64)
    d = 30 + 3 * n / 6000
    line = DelayLine(64, interpolation).double()
    y, _ = line(torch.sin(2 * math.pi * hz / 44100 * n)[None, None], d[None, None])
    return 20 * math.log10((y[0, 0] - torch.sin(2 * math.pi * hz / 44100 * (n - d)))[100:].abs().max())


@pytest.mark.parametrize("hz", [100, 1000, 5000, 10_000, 15_000, 18_000])
def test_band_limited_reads_a_sine_between_its_samples(hz):
    assert error_db("band_limited", hz) < -87


@pytest.mark.parametrize(("hz", "db"), [(1000, -52), (5000, -24), (10_000, -11.5), (15_000, -5.5)])
def test_what_linear_interpolation_loses(hz, db):
    assert error_db("linear", hz) == pytest.approx(db, abs=1)


def test_band_limited_agrees_with_the_reading_of_files():
    x = np.convolve(noise(9000).numpy(), firwin(201, 0.75, window=("kaiser", 9)), "same")  # they differ above 18 kHz
    d = 200 + 100 * np.sin(np.arange(9000) / 3000)
    y, _ = DelayLine(512, "band_limited")(torch.from_numpy(x)[None, None].float(), torch.from_numpy(d)[None, None])
    expected = read_at(x, np.arange(9000) - d)
    assert np.abs(y[0, 0].numpy() - expected)[400:].max() < 1e-4 * np.abs(expected).max()


@each_interpolation
def test_neither_work_nor_graph_grows_with_the_longest_delay(interpolation):
    x, seconds = noise(1, 1, 4096).requires_grad_(), {}
    for most in (1000, 16_000):
        line, d = DelayLine(most, interpolation), torch.full((1, 1, 4096), 500.5)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            line(x, d)
        assert max(sizes) <= 5 * 4200
        runs = []
        for _ in range(15):
            start = time.perf_counter()
            line(x, d)
            runs.append(time.perf_counter() - start)
        seconds[most] = min(runs)
    assert seconds[16_000] < 4 * seconds[1000]  # a sum over all delays would take 16 times as long


@each_interpolation
def test_delays_that_the_line_cannot_play_are_refused(interpolation):
    line, x = DelayLine(100, interpolation), torch.zeros(2, 1, 10)
    for value, word in ((line.least_delay_samples - 0.5, "shorter"), (100.5, "longer"), (float("nan"), "not numbers")):
        d = torch.full((2, 1, 10), 50.0)
        d[1, 0, 4] = value
        with pytest.raises(UserError, match=word):
            line(x, d)
    for shape in ((2, 1, 9), (2, 2, 10), (2, 10)):
        with pytest.raises(UserError, match="shape"):
            line(x, torch.full(shape, 50.0))


def test_lines_that_cannot_be_are_refused():
    for arguments in ((100, "cubic"), (-1, "linear"), (14, "band_limited")):
        with pytest.raises(UserError):
            DelayLine(*arguments)


def test_an_empty_block_passes():
    line = DelayLine(100, "band_limited")
    y, state = line(torch.zeros(1, 2, 0), torch.zeros(1, 1, 0))
    assert y.shape == (1, 2, 0) and state.shape == (1, 2, line.history_samples)


def test_mixed_precision_stays_outside():
    x, d = noise(1, 1, 400), wandering(1, 400)
    line = DelayLine(100, "band_limited")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = line(x, d)
    assert torch.equal(mixed, line(x, d)[0])
