"""``revox measure``: machines, runs and files side by side; what is wrong is said in one sentence."""

import json
import logging

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from revox_lightning import audio
from revox_lightning.commands import assemble, measure, settings, subjects
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.measure.tape import excerpt, measuring_tape
from revox_lightning.report import sheet_plots
from revox_lightning.runs import RunFolder

RATE = 8_000
# Only what is quick to compute: no hysteresis, and a transport that has a figure.
QUICK = ["machine.hysteresis=null", "machine.bias=null", "machine.asperity=null"]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """The curves have their own test and take long to draw."""
    monkeypatch.setattr(sheet_plots, "plots", lambda sheets: [])


@pytest.fixture
def tape_files(tmp_path):
    """A measuring tape with its layout, and a function that writes what came back."""
    tape = measuring_tape(RATE, -18.0, speed_seconds=5, channels=1)
    source = tmp_path / "tape.wav"
    audio.write(source, torch.from_numpy(tape.signal), RATE, subtype="FLOAT")
    source.with_suffix(".json").write_text(json.dumps(tape.layout()))

    def came_back(wet, name="back.wav", rate_hz=RATE):
        audio.write(tmp_path / name, torch.from_numpy(np.asarray(wet, np.float32)), rate_hz, subtype="FLOAT")
        return tmp_path / name

    return source, tape, came_back


def test_a_machine_is_measured_and_monitor_is_labelled(tmp_path, capsys):
    words = [
        "machine=a77_7.5ips",
        f"sample_rate_hz={RATE}",
        "speed_seconds=5",
        f"out={tmp_path}",
        "mode=monitor",
        *QUICK,
    ]
    ((name, sheet),) = measure.measure(words)
    assert name == "a77_7.5ips" and sheet["mode"] == "monitor"
    assert sheet["stereo"]["balance_db"] == pytest.approx(-0.2, abs=0.05)
    assert sheet["aliasing"]["at_0_vu_db"][0] < -60  # measured with the transport and the noise off
    assert sheet["response"]["group_delay_ms"] is not None
    printed = capsys.readouterr().out
    assert "(monitor)" in printed and "published" in printed
    assert printed.rstrip().endswith(f"figures: {tmp_path / 'data_sheet.json'}")
    page = (tmp_path / "data_sheet.html").read_text()
    assert "heard while recording (monitor)" in page
    content = json.loads((tmp_path / "data_sheet.json").read_text())
    assert content["sheets"][0]["speed"] == sheet["speed"]


