"""The data sheet: a measuring tape that can be read back, figures of machines of known truth, and the page."""

import json

import numpy as np
import pytest

from revox_lightning.dsp.interpolation import read_at
from revox_lightning.errors import UserError
from revox_lightning.measure import figures
from revox_lightning.measure.data_sheet import data_sheet
from revox_lightning.measure.locate import Places, coarse_delay
from revox_lightning.measure.programme import programme_sheet
from revox_lightning.measure.tape import MeasuringTape, excerpt, measuring_tape, shifted
from revox_lightning.report import data_sheet as report

RATE, ZERO_VU = 16_000, -18.0
A0 = 10 ** (ZERO_VU / 20)
CUBIC = -0.04 / A0**2  # of x + CUBIC x^3: about 1 % third harmonic at 0 VU


@pytest.fixture(scope="module")
def tape():
    return measuring_tape(RATE, ZERO_VU, speed_seconds=6, channels=1)


def sheet_of(tape, wet, mode=None):
    return data_sheet(tape.sections, tape.signal, wet, tape.sample_rate_hz, tape.zero_vu_dbfs, mode)


@pytest.fixture(scope="module")
def cubic(tape):
    """Known gain, cubic, delay and noise."""
    x = tape.signal.astype(np.float64)
    y = np.roll(0.8 * (x + CUBIC * x**3), 137, axis=1)
    noise = 10 ** (-70 / 20) / np.sqrt(2) * np.random.default_rng(0).standard_normal(x.shape)
    return sheet_of(tape, y + noise)


@pytest.fixture(scope="module")
def wire(tape):
    return sheet_of(tape, tape.signal)


def test_the_tape_reads_back_from_its_layout(tape):
    again = MeasuringTape.from_layout(json.loads(json.dumps(tape.layout())), tape.signal)
    assert again.sections == tape.sections
    assert (again.sample_rate_hz, again.zero_vu_dbfs) == (RATE, ZERO_VU)
    later = shifted(tape.sections, 100)
    assert [s.start - 100 for s in later] == [s.start for s in tape.sections]


def test_guard_silences_and_levels_of_the_tape():
    tape = measuring_tape(48_000, -12.0, speed_seconds=5)
    assert np.abs(tape.signal).max() <= 10 ** (-0.5 / 20) + 1e-6
    assert len({s.name for s in tape.sections}) == len(tape.sections)
    quiet = np.ones(tape.signal.shape[1], bool)
    for section in tape.sections:
        quiet[section.start : section.stop] = False
        inside = tape.signal[list(section.channels), section.start : section.stop]
        assert section.kind == "silence" or inside.any()
        other = [c for c in range(2) if c not in section.channels]
        assert not tape.signal[other, section.start : section.stop].any()
    assert not tape.signal[:, quiet].any()
    starts = [0, *(s.stop for s in tape.sections)]
    assert min(s.start - before for s, before in zip(tape.sections, starts, strict=False)) == 24_000
    alignment = tape.sections[0]
    middle = tape.signal[0, alignment.start + 4800 : alignment.stop - 4800].astype(float)
    assert 10 * np.log10(2 * np.mean(middle**2)) == pytest.approx(-32.0, abs=0.01)


def test_a_mono_tape_leaves_the_stereo_sections_out_and_the_tape_is_short():
    mono, stereo = (measuring_tape(36_000, channels=n) for n in (1, 2))
    names = {s.name for s in stereo.sections} - {s.name for s in mono.sections}
    assert names == {f"crosstalk_{hz}_{side}" for hz in ("1k", "10k") for side in ("left", "right")}
    assert stereo.signal.shape[1] / 36_000 < 180


@pytest.mark.parametrize(
    "words",
    [
        {"sample_rate_hz": 4000},
        {"zero_vu_dbfs": -1.0},
        {"zero_vu_dbfs": float("nan")},
        {"speed_seconds": 4.9},
        {"channels": 3},
    ],
)
def test_a_tape_that_cannot_be_made_is_refused(words):
    with pytest.raises(UserError):
        measuring_tape(**({"sample_rate_hz": RATE} | words))


