"""A memory that is too small for the batch: one sentence, or smaller batches where that was asked for."""

import json

import pytest
import torch
import yaml

from revox_lightning.commands import memory, settings, status, training
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.runs import RunFolder, read_checkpoint

SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def cfg(pair, tmp_path):
    """A function that composes a tiny training."""
    dry, wet = pair(seconds=4)

    def compose(*words):
        return settings.composed([
            "model=lstm", "size=2", "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000",
            "trainer=cpu", "trainer.max_epochs=2", "system.batch_size=8", "system.segment_samples=600",
            "system.hop_samples=300", "system.warmup_samples=100", "linear_filter.taps=64",
            "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "logger=csv", "report.audio_seconds=0",
            "report.data_sheet=false", "report.examples=[]", "kernels=torch", f"run_dir={tmp_path / 'run'}", *words,
        ])  # fmt: skip

    return compose


@pytest.fixture
def small(monkeypatch):
    """A function that lets a net train on so many signals and no more, from a call on."""
    forward, calls = Recurrent.forward, []

    def shrink(most, error, after=0):
        def limited(self, x, *others):
            if torch.is_grad_enabled():
                calls.append(len(x))
                if len(x) > most and len(calls) > after:
                    raise error
            return forward(self, x, *others)

        monkeypatch.setattr(Recurrent, "forward", limited)
        return calls

    return shrink


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(SAYS),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ],
)
def test_without_the_option_it_is_one_sentence(cfg, error, capsys):
    def step():
        with memory.watched(cfg()):
            raise error

    assert guarded(step) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "system.batch_size (now 8), or system.auto_batch=true" in said


def test_a_single_segment_that_is_too_much_names_its_length(cfg):
    with (
        pytest.raises(memory.OutOfMemory, match=r"system\.segment_samples\.$"),
        memory.watched(cfg("system.batch_size=1")),
    ):
        raise MemoryError


def test_other_errors_stay_what_they_are(cfg):
    for error in (RuntimeError("shapes differ"), UserError("the disk is full."), ValueError("out of memory")):
        with pytest.raises(type(error)) as raised, memory.watched(cfg()):
            raise error
        assert raised.value is error


def test_a_training_that_does_not_fit_ends_with_the_sentence_and_keeps_what_it_had(cfg, small, tmp_path, capsys):
    calls = small(2, torch.OutOfMemoryError(SAYS), after=20)
    assert guarded(lambda: training.train(cfg("trainer.max_epochs=20"), tmp_path / "run")) == 2
    assert capsys.readouterr().err.count("error: the memory is used up by a step of the training") == 1
    folder = RunFolder(tmp_path / "run")
    assert len(calls) == 21 and max(calls) == 8 and status.of(folder)[0] == "failed"
    assert read_checkpoint(folder.last)["epoch"] >= 0 and not (folder.path / "metrics.json").exists()


def test_smaller_batches_until_it_fits_noted_in_config_and_status(cfg, small, tmp_path, capsys):
    calls = small(2, torch.OutOfMemoryError(SAYS))
    metrics = training.train(cfg("system.auto_batch=true"), tmp_path / "run")
    assert {n for n in calls if n > 1} == {8, 4, 2} and metrics["test/esr"] < 2
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["system"]["batch_size"] == 2
    told = json.loads((tmp_path / "run" / status.NAME).read_text())
    assert told["batch_size_halved"] == "8 to 4, 4 to 2" and told["state"] == "finished"
    said = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert said == [f"warning: the memory is used up: going on with system.batch_size={n}" for n in (4, 2)]


def test_it_goes_on_from_the_last_whole_epoch(cfg, small, tmp_path):
    calls = small(4, MemoryError(), after=20)
    training.train(cfg("system.auto_batch=true", "trainer.max_epochs=6"), tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [str(n) for n in range(6)]
    assert calls[20] == 8 and 8 not in calls[21:] and max(calls[21:]) == 4


def test_where_even_one_segment_is_too_much_it_ends(cfg, small, tmp_path):
    calls = small(0, MemoryError())
    with pytest.raises(memory.OutOfMemory, match="segment_samples"):
        training.train(cfg("system.auto_batch=true"), tmp_path / "run")
    assert 1 in calls


def test_several_processes_do_without(cfg, tmp_path):
    with pytest.raises(UserError, match="one process"):
        training.train(cfg("system.auto_batch=true", "trainer.devices=2"), tmp_path / "run")
