"""The sampler of the diffusion models: laws of the EDM, cutting anywhere, and the published runs."""

import math

import numpy as np
import pytest
import torch
from test_unet_1d import PUBLISHED, same
from torch import nn

from revox_lightning.errors import UserError
from revox_lightning.export import mikkonen_unet
from revox_lightning.models import random_blocks
from revox_lightning.models.denoiser import Denoiser, euler, summed_up
from revox_lightning.models.unet_1d import UNet1d
from revox_lightning.objectives.diffusion import Diffusion


class Nothing(nn.Module):
    """The best net for white Gaussian data: preconditioning alone then is the posterior mean."""

    def forward(self, x, level):
        return torch.zeros_like(x)


def denoiser(net=None, **other) -> Denoiser:
    settings = {"steps": 20, "rate_hz": 100, "segment_samples": 64, "overlap_samples": 16}
    return Denoiser(net or Nothing(), 0.5, 0.005, 20.0, 7.0, **settings | other).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_preconditioning_is_the_posterior_mean_of_white_gaussian_data():
    sigma = torch.tensor([0.1, 1.0])
    x = torch.randn(2, 10)
    expected = x * (0.25 / (0.25 + sigma**2))[:, None]
    torch.testing.assert_close(denoiser().denoise(x, sigma), expected)
    c = denoiser().preconditioning(sigma)
    torch.testing.assert_close(c.inner[:, 0] ** 2 * (sigma**2 + 0.25), torch.ones(2))
    torch.testing.assert_close(c.level, sigma.log() / 4)


def test_forward_takes_the_strength_of_the_noise_as_its_control():
    d, x = denoiser(), torch.randn(2, 1, 10)
    y, state = d(x, torch.full((2, 1), math.log(0.3)))
    assert state is None
    torch.testing.assert_close(y[:, 0], d.denoise(x[:, 0], torch.full((2,), 0.3)))
    torch.testing.assert_close(d(x)[0][:, 0], d.denoise(x[:, 0], torch.full((2,), 0.005)))


def test_the_schedule_falls_from_the_largest_to_the_smallest_noise_and_to_none():
    sigma = denoiser().schedule()
    assert len(sigma) == 21 and sigma[-1] == 0 and (sigma.diff() < 0).all()
    assert sigma[0].item() == pytest.approx(20.0) and sigma[-2].item() == pytest.approx(0.005)


@pytest.mark.parametrize("churn", [0.0, 5.0])
def test_samples_have_the_spread_of_the_data(churn):
    d = denoiser(steps=100, churn=churn)
    assert d.segments(64, generator()).std().item() == pytest.approx(0.5, rel=0.05)


def test_euler_follows_the_exact_path_of_gaussian_data():
    d = denoiser(steps=1000)
    z = torch.randn(1, 64)
    exact = z * 20.0 * 0.5 / math.hypot(20.0, 0.5)
    torch.testing.assert_close(euler(d.denoise, z, d.schedule()), exact, rtol=0.01, atol=0.0)


def test_churn_needs_fresh_noise_and_no_churn_none():
    d, g = denoiser(churn=0.0), generator()
    z, before = torch.randn(2, 64, generator=g), g.get_state()
    euler(d.denoise, z, d.schedule(), 0.0, g)
    assert torch.equal(before, g.get_state())
    a, b = (euler(d.denoise, z, d.schedule(), 5.0, generator(seed)) for seed in (1, 2))
    assert (a - b).abs().max() > 0.01


def test_what_is_known_stays():
    d, known = denoiser(), torch.randn(3, 16)
    y = d.segments(3, generator(), known)
    torch.testing.assert_close(y[:, :16], known, rtol=0, atol=0.05)
    assert (y[:, 16:] - d.segments(3, generator())[:, 16:]).abs().max() < 1e-6  # white data: nothing to carry on


@pytest.mark.parametrize("churn", [0.0, 5.0])
def test_cut_anywhere_it_is_the_same_signal(churn):
    torch.manual_seed(0)
    d = denoiser(UNet1d((4, 4), (2, 2), 4), steps=3, churn=churn)
    whole = d.sample(300, generator(), 2)
    following = d.stream(generator(), 2)
    cut = torch.cat([following(n) for n in (1, 0, 47, 48, 100, 104)], dim=1)
    assert whole.shape == (2, 300) and torch.equal(whole, cut)
    assert not torch.equal(whole[0], whole[1]) and not torch.equal(whole, d.sample(300, generator(1), 2))


def test_segments_are_faded_into_one_another():
    d = denoiser()
    first, carry = d.block(0, 0, 1, None)
    second, _ = d.block(1, 0, 1, carry)
    assert first.shape == second.shape == (1, d.block_samples) and carry.shape == (1, 17)
    # Where the next segment begins the signal is still what was promised, and goes over to what was made of it.
    assert (second[:, 0] - carry[:, 0]).abs().max() < 1e-3
    made = d.segments(1, random_blocks.seeded(0, 1), carry[:, :-1])
    torch.testing.assert_close(second[:, 16:], made[:, 16:48], rtol=0, atol=0)
    assert (second[:, 15] - made[:, 15]).abs().max() < 1e-3