def test_a_layout_of_another_file_or_a_damaged_one_is_refused(tape):
    with pytest.raises(UserError, match="another file"):
        MeasuringTape.from_layout(tape.layout(), tape.signal[:, :1000])
    with pytest.raises(UserError, match="damaged"):
        MeasuringTape.from_layout({"sections": [{"name": "x"}]}, tape.signal)


def test_an_excerpt_holds_the_same_sections(tape):
    short = excerpt(tape, ["alignment", "aliasing_6"])
    assert [s.name for s in short.sections] == ["alignment", "aliasing_6"]
    for section in short.sections:
        full = next(s for s in tape.sections if s.name == section.name)
        assert np.array_equal(short.signal[:, section.start : section.stop], tape.signal[:, full.start : full.stop])


def test_a_wire_scores_perfectly(wire):
    assert wire["level"]["gain_1k_db"] == [pytest.approx(0, abs=1e-4)]
    assert wire["latency"]["milliseconds"] == pytest.approx(0, abs=1e-3)
    assert wire["latency"]["polarity"] == 1
    assert wire["distortion"]["thd_percent"][0] < 1e-3
    assert wire["distortion"]["mol_3_percent_vu"] == [None]
    assert wire["speed"]["error_percent"] == pytest.approx(0, abs=1e-6)
    assert wire["speed"]["weighted_two_sigma_percent"] < 1e-4
    assert wire["intermodulation"]["smpte_percent"][0] < 0.01
    assert wire["noise"]["re_0_vu_db"]["a"] == [None]
    assert "silent" in wire["missing"]["silence"]
    assert wire["aliasing"]["at_6_vu_db"][0] < -120
    for level_vu in ("0", "-10", "-20", "-30"):
        curve = np.array(wire["response"]["gain_db"][level_vu][0], dtype=float)
        assert np.nanmax(np.abs(curve)) < 0.05
    assert np.nanmax(np.abs(np.array(wire["response"]["group_delay_ms"][0], dtype=float))) < 0.1


def test_the_figures_of_a_known_machine(cubic):
    def fundamental(a):
        return 0.8 * (a + 0.75 * CUBIC * a**3)

    def third_percent(a):
        return 100 * abs(CUBIC * a**2 / 4 / (1 + 0.75 * CUBIC * a**2))

    low = A0 / 10
    gain_db = 20 * np.log10(fundamental(low) / low)
    assert cubic["level"]["gain_1k_db"][0] == pytest.approx(gain_db, abs=0.01)
    assert cubic["latency"]["milliseconds"] == pytest.approx(1000 * 137 / RATE, abs=0.01)
    assert cubic["distortion"]["third_percent"][0] == pytest.approx(third_percent(A0), rel=0.01)
    drives = A0 * 10 ** (np.linspace(0, 6, 6001) / 20)
    at = drives[np.argmax(third_percent(drives) >= 3)]
    mol_vu = 20 * np.log10(fundamental(at) / A0) - gain_db
    assert cubic["distortion"]["mol_3_percent_vu"][0] == pytest.approx(mol_vu, abs=0.15)
    noise_db = -70.0  # white up to 8 kHz, all of it within 20 Hz to 20 kHz
    expected = ZERO_VU + gain_db - noise_db
    assert cubic["noise"]["re_0_vu_db"]["unweighted"][0] == pytest.approx(expected, abs=0.15)
    assert cubic["noise"]["re_mol_db"]["unweighted"][0] == pytest.approx(expected + mol_vu, abs=0.3)
    curve = np.array(cubic["response"]["gain_db"]["-20"][0], dtype=float)
    assert np.nanmax(np.abs(curve)) < 0.3  # the noise stands 30 dB under this sweep
    # The high tone's gain, 1 + 3 CUBIC low^2, swings by 3/2 CUBIC (0.8 A0)^2 at twice the low tone's frequency.
    swing = 1.5 * abs(CUBIC) * (0.8 * A0) ** 2
    carrier = 1 - swing - 0.75 * abs(CUBIC) * (0.2 * A0) ** 2
    assert cubic["intermodulation"]["smpte_percent"][0] == pytest.approx(100 * swing / carrier, rel=0.02)


