"""What the benchmark of found settings measures with: responses, bands, and the gradient without derivatives."""

import pytest
import torch

from revox_lightning.dsp import effects

spsa = pytest.importorskip("spsa", reason="the folder benchmarks is not at hand")
recovery = pytest.importorskip("parameter_recovery", reason="the folder benchmarks is not at hand")
torch.set_num_threads(1)
TRANSPARENT = {
    parameter.name: parameter.low + 0.5 * (parameter.high - parameter.low) for parameter in effects.PARAMETERS
}
TRANSPARENT |= {"ratio": 1.0, "threshold_db": 0.0}


def noise(batch=2, samples=8192):
    return 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(0))


def test_the_response_of_known_settings():
    louder = effects.normalised(TRANSPARENT | {"makeup_db": 6.0})
    flat = effects.normalised(TRANSPARENT)
    dip = effects.normalised(TRANSPARENT | {"peak_1_gain_db": -12.0, "peak_1_frequency_hz": 1000.0, "peak_1_q": 1.0})
    found = recovery.response_db(noise(3), torch.cat([flat, louder, dip]))
    assert found.shape == (3, 27)
    torch.testing.assert_close(found[0], torch.zeros(27).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], torch.full((27,), 6.0).double(), atol=1e-4, rtol=0)
    at_1_khz = ((recovery.third_octaves() - 1000).prod(1) < 0).double().argmax()
    assert found[2].argmin() == at_1_khz and found[2].min().item() == pytest.approx(-12, abs=0.5)


def test_bands_with_programme_are_those_within_40_db():
    t = torch.arange(8192) / recovery.RATE_HZ
    tones = torch.sin(2 * torch.pi * 500 * t) + 1e-3 * torch.sin(2 * torch.pi * 5000 * t)
    kept = recovery.heard(tones[None, None])[0]
    lows = recovery.third_octaves()[:, 0]
    assert kept[(lows < 500).sum() - 1] and not kept[(lows < 5000).sum() - 1]


def test_directions_say_nothing_of_each_other():
    ways = spsa.directions(3, torch.Generator().manual_seed(0))
    assert ways.shape == (32, 3, 24) and (ways.abs() == 1).all()
    products = torch.einsum("nri,nrj->rij", ways, ways) / 32
    torch.testing.assert_close(products, torch.eye(24).expand(3, -1, -1))


def test_the_distance_of_rows_is_that_of_each():
    x, p = noise(2, 2048), torch.rand(2, 2, 24, generator=torch.Generator().manual_seed(0))
    y = effects.render_exactly(x, torch.full((2, 24), 0.5), recovery.RATE_HZ)
    found, scale = spsa.Distance(x, y, recovery.RATE_HZ, (128, 512))(p), 1 / y.abs().amax((1, 2), keepdim=True)
    for tried, row in zip(p, found, strict=True):
        y_hat = effects.render_exactly(x, tried, recovery.RATE_HZ) * scale
        expected = [spsa.distance(a, b, (128, 512)) for a, b in zip(y_hat, y * scale, strict=True)]
        torch.testing.assert_close(row, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_spsa_points_where_the_gradient_points():
    x, z = noise(1, 2048), torch.logit(torch.full((1, 24), 0.4)).requires_grad_()
    y = effects.render_exactly(x, torch.full((1, 24), 0.5), recovery.RATE_HZ)
    scale = 1 / y.abs().amax((1, 2), keepdim=True)
    spsa.distance(recovery.by_gradient(x, scale, torch.sigmoid(z)), y * scale, (128, 512)).backward()
    of, told = spsa.Distance(x, y, recovery.RATE_HZ, (128, 512)), torch.zeros(1, 24)
    for way in spsa.directions(1, torch.Generator().manual_seed(0)):
        up, down = of(torch.sigmoid(torch.stack([z + 0.01 * way, z - 0.01 * way]).detach()))
        told += ((up - down) / 0.02)[:, None] * way / 32
    assert torch.nn.functional.cosine_similarity(told, z.grad).item() > 0.95


def test_a_descent_by_perturbation_comes_nearer():
    x, random = noise(2, 4096), torch.Generator().manual_seed(0)
    y = effects.render_exactly(x, torch.full((2, 24), 0.6), recovery.RATE_HZ)
    of = spsa.Distance(x, y, recovery.RATE_HZ, (128, 512))
    z = recovery.starts(x, y, 1, random)[0]
    found, after = spsa.descended(of, z, 200, 0.1, (0.05, 0.01), random)
    before = of(torch.sigmoid(z)[None])[0]
    assert found.shape == (2, 24) and (after < 0.9 * before).all() and after.sum() < 0.7 * before.sum()


def test_a_descent_comes_nearer(monkeypatch):
    monkeypatch.setattr(recovery, "SIZES", (128, 512))
    x, p = noise(2, 2048), torch.full((2, 24), 0.6)
    y = effects.render_exactly(x, p, recovery.RATE_HZ)
    z = recovery.starts(x, y, 1, torch.Generator().manual_seed(0))[0]
    _, before = recovery.descended(x, y, z, 1, 0.1)
    found, after = recovery.descended(x, y, z, 30, 0.1)
    assert found.shape == (2, 24) and (after < 0.5 * before).all()
