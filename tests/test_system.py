"""The training loop around a net: hops, clipping, optimiser, logging, scoring beside the playing."""

import time
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.losses import Losses
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.objectives.supervised import Supervised
from revox_lightning.scorer import Scorer, score
from revox_lightning.system import System

RATE_HZ = 8000
ADAM = partial(torch.optim.Adam, lr=0.01)


class Gain(nn.Module):
    """The least that is a net."""

    channels, controls, side_channels, receptive_field, latency_samples, multiply_adds_per_sample = 1, 0, 0, 1, 0, 1

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, controls=None, state=None):
        return self.g * x, x.new_zeros(1)


@pytest.fixture
def data(pair):
    dry, wet = pair(seconds=4)
    return PairData(
        Recordings(dry=str(dry), wet=str(wet)), sample_rate_hz=RATE_HZ, segment_samples=600, warmup_samples=100,
        batch_size=4,
    )  # fmt: skip


def built(net, optimizer=ADAM, losses=None, **changes):
    settings = {"sample_rate_hz": RATE_HZ, "warmup_samples": 100, "hop_samples": 250} | changes
    return System(net, Supervised(Losses(losses or {"esr": 1.0}, RATE_HZ)), optimizer, **settings)


def fit(system, data, epochs=1, callbacks=()):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, reload_dataloaders_every_n_epochs=1,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(system, data)
    return trainer


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


def test_the_logged_losses_are_means_over_all_hops_of_the_epoch(data):
    system = built(Gain(), partial(torch.optim.SGD, lr=0.0), {"esr": 0.75, "mae": 0.25})
    logged = fit(system, data).callback_metrics
    data.trainer = None  # its first epoch again
    terms = {"esr": [], "mae": []}
    for batch in data.train_dataloader():
        for cut in (slice(100, 350), slice(350, 600), slice(600, 700)):
            x, y = batch["dry"][..., cut], batch["wet"][..., cut]
            for name, value in Losses({"esr": 1.0, "mae": 1.0}, RATE_HZ)(0.5 * x, y).items():
                terms[name].append((len(x), value.item()))
    means = {name: sum(n * v for n, v in found) / sum(n for n, _ in found) for name, found in terms.items()}
    for name, mean in means.items():
        assert logged[f"train/{name}"].item() == pytest.approx(mean, rel=1e-5)
    assert logged["train/loss"].item() == pytest.approx(0.75 * means["esr"] + 0.25 * means["mae"], rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        (ADAM, True),
        (partial(ADAM, foreach=False), None),
        (partial(ADAM, fused=False), False),
        (partial(torch.optim.RMSprop, lr=0.01), None),
    ],
)
def test_the_optimiser_is_fused_where_it_can_be_and_nothing_else_is_said(optimizer, fused, data):
    trainer = fit(built(Gain(), optimizer), data)
    assert trainer.optimizers[0].param_groups[0].get("fused") == fused


def test_a_fused_optimiser_takes_the_steps_of_the_plain_one(data):
    weights = []
    for optimizer in (ADAM, partial(ADAM, fused=False)):
        torch.manual_seed(0)
        system = built(Recurrent(hidden=4), optimizer, clip_norm=0.05)
        fit(system, data)  # later, close to the optimum, clipped steps magnify any rounding
        weights.append(torch.cat([p.detach().flatten() for p in system.net.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_gradients_are_clipped_to_the_norm_and_left_alone_below_it(clip_norm, data):
    system = built(Recurrent(hidden=4), clip_norm=clip_norm)
    optimizer = torch.optim.SGD(system.net.parameters(), lr=0.0)
    x, y = torch.randn(2, 2, 1, 300)
    system.objective.total(system.objective.losses(system.net(x)[0], y)).backward()
    before = [p.grad.clone() for p in system.net.parameters()]
    system.on_before_optimizer_step(optimizer)
    after = [p.grad.clone() for p in system.net.parameters()]
    for weight, gradient in zip(system.net.parameters(), before, strict=True):
        weight.grad = gradient
    torch.nn.utils.clip_grad_norm_(system.net.parameters(), clip_norm)
    for weight, gradient in zip(system.net.parameters(), after, strict=True):
        assert torch.equal(weight.grad, gradient)


def test_scores_beside_the_playing_are_those_of_the_whole_take(data):
    net = Gain()
    scores = score(net, data.chunks("test"), EffectMetrics(RATE_HZ))
    take = data.takes("test")[0]
    x, y = data.beginning(take, take.frames)
    metrics = EffectMetrics(RATE_HZ)
    metrics.start_file()
    metrics.update(0.5 * x, y)
    metrics.end_file()
    assert scores == pytest.approx(metrics.compute(), rel=1e-6, nan_ok=True)


def chunk(frames, first=False, channels=1):
    x = torch.ones(1, channels, frames)
    return {
        "dry": x, "wet": x, "controls": torch.zeros(1, 0), "meta": {"first": first, "last": False, "skip": 0, "take": 0}
    }  # fmt: skip


def test_what_goes_wrong_beside_the_playing_is_raised():
    scorer = Scorer(Gain(), EffectMetrics(RATE_HZ))
    scorer.step(chunk(100, first=True))
    scorer.step(chunk(100, first=True))  # the take before has not ended
    with pytest.raises(ValueError, match=r"end_file\(\)"):
        scorer.compute()


def test_playing_never_runs_far_ahead_of_the_scoring():
    class Slow(EffectMetrics):
        scored = 0

        def update(self, y_hat, y):
            time.sleep(0.01)
            self.scored += 1

    metrics = Slow(RATE_HZ)
    scorer = Scorer(Gain(), metrics)
    for played in range(30):
        scorer.step(chunk(10, first=played == 0))
        assert played - metrics.scored <= 9
    with pytest.raises(ValueError, match="no file"):  # the take has not ended
        scorer.compute()
    assert metrics.scored == 30
