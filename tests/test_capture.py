"""The test tape: what is on it, and that its markers are found again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from revox_lightning import audio
from revox_lightning.capture import instructions, programme, tape
from revox_lightning.capture.layout import Layout
from revox_lightning.capture.markers import MARKER_SECONDS, find_markers, fit_timeline, marker, speed_shift_seconds
from revox_lightning.commands import capture
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.measure.tape import MeasuringTape

RATE_HZ = 16_000
SMALL = {"level_seconds": 0.5, "leak_seconds": 1.0, "floor_seconds": 1.5}


def compose(channels=2, seconds=3.0, **more):
    pieces = [programme.built_in(seconds, RATE_HZ, channels, -18.0)]
    return tape.compose(pieces, RATE_HZ, channels=channels, **(SMALL | {"speed_seconds": None} | more))


@pytest.fixture(scope="module")
def small():
    return compose()


def kinds(layout):
    return [section.kind for section in layout.sections]


def test_sections_follow_one_another_inside_the_tape(small):
    layout, signal, _ = small
    assert signal.shape == (2, layout.samples) and signal.dtype == np.float32
    edges = [edge for section in layout.sections for edge in (section.start, section.stop)]
    assert edges == sorted(edges) and edges[0] > 0 and edges[-1] < layout.samples
    assert np.abs(signal).max() < 1
    outside = np.ones(layout.samples, bool)
    for section in layout.sections:
        outside[section.start : section.stop] = False
    assert not signal[:, outside].any()


def test_the_same_arguments_give_the_same_samples(small):
    layout, signal, loopback = compose()
    assert layout == small[0]
    assert np.array_equal(signal, small[1]) and np.array_equal(loopback, small[2])


def test_every_section_stands_between_markers_and_the_block_is_played_three_times(small):
    layout, signal, _ = small
    assert kinds(layout)[0] == kinds(layout)[-1] == "marker"
    plays = [signal[:, s.start : s.stop] for s in layout.of("floor")]
    assert len(plays) == 3 and all(np.array_equal(plays[0], play) for play in plays[1:])
    assert plays[0].any()
    for before, section in zip(layout.sections, layout.sections[1:], strict=False):
        assert section.kind not in ("programme", "floor") or before.kind == "marker"


def test_pulses_stand_in_the_right_channel_alone(small):
    layout, signal, _ = small
    with_pulses, without = layout.of("leak")
    assert (
        signal[1, with_pulses.start : with_pulses.stop].any()
        and not signal[0, with_pulses.start : with_pulses.stop].any()
    )
    assert not signal[:, without.start : without.stop].any()
    beside, stereo = layout.of("programme")
    assert beside.parameters["pulses"] == 1 and stereo.parameters["pulses"] is None
    left, right = signal[:, stereo.start : stereo.stop]
    assert 0.1 < np.corrcoef(left, right)[0, 1] < 0.9  # two channels, of one room


def test_a_mono_tape_has_bursts_of_pulses_between_its_programme():
    layout, signal, _ = compose(channels=1, seconds=12.0)
    section = layout.of("programme")[0]
    bursts = section.parameters["bursts_samples"]
    assert signal.shape[0] == 1 and len(layout.of("programme")) == 1 and len(bursts) == 2
    for start, stop in bursts:
        piece = signal[0, section.start + start : section.start + stop]
        assert np.abs(piece).max() > 6 * np.sqrt(np.mean(piece**2))


def test_levels_follow_0_vu():
    layout, signal, _ = compose(zero_vu_dbfs=-12.0)
    tone = layout.of("level")[0]
    middle = signal[0, tone.start + 800 : tone.stop - 800]
    assert tone.parameters == {"frequency_hz": 1000.0, "level_vu": 0.0}
    assert 20 * np.log10(np.sqrt(2 * np.mean(middle**2))) == pytest.approx(-12.0, abs=0.02)


def test_the_layout_survives_its_file_and_is_a_measuring_tape_too(tmp_path):
    layout, signal, _ = compose(speed_seconds=5.0)
    layout.write(tmp_path / "tape.json")
    assert Layout.read(tmp_path / "tape.json") == layout
    assert "sweep" in {section.kind for section in layout.measuring}
    read = MeasuringTape.from_layout(json.loads((tmp_path / "tape.json").read_text()), signal)
    assert read.sections == layout.sections


@pytest.mark.parametrize("content", ["", "[]", '{"format": "another"}', '{"format": "revox_lightning test tape 1"}'])
def test_a_damaged_layout_is_named(tmp_path, content):
    (tmp_path / "tape.json").write_text(content)
    with pytest.raises(UserError, match=r"tape\.json is not the layout|damaged"):
        Layout.read(tmp_path / "tape.json")
    with pytest.raises(UserError, match="there is no layout"):
        Layout.read(tmp_path / "other.json")


def test_the_page_names_every_step(small):
    page = instructions.page(small[0], Path("my <tape>.wav"), Path("cable.wav"))
    for words in ("bias", "0 VU", "one continuous recording", "cable", "16,000 Hz", "my &lt;tape&gt;.wav"):
        assert words in page
    assert "my <tape>" not in page


# Markers


@pytest.mark.parametrize("polarity", [1, -1])
def test_a_marker_is_found_where_it_stands_in_hiss(polarity):
    x = 0.001 * np.random.default_rng(0).standard_normal(5 * RATE_HZ)
    x[20_000 : 20_000 + round(MARKER_SECONDS * RATE_HZ)] += polarity * marker(RATE_HZ, -20.0)
    peaks = find_markers(x, RATE_HZ)
    assert len(peaks.samples) == 1 and abs(peaks.samples[0] - 20_000) < 0.2 and peaks.likeness[0] > 0.9


@pytest.mark.parametrize("ratio", [0.5, 0.98, 1.0, 1.003, 2.0])
def test_markers_are_found_at_any_speed(ratio):
    starts = [16_000, 48_000, 100_000]
    x = np.zeros(130_000)
    for start in starts:
        x[start : start + round(MARKER_SECONDS * RATE_HZ)] = marker(RATE_HZ, -20.0)
    y = read_at(x, np.arange(int(ratio * len(x))) / ratio)
    timeline = fit_timeline(find_markers(y, RATE_HZ), starts, RATE_HZ)
    assert timeline is not None and timeline.ratio == pytest.approx(ratio, rel=1e-3)
    assert len(timeline.tape) == 3
    assert np.abs(timeline.at(np.array(starts)) - ratio * np.array(starts)).max() < 30 + 100 * abs(ratio - 1)


def test_a_marker_that_lasts_as_long_seems_in_its_place():
    assert speed_shift_seconds(1.0, RATE_HZ) == 0


def test_music_and_noise_hold_no_markers():
    for x in (programme.built_in(20.0, RATE_HZ, 1, -18.0).signal[0], np.random.default_rng(1).standard_normal(200_000)):
        assert len(find_markers(x, RATE_HZ).samples) == 0
    assert fit_timeline(find_markers(np.zeros(100), RATE_HZ), [0, 10], RATE_HZ) is None


# The command


def noise_file(path, rate_hz=22_050, channels=1, seconds=2.5, level=0.2):
    x = level * torch.randn(channels, int(seconds * rate_hz), generator=torch.Generator().manual_seed(0))
    audio.write(path, x, rate_hz, subtype="FLOAT")
    return path


def test_the_command_writes_tape_cable_layout_and_page(tmp_path):
    noise_file(tmp_path / "a.wav")
    noise_file(tmp_path / "b.wav", channels=2)
    out = tmp_path / "new" / "tape.wav"
    page = capture.capture(
        [str(out), f"programme={tmp_path}", f"programme={tmp_path / 'a.wav'}", "sample_rate_hz=16000", "speed_seconds=5", "subtype=PCM_16"]
    )  # fmt: skip
    assert sorted(p.name for p in out.parent.iterdir()) == ["tape.html", "tape.json", "tape.wav", "tape_loopback.wav"]
    layout, info = Layout.read(out.with_suffix(".json")), audio.info(out)
    assert (info.frames, info.channels, info.subtype) == (layout.samples, 2, "PCM_16")
    assert audio.info(out.with_stem("tape_loopback")).frames == layout.loopback_samples
    names = [section.name for section in layout.of("programme")]
    assert names == ["a", "b", "a_2", "a_stereo", "b_stereo", "a_2_stereo"]
    assert "tape.wav" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs the name"),
        (["a.mp3"], "ending in .wav"),
        (["a.wav", "b.wav"], "needs the name"),
        (["a.wav", "colour=red"], "no option colour"),
        (["a.wav", "channels=3"], "channels=3"),
        (["a.wav", "channels=two"], "expected a number"),
        (["a.wav", "sample_rate_hz=8000"], "sample_rate_hz=8000"),
        (["a.wav", "sample_rate_hz=44100.5"], "whole number"),
        (["a.wav", "subtype=MP3"], "subtype=MP3"),
        (["a.wav", "zero_vu_dbfs=0"], "zero_vu_dbfs=0"),
        (["a.wav", "programme=nowhere.wav"], "there is no audio file"),
    ],
)
def test_bad_arguments_are_named(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        capture.capture(words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("how", "message"), [({"level": 0.0}, "silent"), ({"seconds": 0.5}, "at least 2 s"), ({"channels": 3}, "3 channels")])  # fmt: skip
def test_programme_that_cannot_be_used_is_named(tmp_path, how, message):
    with pytest.raises(UserError, match=message):
        programme.read_pieces([noise_file(tmp_path / "a.wav", **how)], RATE_HZ, 2, -18.0)
    with pytest.raises(UserError, match="holds no audio files"):
        (tmp_path / "empty").mkdir()
        programme.read_pieces([tmp_path / "empty"], RATE_HZ, 2, -18.0)


def test_a_tape_without_programme_is_refused():
    with pytest.raises(UserError, match="needs programme"):
        tape.compose([], RATE_HZ)


def test_nothing_is_overwritten(tmp_path):
    music = tmp_path / "music.wav"
    music.write_bytes(b"music")
    with pytest.raises(UserError, match="exists already"):
        capture.capture([str(music), f"programme={music}"])
    (tmp_path / "tape.json").write_text("{}")
    with pytest.raises(UserError, match="exists already"):
        capture.capture([str(tmp_path / "tape.wav")])
    with pytest.raises(UserError, match="names nothing"):
        capture.capture([str(tmp_path / "other.wav"), "programme="])
    assert music.read_bytes() == b"music"
