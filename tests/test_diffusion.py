"""The objective of the diffusion models."""

import logging

import pytest
import torch
from test_denoiser import Nothing, denoiser

from revox_lightning.errors import UserError
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.unet_1d import UNet1d
from revox_lightning.objectives.diffusion import Diffusion


def batch(size=64, samples=64, seed=0, scale=0.5):
    return {"wet": scale * torch.randn(size, 1, samples, generator=torch.Generator().manual_seed(seed))}


def test_a_net_that_knows_nothing_of_white_data_has_the_loss_of_its_target():
    """The target has rms 1 at every noise level: that is what the preconditioning is for."""
    torch.manual_seed(0)
    terms, state = Diffusion()(denoiser(), batch(), None)
    assert state is None and set(terms) == {"denoise"}
    assert terms["denoise"].item() == pytest.approx(1.0, rel=0.1)
    assert Diffusion().total(terms) is terms["denoise"]


def test_the_mean_of_a_segment_does_not_count():
    a, b = batch(), batch()
    b["wet"] = b["wet"] + 3.0
    torch.testing.assert_close(Diffusion().validate(denoiser(), a), Diffusion().validate(denoiser(), b))


def test_validations_repeat_and_training_does_not():
    net, objective = denoiser(UNet1d((4, 4), (2, 2), 4)), Diffusion()
    assert objective.validate(net, batch())["denoise"] == objective.validate(net, batch())["denoise"]
    first, second = (objective(net, batch(), None)[0]["denoise"] for _ in range(2))
    assert first != second


def test_who_knows_the_signal_scores_perfectly():
    x = batch()["wet"][:, 0]
    x = x - x.mean(-1, keepdim=True)
    d = denoiser()

    class Oracle(torch.nn.Module):
        def forward(self, noisy, level):
            c = d.preconditioning((4 * level).exp())
            return (x - c.skip * noisy / c.inner) / c.out

    assert Diffusion().validate(denoiser(Oracle()), batch())["denoise"].item() < 1e-6


def test_the_stored_batch_gives_the_stored_loss():
    torch.manual_seed(0)
    net = denoiser(UNet1d((4, 4), (2, 2), 4))
    assert Diffusion().validate(net, batch(8, 32))["denoise"].item() == pytest.approx(0.5825407, rel=1e-4)


def test_the_gradient_reaches_the_net():
    net = denoiser(UNet1d((4, 4), (2, 2), 4))
    Diffusion()(net, batch(4), None)[0]["denoise"].backward()
    assert net.net.first.weight.grad.abs().sum() > 0


def test_another_net_is_refused():
    with pytest.raises(UserError, match="given Recurrent"):
        Diffusion()(Recurrent(), batch(), None)


def test_data_of_another_level_is_told_once(caplog):
    objective = Diffusion()
    with caplog.at_level(logging.WARNING):
        objective(denoiser(), batch(), None)
        assert not caplog.records
        objective = Diffusion()
        for _ in range(3):
            objective(denoiser(Nothing()), batch(scale=5.0), None)
    assert len(caplog.records) == 1 and "model.sigma_data=4.9" in caplog.text
