"""Gaussian noise of measured spectra."""

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.models.shaped_noise import ShapedNoise, cross_spectra, hermitian_root


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(samples=60_000, scale=1.0):
    """Two channels: low-passed noise, and 0.6 of it three samples later beside noise of its own."""
    white = torch.randn(2, samples, generator=generator(9))
    x = torch.stack((white[0], 0.6 * white[0].roll(3) + 0.8 * white[1]))
    return scale * torch.nn.functional.conv1d(x[:, None], torch.tensor([[[1.0, 0.8, 0.4]]]))[:, 0]


def test_a_root_times_itself_is_the_matrix():
    a = torch.randn(5, 3, 3, dtype=torch.complex128, generator=generator())
    matrix = a @ a.mH
    root = hermitian_root(matrix)
    torch.testing.assert_close(root @ root.mH, matrix)
    torch.testing.assert_close(root, root.mH)


def test_the_spectra_of_white_noise_are_flat_and_of_its_power():
    spectra = cross_spectra([2 * torch.randn(2, 100_000, dtype=torch.float64, generator=generator())], 64)
    torch.testing.assert_close(spectra[:, 0, 0].real[1:-1], torch.full((31,), 4.0).double(), rtol=0.1, atol=0)
    assert spectra[:, 0, 1].abs().max() < 0.3


def test_the_level_is_exactly_the_measured_one():
    x = pair(scale=1e-4)
    noise = ShapedNoise(2, 256).fit([x])
    expected = (x - x.mean(-1, keepdim=True)).square().mean(-1)
    torch.testing.assert_close(noise.h.square().sum((1, 2)), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(noise.sample(200_000, generator()).std(-1), x.std(-1), rtol=0.02, atol=0)


def test_spectrum_and_what_channels_have_in_common_come_out():
    x = pair()
    y = ShapedNoise(2, 256).fit([x]).sample(200_000, generator())
    for lag in (0, 1, 2, 3, 6):
        for c, d in ((0, 0), (0, 1), (1, 0), (1, 1)):
            made = (y[c, : len(y[c]) - lag] * y[d, lag:]).mean()
            assert made.item() == pytest.approx((x[c, : len(x[c]) - lag] * x[d, lag:]).mean().item(), abs=0.05)


def test_cut_anywhere_it_is_the_same_and_stationary_from_the_start():
    noise = ShapedNoise(2, 64).fit([pair()])
    whole, following = noise.sample(1000, generator()), noise.stream(generator())
    assert torch.equal(whole, torch.cat([following(n) for n in (1, 191, 192, 0, 616)], dim=1))
    starts = torch.stack([noise.sample(8, generator(seed)) for seed in range(2000)])
    torch.testing.assert_close(starts.std(0), pair().std(-1)[:, None].expand(2, 8), rtol=0.1, atol=0)


def test_the_seam_between_blocks_is_not_heard():
    noise = ShapedNoise(1, 64).fit([pair()[:1]])
    y = noise.sample(400 * noise.block_samples, generator()).unflatten(1, (400, -1))[0]
    across = (y[1:, 0] - y[:-1, -1]).square().mean()
    assert across.item() == pytest.approx(y.diff(dim=-1).square().mean().item(), rel=0.25)


def test_rows_are_sets_of_channels():
    noise = ShapedNoise(2, 64).fit([pair()])
    y = noise.sample(50_000, generator(), 4)
    together = torch.corrcoef(torch.stack((y[0, :-3], y[1, 3:], y[2, :-3], y[3, 3:])))
    assert together[0, 1] > 0.5 and together[2, 3] > 0.5
    assert together[0, 2].abs() < 0.05 and together[1, 3].abs() < 0.05
    with pytest.raises(UserError, match="ask for a multiple"):
        noise.sample(10, generator(), 3)


def test_a_checkpoint_carries_it(tmp_path):
    noise = ShapedNoise(2, 64).fit([pair()])
    torch.save(noise.state_dict(), tmp_path / "noise.ckpt")
    other = ShapedNoise(2, 64)
    assert not other.sample(10, generator()).any()
    other.load_state_dict(torch.load(tmp_path / "noise.ckpt", weights_only=True))
    assert torch.equal(noise.sample(500, generator()), other.sample(500, generator()))


def test_short_takes_and_silent_channels_fit():
    x = pair(400)
    x[1] = 0.0
    y = ShapedNoise(2, 1024).fit([x, x[:, :100]]).sample(20_000, generator())
    assert torch.isfinite(y).all() and not y[1].any()
    assert y[0].std().item() == pytest.approx(torch.cat((x[0], x[0, :100])).std().item(), rel=0.1)


@pytest.mark.parametrize("takes", [[], [torch.zeros(2, 1)], [torch.zeros(3, 100)], [torch.zeros(100)]])
def test_what_cannot_be_measured_is_refused(takes):
    with pytest.raises(UserError, match="measured on takes"):
        ShapedNoise(2, 64).fit(takes)
    with pytest.raises(UserError, match="not finite"):
        ShapedNoise(1, 64).fit([torch.full((1, 100), torch.nan)])
    with pytest.raises(UserError, match="at least 16"):
        ShapedNoise(1, 8)