def test_with_emphasis_what_is_learned_and_what_is_made_are_inverse():
    d, x = denoiser(emphasis=0.9), torch.randn(3, 50)
    learned = d.training_segments(x)
    assert learned.shape == (3, 49)
    torch.testing.assert_close(summed_up(learned, 0.9, x[:, :1]), x[:, 1:])
    torch.testing.assert_close(denoiser().training_segments(x), x - x.mean(1, keepdim=True))


def test_with_emphasis_white_noise_becomes_a_walk_that_stays_near():
    """The net that knows nothing makes white noise, so the sum is an autoregressive process of known rms."""
    d = denoiser(steps=100, emphasis=0.9)
    y = d.sample(4000, generator(), 4)
    assert y.std().item() == pytest.approx(0.5 / math.sqrt(1 - 0.81), rel=0.05)
    assert (y[:, 1:] * y[:, :-1]).mean().item() == pytest.approx(0.9 * y.square().mean().item(), rel=0.02)
    following = d.stream(generator(), 4)
    assert torch.equal(y[:, :300], torch.cat([following(n) for n in (1, 47, 100, 152)], dim=1))
    assert d.excursion_seconds == pytest.approx(10 * denoiser().excursion_seconds)


def test_a_checkpoint_carries_it(tmp_path):
    torch.manual_seed(0)
    a, b = (denoiser(UNet1d((4, 4), (2, 2), 4), steps=3) for _ in range(2))
    torch.save(a.state_dict(), tmp_path / "net.ckpt")
    b.load_state_dict(torch.load(tmp_path / "net.ckpt", weights_only=True))
    assert torch.equal(a.sample(100, generator()), b.sample(100, generator()))


def test_what_has_no_room_is_refused():
    with pytest.raises(UserError, match="sigma_min=1"):
        Denoiser(Nothing(), 1.0, 1.0, 1.0, steps=5, rate_hz=100, segment_samples=64, overlap_samples=16)
    with pytest.raises(UserError, match="at least 2 steps"):
        denoiser(steps=1)
    with pytest.raises(UserError, match="at most half"):
        denoiser(overlap_samples=33)
    with pytest.raises(UserError, match=r"emphasis=1\.0"):
        denoiser(emphasis=1.0)


class Small(nn.Module):
    """Two convolutions that are told of the noise: quick to train."""

    def __init__(self):
        super().__init__()
        self.hear = nn.Conv1d(2, 16, 15, padding="same")
        self.say = nn.Conv1d(16, 1, 15, padding="same")

    def forward(self, x, level):
        told = level[:, None, None].expand(-1, 1, x.shape[1])
        return self.say(torch.nn.functional.gelu(self.hear(torch.cat((x[:, None], told), 1))))[:, 0]


def test_trained_some_seconds_on_a_gaussian_it_has_its_spread():
    """Low-passed noise: correlated, so that there is something to learn beside the preconditioning."""
    torch.manual_seed(0)
    x = torch.nn.functional.avg_pool1d(torch.randn(512, 1, 67), 4, 1)[:, 0]
    x = 0.5 * (x - x.mean(1, keepdim=True)) / (x - x.mean(1, keepdim=True)).std()
    d, objective = denoiser(Small(), steps=100).train(), Diffusion()
    optimizer = torch.optim.Adam(d.parameters(), 0.01)
    for step in range(300):
        start = step * 64 % 512
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 300)
        optimizer.zero_grad()
        objective.total(objective(d, {"wet": x[start : start + 64, None]}, None)[0]).backward()
        torch.nn.utils.clip_grad_norm_(d.parameters(), 1.0)
        optimizer.step()
    made = d.eval().segments(128, generator())
    assert made.std().item() == pytest.approx(0.5, rel=0.15)
    assert made.diff().std().item() == pytest.approx(x.diff().std().item(), rel=0.2)


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_ten_steps_give_the_published_samples(golden, name):
    place = golden / "tape" / "unet"
    data, low, high, rho = PUBLISHED[name]
    net = mikkonen_unet.load(place / f"{name}_ema.npz")
    d = Denoiser(net, data, low, high, rho, steps=10, rate_hz=100, segment_samples=512, overlap_samples=100)
    with np.load(place / f"{name}_io.npz") as content:
        z, out = (torch.from_numpy(content[key]) for key in ("euler10_z0", "euler10_out"))
    same(euler(d.denoise, z, d.schedule()), out)


@pytest.mark.slow
def test_fifty_steps_give_the_published_spread(golden):
    net = mikkonen_unet.load(golden / "tape" / "unet" / "real_ema.npz")
    d = Denoiser(net, 1e-4, 1e-5, 1e-2, 7.0, steps=50, rate_hz=100, segment_samples=512, overlap_samples=100)
    assert d.segments(256, generator()).std().item() == pytest.approx(1.01e-4, rel=0.1)
