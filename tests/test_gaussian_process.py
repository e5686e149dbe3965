"""The plain generator of trajectories."""

import numpy as np
import pytest
import torch
from scipy.signal import welch

from revox_lightning.errors import UserError
from revox_lightning.models.gaussian_process import GaussianProcess


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wobble(samples=20_000):
    """A delay in seconds at 100 Hz: a narrow band about 2 Hz and a little noise, away from zero."""
    t = torch.arange(samples) / 100
    noise = torch.randn(2, samples, generator=generator(5))
    slow = torch.nn.functional.avg_pool1d(noise[:1], 401, 1, 200)[0]
    return 0.16 + 1e-4 * torch.sin(2 * torch.pi * 2 * t + 20 * slow) + 1e-5 * noise[1]


def test_the_spread_is_exactly_the_measured_one():
    x = wobble()
    process = GaussianProcess(1024).fit([x])
    made = process.noise.h.square().sum().sqrt()
    assert made.item() == pytest.approx(x.std(correction=0).item(), rel=1e-4)
    assert process.sample(100_000, generator()).std().item() == pytest.approx(x.std().item(), rel=0.05)


def test_the_spectrum_is_the_measured_one_and_the_mean_is_gone():
    x, y = wobble().numpy(), GaussianProcess(1024).fit([wobble()]).sample(200_000, generator())[0].numpy()
    hz, real = welch(x - x.mean(), 100, nperseg=512)
    made = welch(y, 100, nperseg=512)[1]
    assert np.abs(10 * np.log10(made / real))[hz > 0.5].mean() < 1.0
    assert abs(y.mean()) < 0.05 * y.std()


def test_it_is_gaussian_even_where_what_it_was_fitted_on_is_not():
    y = GaussianProcess(1024).fit([wobble()]).sample(200_000, generator())[0]
    y = y / y.std()
    assert y.pow(4).mean().item() == pytest.approx(3.0, abs=0.2)
    x = (wobble() - 0.16) / wobble().std()
    assert x.pow(4).mean().item() < 2.0


def test_cut_anywhere_it_is_the_same_trajectory():
    process = GaussianProcess(64).fit([wobble(), wobble()[None]])
    whole, following = process.sample(700, generator(), 2), process.stream(generator(), 2)
    assert torch.equal(whole, torch.cat([following(n) for n in (3, 189, 192, 316)], dim=1))
    assert torch.corrcoef(process.sample(20_000, generator(), 2))[0, 1].abs() < 0.1


def test_it_says_how_far_it_may_stray(tmp_path):
    process = GaussianProcess(64).fit([wobble()])
    assert process.excursion_seconds == pytest.approx(1.5 * float((wobble() - wobble().mean()).abs().max()))
    torch.save(process.state_dict(), tmp_path / "process.ckpt")
    other = GaussianProcess(64)
    other.load_state_dict(torch.load(tmp_path / "process.ckpt", weights_only=True))
    assert other.excursion_seconds == process.excursion_seconds
    assert torch.equal(process.sample(100, generator()), other.sample(100, generator()))


def test_nothing_cannot_be_measured():
    with pytest.raises(UserError, match="there are none"):
        GaussianProcess(64).fit([])
