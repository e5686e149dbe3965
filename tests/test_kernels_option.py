"""`kernels=`: what a run was told, what really ran, and that a command may be told otherwise."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from test_render import a_run, sound

from revox_lightning import __version__, audio, identity
from revox_lightning.commands import assemble, evaluate, measure, render, settings, subjects, train
from revox_lightning.commands.exits import guarded
from revox_lightning.kernels import backend, build
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.runs import RunFolder


@pytest.fixture(autouse=True)
def as_before():
    with backend.using("auto"):
        yield
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)


def chosen():
    return backend._chosen


def without_the_key(run):
    """The run's config as versions before the kernels wrote it."""
    path = RunFolder(run).config_path
    content = yaml.safe_load(path.read_text())
    del content["kernels"]
    path.write_text(yaml.safe_dump(content))


def test_the_root_knows_it_and_says_auto():
    assert settings.composed(["model=lstm"]).kernels == "auto"


@pytest.mark.parametrize("told,used", [(None, "torch"), ("auto", "auto")])
def test_a_run_is_loaded_with_its_own_kernels_unless_told_otherwise(told, used, tmp_path):
    run = a_run(tmp_path, "lstm", kernels="torch")
    _, cfg, _ = assemble.load_run(run, told)
    assert chosen() == cfg.kernels == used


def test_an_old_run_means_auto(tmp_path):
    run = a_run(tmp_path, "lstm")
    without_the_key(run)
    backend.choose("torch")
    _, cfg, _ = assemble.load_run(run)
    assert chosen() == cfg.kernels == "auto"


def test_render_and_measure_take_it(tmp_path, monkeypatch):
    run = a_run(tmp_path, "lstm")
    source = sound(tmp_path / "in.wav", 0.2)
    sheets = [audio.read(source)]
    for kernels in ("torch", "auto"):
        render.render([f"run={run}", f"kernels={kernels}", str(source), str(tmp_path / f"{kernels}.wav")])
        assert chosen() == kernels
    y = [audio.read(tmp_path / f"{kernels}.wav") for kernels in ("torch", "auto")]
    assert (y[0] - y[1]).abs().max() < 1e-5 and (y[0] - sheets[0]).abs().max() > 1e-3
    asked = []
    monkeypatch.setattr(subjects, "of_run", lambda path, how, _: asked.append(how.kernels) or ([], RunFolder(path)))
    measure.measure([f"run={run}", "kernels=torch", f"out={tmp_path / 'sheet'}"])
    assert asked == ["torch"]


@pytest.mark.parametrize("command", [render.render, evaluate.evaluate])
def test_an_unknown_name_is_one_sentence(command, tmp_path, capsys):
    words = [f"run={a_run(tmp_path, 'lstm')}", "kernels=quick"]
    words += [str(sound(tmp_path / "in.wav", 0.1)), str(tmp_path / "out.wav")] if command is render.render else []
    assert guarded(lambda: command(words)) == 2
    assert "kernels=quick: choose one of auto, torch, fused" in capsys.readouterr().err


def test_what_really_ran_stands_in_the_figures_of_training_and_evaluation(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("revox_lightning.report.plots.draw", lambda *_: [])
    dry, wet = pair(seconds=4)
    words = [
        "model=lstm", "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000",
        "logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1", "system.batch_size=2",
        "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100", "data.gap_seconds=0.02",
        f"run_dir={tmp_path}/run", "kernels=torch", "report.data_sheet=false", "report.examples=[]",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 0
    run = RunFolder(tmp_path / "run")
    told = run.read_json("metrics.json")
    assert told["kernels"] == "torch" and run.config()["kernels"] == "torch"
    assert told["computed/torch"] == torch.__version__ and told["computed/device"] == "cpu"
    assert told["computed/precision"] == "32-true" and told["computed/version"].startswith(__version__)
    assert told["computed/threads"] == 1 and told["computed/processor"] and "computed/compiler_options" not in told
    evaluate.evaluate([f"run={run.path}", "kernels=auto"])
    (figures,) = run.path.glob("evaluations/*/metrics.json")
    assert json.loads(figures.read_text())["kernels"] == backend.describe(Recurrent())
    # A run of an older version goes on, and may be given kernels.
    without_the_key(run.path)
    assert train.resume([f"resume={run.path}", "kernels=torch", "trainer.max_epochs=2"]) == 0
    assert run.config()["kernels"] == "torch" and chosen() == "torch"


def test_a_kernel_knows_the_options_it_was_compiled_with(tmp_path, monkeypatch):
    if backend.library("recurrent") is None:
        pytest.skip("no C++ compiler")
    backend.set_threads(3)
    told = identity.computed(Recurrent(), torch.device("cpu"))
    assert told["kernels"].startswith("fused") and told["computed/threads"] == 3
    assert all(flag in told["computed/compiler_options"].split() for flag in build.FLAGS)
    assert re.search(r"-m(arch|cpu)=|-O3$", told["computed/compiler_options"])
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    monkeypatch.setenv(build.MORE, '-DNAME="a" -O1')
    monkeypatch.setattr(backend, "_libraries", {})
    assert identity.computed(Recurrent(), torch.device("cpu"))["computed/compiler_options"].endswith('-DNAME="a" -O1')
    with backend.using("torch"):
        assert "computed/compiler_options" not in identity.computed(Recurrent(), torch.device("cpu"))


def test_another_device_computes_with_torch():
    told = identity.computed(Recurrent(), torch.device("meta"), "16-mixed")
    assert (told["kernels"], told["computed/device"], told["computed/precision"]) == ("torch", "meta", "16-mixed")


def test_numbas_first_parallel_loop_leaves_torch_the_threads_that_it_was_given():
    program = """
import torch
from revox_lightning.commands import assemble, settings
from revox_lightning.dsp import biquads
from revox_lightning.models.recurrent import Recurrent
assemble.divide_threads(settings.composed(["model=lstm", "system.threads=1"]), Recurrent())
sections = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(2, 1, 1)
biquads.filtered(torch.ones(2, 1, 8), sections)
print(torch.get_num_threads())
"""
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
