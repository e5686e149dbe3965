"""Rendering: any length, rate and format; blocks do not matter; nothing is clipped or lost in silence."""

import subprocess
import sys
from pathlib import Path

import pairs
import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, render, settings
from revox_lightning.commands.exits import guarded
from revox_lightning.runs import RunFolder

RATE = 16000


@pytest.fixture(params=["lstm", "tcn", "lstm_linear"])
def run(request, tmp_path):
    return a_run(tmp_path, request.param)


def a_run(tmp_path, model, peak_dbfs=-1.0, **changes):
    """A run folder with random weights, as a training leaves it."""
    words = [
        f"model={model}",
        f"data.sample_rate_hz={RATE}",
        "model.controls=0",
        "linear_filter.taps=64",
        "linear_filter.lookahead_samples=16",
    ]
    cfg = settings.composed(
        [*words, *(["size=100"] if model == "tcn" else []), *[f"{k}={v}" for k, v in changes.items()]]
    )
    cfg.system.warmup_samples, cfg.audio_channels, cfg.knobs = 100, changes.get("audio_channels", 1), []
    net = assemble.build_net(cfg)
    torch.manual_seed(1)
    for module in net.modules():
        if hasattr(module, "output_layer"):
            torch.nn.init.normal_(module.output_layer.weight, std=0.2)
    folder = RunFolder(tmp_path / "run")
    from omegaconf import OmegaConf

    folder.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    folder.write_json("levels.json", {"train_input_peak_dbfs": peak_dbfs})
    folder.best.parent.mkdir()
    torch.save({"state_dict": {f"net.{k}": v for k, v in net.state_dict().items()}}, folder.best)
    return folder.path


def sound(path, seconds=1.0, rate_hz=RATE, channels=1, subtype="FLOAT", level=0.2):
    t = torch.arange(int(seconds * rate_hz)) / rate_hz
    x = level * torch.stack([torch.sin(2 * torch.pi * (220 + 110 * c) * t) for c in range(channels)])
    audio.write(path, x, rate_hz, subtype=subtype)
    return path


