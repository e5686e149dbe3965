"""Critics: the published shapes, one score a frame, hops of any length, a gradient for what they judge."""

from functools import partial

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.models.critics import (
    MultiMelCritic,
    MultiRateCritic,
    MultiSpectralCritic,
    SpectralCritic,
    WaveformCritic,
    mel_bands,
)

torch.set_num_threads(1)


def shapes(critic):
    return [tuple(p.shape) for name, p in critic.named_parameters() if name.endswith("original1")]


def test_convolutions_are_as_published():
    assert shapes(SpectralCritic(512, 21)) == [(16, 257, 10), (64, 4, 21), (256, 4, 21), (256, 256, 5), (1, 256, 3)]
    assert shapes(MultiMelCritic().critics[3]) == [
        (16, 160, 10), (64, 4, 17), (256, 4, 17), (256, 256, 5), (1, 256, 3),
    ]  # fmt: skip
    assert shapes(WaveformCritic()) == [
        (16, 1, 15), (64, 4, 41), (256, 4, 41), (1024, 4, 41), (1024, 4, 41), (1024, 1024, 5), (1, 1024, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "make,frames",
    [
        (lambda: MultiSpectralCritic((128, 256), (21, 17)), [34, 18]),
        (lambda: MultiMelCritic((128, 256), (21, 17), 20), [34, 18]),
        (lambda: MultiRateCritic(2, 4, 2), [64, 32]),
    ],
    ids=["spectral", "mel", "rate"],
)
def test_each_scale_scores_its_frames(make, frames, channels):
    scores = make()(torch.randn(3, channels, 1024))
    assert [tuple(score.shape) for score in scores] == [(3 * channels, 1, count) for count in frames]


@pytest.mark.parametrize("make", [MultiSpectralCritic, MultiMelCritic, MultiRateCritic])
@pytest.mark.parametrize("time", [1, 7, 63, 256, 1024])
def test_a_hop_of_any_length_is_heard_and_has_a_gradient(make, time):
    torch.manual_seed(0)
    critics, x = make(), torch.randn(2, 1, time, requires_grad=True)
    scores = critics(x)
    assert all(score.isfinite().all() and score.numel() for score in scores)
    (gradient,) = torch.autograd.grad(sum(score.mean() for score in scores), x)
    assert gradient.isfinite().all() and gradient.any()


def test_what_is_shorter_than_half_a_frame_is_followed_by_silence():
    torch.manual_seed(0)
    critic, x = SpectralCritic(512, 5), torch.randn(1, 1, 100)
    torch.testing.assert_close(critic(x), critic(torch.nn.functional.pad(x, (0, 157))))


def test_what_is_judged_gets_a_gradient_that_silence_has_not():
    critic = SpectralCritic(128, 5)
    for x, heard in ((torch.randn(1, 1, 512), True), (torch.zeros(1, 1, 512), False)):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x)
        assert gradient.isfinite().all() and bool(gradient.any()) == heard


@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
@pytest.mark.parametrize("size,bands,rate_hz", [(1024, 160, 44_100), (128, 160, 44_100), (256, 20, 1600)])
def test_mel_bands_are_those_of_torchaudio(size, bands, rate_hz):
    functional = pytest.importorskip("torchaudio.functional")
    theirs = functional.melscale_fbanks(size // 2 + 1, 0.0, rate_hz / 2, bands, rate_hz, "slaney", "slaney")
    torch.testing.assert_close(mel_bands(size, bands, rate_hz), theirs.T, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("make", [MultiSpectralCritic, partial(MultiMelCritic, bands=20)])
def test_hiss_below_the_noise_floor_is_not_heard(make):
    torch.manual_seed(0)
    hiss = 1e-2 * torch.randn(1, 1, 8192)  # -40 dBFS
    for floor_db, heard in ((None, True), (-40.0, False)):
        critics = make(noise_floor_db=floor_db)
        with torch.no_grad():
            apart = [(a - b).abs().max().item() for a, b in zip(critics(hiss), critics(0 * hiss), strict=True)]
        assert all(distance > 1e-3 for distance in apart) == heard
        assert all(distance < 1e-3 for distance in apart) != heard


def test_each_critic_of_waveforms_hears_half_the_rate_of_the_one_before():
    critics = MultiRateCritic(2, 4, 1)
    critics.critics[1].load_state_dict(critics.critics[0].state_dict())
    slow = torch.sin(torch.arange(4096) * 0.02)[None, None]
    halved = torch.sin((torch.arange(2048) * 2 + 0.5) * 0.02)[None, None]
    torch.testing.assert_close(critics(slow)[1][..., 8:-8], critics.critics[0](halved)[..., 8:-8], atol=1e-3, rtol=0)


@pytest.mark.parametrize("critic", [MultiSpectralCritic, MultiMelCritic])
def test_scales_and_kernels_are_as_many(critic):
    with pytest.raises(UserError, match="as many of both"):
        critic((128,), (21, 17))