def a_run(folder):
    """A run of the built-in machine, its net a wire but for the gain, as a training leaves it."""
    cfg = settings.composed([
        "model=tcn", "size=100", f"data.sample_rate_hz={RATE}", "model.controls=0", *QUICK,
    ])  # fmt: skip
    cfg.system.warmup_samples, cfg.audio_channels, cfg.knobs = 100, 1, []
    net = assemble.build_net(cfg)
    run = RunFolder(folder)
    run.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    run.write_json("levels.json", {"train_input_peak_dbfs": -6.0})
    run.best.parent.mkdir()
    torch.save({"state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}, run.best)
    return run.path


def test_a_run_stands_beside_its_target_and_is_told_what_it_missed(tmp_path, capsys, monkeypatch):
    few = ("alignment", "sweep_-20", "silence", "modulation_noise", "speed", "noise")  # a short tape
    monkeypatch.setattr(subjects, "measuring_tape", lambda *words: excerpt(measuring_tape(*words), few))
    run = a_run(tmp_path / "a_net" / "now")
    (target_name, target), (_, net) = measure.measure([f"run={run}", "speed_seconds=5"])
    assert target_name == "target of a_net"
    assert target["mode"] == "second_pass" and net["mode"] is None
    assert target["zero_vu_dbfs"] == net["zero_vu_dbfs"] == -18.0
    assert net["missed"]["target"] == target_name
    assert net["missed"]["sentences"] and all(s.startswith("It ") for s in net["missed"]["sentences"])
    assert any("trained on peaks up to -6.0 dBFS (+12.0 VU)" in note for note in net["notes"])
    assert (run / "measure" / "data_sheet.html").is_file()
    assert "miss of target of a_net?" in capsys.readouterr().out


def test_a_recording_that_is_late_inverted_and_soft(tape_files, tmp_path):
    source, tape, came_back = tape_files
    late = 3 * RATE + 50
    wet = -0.5 * np.concatenate([np.zeros((1, late)), tape.signal], axis=1)
    ((name, sheet),) = measure.measure([str(source), str(came_back(wet)), f"out={tmp_path / 'o'}", "mode=second_pass"])
    assert (name, sheet["mode"]) == ("back", "second_pass")
    assert sheet["latency"]["polarity"] == -1
    assert sheet["latency"]["milliseconds"] == pytest.approx(1000 * late / RATE, abs=0.01)
    assert sheet["level"]["gain_1k_db"] == [pytest.approx(-6.02, abs=0.01)]
    assert (tmp_path / "o" / "data_sheet.html").is_file()


def test_a_programme_is_measured_as_one_and_says_so(tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("revox_lightning"), "propagate", True)
    x = 0.1 * torch.randn(2, 2 * RATE, generator=torch.Generator().manual_seed(0))
    for name, signal in (("in.wav", x), ("out.wav", 0.5 * x)):
        audio.write(tmp_path / name, signal, RATE, subtype="FLOAT")
    with caplog.at_level(logging.WARNING, "revox_lightning"):
        words = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), f"out={tmp_path}"]
        ((_, sheet),) = measure.measure(words)
    assert sheet["kind"] == "programme"
    assert sheet["level"]["gain_db"] == [pytest.approx(-6.02, abs=0.01)] * 2
    assert "only what a programme tells" in caplog.text
    assert "no measuring tape" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words,sentence",
    [
        ([], "needs a machine, a run or two files"),
        (["machine=a78"], "there is no machine=a78"),
        (["machine=a77_7.5ips", "colour=blue"], "no option colour"),
        (["machine=a77_7.5ips", "mode=third"], "mode=third"),
        (["machine=a77_7.5ips", "speed_seconds=2"], "two-sigma"),
        (["machine=a77_7.5ips", "speed_seconds=long"], "expected a number"),
        (["machine=a77_7.5ips", "machine.colour=1"], "machine.colour"),
        (["machine=a77_7.5ips", "sample_rate_hz=100"], "8000 or more"),
        (["run=nowhere"], "no such folder"),
        (["run=nowhere", "machine.hiss=null"], "none is measured"),
        (["nothing.wav", "nothing.wav"], "there is no audio file"),
        (["nothing.wav"], "two files"),
    ],
)
def test_bad_words_end_with_one_sentence(words, sentence, capsys):
    assert guarded(lambda: measure.measure(words)) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error and error.splitlines()[-1].startswith("error: ")


def test_bad_files_end_with_one_sentence(tape_files, tmp_path):
    source, tape, came_back = tape_files
    for wet, rate_hz, sentence in (
        (tape.signal, 22_050, "differ in channels or sample rate"),
        (np.repeat(tape.signal, 2, axis=0), RATE, "differ in channels or sample rate"),
        (np.zeros((1, RATE)), RATE, "is silent"),
        (0.1 * np.random.default_rng(0).standard_normal((1, 60 * RATE)), RATE, "something else"),
        (tape.signal[:, : 10 * RATE], RATE, "something else|far too late"),
    ):
        with pytest.raises(UserError, match=sentence):
            measure.measure([str(source), str(came_back(wet, rate_hz=rate_hz)), f"out={tmp_path}"])
    source.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match="layout"):
        measure.measure([str(source), str(came_back(tape.signal)), f"out={tmp_path}"])
