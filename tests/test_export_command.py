"""``revox export`` from a trained run to a file that plays the same, and back into training."""

import json
import sys

import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, export, settings, training
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.export import captures
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.series import Series
from revox_lightning.report import plots

torch.set_num_threads(1)
TINY = [
    "data=recordings", "data.sample_rate_hz=8000", "logger=none", "trainer=cpu", "trainer.max_epochs=1",
    "report.data_sheet=false", "report.examples=[]", "report.audio_seconds=0.2", "system.batch_size=2",
    "system.segment_samples=600", "system.hop_samples=300", "system.warmup_samples=100", "linear_filter.taps=64",
    "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02",
]  # fmt: skip


@pytest.fixture
def trained(pair, tmp_path, monkeypatch):
    """A function that trains a model for a moment and returns its run folder."""
    monkeypatch.setattr(plots, "draw", lambda *_: [])

    def train(*words, channels=1, folder="run"):
        dry, wet = pair(name=folder, seconds=4, channels=channels)
        given = [*TINY, f"data.dry={dry}", f"data.wet={wet}", f"run_dir={tmp_path / folder}", *words]
        training.train(settings.composed(given), tmp_path / folder)
        torch.set_num_threads(1)
        return tmp_path / folder

    return train


def exported(run, *words):
    return export.export([f"run={run}", *words])


@pytest.mark.parametrize(
    "model,forms",
    [
        (["model=nam_wavenet", "size=nano", "system.hop_samples=600"], ["nam", "onnx", "torchscript"]),
        (["model=nam_lstm", "size=nano"], ["nam", "rtneural", "aidax", "proteus"]),
        (["model=lstm", "model.hidden=16"], ["aidax", "proteus", "onnx"]),
        (["model=lstm_linear", "size=4"], ["onnx", "torchscript"]),
    ],
    ids=["nam_wavenet", "nam_lstm", "lstm", "lstm_linear"],
)
def test_a_run_leaves_the_house_in_every_format_that_can_hold_it(trained, model, forms, capsys):
    run = trained(*model)
    for form in forms:
        path = exported(run, f"format={form}")
        assert path.parent == run and path.is_file() and not list(run.glob(".*"))
        printed = capsys.readouterr().out
        assert float(printed.split("player ")[-1].split()[0]) < 1e-5
        if path.suffix in (".nam", ".json"):
            captures.read(path)


def test_facts_of_a_capture(trained, caplog):
    run = trained("model=nam_lstm", "size=nano")
    path = exported(run, "format=nam", "out=" + str(run / "x" / "a.nam"), "name=My A77", "input_level_dbu=12.5")
    content = json.loads(path.read_text())
    facts = content["metadata"]
    assert content["version"] == "0.5.4" and content["sample_rate"] == 8000
    assert facts["name"] == "My A77" and facts["input_level_dbu"] == 12.5 and 0 <= facts["gain"] <= 1
    assert facts["training"]["validation_esr"] == json.loads((run / "metrics.json").read_text())["val/esr"]
    assert facts["revox_lightning"]["largest_difference"] < 1e-5 and facts["loudness"] < 0
    assert "most players at 48000" in caplog.text
    loud = json.loads(exported(run, "format=nam", "normalise=-18", f"out={run}/b.nam").read_text())
    assert loud["metadata"]["loudness"] == pytest.approx(-18, abs=0.01)


def test_net_then_filter_goes_into_a_player_as_two_files(trained):
    run = trained("model=lstm", "model.hidden=8", "linear_start=series")
    net, _, _ = assemble.load_run(run)
    assert isinstance(net, Series)
    path = exported(run, "format=aidax")
    (h,) = audio.read(run / "lstm-ir.wav")
    x = 0.3 * torch.randn(1, 1, 500)
    with torch.no_grad():
        p = captures.read(path).net(x)[0]
        y = torch.nn.functional.conv1d(torch.nn.functional.pad(p, (63, 0)), h.flip(0)[None, None])
        torch.testing.assert_close(y, net(x)[0], rtol=0, atol=1e-5)
    assert "linear_start: series" in (run / "config.yaml").read_text()


def test_what_cannot_leave_says_what_can(trained):
    run = trained("model=lstm_linear", "size=4")
    with pytest.raises(UserError, match="linear_start=series"):
        exported(run, "format=nam")
    assert not list(run.glob("*.nam"))
    for words, message in (
        (["format=mp3"], "needs a run and a format"),
        (["format=nam", "knobs=3"], "does not know"),
        (["format=nam", "out=/proc/x/a.nam"], "linear_start=series"),
    ):
        with pytest.raises(UserError, match=message):
            exported(run, *words)


def test_stereo_runs_export_a_channel(trained):
    run = trained("model=lstm", "model.hidden=8", channels=2)
    assert isinstance(assemble.load_run(run)[0], EachChannel)
    with pytest.raises(UserError, match="channel=left"):
        exported(run, "format=proteus")
    assert exported(run, "format=proteus", "channel=right").exists()


def test_training_goes_on_from_a_file_of_another_program(trained, tmp_path):
    first = trained("model=nam_lstm", "size=nano")
    path = exported(first, "format=nam", f"out={tmp_path}/start.nam")
    before = captures.read(path).net
    second = trained("model=nam_lstm", f"start={path}", "optim.lr=1e-9", folder="second")
    net, cfg, _ = assemble.load_run(second)
    assert cfg.model.hidden == 12 and cfg.model.initial_state
    torch.testing.assert_close(net.rec.weight_hh_l0, before.rec.weight_hh_l0, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="other channels or knobs"):
        trained("model=nam_lstm", f"start={path}", channels=2, folder="stereo")


def test_the_command_line(trained, monkeypatch, capsys):
    run = trained("model=nam_lstm", "size=nano")
    monkeypatch.setattr(sys, "argv", ["revox", f"run={run}", "format=wav"])
    capsys.readouterr()
    assert guarded(lambda: export.export(sys.argv[1:])) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_machine_of_parts_exports_its_net_and_says_what_stays(tmp_path, caplog):
    from test_tape_hybrid import machine

    from revox_lightning.models.recurrent import Recurrent

    hybrid = machine(Recurrent("gru", 8, skip=False))
    net, fir = export._exportable(hybrid, "aidax", {})
    assert net is hybrid.net and fir is None and "left out" in caplog.text
    export._write(net, tmp_path / "a.json", "aidax", 48_000, export_facts())
    assert captures.read(tmp_path / "a.json").net.unit == "gru"


def export_facts() -> dict:
    return {"name": "it", "training": {"validation_esr": None}, "revox_lightning": {}}
