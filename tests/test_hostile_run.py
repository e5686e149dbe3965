"""A run folder made to do harm: nothing of it is executed, names are text, and what cannot be is one sentence."""

import html
import importlib
import json
import os
import sys

import pairs
import pytest
import torch
import yaml
from fuzz_runs import CONFIG, run_folder
from omegaconf import OmegaConf
from test_export_command import TINY

from revox_lightning import audio
from revox_lightning.commands import (
    assemble,
    evaluate,
    export,
    listen,
    measure,
    render,
    report,
    settings,
    targets,
    train,
)
from revox_lightning.commands import transfer as transfer_command
from revox_lightning.commands.exits import guarded
from revox_lightning.data import bench
from revox_lightning.errors import UserError
from revox_lightning.report import plots
from revox_lightning.runs import RunFolder, file_name

torch.set_num_threads(1)
HOSTILE = """../../"><script>window.hacked=1</script><img src=x onerror=hacked()>'&`$(touch hacked)"""
RATE_HZ = 8000
TARGETS = (
    "os.system", "subprocess.run", "builtins.eval", "posix.system", "nt.system", "shutil.rmtree", "torch.load", "pickle.loads",
    "revox_lightning.commands.assemble.os.system", "revox_lightning.commands.assemble.build",
    "revox_lightning.audio.os.system", "revox_lightning.audio.sys.modules", "revox_lightning.commands.rows.subprocess.run",
    "revox_lightning.data.bench.write", "revox_lightning.data.recordings.Path.unlink", "revox_lightning.data.recordings.Path",
    "revox_lightning.models.recurrent.torch.load", "revox_lightning.models.recurrent.nn.Module",
    "revox_lightning.models.recurrent.Recurrent.__init__", "revox_lightning.models.recurrent.Recurrent.__class__",
    "revox_lightning.models.recurrent.__builtins__", "revox_lightning.models.nothing.Net", "revox_lightning.models.Recurrent",
    "torch.optim.adam.torch.load", "torch.optim.adam.sys.exit", "torch.optim.sys", "torch.optim.Optimizer.__init__",
    "torch.optim.lr_scheduler.partial", "torch.optim.swa_utils.update_bn", "pytorch_lightning.trainer.trainer.os.system",
    "pytorch_lightning.callbacks.LambdaCallback", "pytorch_lightning.Callback", "hydra.utils.call", "hydra.utils.instantiate",
    " os.system", "os.system ", "os\n.system", "os..system", "", ".", "revox_lightning", None, 3, ["os.system"], {"a": 1},
)  # fmt: skip
MODEL = "revox_lightning.models.recurrent.Recurrent"


@pytest.fixture
def marker(tmp_path):
    """A file that a successful attack makes; no test may leave it."""
    path = tmp_path / "hacked"
    yield path
    assert not path.exists(), "something was executed"


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def sounds(folder):
    """What a report and a listening test play."""
    x = 0.2 * torch.randn(1, 2 * RATE_HZ, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    (folder / "audio").mkdir(exist_ok=True)
    for kind, signal in (("dry", x), ("target", torch.tanh(2 * x)), ("estimate", torch.tanh(2 * x) + 0.01 * x)):
        audio.write(folder / "audio" / f"01_<b>_{kind}.wav", signal.clamp(-1, 1), RATE_HZ)
    return folder


def hostile(folder, **changes):
    """A finished run whose config has other things in it."""
    run_folder(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(CONFIG | changes))))  # without anchors
    return sounds(folder)


def ends_in_one_sentence(command, words, capsys):
    assert guarded(lambda: command([str(word) for word in words])) == 2
    out = capsys.readouterr()
    said = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in out.err
    return said[0]


def commands(run, tmp_path):
    """Every command that takes a run, with its words."""
    x = tmp_path / "in.wav"
    audio.write(x, 0.1 * torch.randn(1, 4000, generator=torch.Generator().manual_seed(1)), RATE_HZ)
    page = tmp_path / "page.html"
    return {
        "report": (report.report, [run, f"out={page}"]),
        "listen": (listen.listen, [run, f"out={page}", "kind=abx", "seconds=1"]),
        "evaluate": (evaluate.evaluate, [f"run={run}"]),
        "render": (render.render, [f"run={run}", x, tmp_path / "out.wav"]),
        "transfer": (transfer_command.transfer, [f"run={run}", f"style={x}", x, tmp_path / "out.wav"]),
        "export": (export.export, [f"run={run}", "format=aidax"]),
        "measure": (measure.measure, [f"run={run}", f"out={tmp_path / 'sheet'}"]),
        "resume": (train.resume, [f"resume={run}"]),
    }


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_only_classes_of_the_rooms_are_built(target, marker):
    node = {"_target_": target, "command": f"touch {marker}"}
    for content in (
        node,
        node | {"_partial_": True},
        {"_target_": MODEL, "hidden": node},
        {"_target_": MODEL, "x": [[node]]},
    ):
        with pytest.raises(UserError, match="not allowed in a config") as caught:
            assemble.build(OmegaConf.create(content))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        targets.find(target)