def test_blocks_of_64_and_the_whole_file_agree(run, tmp_path):
    source = sound(tmp_path / "in.wav")
    for name, block in (("small", 64), ("whole", 10**6)):
        render.render([f"run={run}", str(source), str(tmp_path / f"{name}.wav"), f"block_samples={block}"])
    small, whole = (audio.read(tmp_path / f"{name}.wav") for name in ("small", "whole"))
    assert small.shape == whole.shape == (1, RATE)
    assert (small - whole).abs().max() < 1e-5
    # The latency of a linear start is taken out: the estimate lies where the net's own answer for n + latency is.
    net, _, _ = assemble.load_run(run)
    with torch.no_grad():
        x = torch.nn.functional.pad(audio.read(source), (0, net.latency_samples))
        y, _ = net(x[None])
    assert torch.allclose(whole, y[0, :, net.latency_samples :], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_any_number_of_threads_renders_the_same(run, channels, tmp_path):
    source = sound(tmp_path / "in.wav", seconds=5, rate_hz=22050, channels=channels)
    for threads in (1, 2, 3):
        words = [f"run={run}", str(source), str(tmp_path / f"{threads}.wav"), f"threads={threads}"]
        render.render([*words, "block_samples=4000"])
    one, two, three = (audio.read(tmp_path / f"{threads}.wav") for threads in (1, 2, 3))
    assert one.shape == audio.read(source).shape and one.abs().max() > 0.01
    assert (two - one).abs().max() < 1e-6 and (three - one).abs().max() < 1e-6


@pytest.mark.parametrize(
    "name,subtype",
    [("a.wav", "PCM_16"), ("a.flac", "PCM_24"), ("a.aiff", "PCM_24"), ("a.wav", "FLOAT"), ("a.ogg", "VORBIS")],
)
def test_the_format_is_kept(name, subtype, tmp_path):
    run = a_run(tmp_path, "lstm")
    source = sound(tmp_path / name, channels=2, rate_hz=22050, subtype=subtype)
    (tmp_path / "out").mkdir()
    render.render([f"run={run}", str(source), str(tmp_path / "out")])
    a, b = audio.info(source), audio.info(tmp_path / "out" / name)
    assert (a.sample_rate_hz, a.channels, a.frames, a.format, a.subtype) == (
        b.sample_rate_hz,
        b.channels,
        b.frames,
        b.format,
        b.subtype,
    )


def test_another_rate_is_converted_there_and_back(tmp_path):
    run = a_run(tmp_path, "lstm")
    slow, fast = sound(tmp_path / "slow.wav"), sound(tmp_path / "fast.wav", rate_hz=2 * RATE)
    for path in (slow, fast):
        render.render([f"run={run}", str(path), "-"])
    a, b = audio.read(tmp_path / "slow_lstm.wav"), audio.read(tmp_path / "fast_lstm.wav")
    inner = slice(1000, -1000)
    assert torch.allclose(a[:, inner], b[:, ::2][:, inner], atol=2e-3)


def test_channels_of_a_file_go_through_the_net_one_by_one(tmp_path):
    run = a_run(tmp_path, "lstm")
    stereo = sound(tmp_path / "stereo.wav", channels=2)
    x = audio.read(stereo)
    audio.write(tmp_path / "right.wav", x[1:], RATE, subtype="FLOAT")
    for name in ("stereo", "right"):
        render.render([f"run={run}", str(tmp_path / f"{name}.wav"), str(tmp_path / f"{name}_out.wav")])
    assert torch.allclose(
        audio.read(tmp_path / "stereo_out.wav")[1:], audio.read(tmp_path / "right_out.wav"), atol=1e-6
    )


def test_a_stereo_net_renders_stereo_and_mono(tmp_path, caplog):
    run = a_run(tmp_path, "lstm", audio_channels=2)
    for channels in (1, 2):
        source = sound(tmp_path / f"{channels}.wav", channels=channels)
        render.render([f"run={run}", str(source), "-"])
        assert audio.info(tmp_path / f"{channels}_lstm.wav").channels == channels


def test_a_folder_and_default_names(tmp_path):
    run = a_run(tmp_path, "lstm")
    (tmp_path / "album").mkdir()
    for name in ("1.wav", "2.flac"):
        sound(tmp_path / "album" / name, 0.2, subtype="PCM_16")
    render.render([f"run={run}", str(tmp_path / "album"), "-"])
    assert sorted(p.name for p in (tmp_path / "album_lstm").iterdir()) == ["1.wav", "2.flac"]


def test_drive_scales_the_input_and_what_matters_is_said(tmp_path, capsys):
    run = a_run(tmp_path, "lstm", peak_dbfs=-20.0)
    source = sound(tmp_path / "in.wav", rate_hz=2 * RATE, subtype="PCM_16", level=0.9)

    def said(*words):
        assert guarded(lambda: render.render([f"run={run}", str(source), str(tmp_path / "out.wav"), *words])) == 0
        return capsys.readouterr().err

    err = said()
    assert "trained up to -20.0 dBFS" in err and "nothing above 8.0 kHz" in err and "dBTP" in err
    assert "trained up to" not in said("input_db=-40")
    assert "were clipped" in said("output_db=20")
    assert "were clipped" not in said("output_db=-20")


@pytest.mark.parametrize(
    "words,sentence",
    [
        (["in.wav", "in.wav"], "overwritten"),
        (["nothing.wav", "out.wav"], "no audio file"),
        (["empty.wav", "out.wav"], "empty"),
        (["text.wav", "out.wav"], "cannot be read as audio"),
        (["in.wav"], "needs a run, an input and an output"),
        (["in.wav", "out.wav", "input_db=loud"], "expected a number"),
        (["in.wav", "out.wav", "threads=0"], "threads=0: give 1 or more"),
        (["in.wav", "out.wav", "volume=3"], "no option volume"),
        (["in.wav", "out.wav", "controls=0.5"], "takes no controls"),
        (["in.wav", "out.xyz"], "out.xyz"),
        (["bare", "out"], "no audio files"),
    ],
)
def test_bad_words_get_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    run = a_run(tmp_path, "lstm")
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "in.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "bare").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert guarded(lambda: render.render([f"run={run}", *words])) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


@pytest.mark.slow
def test_an_hour_of_stereo_stays_under_a_gigabyte(tmp_path):
    run = a_run(tmp_path, "lstm")
    with audio.writer(tmp_path / "hour.wav", RATE, 2, "PCM_16") as out:
        for _ in range(3600):
            out.write(0.1 * torch.randn(2, RATE))
    code = "import pairs,sys;from revox_lightning.commands import render;render.render(sys.argv[1:]);print(pairs.peak_mb())"
    done = subprocess.run(
        [sys.executable, "-c", code, f"run={run}", str(tmp_path / "hour.wav"), "-"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(pairs.__file__).parent,
    )
    assert float(done.stdout.split()[-1]) < 1000
    assert audio.info(tmp_path / "hour_lstm.wav").frames == 3600 * RATE
