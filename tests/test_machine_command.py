"""``revox machine``: a file through the virtual recorder."""

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble
from revox_lightning.commands.exits import guarded
from revox_lightning.commands.machine import machine
from revox_lightning.errors import UserError

PRESETS = ["a77_15ips", "a77_7.5ips", "a77_3.75ips", "worn", "overbiased"]


@pytest.fixture
def song(tmp_path):
    t = torch.arange(22_050) / 44_100
    x = torch.stack([0.2 * torch.sin(2 * torch.pi * 440 * t), 0.2 * torch.sin(2 * torch.pi * 660 * t)])
    audio.write(tmp_path / "song.wav", x, 44_100, subtype="PCM_16")
    return tmp_path / "song.wav"


@pytest.mark.parametrize("preset", [*PRESETS, "a77_7.5ips_preisach"])
def test_every_preset_plays_stereo(preset, song):
    recorder = assemble.build_machine(preset, [])
    playback = recorder.play(audio.read(song).numpy(), 44_100, seed=0)
    assert playback.wet.shape == (2, 22_050) and np.isfinite(playback.wet).all()
    assert 0.05 < np.sqrt(np.mean(playback.wet[:, 5000:] ** 2)) < 0.3
    assert playback.noise.any() and playback.delay_samples.any() and playback.gain.any()


def test_the_file_keeps_its_format_and_the_truth_is_kept(song, tmp_path, caplog):
    machine([str(song), str(tmp_path / "tape.wav"), "preset=worn", f"truth={tmp_path / 'truth.npz'}", "seed=3"])
    made, given = audio.info(tmp_path / "tape.wav"), audio.info(song)
    assert (made.frames, made.channels, made.subtype) == (given.frames, given.channels, given.subtype)
    wet = audio.read(tmp_path / "tape.wav").numpy()
    with np.load(tmp_path / "truth.npz") as truth:
        assert truth["sample_rate_hz"] == 44_100
        for name in ("delay_samples", "noise", "gain"):
            assert truth[name].shape == wet.shape
    machine([str(song), str(tmp_path / "again.wav"), "preset=worn", "seed=3"])
    assert torch.equal(audio.read(tmp_path / "again.wav"), torch.from_numpy(wet))


def test_stages_are_left_out_and_changed_by_name(song, tmp_path):
    out = tmp_path / "tape.flac"
    machine([str(song), str(out), "without=transport,azimuth,hiss,asperity,crosstalk", "machine.input_gain_db=-6"])
    x, y = audio.read(song)[0, 4000:].double(), audio.read(out)[0, 4000:].double()
    lagged = torch.stack([x, torch.roll(x, 12)])
    fit = torch.linalg.lstsq(lagged.T, y[:, None]).solution
    assert (lagged.T @ fit)[:, 0].sub(y).norm() < 0.01 * y.norm()
    assert 20 * np.log10(float(y.norm() / x.norm())) == pytest.approx(-6.1, abs=0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["preset=a88"], "a77_15ips"),
        (["without=reels"], "no stage 'reels'"),
        (["machine.speed=3"], "no option machine.speed"),
        (["machine.speed_ips=fast"], "expected a number"),
        (["machine.speed_ips=9"], "nab at 7.5 ips"),
        (["seed=x"], "whole number"),
        (["volume=3"], "no option volume"),
        (["preset=worn", "machine.transport.mode=loop"], "second_pass"),
    ],
)
def test_wrong_options_are_named(options, words, song, tmp_path, capsys):
    assert guarded(lambda: machine([str(song), str(tmp_path / "tape.wav"), *options])) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "tape.wav").exists()


def test_the_input_is_not_overwritten_and_must_exist(song, tmp_path):
    with pytest.raises(UserError, match="overwritten"):
        machine([str(song), str(song)])
    with pytest.raises(UserError, match="absent"):
        machine([str(tmp_path / "absent.wav"), str(tmp_path / "tape.wav")])
    with pytest.raises(UserError, match="an input and an output"):
        machine([str(song)])


def test_the_truth_does_not_overwrite_the_audio(song, tmp_path):
    before = song.read_bytes()
    for place in (song, tmp_path / "tape.wav"):
        with pytest.raises(UserError, match="overwrite the audio"):
            machine([str(song), str(tmp_path / "tape.wav"), f"truth={place}"])
    assert song.read_bytes() == before and not (tmp_path / "tape.wav").exists()
