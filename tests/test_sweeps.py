"""Sweep files, and sweeps without a server: draws, early termination, resuming."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from revox_lightning.commands import settings, sweep, sweep_file
from revox_lightning.commands.exits import guarded
from revox_lightning.commands.sweep import Sweep, Trial
from revox_lightning.errors import UserError

pytest.importorskip("sweeps", reason="W&B's engine is the extra 'sweep'")
torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "sweeps").glob("*.yaml"))
GROUPS = {folder.name for folder in settings.CONF.iterdir() if folder.is_dir()}


def written(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_value_of_a_sweep_file_composes_and_wandb_takes_it(path):
    content = yaml.safe_load(path.read_text())
    assert (ROOT / content["program"]).is_file() and sweep_file.read(path)
    assert content["command"] == ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
    ends = {
        name: spec.get("values", [spec[key] for key in ("value", "min", "max") if key in spec])
        for name, spec in content["parameters"].items()
    }
    assert all(ends.values())
    first = next(iter(ends))
    for name, values in ends.items():
        others = [f"{other}={written(vs[0])}" for other, vs in ends.items() if other != name]
        if name != first and len(values) == 1:
            continue  # stands among the others of each other line
        for value in values:
            cfg = settings.composed([*others, f"{name}={written(value)}"])
            if name not in GROUPS:
                assert OmegaConf.select(cfg, name) == value


def test_all_of_wandbs_methods_have_a_file():
    assert {yaml.safe_load(path.read_text())["method"] for path in FILES} == {"grid", "random", "bayes"}
    assert any("early_terminate" in yaml.safe_load(path.read_text()) for path in FILES)


@pytest.fixture
def file(tmp_path):
    """A function that writes a small sweep file."""

    def write(method="random", **more):
        content = {
            "program": "train.py", "method": method, "metric": {"name": "val/esr", "goal": "minimize"},
            "parameters": {"optim.lr": {"min": 0.001, "max": 0.01}, "seed": {"values": [0, 1]}},
            "command": ["${env}", "${interpreter}", "${program}", "model=lstm", "size=2", "${args_no_hyphens}"],
        }  # fmt: skip
        if method == "grid":
            content["parameters"]["optim.lr"] = {"values": [0.001, 0.01]}
        path = tmp_path / f"{method}.yaml"
        path.write_text(yaml.safe_dump(content | more))
        return path

    return write


def history(one, trial, values):
    one.folder(trial).path.mkdir(parents=True, exist_ok=True)
    (one.folder(trial).path / "metrics.csv").write_text(
        "epoch,val/esr\n" + "".join(f"{n},{v}\n" for n, v in enumerate(values))
    )


@pytest.mark.parametrize("method", ["grid", "random", "bayes"])
def test_the_same_seed_draws_the_same(file, tmp_path, method):
    path = file(method)

    def drawn(place, seed):
        one = Sweep(path, tmp_path / place, seed)
        for n in range(5):
            trial = one.draw()
            if trial is None:
                break
            history(one, trial, [0.5 / (n + 1)])
            one.settle(trial, "finished")
        return [trial.parameters for trial in one.trials]

    first = drawn("a", 0)
    assert first == drawn("b", 0) and len(first) == (4 if method == "grid" else 5)
    assert method == "grid" or first != drawn("c", 1)
    again = Sweep(path, tmp_path / "a", 0)
    assert [trial.parameters for trial in again.trials] == first, "what was drawn is kept"


def test_hyperband_gives_up_what_lags_behind(file, tmp_path):
    one = Sweep(file(early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2}), tmp_path / "out", 0)
    for values in ([9, 1, 1], [9, 2, 2], [9, 8, 8]):
        trial = one.draw()
        history(one, trial, values)
    assert 2 in one.to_stop() and 0 not in one.to_stop()
    one.settle(one.trials[2], "stopped early")
    assert 2 not in one.to_stop()
    one.settle(one.trials[1], "finished")
    assert [row[0] for row in one.rows()] == ["trial", "001", "002", "000"], "the best first, what runs last"
    assert (tmp_path / "out" / "trials.csv").read_text().startswith("trial,val/esr,state")


def test_a_trial_that_ended_before_the_sweep_was_killed_is_not_trained_again(file, tmp_path, monkeypatch):
    def no_training(one, trial, more):
        raise AssertionError(trial)

    monkeypatch.setattr(sweep, "_start", no_training)
    one = Sweep(file(), tmp_path / "out", 0)
    trial = one.draw()
    history(one, trial, [0.5, 0.25])
    folder = one.folder(trial)
    folder.write_json("status.json", {"state": "finished"})
    with pytest.raises(AssertionError):  # it has no figures
        sweep._run(one, 1, 1, [])
    folder.write_json("metrics.json", {"test/esr": 0.25})
    sweep._run(one, 1, 1, [])
    assert (trial.state, trial.value) == ("finished", 0.25)


def test_the_command_is_filled_in_as_wandb_does_and_the_server_stays_out(file, tmp_path):
    one = Sweep(file(), tmp_path / "out", 0)
    trial = Trial(3, {"optim.lr": 0.005, "logger.offline": False, "seed": 1})
    words = one.words(trial, ["trainer.max_epochs=2"])
    assert words == [
        "model=lstm", "size=2", "optim.lr=0.005", "seed=1", "logger=csv", "trainer.max_epochs=2",
        f"run_dir={tmp_path / 'out' / '003'}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change,says",
    [
        ({"method": "bayesian"}, "no sweep file that W&B takes"),
        ({"parameters": {"lr": {"min": 2.0, "max": 1.0}}}, "no sweep file that W&B takes"),
        ({"metric": None}, "no sweep file that W&B takes"),
        ({"command": ["python", "train.py"]}, "no ${program}"),
    ],
)
def test_what_wandb_would_refuse_is_refused(file, tmp_path, capsys, change, says):
    path = file(**change)
    assert guarded(lambda: sweep.sweep([str(path), f"out={tmp_path / 'out'}"])) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [[], ["nowhere.yaml"], ["{file}", "jobs=0"], ["{file}", "trials=x"], ["{file}", "modle=x"]]
)
def test_bad_words_get_one_sentence(file, tmp_path, capsys, words):
    given = [word.format(file=file()) for word in words]
    assert guarded(lambda: sweep.sweep([*given, f"out={tmp_path / 'out'}"])) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_trials_of_another_sweep_are_not_gone_on_with(file, tmp_path):
    out = tmp_path / "out"
    Sweep(file(), out, 0).claim(["seed=1", "trainer.max_epochs=2"])
    Sweep(file(), out, 0).claim(["trainer.max_epochs=2", "seed=1", "system.threads=1"])
    for path, seed, words in [
        (file(), 1, ["seed=1", "trainer.max_epochs=2"]),
        (file(), 0, ["seed=1"]),
        (file("grid"), 0, ["seed=1", "trainer.max_epochs=2"]),
    ]:
        with pytest.raises(UserError, match="of another sweep"):
            Sweep(path, out, seed).claim(words)


def test_a_training_can_be_stopped_where_the_shell_ignores_interrupts():
    script = sweep._START.removesuffix("from revox_lightning.commands.train import main\nmain()\n")
    ended = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport os\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode != 0 and "KeyboardInterrupt" in ended.stderr and not ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method,trials", [("grid", 4), ("random", 3), ("bayes", 3)])
def test_a_sweep_runs_here_and_goes_on_where_it_was_killed(file, pair, tmp_path, caplog, method, trials):
    dry, wet = pair(seconds=4)
    more = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2}} if method == "random" else {}
    words = [
        str(file(method, **more)), f"out={tmp_path / 'out'}", f"trials={trials}", "jobs=2", "data=recordings",
        f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000", "trainer=cpu", "trainer.max_epochs=3",
        "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100",
        "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02", "report.audio_seconds=0",
        "report.data_sheet=false", "report.examples=[]",
    ]  # fmt: skip
    one = sweep.sweep(words)
    assert len(one.trials) == trials and all(t.state in ("finished", "stopped early") for t in one.trials)
    assert all(t.value is not None for t in one.trials)
    before = [t.parameters for t in one.trials]
    # as if the last had been killed before its end, and never been noted
    kept = json.loads((tmp_path / "out" / "trials.json").read_text())
    kept[-1] |= {"state": "open", "value": None}
    (tmp_path / "out" / "trials.json").write_text(json.dumps(kept))
    metrics = tmp_path / "out" / f"{trials - 1:03d}" / "metrics.json"
    metrics.unlink(missing_ok=True)
    caplog.set_level("INFO")
    again = sweep.sweep(words)
    assert f"{trials - 1} of at most {trials} trials are settled" in caplog.text
    assert [t.parameters for t in again.trials] == before and again.trials[-1].value == one.trials[-1].value


@pytest.mark.slow
def test_a_sweep_whose_trials_all_fail_says_where(file, tmp_path):
    with pytest.raises(UserError, match=r"train\.log"):
        sweep.sweep([str(file("grid")), f"out={tmp_path / 'out'}", "trials=1", "trainer.max_epochs=0"])
