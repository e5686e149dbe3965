"""Several processes train one net: shares of a batch are the batch, and the weights are those of one process."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from revox_lightning import distributed
from revox_lightning.commands import launchers, settings
from revox_lightning.data.segments import Segments, as_it_is, share
from revox_lightning.data.takes import Reader, Take
from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.models.tcn import tcn

TINY = [
    "data=recordings", "data.sample_rate_hz=8000", "logger=csv", "trainer.max_epochs=3", "report.data_sheet=false",
    "report.examples=[]", "report.audio_seconds=1", "system.batch_size=5", "system.segment_samples=2000",
    "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "system.threads=1",
]  # fmt: skip
MODELS = {
    # Truncated back-propagation: four steps a batch, the state carried over them.
    "lstm": ["model=lstm", "system.hop_samples=500", "system.warmup_samples=200"],
    # Its batch norms see the whole batch; with Adam, which divides by the gradient's size and so magnifies what rounds.
    "tcn": ["model=tcn", "size=100", "system.hop_samples=2000"],
}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_shares_one_after_another_are_the_batch(size, processes):
    batch = list(range(size))
    shares = [share(batch, rank, processes) for rank in range(processes)]
    assert len({len(part) for part in shares}) == 1, "processes would wait for each other"
    assert [item for part in shares for item in part][:size] == batch


def test_every_process_reads_its_share_of_the_same_batches(pair):
    dry, wet = pair(seconds=1.0)
    take = Take("take", dry, wet, 0, 8000)
    places = [((0, 100 * n), (0, 100 * n)) for n in range(5)]

    def batches(rank, processes):
        segments = Segments([take], Reader("each", 16.0), 300, None, rank, processes)
        return list(DataLoader(segments, batch_sampler=[places, places[:1]], collate_fn=as_it_is))

    alone, parts = batches(0, 1), [batches(rank, 2) for rank in range(2)]
    for n, one in enumerate(alone):
        assert "whole" not in one and all(part[n]["whole"] == len(one["dry"]) for part in parts)
        for name in ("dry", "wet", "controls"):
            assert torch.equal(torch.cat([part[n][name] for part in parts])[: len(one[name])], one[name])


def test_one_process_leads(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.rank() == 0 and distributed.processes() == 1
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.rank() == 3


def test_other_ways_of_sharing_are_refused():
    assert distributed.settled(1, 1, "auto") == "auto"
    assert isinstance(distributed.settled(2, 1, "ddp"), distributed.Together)
    with pytest.raises(UserError, match="ddp only"):
        distributed.settled(2, 1, "fsdp")


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_norms_keep_their_weights_and_those_of_images_are_refused():
    norm = torch.nn.BatchNorm1d(2)
    assert distributed.Shared(torch.nn.Sequential(norm)).norms == [norm]
    assert set(norm.state_dict()) == set(torch.nn.BatchNorm1d(2).state_dict())
    x = torch.randn(3, 2, 5)
    assert torch.equal(norm.eval()(x), torch.nn.BatchNorm1d(2).eval()(x))
    with pytest.raises(UserError, match="one process"):
        distributed.Shared(torch.nn.BatchNorm2d(2))
    lstm = torch.nn.LSTM(1, 2)  # without norms nothing changes but that its gradients are summed
    assert distributed.Shared(lstm).norms == [] and len(distributed.Shared(lstm).weights) == 4


@pytest.mark.parametrize("knobs", [0, 2])
def test_a_shared_net_is_the_net_and_its_gradients_know_no_order(knobs, alone):
    torch.manual_seed(0)
    net = tcn(100, controls=knobs)
    x, controls = torch.randn(5, 1, 700), torch.rand(5, knobs)

    def learned(net, order):
        net.zero_grad()
        with backend.using("torch"):
            y, _ = net(x[order], controls[order])
        (y - x[order]).square().mean(-1).double().sum().backward()
        return y.detach(), [p.grad.clone() for p in net.parameters()]

    plain, shared = copy.deepcopy(net).train(), net.train()
    assert distributed.Shared(shared).weights == [], "every gradient is summed where it is made"
    forwards, backwards = torch.arange(5), torch.arange(4, -1, -1)
    (y, expected), (y_hat, found) = learned(plain, forwards), learned(shared, forwards)
    for a, b in zip(plain.buffers(), shared.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=2e-5, atol=1e-6)
    _, turned = learned(shared, backwards)
    torch.testing.assert_close(y_hat, y, rtol=1e-4, atol=1e-5)
    for name, a, b, c in zip(dict(net.named_parameters()), expected, found, turned, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * float(a.abs().max() + 1e-6), msg=name)
        torch.testing.assert_close(c, b, rtol=3e-7, atol=0.0, msg=name)


@pytest.mark.parametrize(
    "words,sentence",
    [
        (["launcher=joblib"], "add -m"),
        (["campaign=x"], "add -m"),
        (["-m", "launcher=nosuch"], "choose one of joblib, local, slurm"),
        (["-m", "campaign=../x", "seed=0,1"], "becomes a folder's"),
        (["-m", "campaign=x", "launcher=slurm", "trainer.devices=2"], "."),
    ],
)
def test_a_launcher_that_cannot_be_is_refused(words, sentence):
    with pytest.raises(UserError, match=sentence):
        launchers.translated(words)


def test_a_campaign_names_its_jobs_by_what_they_differ_in():
    words = launchers.translated(["-m", "model=lstm,gru", "seed=0", "campaign=night"])
    assert "hydra.sweep.dir=outputs/night" in words
    assert "hydra.job.config.override_dirname.exclude_keys=[seed,campaign]" in words
    assert launchers.translated(["model=lstm"]) == ["model=lstm"]
    long = launchers.job_folder("x=" + "a" * 300)
    assert len(long) <= 120 and long != launchers.job_folder("x=" + "a" * 299 + "b")
    assert "/" not in launchers.job_folder("data.dry=../../x")


def test_a_job_knows_how_it_stands_and_refuses_other_words(tmp_path):
    path = tmp_path / "seed=0"
    assert launchers.before(path, ["seed=0", "launcher=joblib"]) == "new"
    assert launchers.before(path, ["seed=0", "campaign=x"]) == "new"
    (path / "metrics.json").write_text('{"test/esr": 0.1}')
    assert launchers.before(path, ["seed=0"]) == "finished"
    with pytest.raises(UserError, match="other options"):
        launchers.before(path, ["seed=0", "trainer.max_epochs=9"])


def test_every_launcher_composes_without_its_plugin():
    for kind in ("local", "joblib", "slurm"):
        assert settings.composed([f"launcher={kind}"]).launcher.kind == kind


def train(folder: Path, *words: str) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "revox_lightning.commands.train", *TINY, *words, f"run_dir={folder}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch   1/3") == 1, "one process speaks"


def apart(a: Path, b: Path) -> float:
    states = [torch.load(p / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for p in (a, b)]
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(*(s.values() for s in states), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_two_processes_end_with_the_weights_of_one(accelerator, model, pair, tmp_path):
    if accelerator == "gpu" and torch.cuda.device_count() < 2:
        pytest.skip(f"two GPUs are needed, and there are {torch.cuda.device_count()}")
    dry, wet = pair(seconds=6.0)
    words = [
        *MODELS[model],
        f"data.dry={dry}",
        f"data.wet={wet}",
        f"trainer={accelerator}",
        "trainer.precision=32-true",
    ]
    # One process that computes as several do; the compiled loops of an LSTM do so anyway.
    train(tmp_path / "one", *words, *(["trainer.strategy=ddp"] if model == "tcn" else []))
    train(tmp_path / "two", *words, "trainer.devices=2", "trainer.strategy=ddp")
    assert apart(tmp_path / "one", tmp_path / "two") <= 1e-5
    names = [{str(p.relative_to(tmp_path / run)) for p in (tmp_path / run).rglob("*")} for run in ("one", "two")]
    assert names[0] == names[1], "files of other processes were left"


@pytest.mark.slow
def test_two_runs_at_once_end_as_one_after_another_and_are_not_made_again(pair, tmp_path):
    dry, wet = pair(seconds=6.0)
    words = [*TINY, *MODELS["lstm"], f"data.dry={dry}", f"data.wet={wet}", "trainer=cpu", "seed=0,1"]

    def multirun(*more: str) -> str:
        command = [sys.executable, "-m", "revox_lightning.commands.train", "-m", *words, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    multirun("campaign=one", "launcher=local")
    multirun("campaign=two", "launcher=joblib")
    for seed in (0, 1):
        assert apart(*(tmp_path / "outputs" / campaign / f"seed={seed}" for campaign in ("one", "two"))) == 0
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
    assert len(made) == 4 and "epoch   1" not in multirun("campaign=two", "launcher=joblib")
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