def test_a_fast_wavering_inverted_machine_is_still_read(tape, wire):
    speed, wow, wow_hz = 1.004, 0.001, 4.0
    seconds = np.arange(tape.signal.shape[1]) / RATE
    swing = wow * RATE / (2 * np.pi * wow_hz)  # in samples, for a relative speed error of `wow`
    positions = (RATE * seconds - 400) * speed + swing * np.sin(2 * np.pi * wow_hz * seconds)
    sheet = sheet_of(tape, -read_at(tape.signal[0], positions)[None])
    assert sheet["speed"]["error_percent"] == pytest.approx(0.4, abs=0.001)
    assert sheet["latency"]["polarity"] == -1  # its response is blurred, its polarity is not
    assert sheet["latency"]["milliseconds"] == pytest.approx(1000 * 400 / RATE, abs=0.1)
    assert not sheet["aliasing"] and {"aliasing", "group delay"} <= set(sheet["missing"])
    assert sheet["speed"]["weighted_two_sigma_percent"] == pytest.approx(0.1, rel=0.03)
    spectrum = sheet["speed"]["spectrum"]
    highest = int(np.argmax(spectrum["percent_rms"]))
    assert spectrum["frequency_hz"][highest] == pytest.approx(wow_hz, abs=0.2)
    assert spectrum["percent_rms"][highest] == pytest.approx(0.1 / np.sqrt(2), rel=0.03)
    curve = np.array(sheet["response"]["gain_db"]["-20"][0], dtype=float)
    assert np.nanmax(np.abs(curve)) < 0.3  # the wow ripples it
    found = figures.differences(sheet, wire)
    assert any("runs faster" in sentence for sentence in found)
    assert any("is inverted" in sentence for sentence in found)


def test_two_channels_against_each_other():
    tape = measuring_tape(RATE, ZERO_VU, speed_seconds=5)
    left, right = tape.signal.astype(np.float64)
    late = np.roll(right, 1)
    wet = np.stack([left + 0.01 * late, 0.5 * (late + 0.02 * left)])
    stereo = sheet_of(tape, wet)["stereo"]
    assert stereo["balance_db"] == pytest.approx(20 * np.log10(1.01 / 1.02 / 0.5), abs=0.05)
    assert stereo["crosstalk_1k_db"] == [pytest.approx(-40.0, abs=0.1), pytest.approx(20 * np.log10(0.02), abs=0.1)]
    assert stereo["crosstalk_10k_db"] is None  # past what this rate carries
    assert stereo["azimuth_us"] == pytest.approx(1e6 / RATE, abs=2.0)


def test_places_follow_a_drifting_machine_and_the_coarse_delay_finds_a_late_one(tape):
    drifting = read_at(tape.signal[0], np.arange(tape.signal.shape[1]) * 0.99)[None]  # 1 % slow
    places = Places(tape.sections, tape.signal, drifting, RATE)
    for section in tape.sections[:-1]:
        assert places(section.start) == pytest.approx(section.start / 0.99, abs=0.03 * RATE)
    for late in (-3000, 160_000):
        moved = np.roll(tape.signal, late, axis=1)
        assert coarse_delay(tape.sections, tape.signal, moved, RATE) == late


@pytest.mark.parametrize("other", ["silence", "noise"])
def test_another_recording_is_refused(tape, other):
    noise = 0.1 * np.random.default_rng(0).standard_normal(tape.signal.shape)
    with pytest.raises(UserError, match="something else"):
        sheet_of(tape, np.zeros_like(tape.signal) if other == "silence" else noise)


def test_malformed_input_is_refused(tape):
    with pytest.raises(UserError, match="second_pass"):
        sheet_of(tape, tape.signal, mode="third_pass")
    with pytest.raises(ValueError, match="channels, time"):
        sheet_of(tape, tape.signal[0])


