"""Critics: the published shapes, one score a frame, a gradient for what they judge."""

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.models.critics import MultiSpectralCritic, SpectralCritic

torch.set_num_threads(1)


def test_convolutions_are_as_published():
    shapes = [tuple(p.shape) for name, p in SpectralCritic(512, 21).named_parameters() if name.endswith("original1")]
    assert shapes == [(16, 257, 10), (64, 4, 21), (256, 4, 21), (256, 256, 5), (1, 256, 3)]


@pytest.mark.parametrize("channels", [1, 2])
def test_each_scale_scores_its_frames(channels):
    scores = MultiSpectralCritic((128, 256), (21, 17))(torch.randn(3, channels, 1024))
    assert [tuple(score.shape) for score in scores] == [(3 * channels, 1, 34), (3 * channels, 1, 18)]


def test_what_is_judged_gets_a_gradient_that_silence_has_not():
    critic = SpectralCritic(128, 5)
    for x, heard in ((torch.randn(1, 1, 512), True), (torch.zeros(1, 1, 512), False)):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x)
        assert gradient.isfinite().all() and bool(gradient.any()) == heard


def test_scales_and_kernels_are_as_many():
    with pytest.raises(UserError, match="as many of both"):
        MultiSpectralCritic((128,), (21, 17))
