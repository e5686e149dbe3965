"""Equaliser and dynamics: against the formulas and their exact twins, and their gradients."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import freqz

from revox_lightning.dsp import biquads, dynamics

torch.set_num_threads(1)
RATES = (24_000, 44_100, 48_000)
EQ = ("low_shelf", "peak", "peak", "peak", "peak", "high_shelf")


def settings(batch=1, seed=0, rate=48_000):
    random = torch.Generator().manual_seed(seed)
    low = torch.tensor([20.0, 200, 200, 2000, 4000, 4000])
    high = torch.tensor([200.0, 2000, 4000, 8000, 10800, 10800])
    gain, place, q = (torch.rand(batch, 6, generator=random) for _ in range(3))
    return 48 * gain - 24, low + place * (high - low), 0.1 + 9.9 * q


def noise(*shape, seed=0, dtype=torch.float32):
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", biquads.KINDS)
def test_a_section_has_the_cookbooks_response(kind, rate):
    gain_db, frequency_hz, q = -9.0, 3000.0, 0.8
    # written out once more, from the analogue prototype: H(s) under the bilinear transform
    s = 1j * np.tan(np.pi * (f := np.linspace(10, rate / 2 - 10, 500)) / rate) / np.tan(np.pi * frequency_hz / rate)
    a = 10 ** (gain_db / 40)
    analogue = {
        "peak": (s**2 + s * a / q + 1) / (s**2 + s / (a * q) + 1),
        "low_shelf": a * (s**2 + math.sqrt(a) / q * s + a) / (a * s**2 + math.sqrt(a) / q * s + 1),
        "high_shelf": a * (a * s**2 + math.sqrt(a) / q * s + 1) / (s**2 + math.sqrt(a) / q * s + a),
    }[kind]
    values = (torch.tensor([v], dtype=torch.float64) for v in (gain_db, frequency_hz, q))
    section = biquads.coefficients(kind, *values, rate)
    ours = biquads.response(section, torch.from_numpy(f), rate).numpy()
    assert np.abs(ours - analogue).max() < 1e-6
    _, scipys = freqz(section[0, :3], section[0, 3:], f, fs=rate)
    assert np.abs(ours - scipys).max() < 1e-9


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="notch"):
        biquads.coefficients("notch", torch.zeros(1), torch.ones(1), torch.ones(1), 48_000)


@pytest.mark.parametrize("seed", range(4))
def test_the_differentiable_equaliser_equals_its_twin(seed):
    x = noise(3, 2, 20_000, seed=seed)
    sections = biquads.chain(EQ, *(part.double() for part in settings(3, seed)), 48_000)
    y = biquads.filtered(x, sections)
    exact = np.stack([biquads.filtered_exactly(one, s) for one, s in zip(x.numpy(), sections.numpy(), strict=True)])
    assert np.abs(y.numpy() - exact).max() < 1e-6 * np.abs(exact).max()


def test_no_gain_is_no_change():
    _, frequency, q = settings(2)
    y = biquads.filtered(x := noise(2, 1, 5000), biquads.chain(EQ, torch.zeros(2, 6), frequency, q, 44_100))
    assert (y - x).abs().max() < 1e-5


def test_the_equalisers_gradients_are_right():
    x = noise(1, 1, 300, dtype=torch.float64).requires_grad_()
    gain, frequency, q = (part.double().requires_grad_() for part in settings(1, 3))
    weight = noise(1, 1, 300, seed=9, dtype=torch.float64)

    def total(x, gain, frequency, q):
        return (weight * biquads.filtered(x, biquads.chain(EQ, gain, frequency, q, 48_000))).sum()

    assert torch.autograd.gradcheck(total, (x, gain, frequency, q), eps=1e-5, rtol=1e-4, atol=1e-6)


def values(*numbers, dtype=torch.float64):
    return [torch.tensor([number], dtype=dtype) for number in numbers]


@pytest.mark.parametrize("knee", [0.0, 6.0])
def test_the_static_curve(knee):
    level = torch.linspace(-80, 0, 161, dtype=torch.float64)
    threshold, ratio, width = values(-30.0, 4.0, knee)
    y = dynamics.compressed_db(level, threshold, ratio, width)
    assert torch.allclose(y[level < -30 - knee / 2], level[level < -30 - knee / 2])
    above = level > -30 + knee / 2
    assert torch.allclose(y[above], -30 + (level[above] + 30) / 4)
    assert (y.diff() > 0).all() and (y.diff(n=2).abs() < (0.5 if knee == 0 else 0.1)).all()
    e = dynamics.expanded_db(level, threshold, ratio, width)
    assert torch.allclose(e[above], level[above]) and torch.allclose(
        e[0], torch.tensor(-30 + (-80 + 30) * 4.0).double()
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("expander", [False, True])
def test_the_batched_compressor_equals_its_exact_twin(rate, expander):
    x = torch.cat([noise(2, 2, rate // 4) * 0.05, noise(2, 2, rate // 4)], -1).double()
    told = [
        torch.tensor(pair, dtype=torch.float64)
        for pair in ((-30.0, -24.0), (4.0, 1.5), (0.005, 0.02), (0.05, 0.2), (6.0, 0.0), (3.0, 0.0))
    ]
    y = dynamics.compressor(x, rate, *told, expander=expander)
    for n in range(2):
        exact = dynamics.compressor_exactly(x[n].numpy(), rate, *(float(part[n]) for part in told), expander=expander)
        assert np.abs(y[n].numpy() - exact).max() < 1e-12


@pytest.mark.parametrize("rate", RATES)
def test_attack_and_release_take_their_times(rate):
    x = torch.full((1, 1, rate), 10 ** (-50 / 20), dtype=torch.float64)
    x[..., rate // 4 : rate // 2] = 10 ** (-10 / 20)
    y = dynamics.compressor(x, rate, *values(-40.0, 1e9, 0.02, 0.1, 0.0, 0.0))
    gain = -20 * (y / x).log10()[0, 0]
    up, down = gain[rate // 4 : rate // 2], gain[rate // 2 :]
    whole = float(up[-1])
    assert whole == pytest.approx(30, abs=0.01)
    attack = ((up > 0.9 * whole).nonzero()[0] - (up > 0.1 * whole).nonzero()[0]).item() / rate
    release = ((down < 0.1 * whole).nonzero()[0] - (down < 0.9 * whole).nonzero()[0]).item() / rate
    assert attack == pytest.approx(0.02, rel=0.05) and release == pytest.approx(0.1, rel=0.05)


def test_the_compressors_gradients_are_right():
    x = (noise(2, 1, 200, dtype=torch.float64) + 0.01).requires_grad_()
    told = [
        torch.tensor(p, dtype=torch.float64, requires_grad=True)
        for p in ((-30.0, -24.0), (4.0, 2.0), (0.001, 0.002), (0.01, 0.03), (6.0, 3.0), (3.0, 0.0))
    ]
    assert torch.autograd.gradcheck(
        lambda *a: dynamics.compressor(a[0], 8000, *a[1:]), (x, *told), eps=1e-7, atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("ratio,knee,level", [(1.0, 0.0, 0.2), (20.0, 0.0, 0.0), (4.0, 12.0, 1e-9), (1.0, 12.0, 1.0)])
def test_gradients_are_finite_everywhere(ratio, knee, level):
    x = (level * noise(1, 2, 500)).requires_grad_()
    told = [torch.tensor([v], requires_grad=True) for v in (-30.0, ratio, 0.0001, 0.005, knee, 0.0)]
    for expander in (False, True):
        dynamics.compressor(x, 44_100, *told, expander=expander).square().sum().backward()
        assert all(torch.isfinite(part.grad).all() for part in (x, *told))


def test_a_limiter_holds_its_ceiling_and_leaves_what_is_below():
    x = noise(2, 2, 4000)
    ceiling = torch.tensor([-12.0, 0.0])
    y = dynamics.limiter(x, 44_100, ceiling, torch.tensor([0.1, 0.1]))
    assert y[0].abs().max() <= 10 ** (-12 / 20) * (1 + 1e-4)
    assert torch.equal(dynamics.limiter(0.1 * x, 44_100, ceiling, torch.tensor([0.1, 0.1]))[1], 0.1 * x[1])


def test_saturation_is_of_unity_gain_and_bounded():
    x = noise(2, 1, 1000)
    y = dynamics.saturation(torch.cat([1e-4 * x, 10 * x]), torch.tensor([12.0, 12.0, 12.0, 12.0]))
    assert torch.allclose(y[:2], 1e-4 * x, rtol=1e-4) and y[2:].abs().max() <= 10 ** (-12 / 20) + 1e-6