def test_a_programme_tells_delay_gain_and_response():
    dry = np.random.default_rng(1).standard_normal((2, 5 * RATE))
    wet = -0.5 * np.roll(dry, 321, axis=1)
    sheet = programme_sheet(dry, wet, RATE)
    assert sheet["latency"] == {"milliseconds": pytest.approx(1000 * 321 / RATE), "polarity": -1}
    assert sheet["level"]["gain_db"] == [pytest.approx(-6.02, abs=0.01)] * 2
    curve = np.array(sheet["programme"]["gain_db"][0], dtype=float)
    assert np.nanmax(np.abs(curve[30:100] + 6.02)) < 0.2
    stranger = programme_sheet(dry, np.random.default_rng(2).standard_normal(dry.shape), RATE)
    assert any("hardly belong together" in note for note in stranger["notes"])


def test_differences_are_told_largest_first_and_monitor_figures_never(wire, cubic):
    assert figures.differences(cubic, cubic) == []
    told = figures.differences(wire, cubic, most=20)
    assert figures.differences(wire, cubic) == told[:6]
    assert told[0].startswith("It never reaches 3 %") or told[0].startswith("It has no hiss")
    assert any("distorts less" in sentence for sentence in told)
    assert any("is louder" in sentence for sentence in told)
    wavering = {"mode": "second_pass", "speed": {"weighted_two_sigma_percent": 0.5}}
    steady = {"mode": "second_pass", "speed": {"weighted_two_sigma_percent": 0.1}}
    assert any("wavers more" in sentence for sentence in figures.differences(wavering, steady))
    assert figures.differences(wavering | {"mode": "monitor"}, steady) == []
    assert figures.differences(wavering, steady | {"mode": "monitor"}) == []


def test_figures_that_were_not_reached_show_how_far_it_was_measured(wire):
    table = {figure.path: cells for figure, cells in report.rows([("wire", wire)])}
    assert table["response.upper_minus_3db_hz"] == ["> 7200"]
    assert table["distortion.mol_3_percent_vu"] == ["> 14.0"]
    assert table["noise.re_0_vu_db.a"] == ["-"]
    assert "stereo.azimuth_us" not in table


def test_the_page_needs_nothing_else_and_the_json_reads_back(wire, cubic, tmp_path):
    published = {"wow_flutter_percent": 0.08, "distortion_percent": 2.0, "distortion_level": None, "crosstalk_db": None,
                 "signal_to_noise_db": 58.0, "signal_to_noise_weighting": None}  # fmt: skip
    monitor = cubic | {"mode": "monitor", "published": published, "notes": ["<b>"]}
    missed = {"target": "cubic", "sentences": figures.differences(wire, cubic)}
    sheets = [("cubic & co", monitor), ("wire", wire | {"missed": missed})]
    report.write_json(sheets, tmp_path / "sheet.json")
    assert report.read_json(tmp_path / "sheet.json") == [(n, {"name": n} | s) for n, s in sheets]
    report.write_page(sheets, tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "") and "<script" not in page
    assert page.count('src="data:image/svg+xml;base64,') == page.count("<img") > 8
    speed = next(f for f in figures.FIGURES if f.path == "speed.weighted_two_sigma_percent")
    assert report.published(monitor, speed) == "-"  # a published figure is of a second pass
    assert report.published(monitor | {"mode": "second_pass"}, speed) == "0.08 (standard not stated)"
    for text in ("cubic &amp; co", "What did wire miss of cubic?", "(monitor)", "2 (level not stated)",
                 "published S/N 58 dB, weighting or reference not stated", "&lt;b&gt;"):  # fmt: skip
        assert text in page, text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sheets": [{"name": "x"}]}'])
def test_a_file_that_is_no_data_sheet_is_refused(text, tmp_path):
    (tmp_path / "data_sheet.json").write_text(text)
    with pytest.raises(UserError, match="not a data sheet"):
        report.read_json(tmp_path / "data_sheet.json")
