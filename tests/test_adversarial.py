"""A net against critics: who learns when, by what, and that an interruption changes nothing."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from revox_lightning.models.recurrent import Recurrent
from revox_lightning.objectives.adversarial import Adversarial, hinge
from revox_lightning.runs import read_checkpoint
from revox_lightning.system import System

torch.set_num_threads(1)


class Mean(nn.Module):
    """A critic whose two scores are the signal's mean times a weight, and twice that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return [self.weight * x.mean(-1), 2 * self.weight * x.mean(-1)]


class Constant(nn.Module):
    """A net that makes the same number whatever it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.25))

    def forward(self, x, controls=None, state=None):
        return self.value.expand_as(x), state


BATCH = {"dry": torch.zeros(2, 1, 8), "wet": torch.full((2, 1, 6), 0.5), "controls": torch.zeros(2, 0)}


def test_the_hinge_by_hand():
    assert hinge(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 2.0])).item() == pytest.approx(
        (0 + 2) / 2 + (0.5 + 0) / 2
    )


def test_both_rounds_by_hand():
    objective, net = Adversarial(Mean()), Constant()
    terms, _ = objective(net, BATCH, None, "critics")
    made, real = 0.5 * 0.25, 0.5 * 0.5
    assert terms["critics"].item() == pytest.approx(1 + made + 1 - real + 1 + 2 * made + 1 - 2 * real)
    terms, _ = objective(net, BATCH, None, "net")
    assert objective.total(terms).item() == pytest.approx(-made - 2 * made)


def test_the_net_learns_through_the_critics_only_in_its_round():
    objective, net = Adversarial(Mean()), Constant()
    objective.total(objective(net, BATCH, None, "critics")[0]).backward()
    assert net.value.grad is None and objective.critics.weight.grad is not None
    objective.total(objective(net, BATCH, None, "net")[0]).backward()
    assert net.value.grad is not None and net.value.grad.item() == pytest.approx(-0.5 - 1.0)


@pytest.mark.parametrize("critics", ["MultiSpectralCritic", "MultiMelCritic", "MultiRateCritic"])
def test_the_experiment_takes_any_of_the_critics(critics):
    from revox_lightning.commands import assemble, settings

    told = [f"objective.critics._target_=revox_lightning.models.critics.{critics}"]
    told += ["~objective.critics.noise_floor_db"] if critics == "MultiRateCritic" else []
    objective = assemble.build(settings.composed(["experiment=tape_adversarial", *told]).objective)
    batch = {"dry": torch.zeros(2, 1, 4096), "wet": 0.1 * torch.randn(2, 1, 4096), "controls": torch.zeros(2, 0)}
    net = Constant()
    for round, learns in (("critics", objective.critics), ("net", net)):
        objective.zero_grad(), net.zero_grad()
        loss = objective.total(objective(net, batch, None, round)[0])
        loss.backward()
        assert loss.isfinite() and all(weight.grad is not None for weight in learns.parameters())


def words(pair, folder, *more):
    dry, wet = pair(seconds=2)
    return [
        "experiment=tape_adversarial", "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.trajectory=null",
        "data.sample_rate_hz=8000", "size=4", "+objective.critics.fft_sizes=[64]", "+objective.critics.kernels=[5]",
        "logger=none", "trainer=cpu", "schedule=constant", "system.batch_size=4", "system.segment_samples=800",
        "system.hop_samples=400", "system.warmup_samples=100", "data.gap_seconds=0.02", "linear_filter.taps=64",
        "report.data_sheet=false", "report.examples=[]", "delay_line.max_delay_samples=64",
        f"run_dir={folder}", *more,
    ]  # fmt: skip


@pytest.fixture
def train(monkeypatch):
    from revox_lightning.commands import settings, training
    from revox_lightning.report import plots

    monkeypatch.setattr(plots, "draw", lambda *_: [])

    def run(folder, given, resume=False):
        return training.train(settings.composed(given), folder, resume)

    return run


def test_a_run_with_two_optimisers_goes_on_as_if_it_had_never_stopped(pair, train, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(whole, words(pair, whole, "trainer.max_epochs=2"))
    train(parted, words(pair, parted, "trainer.max_epochs=1"))
    first = read_checkpoint(parted / "checkpoints" / "last.ckpt")
    metrics = train(parted, words(pair, parted, "trainer.max_epochs=2"), resume=True)
    a, b = (read_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (whole, parted))
    assert len(a["optimizer_states"]) == 2 and a["global_step"] == b["global_step"]
    for name, weight in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], weight, rtol=1e-5, atol=1e-6)
    for part in ("net.", "objective.critics."):
        moved = [
            n
            for n in a["state_dict"]
            if n.startswith(part) and not torch.equal(a["state_dict"][n], first["state_dict"][n])
        ]
        assert moved, part
    assert metrics["test/mrstft"] > 0


def test_a_net_does_what_its_critics_like():
    torch.manual_seed(0)
    net, objective = Recurrent("gru", 4), Adversarial(Mean())  # which like a high mean
    optimizer, before = torch.optim.Adam(net.parameters(), 0.01), net(BATCH["dry"])[0].mean().item()
    for _ in range(20):
        optimizer.zero_grad()
        objective.total(objective(net, BATCH, None, "net")[0]).backward()
        optimizer.step()
    assert net(BATCH["dry"])[0].mean().item() > before + 0.1


class Traced(System):
    """Notes, at each step of each optimiser, its learning rate and which weights want a gradient."""

    def _step(self, optimizer, round, step):
        self.now = round
        super()._step(optimizer, round, step)

    def on_before_optimizer_step(self, optimizer):
        wanting = {name for name, weight in self.named_parameters() if weight.requires_grad}
        self.seen.append((self.now, round(1000 * optimizer.param_groups[0]["lr"]), wanting))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
@pytest.mark.filterwarnings("ignore:.*no `val_dataloader`.*", "ignore:.*You defined a `validation_step`.*")
def test_each_optimiser_warms_up_by_its_own_steps_and_what_is_frozen_stays_so():
    net = Constant()
    net.frozen, net.latency_samples = nn.Parameter(torch.tensor(1.0), requires_grad=False), 0
    system = Traced(
        net, Adversarial(Mean()), partial(torch.optim.Adam, lr=0.006), sample_rate_hz=8000, warmup_samples=2,
        hop_samples=2, lr_warmup_iterations=6,
    )  # fmt: skip
    system.seen = []
    batch = {"dry": torch.zeros(2, 1, 8), "wet": torch.full((2, 1, 8), 0.5), "controls": torch.zeros(2, 0)}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(system, torch.utils.data.DataLoader([batch, batch], batch_size=None))
    for name, weight in (("critics", "objective.critics.weight"), ("net", "net.value")):
        seen = [(rate, wanting) for now, rate, wanting in system.seen if now == name]
        assert [rate for rate, _ in seen] == [1, 2, 3, 4, 5, 6]
        assert all(wanting == {weight} for _, wanting in seen)
    assert not net.frozen.requires_grad and net.frozen.grad is None
    assert system.objective.critics.weight.requires_grad