def test_the_ways_around_a_target_are_closed(marker):
    evil = {"_target_": "os.system", "command": f"touch {marker}"}
    cfg = OmegaConf.create({"evil": evil, "name": "os.system"})
    cfg.by_value = {"_target_": "${name}", "command": f"touch {marker}"}
    cfg.by_node = {"_target_": MODEL, "hidden": "${evil}"}
    cfg.made = {"_target_": MODEL, "hidden": "${oc.create:{_target_:os.system,command:'touch x'}}"}
    cfg.positional = {"_target_": MODEL, "_args_": [f"touch {marker}"]}
    cfg.again = {"_target_": MODEL, "_recursive_": True}
    for name in ("by_value", "by_node", "made", "positional", "again"):
        with pytest.raises(UserError, match=r"not allowed in a config|which nothing here takes"):
            assemble.build(cfg[name])
    # What is escaped stays text: it is resolved once.
    made = assemble.build(OmegaConf.create({"_target_": "revox_lightning.data.takes.Take", "name": r"\${evil}",
                                            "dry": "a", "wet": "b", "start": 0, "stop": 1}))  # fmt: skip
    assert made.name == "${evil}"
    for word in (
        "model._target_=os.system",
        "objective._target_=os.system",
        "+model.x._target_=os.system",
        "trainer._target_=os.system",
    ):
        name = word.lstrip("+").split(".")[0].split("=")[0]
        with pytest.raises(UserError, match="not allowed"):
            assemble.build(settings.composed(["model=lstm", word])[name])


