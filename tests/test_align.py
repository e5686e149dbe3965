"""Alignment against a simple machine of known truth, and every fault that a recording can have."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfilt

from revox_lightning import audio
from revox_lightning.capture import align, calibration, loopback, own, programme, tape
from revox_lightning.capture.figures import figures
from revox_lightning.commands import align as command
from revox_lightning.data.recordings import Recordings
from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError

RATE_HZ = 16_000
HISS = 1e-4
NAME = "recorded.wav"


def compose(channels=2, seconds=3.0):
    pieces = [programme.built_in(seconds, RATE_HZ, channels, -18.0)]
    return tape.compose(
        pieces,
        RATE_HZ,
        channels=channels,
        speed_seconds=None,
        level_seconds=0.5,
        leak_seconds=1.0,
        floor_seconds=1.5,
    )


def machine(x, gain=-0.5, delay=48_000.37, ppm=37.0, wow=3.0, hiss=HISS, seed=0):
    """What comes back of `x`, and the position on the tape that each of its samples comes from."""
    n = np.arange(int(x.shape[1] * (1 + 1e-6 * ppm) + delay + RATE_HZ))
    where = (
        (n - delay) / (1 + 1e-6 * ppm)
        - wow * np.sin(2 * np.pi * 1.3 * n / RATE_HZ)
        - wow / 8 * np.sin(2 * np.pi * 7 * n / RATE_HZ)
    )
    y = gain * np.stack([read_at(channel, where) for channel in x])
    noise = hiss * np.random.default_rng(seed).standard_normal(y.shape)
    return (y + noise).astype(np.float32), where


@pytest.fixture(scope="module")
def small():
    return compose()


@pytest.fixture(scope="module")
def recorded(small):
    return machine(small[1])


@pytest.fixture(scope="module")
def aligned(small, recorded):
    return align.align_tape(small[0], small[1], recorded[0], NAME)


def without_stereo(layout):
    """Programme beside pulses alone: a tracker takes its time."""
    return dataclasses.replace(layout, sections=tuple(s for s in layout.sections if not s.name.endswith("stereo")))


def names(alignment):
    return {finding.name for finding in alignment.findings if finding.severity == "warning"}


def position_error(stretch, where, edge=0):
    k = np.arange(edge, stretch.samples - edge, 20)
    return stretch.positions(k) - np.interp(k + stretch.tape_start, where, np.arange(len(where)))


def test_the_pulses_give_the_trajectory_within_a_twentieth_of_a_sample(aligned, recorded):
    for stretch in aligned.stretches:
        if stretch.method == "pulses":
            error = position_error(stretch, recorded[1])
            assert np.sqrt(np.mean(error**2)) < 0.05, stretch.name


def test_programme_without_pulses_is_followed_within_half_a_sample(aligned, recorded):
    stretch = next(s for s in aligned.stretches if s.method == "tracking")
    trusted = stretch.confidence(stretch.positions(np.arange(0, stretch.samples, 20))) > 0.5
    error = position_error(stretch, recorded[1])[trusted]
    assert trusted.mean() > 0.5 and np.sqrt(np.mean(error**2)) < 0.5


def test_positions_and_origins_are_each_others_inverse(aligned):
    stretch = aligned.stretches[0]
    k = np.arange(0.0, stretch.samples, 97.3)
    assert np.abs(stretch.origins(stretch.positions(k)) - k).max() < 1e-4


def test_polarity_start_ratio_gain_and_noise_are_found(aligned):
    assert aligned.polarity == -1 and "polarity" in names(aligned)
    assert float(aligned.timeline.at(0)) == pytest.approx(48_000, abs=20)
    assert aligned.line.trend and aligned.line.ratio_ppm == pytest.approx(37, abs=3)
    for channels in aligned.gains:
        for gain in channels:
            assert gain.gain == pytest.approx(-0.5, abs=0.01) and gain.dropouts == 0 and gain.drift_db < 0.5
            assert len(gain.seconds) == len(gain.gain_db) > 0
    assert aligned.noise_dbfs == pytest.approx([20 * np.log10(HISS * 2**0.5)] * 2, abs=0.3)


def test_the_floor_is_the_machines_hiss(aligned):
    left, right = aligned.floor.mean_square
    assert 10 * np.log10(left / HISS**2) == pytest.approx(0, abs=0.3)
    assert 10 * np.log10(right / HISS**2) == pytest.approx(0, abs=0.3)
    by_octave = sum(10 ** (level / 10) / 2 for level in aligned.floor.octave_dbfs[0])
    assert by_octave == pytest.approx(HISS**2 * 5657 / 8000, rel=0.1)  # white noise up to the last octave's edge


def test_what_a_tape_of_ones_own_cannot_tell_is_null(aligned):
    found = figures(aligned, None, None, None)
    json.dumps(found, allow_nan=False)
    for name in ("speed_error_percent", "flux_nwb_per_m", "azimuth_microseconds", "record_response_db", "clock_ppm"):
        assert found[name] is None
    assert figures(aligned, None, "monitor", None)["clock_ppm"] == pytest.approx(37, abs=3)


def test_a_steady_machine_has_no_trend_and_its_polarity(small):
    wet, _ = machine(small[1], gain=0.7, ppm=0.0, wow=0.0)
    found = align.align_tape(without_stereo(small[0]), small[1], wet, NAME)
    assert found.polarity == 1 and not found.line.trend and not names(found)
    assert found.line.start == pytest.approx(48_000.37, abs=0.02)


def test_a_mono_machine_is_followed_through_its_programme():
    layout, signal, _ = compose(channels=1)
    layout = dataclasses.replace(layout, sections=tuple(s for s in layout.sections if s.kind != "floor"))
    wet, where = machine(signal)
    found = align.align_tape(layout, signal, wet, NAME)
    assert [stretch.method for stretch in found.stretches] == ["tracking"]
    assert found.leak_db is None and found.floor is None
    error = position_error(found.stretches[0], where, edge=800)
    assert np.sqrt(np.mean(error**2)) < 0.5


# Faults


def crosstalk(x):
    y = x.copy()
    y[0] += 0.01 * x[1]
    return y


def hum(x, amplitude):
    n = np.arange(x.shape[1])
    return x + amplitude * (np.sin(2 * np.pi * 50 * n / RATE_HZ) + 0.3 * np.sin(2 * np.pi * 150 * n / RATE_HZ))


def at_speed(x, speed):
    return np.stack([read_at(channel, np.arange(int(x.shape[1] / speed)) * speed) for channel in x])


def dropped(x, layout):
    y, section = x.copy(), layout.of("programme")[0]
    for at in (1.2, 2.6):
        start = 48_000 + section.start + int(at * RATE_HZ)
        y[:, start : start + 1600] *= 0.02
    return y


FATAL = {
    "shorter": (lambda x: x[:, :350_000], "shorter than the test tape: it ends in section"),
    "late": (lambda x: x[:, 130_000:], "starts .* s after the test tape did"),
    "wrong_channel": (lambda x: x[::-1].copy(), "the channels are exchanged|its channels are exchanged"),
    "mixed": (lambda x: np.repeat(x.mean(0, keepdims=True), 2, 0), "channels are mixed together"),
    "clipped": (lambda x: np.clip(3000 * x, -1, 1), "clipped for .* %"),
    "silent": (lambda x: 0 * x, "is silent"),
    "missing": (lambda x: x * np.array([[1.0], [0.0]]), "the right channel of recorded.wav is missing"),
    "hum_above": (lambda x: hum(x, 1.5), "50 Hz"),
    "hum_below": (lambda x: hum(x, 0.005), "50 Hz hum .* dB below the programme"),
    "half_speed": (lambda x: at_speed(x, 0.5), "half speed"),
    "double_speed": (lambda x: at_speed(x, 2.0), "double speed"),
    "off_speed": (lambda x: at_speed(x, 1.06), r"\+6.0 % off speed"),
    "rate": (lambda x: at_speed(x, RATE_HZ / 22_050), "recorded at about 22050 Hz"),
}


@pytest.mark.parametrize("fault", FATAL)
def test_a_fault_is_named_in_one_sentence_before_anything_is_aligned(small, recorded, fault):
    spoil, message = FATAL[fault]
    with pytest.raises(UserError, match=message) as raised:
        align.align_tape(small[0], small[1], spoil(recorded[0]).astype(np.float32), NAME)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


def test_another_recording_is_named(small):
    music = programme.built_in(30.0, RATE_HZ, 2, -18.0, seed=5).signal
    with pytest.raises(UserError, match="another recording"):
        align.align_tape(small[0], small[1], music, NAME)


BEARABLE = {
    "clipping": lambda x, layout: np.clip(2 * x, -0.25, 0.25),
    "hum": lambda x, layout: hum(x, 0.0003),
    "crosstalk": lambda x, layout: x + np.array([[0.1], [0.0]]) * x[1],
    "low_level": lambda x, layout: 0.02 * x,
    "dropouts": dropped,
    "bandwidth": lambda x, layout: sosfilt(butter(6, 2200, fs=RATE_HZ, output="sos"), x),
    "gain_drift": lambda x, layout: x * np.linspace(1, 2, x.shape[1]),
    "speed": lambda x, layout: at_speed(x, 1.01),
}


@pytest.mark.parametrize("fault", BEARABLE)
def test_what_is_bearable_is_a_warning(small, recorded, fault):
    layout = without_stereo(small[0])
    wet = BEARABLE[fault](recorded[0].astype(np.float64), layout).astype(np.float32)
    found = align.align_tape(layout, small[1], wet, NAME)
    assert fault in names(found)
    assert names(found) <= {fault, "polarity", "low_level"}


# The cable


def converters(x, gain=-0.8, delay=100.3):
    """A converter that turns the polarity, is quieter, late, and narrow: (channels, time)."""
    late = np.stack([read_at(channel, np.arange(x.shape[1] + RATE_HZ) - delay) for channel in x])
    return gain * sosfilt(butter(1, [12, 6500], "bandpass", fs=RATE_HZ, output="sos"), late)


def test_the_converters_are_measured_and_taken_out(small):
    layout, signal, cable = small
    noise = 1e-6 * np.random.default_rng(0).standard_normal((2, cable.shape[1] + RATE_HZ))
    back = (converters(cable) + noise).astype(np.float32)
    measured = loopback.measure(layout, cable, back, "loop.wav")
    assert measured.polarity == -1 and abs(measured.clock_ppm) < 0.1
    assert measured.gain_db == pytest.approx([20 * np.log10(0.8) - 0.1] * 2, abs=0.1)
    mended = loopback.remove(measured, converters(signal, delay=0).astype(np.float32))[:, : layout.samples]
    section = layout.of("programme")[1]
    gains = np.fft.rfft(mended[:, section.start : section.stop]) * np.conj(
        np.fft.rfft(signal[:, section.start : section.stop])
    )
    power = np.abs(np.fft.rfft(signal[:, section.start : section.stop])) ** 2
    hz = np.fft.rfftfreq(section.stop - section.start, 1 / RATE_HZ)
    for low in (50, 100, 200, 400, 800, 1600, 3200):
        inside = (hz >= low) & (hz < 2 * low)
        level = np.abs(gains[:, inside].sum(1)) / power[:, inside].sum(1)
        assert np.abs(20 * np.log10(level)).max() < 0.1, low


def test_another_recording_of_the_cable_is_named(small):
    layout, _, cable = small
    with pytest.raises(UserError, match="not a recording of the loopback file"):
        loopback.measure(layout, cable, programme.built_in(8.0, RATE_HZ, 2, -18.0).signal, "loop.wav")
    with pytest.raises(UserError, match="is silent"):
        loopback.measure(layout, cable, np.zeros_like(cable), "loop.wav")


# Recordings without a layout


@pytest.fixture(scope="module")
def music():
    return programme.built_in(6.0, RATE_HZ, 2, -18.0, seed=3).signal


def test_any_two_recordings_are_aligned(music):
    music = music[:1]
    wet, where = machine(music, delay=3200.6, ppm=0, wow=1.0)
    found = own.align_pair(music, wet, RATE_HZ, own.pulse_channel(music, RATE_HZ), ("dry.wav", "wet.wav"))
    error = position_error(found.stretches[0], where)
    assert found.polarity == -1 and np.sqrt(np.mean(error**2)) < 0.5
    assert figures(found, None, None, None)["sections"][0]["delay_mean_samples"] == pytest.approx(3200.6, abs=1)


def test_a_pulse_train_is_recognised(small, music):
    layout, signal, _ = small
    section = layout.of("programme")[0]
    dry = signal[:, section.start : section.stop]
    assert own.pulse_channel(dry, RATE_HZ) == 1 and own.pulse_channel(dry[::-1], RATE_HZ) == 0
    assert own.pulse_channel(music, RATE_HZ) is None and own.pulse_channel(dry[1:], RATE_HZ) is None


def test_files_that_do_not_belong_together_are_named(music):
    other = programme.built_in(8.0, RATE_HZ, 2, -18.0, seed=9).signal
    with pytest.raises(UserError, match="another recording"):
        own.align_pair(music, other, RATE_HZ, None, ("dry.wav", "wet.wav"))
    music = np.pad(music, ((0, 0), (RATE_HZ // 2, 0)))
    late, _ = machine(music, delay=8000.0, ppm=0)
    with pytest.raises(UserError, match="swapped"):
        own.align_pair(late, music, RATE_HZ, None, ("dry.wav", "wet.wav"))
    with pytest.raises(UserError, match="half speed"):
        own.align_pair(music, at_speed(music, 0.5).astype(np.float32), RATE_HZ, None, ("dry.wav", "wet.wav"))


@pytest.mark.parametrize("clip", [1, 2, 3])
def test_real_tape_gives_its_stored_trajectory_without_being_told_the_period(golden, clip):
    folder = golden / "tape" / "real_tape"
    dry, wet = (audio.read(folder / f"akai_maxell_7.5ips_{clip}_{side}.flac").numpy() for side in ("input", "target"))
    stored = np.load(folder / "trajectories.npz")[f"clip{clip}_delay_samples_at_pulse_subsample"] / 44.1
    found = own.align_pair(dry, wet, 44_100, own.pulse_channel(dry, 44_100), ("dry.flac", "wet.flac"))
    section = figures(found, None, None, None)["sections"][0]
    assert section["delay_mean_ms"] + section["pulses_late_samples"] / 44.1 == pytest.approx(stored.mean(), abs=0.02)
    assert section["delay_std_ms"] == pytest.approx(stored.std(), abs=0.02)


# A calibration tape


def test_a_calibration_tape_tells_speed_azimuth_and_flux():
    n, late = np.arange(3 * RATE_HZ), 20e-6
    tones = [
        0.1 * np.stack([np.sin(2 * np.pi * 1.004 * hz * (n / RATE_HZ - c * late)) for c in (0, 1)])
        for hz in (1000, 3150, 6300)
    ]
    silence = np.zeros((2, RATE_HZ))
    x = np.concatenate([part for one in tones for part in (silence, one)], 1)
    found = calibration.read(x, RATE_HZ, "calibration.wav", 320.0, [-14.0, -14.0])
    assert found["speed_error_percent"] == pytest.approx(0.4, abs=0.001)
    assert found["azimuth_microseconds"] == pytest.approx(20, abs=0.1)
    assert found["flux_nwb_per_m"] == pytest.approx(320 * 10 ** (6 / 20), rel=0.001)
    assert found["replay_response_db"]["3150_hz"] == pytest.approx([0, 0], abs=0.01)
    with pytest.raises(UserError, match="no steady tone"):
        calibration.read(np.random.default_rng(0).standard_normal((2, 50_000)), RATE_HZ, "c.wav", None, None)


# The command


def write(path, x, rate_hz=RATE_HZ):
    audio.write(path, torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), rate_hz, subtype="FLOAT")
    return str(path)


@pytest.fixture(scope="module")
def session(tmp_path_factory, small, recorded):
    place = tmp_path_factory.mktemp("session")
    layout, signal, cable = small
    layout.write(place / "tape.json")
    write(place / "tape.wav", signal)
    write(place / "tape_loopback.wav", cable)
    write(place / "recorded.wav", recorded[0])
    return place


@pytest.fixture(scope="module")
def result(session):
    return command.align([str(session / "tape.wav"), str(session / "recorded.wav"), f"out={session / 'out'}"])


def test_the_command_leaves_pairs_figures_and_a_page(result):
    expected = {f"{folder}{form}/{name}-{side}.wav" for folder, name in (("", "built_in"), ("stereo/", "built_in_stereo"))
                for form in ("constant", "demodulated", "raw") for side in ("input", "target")}  # fmt: skip
    expected |= {
        "raw/built_in.npz",
        "stereo/raw/built_in_stereo.npz",
        "align.json",
        "align.html",
        "floor.json",
        "stereo/floor.json",
    }
    assert {str(path.relative_to(result)) for path in result.rglob("*") if path.is_file()} == expected
    assert not [path for path in result.parent.iterdir() if path.name.startswith(".")]
    page = (result / "align.html").read_text()
    assert "data:image/png;base64" in page and "polarity" in page
    found = json.loads((result / "align.json").read_text())
    for course in (c for section in found["sections"] for c in section["gain_course"]):
        assert len(course["seconds"]) == len(course["gain_db"]) > 0


def esr(x, y, edge=2000):
    x, y = x[..., edge:-edge], y[..., edge:-edge]
    y = y * (x * y).sum() / (y * y).sum()
    return 10 * np.log10(((x - y) ** 2).sum() / (x**2).sum())


def pair(folder, name):
    return [audio.read(folder / f"{name}-{side}.wav").double().numpy() for side in ("input", "target")]


def test_demodulated_pairs_agree_and_constant_ones_keep_their_wander(result):
    assert esr(*pair(result / "demodulated", "built_in")) < -35
    assert esr(*pair(result / "constant", "built_in")) > esr(*pair(result / "demodulated", "built_in")) + 10
    dry, wet = pair(result / "demodulated", "built_in")
    assert (dry * wet).sum() > 0  # the polarity is mended


def test_raw_pairs_follow_their_trajectory(result, recorded):
    dry, wet = pair(result / "raw", "built_in")
    kept = np.load(result / "raw" / "built_in.npz")
    assert (
        kept["delay_samples"].shape == (wet.shape[1],) == kept["confidence"].shape and kept["sample_rate_hz"] == RATE_HZ
    )
    assert kept["delay_samples"].min() > 0
    moved = read_at(dry[0], np.arange(wet.shape[1]) - kept["delay_samples"])
    assert esr(moved, wet[0]) < -35


def test_recordings_reads_the_pairs_and_their_floor(result):
    source = Recordings(root=str(result / "demodulated"))
    assert [take.name for take in source.takes()] == ["built_in-input"]
    assert source.floor_energy("test") == pytest.approx(HISS**2, rel=0.07)
    assert Recordings(root=str(result / "stereo" / "demodulated")).floor_energy("test") == pytest.approx(
        HISS**2, rel=0.07
    )


def test_recordings_without_a_floor_have_none_and_a_damaged_one_is_named(pair):
    folder = pair()[0].parent
    assert Recordings(root=str(folder)).floor_energy("test") is None
    (folder / "floor.json").write_text('{"mean_square": [null]}')
    assert Recordings(root=str(folder)).floor_energy("test") is None
    (folder / "floor.json").write_text("{")
    with pytest.raises(UserError, match=r"floor.json is damaged"):
        Recordings(root=str(folder))


def test_a_second_run_replaces_its_own_result_and_nothing_else(session, tmp_path, small):
    (tmp_path / "diary.txt").write_text("mine")
    words = [str(session / "tape.wav"), str(session / "recorded.wav")]
    with pytest.raises(UserError, match="holds something else"):
        command.align([*words, f"out={tmp_path}"])
    silent = write(session / "silent.wav", np.zeros((2, 30 * RATE_HZ)))
    with pytest.raises(UserError, match="is silent"):
        command.align([words[0], silent, f"out={tmp_path / 'new'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_swapped_copied_and_foreign_files_are_named(session, small):
    tape_path, wet = str(session / "tape.wav"), str(session / "recorded.wav")
    with pytest.raises(UserError, match=r"swapped: tape\.wav is the test tape"):
        command.align([wet, tape_path])
    copy = write(session / "copy.wav", small[1])
    with pytest.raises(UserError, match="is the test tape itself"):
        command.align([tape_path, copy])
    with pytest.raises(UserError, match="22050 Hz and the test tape 16000 Hz"):
        command.align([tape_path, write(session / "other_rate.wav", small[1], 22_050)])
    with pytest.raises(UserError, match="a channel is missing"):
        command.align([tape_path, write(session / "mono.wav", small[1][:1])])
    (session / "exchanged.json").write_text((session / "tape.json").read_text())
    with pytest.raises(UserError, match=r"swapped: copy\.wav is the test tape that exchanged\.json describes"):
        command.align([write(session / "exchanged.wav", small[1][:, :-7]), copy])
    with pytest.raises(UserError, match="no layout"):
        command.align([write(session / "alone.wav", small[1]), wet.replace("recorded", "copy")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "align needs a test tape"),
        (["a.wav"], "align needs a test tape"),
        (["dry=a.wav"], "align needs a test tape"),
        (["a.wav", "b.wav", "colour=red"], "no option colour"),
        (["a.wav", "b.wav", "mode=loud"], "mode=loud"),
        (["a.wav", "b.wav"], "there is no audio file a.wav"),
    ],
)
def test_bad_arguments_are_named(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command.align(words)


def test_the_command_takes_recordings_without_a_layout(tmp_path, music):
    wet, _ = machine(music, delay=700.0, ppm=0, wow=0.5)
    out = command.align(
        [f"dry={write(tmp_path / 'd.wav', music)}", f"wet={write(tmp_path / 'w.wav', wet)}", "pulses=none"]
    )
    assert out == tmp_path / "w_aligned"
    dry, target = pair(out / "demodulated", "programme")
    assert dry.shape[0] == 2 and esr(dry, target) < -25
    kept = np.load(out / "raw" / "programme.npz")["delay_samples"]
    assert np.median(kept) == pytest.approx(700, abs=2)


def test_a_place_with_other_files_is_refused(tmp_path):
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "align.json").write_text("{}")
    command._check_place(earlier, [tmp_path / "tape.wav"])
    with pytest.raises(UserError, match="what is to be read"):
        command._check_place(earlier, [earlier / "raw" / "take.wav"])
    (earlier / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="something else"):
        command._check_place(earlier, [tmp_path / "tape.wav"])
    assert (earlier / "notes.txt").exists()