def test_what_configs_name_is_still_built():
    for target in ("torch.optim.Adam", "torch.optim.adamw.AdamW", "torch.optim.lr_scheduler.CosineAnnealingLR", MODEL):
        assert isinstance(targets.find(target), type)
    assert targets.find("revox_lightning.models.tcn.tcn").__name__ == "tcn"
    part = assemble.build(OmegaConf.create({"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.5}))
    assert part(assemble.build(OmegaConf.create({"_target_": MODEL, "hidden": 2})).parameters()).defaults["lr"] == 0.5


@pytest.mark.parametrize("name", ["listen", "evaluate", "render", "transfer", "export", "measure", "resume"])
def test_a_config_that_calls_a_command_is_refused(name, tmp_path, marker, capsys):
    evil = {"_target_": "os.system", "command": f"touch {marker}", "channels": 1}
    run = hostile(
        tmp_path / "run",
        model=evil,
        trainer=evil | {"max_epochs": 1},
        objective=evil,
        task="style" if name == "transfer" else "effect",
    )
    if name == "listen":  # builds nothing
        assert guarded(
            lambda: commands(run, tmp_path)[name][0]([str(w) for w in commands(run, tmp_path)[name][1]])
        ) in (0, 2)
        return
    said = ends_in_one_sentence(*commands(run, tmp_path)[name], capsys)
    assert name == "resume" or "_target_: os.system is not allowed" in said


@pytest.mark.parametrize("name", ["evaluate", "render", "export", "measure", "resume", "listen", "report"])
def test_a_pickle_is_not_executed(name, tmp_path, marker, capsys):
    run = hostile(tmp_path / "run")
    for checkpoint in ("best", "last", "linear_filters"):
        torch.save(Pickled(f"touch {marker}"), run / "checkpoints" / f"{checkpoint}.ckpt")
    command, words = commands(run, tmp_path)[name]
    if name in ("listen", "report"):  # which do without the weights
        assert guarded(lambda: command([str(word) for word in words])) in (0, 2)
        return
    said = ends_in_one_sentence(command, words, capsys)
    assert name == "resume" or "checkpoint" in said


@pytest.mark.parametrize("name", ["report", "listen", "evaluate", "render", "transfer", "export", "measure", "resume"])
def test_a_config_cannot_ask_for_the_environment(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2)
    run = hostile(tmp_path / "run", name="${oc.env:WANDB_API_KEY}")
    said = ends_in_one_sentence(*commands(run, tmp_path)[name], capsys)
    assert "${...}" in said and "0123456789abcdef" not in said
    assert not (tmp_path / "page.html").exists()


def test_secrets_of_the_environment_stay_out_of_configs(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("PLACE", "/songs")
    cfg = settings.composed(
        ["model=lstm", "data=recordings", "data.root=${oc.env:PLACE}", "name=${oc.env:WANDB_API_KEY}"]
    )
    assert cfg.data.root == "/songs"
    with pytest.raises(Exception, match="stays out of configs"):
        str(cfg.name)


@pytest.mark.parametrize("kind", ["report", "listen"])
def test_names_are_text_on_pages(kind, tmp_path, marker, capsys):
    folder = tmp_path / "a'\"<script>window.hacked=1<\\script>\nb"
    run = hostile(
        folder, name=HOSTILE, seed=HOSTILE, data=CONFIG["data"] | {"source": {"_target_": HOSTILE, "root": HOSTILE}}
    )
    command, words = commands(run, tmp_path)[kind]
    # A name with a line break is no option; the folder is named by itself.
    assert guarded(lambda: command([str(word) for word in words])) == 0, capsys.readouterr().err
    text = (tmp_path / "page.html").read_text()
    assert "<script>window" not in text and "<img src=x" not in text
    if kind == "report":
        assert html.escape(HOSTILE) in text
    assert "Content-Security-Policy" in text


def test_names_do_not_lead_out_of_the_folder(tmp_path, marker, capsys):
    for n, name in enumerate(("/tmp/evil\x1b[31m\n", HOSTILE)):
        run = hostile(tmp_path / f"run{n}" / "inner", name=name)
        before = set(tmp_path.rglob("*"))
        path = export.export([f"run={run}", "format=proteus"])
        assert path.parent == run and "\n" not in path.name
        x = tmp_path / "songs" / "in.wav"
        x.parent.mkdir(exist_ok=True)
        audio.write(x, 0.1 * torch.randn(1, 800, generator=torch.Generator().manual_seed(1)), RATE_HZ)
        render.render([f"run={run}", str(x), "-"])
        new = {p for p in set(tmp_path.rglob("*")) - before if p.is_file()}
        assert new and all(p.parent in (run, x.parent) for p in new)
    for name in ("../../evil", "/etc/passwd", "..", ".", "", "a\nb", "a/../b", "x" * 500, "....//", "con\x00"):
        made = file_name(name)
        assert (
            made
            and not set("/\\\n\x00") & set(made)
            and ".." not in made
            and not made.startswith(".")
            and len(made) <= 100
        )


def test_a_list_of_files_does_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_text("x")
    place = tmp_path / "bench"
    place.mkdir()
    content = {"bench": "v1", "files": {"../secret": bench.sha256(tmp_path / "secret")}, "noise": {}}
    (place / "bench.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="missing or changed"):
        bench.read(place)


def test_sizes_without_reason_cost_nothing(tmp_path):
    pairs.forget_peak()
    before = pairs.peak_mb()
    for change in (
        {"hidden": 10**6},
        {"layers": 10**9},
        {"controls": 10**9},
        {"hidden": -1},
        {"hidden": "x"},
        {"unit": []},
    ):
        run = hostile(tmp_path / "run", model=CONFIG["model"] | change)
        with pytest.raises(UserError, match=r"larger net|cannot be built|does not fit"):
            assemble.load_run(run)
    assert pairs.peak_mb() - before < 200
    with pytest.raises(UserError, match="audio_channels"):
        assemble.load_run(hostile(tmp_path / "run", audio_channels=10**9))
    with pytest.raises(UserError, match="threads"):
        assemble.load_run(hostile(tmp_path / "run", system={"threads": 10**9}))
    assert assemble.load_run(hostile(tmp_path / "run"))[1].name == "lstm"


def test_a_config_with_anchors_or_objects_is_no_config(tmp_path, marker):
    run = RunFolder(run_folder(tmp_path / "run"))
    for more in (
        "a: &a [1]\nb: *a\n",
        f"x: !!python/object/apply:os.system ['touch {marker}']\n",
        "name: twice\n",
        "d: " + "[" * 300,
    ):
        run.config_path.write_text(yaml.safe_dump(CONFIG) + more)
        with pytest.raises(UserError, match="cannot be read") as caught:
            run.config()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["csv", "wandb"])
def test_a_key_of_wandb_is_in_no_file(logger, pair, tmp_path, monkeypatch, capsys):
    own, other = "a1b2c3d4e5" * 4, "f6e7d8c9b0" * 4
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {other}\n")
    (home / ".netrc").chmod(0o600)
    for name, value in (("WANDB_API_KEY", own), ("HOME", str(home)), ("NETRC", str(home / ".netrc"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    dry, wet = pair(seconds=4)
    run = tmp_path / "run"
    words = [*(word for word in TINY if not word.startswith("logger")), f"logger={logger}", "model=lstm", "size=4"]
    monkeypatch.setattr(sys, "argv", ["train", *words, f"data.dry={dry}", f"data.wet={wet}", f"run_dir={run}"])
    training = importlib.import_module("revox_lightning.commands.training")
    training.train(settings.composed(sys.argv[1:]), run)
    torch.set_num_threads(1)
    report.report([str(run), f"out={run / 'report.html'}"])
    told = capsys.readouterr()
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 8 and (run / "report.html") in files
    for key in (own, other):
        assert key not in told.out + told.err
        assert not [path for path in files if key.encode() in path.read_bytes()]
