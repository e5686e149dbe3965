"""``revox listen``: blind listening tests, answered in headless Chromium, and the statistics of their results."""

import base64
import csv
import hashlib
import itertools
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
import yaml
from browser import chromium, console_errors, network_requests

from revox_lightning import audio
from revox_lightning.callbacks.checkpoints import save_atomically
from revox_lightning.commands import listen as command
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.report import listening_test, ratings, ratings_table, references, stimuli

torch.set_num_threads(1)
RATE_HZ = 22_050
REPORT = Path(listening_test.__file__).parent
HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"'&|"""


def sound(seconds, seed):
    """Noise whose level rises and falls, so that every stretch is another."""
    n = round(seconds * RATE_HZ)
    noise = torch.randn(1, n, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * (1.2 + torch.sin(torch.arange(n) / RATE_HZ))


def make_run(folder, name="lstm", seed=0, error=0.02, takes=("01_take", "music"), seconds=6.0, filters=True, **config):
    """A run's folder: each target its dry signal, filtered and softly clipped; each estimate that and noise."""
    (folder / "audio").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.dump({"name": name, "seed": seed, "model": {}, "parts": None} | config))
    for i, take in enumerate(takes):
        x = sound(seconds, 100 + i)
        y = torch.tanh(3 * (x + 0.5 * x.roll(1, -1))) / 2
        y_hat = 0.5 * y + error * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        for kind, signal in (("dry", x), ("target", y), ("estimate", y_hat), ("estimate_level_matched", y)):
            audio.write(folder / "audio" / f"{take}_{kind}.wav", signal, RATE_HZ)
    if filters:
        fir = FIR(4, 1)
        fir.load(torch.tensor([0.0, 1.0, 0.5, 0.0]))
        (folder / "checkpoints").mkdir()
        save_atomically({"linear": {"h": fir.h, "lookahead": 1}}, folder / "checkpoints" / "linear_filters.ckpt")
    return folder


def page_data(path):
    found = json.loads(re.search(r'id="test-data">(.*?)</script>', path.read_text())[1])
    return found | {"key": json.loads(base64.b64decode(found["key"]))}


# ---- stimuli


def test_anchors_are_as_the_recommendation_asks():
    """ITU-R BS.1534-3, 5.1: 0.1 dB of ripple below the cutoff, 25 dB down 0.5 kHz above, 50 dB down 1 kHz above."""
    for rate_hz in (16_000, 44_100, 48_000):
        for cutoff_hz in (3500, 7000):
            pulse = torch.zeros(1, 8191)
            pulse[0, 4095] = 1
            response = np.fft.rfft(stimuli.low_pass(pulse, cutoff_hz, rate_hz)[0].numpy())
            f_hz, db = np.fft.rfftfreq(8191, 1 / rate_hz), 20 * np.log10(np.abs(response) + 1e-12)
            assert np.abs(db[f_hz <= cutoff_hz]).max() < 0.1
            assert db[f_hz >= cutoff_hz + 500].max() < -25
            assert db[f_hz >= cutoff_hz + 1000].max(initial=-99) < -50
            delay = np.angle(response[1:50] * np.exp(2j * np.pi * np.arange(1, 50) * 4095 / 8191))
            assert np.abs(delay).max() < 1e-3, "in step with the reference"


def test_all_stimuli_of_a_trial_are_equally_loud_of_one_length_and_without_clicks(tmp_path):
    under_test = stimuli.systems([make_run(tmp_path / "a"), make_run(tmp_path / "b", "tcn", error=0.05)])
    found, notes = stimuli.excerpts(under_test, 4, 2.0, anchors=True)
    assert notes == [] and len(found) == 4
    for one in found:
        assert [s.kind for s in one.stimuli] == [
            "reference", "system", "system", "dry", "low_anchor", "mid_anchor", "linear",
        ]  # fmt: skip
        levels = [stimuli.level_db(s.signal, RATE_HZ) for s in one.stimuli]
        assert np.ptp(levels) < 0.05
        assert all(s.signal.shape == (1, 2 * RATE_HZ) and s.signal.abs().max() < 0.99 for s in one.stimuli)
        assert all(s.signal[:, [0, -1]].abs().max() < 1e-3 for s in one.stimuli)
    assert len({(one.name, one.start_seconds) for one in found}) == 4
    assert {one.name for one in found} == {"music", "01_take"}
    estimate = found[0].stimuli[1]
    assert 20 * math.log10(2) - 1 < estimate.gain_db - found[0].stimuli[0].gain_db < 20 * math.log10(2)


def test_the_linear_anchor_is_the_runs_own_filter_in_step(tmp_path):
    run = make_run(tmp_path / "a", takes=("music",))
    one = stimuli.excerpts(stimuli.systems([run]), 3, 2.0, anchors=True)[0][1]
    x = audio.read(run / "audio" / "music_dry.wav")[0]
    expected = (x.roll(0) + 0.5 * x.roll(1))[2 * RATE_HZ : 4 * RATE_HZ]
    linear = one.stimuli[-1]
    middle = slice(1000, -1000)
    gain = 10 ** (linear.gain_db / 20)
    assert one.start_seconds == 2.0
    assert torch.allclose(linear.signal[0][middle], gain * expected[middle], atol=1e-5)
    kept = references.load_filters(run / "checkpoints" / "linear_filters.ckpt")
    assert kept["linear"].latency_samples == 1


def test_what_is_missing_is_said(tmp_path):
    run = make_run(tmp_path / "a", seconds=3.0, filters=False)
    other = make_run(tmp_path / "b", "tcn", seconds=3.0, takes=("01_take",))
    found, notes = stimuli.excerpts(stimuli.systems([run, other]), 6, 2.0, anchors=True)
    assert len(found) == 1
    text = " ".join(notes)
    assert "music is left out" in text and "1 of 6" in text and "linear_filters.ckpt does not exist" in text


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [make_run(tmp_path / p, seed=s, takes=()) for p, s in (("a", 0), ("b", 1), ("c", 1))]
    assert [s.name for s in stimuli.systems(paths)] == ["lstm (seed 0)", "lstm (seed 1) (b)", "lstm (seed 1) (c)"]
    assert [s.name for s in stimuli.systems([make_run(tmp_path / "d", "a\nb\x00", takes=())])] == ["a b?"]


# ---- pages


def test_a_page_holds_all_it_needs_and_does_not_say_which_is_which(tmp_path, capsys):
    run = make_run(tmp_path / "a", HOSTILE)
    command.listen([str(run), f"out={tmp_path / 'm.html'}", "trials=6", "seconds=2"])
    assert "MB; open it in a browser" in capsys.readouterr().out
    text = (tmp_path / "m.html").read_text()
    data = page_data(tmp_path / "m.html")
    assert len(data["trials"]) == 6 and HOSTILE in {one["name"] for one in data["key"].values()}
    assert "onerror" not in text and "low_anchor" not in text and "7 kHz" not in text
    assert text.count("<script") == text.count("</script>")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 3 and "default-src 'none'" in policy and "unsafe" not in policy
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    for trial in data["trials"]:
        kinds = sorted(data["key"][name]["kind"] for name in trial["sounds"])
        assert kinds == ["dry", "linear", "low_anchor", "mid_anchor", "reference", "system"]
        hidden = next(number for name, number in trial["sounds"].items() if data["key"][name]["kind"] == "reference")
        assert hidden == trial["reference"]


def test_a_pages_identity_is_that_of_its_sounds(tmp_path):
    run = make_run(tmp_path / "a", takes=("music",), seconds=3.0)

    def identity(*words):
        command.listen([str(run), f"out={tmp_path / 'm.html'}", "seconds=1", "trials=2", *words])
        return page_data(tmp_path / "m.html")["page"]

    first = identity()
    assert re.fullmatch("[0-9a-f]{16}", first) and identity("seed=7") == first == identity("repeat=3")
    assert identity("trials=3") != first and identity("kind=abx", "trials=10") != first
    assert identity("seconds=1.5") != first


def test_a_system_that_makes_its_own_wow_is_asked_about_otherwise(tmp_path):
    run = make_run(tmp_path / "a", "tape_hybrid", parts={"net": "tape_delay_gru"})
    other = make_run(tmp_path / "b", "tcn")
    command.listen([str(run), str(other), "kind=abx", f"out={tmp_path / 'a.html'}"])
    hybrid, tcn = page_data(tmp_path / "a.html")["pairs"]
    assert (hybrid["mode"], tcn["mode"]) == ("2afc", "abx")
    assert all(one["source"] is not None for one in hybrid["excerpts"])
    assert all(one["source"] is None for one in tcn["excerpts"])
    command.listen([str(run), f"out={tmp_path / 'm.html'}"])
    assert page_data(tmp_path / "m.html")["restarts"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs folders"),
        (["nowhere"], "no such folder"),
        (["."], "no config.yaml"),
        (["RUN", "RUN"], "named twice"),
        (["RUN", "kind=ab"], "kind=ab: choose"),
        (["RUN", "trials=0"], "from 1 to 100"),
        (["RUN", "kind=abx", "trials=9"], "from 10 to 100"),
        (["RUN", "kind=abx", "repeat=2"], "is of kind=mushra"),
        (["RUN", "seconds=nan"], "1 to 60"),
        (["RUN", "seed=-1"], "whole number"),
        (["RUN", "colour=red"], "no option colour"),
        (["RUN", "out=."], "is a folder"),
        (["SILENT"], "silent or shorter"),
        (["EMPTY"], "no excerpt with dry"),
        (["RUN", "OTHER"], "does not match the dry signal"),
        (["DAMAGED"], "no linear filter"),
        (["results=nowhere"], "does not exist"),
        (["results=."], "holds no result"),
        (["results=.", "RUN"], "takes no RUN"),
        (["results=.", "seed=1"], "takes no seed"),
        (["results=.", "out=RUN/config.yaml"], "is a file"),
    ],
)
def test_what_cannot_be_heard_is_said_in_a_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named = set(words)
    if named & {"RUN", "OTHER"} or "RUN/" in str(words):
        make_run(Path("RUN"), seconds=2.0, takes=("01_take",))
    if "OTHER" in named:
        folder = make_run(Path("OTHER"), "other", seconds=2.0, takes=("01_take",))
        audio.write(folder / "audio" / "01_take_dry.wav", sound(2.0, 55), RATE_HZ)
    if "SILENT" in named:
        make_run(Path("SILENT"), seconds=0.5)
    if "EMPTY" in named:
        make_run(Path("EMPTY"), takes=())
    if "DAMAGED" in named:
        folder = make_run(Path("DAMAGED"), seconds=2.0)
        save_atomically({"linear": {"h": 3, "lookahead": 1}}, folder / "checkpoints" / "linear_filters.ckpt")
    assert guarded(lambda: command.listen(words)) == 2
    captured = capsys.readouterr().err
    assert said in captured and captured.count("\n") == 1


def test_no_more_stimuli_than_a_listener_can_compare(tmp_path):
    runs = [make_run(tmp_path / str(i), f"net{i}", takes=("music",), seconds=2.0) for i in range(8)]
    with pytest.raises(UserError, match=r"13 stimuli .* name 7 runs"):
        command.listen([*map(str, runs), f"out={tmp_path / 'm.html'}"])


# ---- statistics


def rated(listener, *trials):
    """Ratings of trials given as {(kind, name): value}; a trial of the same excerpt again is a repetition."""
    found, seen = [], set()
    for i, (excerpt, values) in enumerate(trials):
        for (kind, name), value in values.items():
            found.append(
                ratings.Rating(listener, f"{listener}-1", i, excerpt, excerpt in seen, name, kind, float(value))
            )
        seen.add(excerpt)
    return found


REF, NET = ("reference", "reference"), ("system", "lstm")


def test_means_and_intervals_are_those_computed_by_hand():
    """Listeners' means 60, 70, 80: mean 70, s = 10, t(0.975, 2) = 4.302653, half width 4.302653 * 10 / sqrt(3)."""
    all_ratings = [
        *rated("a", ("x", {NET: 50, REF: 100}), ("y", {NET: 70, REF: 96})),
        *rated("b", ("x", {NET: 70, REF: 100}), ("y", {NET: 60, REF: 100}), ("x", {NET: 90, REF: 100})),
        *rated("c", ("x", {NET: 80, REF: 100}), ("y", {NET: 80, REF: 100})),
    ]
    best, net = ratings.scores(all_ratings)
    assert best.kind == "reference" and best.mean == pytest.approx((98 + 100 + 100) / 3)
    assert net.listeners == 3 and net.mean == pytest.approx(70) and net.median == pytest.approx(70)
    assert net.half_width == pytest.approx(24.8413771, abs=1e-6)
    expected = scipy.stats.t.interval(0.95, 2, 70, scipy.stats.sem([60, 70, 80]))
    assert (net.mean - net.half_width, net.mean + net.half_width) == pytest.approx(expected)
    assert sorted(net.values) == [50, 60, 70, 80, 80, 80], "b's two ratings of x are one"
    people = {one.name: one for one in ratings.listeners(all_ratings)}
    assert people["b"].inconsistency == pytest.approx((20 + 0) / 2) and people["a"].inconsistency is None
    (alone,) = ratings.scores(rated("a", ("x", {NET: 50})))
    assert alone.half_width is None and alone.mean == 50


def test_listeners_who_miss_the_reference_in_over_15_percent_of_the_trials_are_set_apart():
    def person(name, missed, trials):
        return rated(name, *((str(i), {REF: 89 if i < missed else 90, NET: 10}) for i in range(trials)))

    all_ratings = [*person("edge", 3, 20), *person("over", 4, 20), *person("one", 1, 6), *person("none", 0, 6)]
    assert {one.name: (one.missed, one.apart) for one in ratings.listeners(all_ratings)} == {
        "edge": (3, False), "over": (4, True), "one": (1, True), "none": (0, False),
    }  # fmt: skip


def test_right_answers_are_tested_by_the_exact_binomial():
    """9 of 10: (10 + 1) / 2^10 on one side; 1 of 10 asked two-sided: 2 * 11 / 2^10."""
    answers = [ratings.Answer("a", "lstm", "abx", "x", i != 0) for i in range(10)]
    answers += [ratings.Answer("a", "hybrid", "2afc", "x", i == 0) for i in range(10)]
    answers += [ratings.Answer("b", "lstm", "abx", "x", i < 5) for i in range(10)]
    found = {(one.system, one.listener): one for one in ratings.counts(answers)}
    assert found["lstm", "a"].p == pytest.approx(11 / 1024)
    assert found["hybrid", "a"].p == pytest.approx(22 / 1024)
    both = found["lstm", ""]
    assert (both.correct, both.total) == (14, 20)
    assert both.p == pytest.approx(sum(math.comb(20, k) for k in range(14, 21)) / 2**20)
    # Clopper and Pearson's limits are quantiles of the beta distribution.
    assert both.low == pytest.approx(scipy.stats.beta.ppf(0.025, 14, 7))
    assert both.high == pytest.approx(scipy.stats.beta.ppf(0.975, 15, 6))


# ---- results


def result(listener, page="0123456789abcdef", reference=100, net=60, trials=6, session=None):
    stimuli_of = lambda again: [  # noqa: E731
        {"name": "reference", "kind": "reference", "gain_db": 0.0, "rating": reference},
        {"name": HOSTILE, "kind": "system", "gain_db": 1.0, "rating": net + again},
    ]
    rows = [{"excerpt": f"e{i}", "repeated": False, "stimuli": stimuli_of(0)} for i in range(trials)]
    rows.append({"excerpt": "e0", "repeated": True, "stimuli": stimuli_of(8)})
    return {
        "format": ratings.FORMAT, "kind": "mushra", "page": page, "listener": listener,
        "session": session or listener, "seed": 1, "trials": rows,
    }  # fmt: skip


def test_results_are_summarised_and_damaged_ones_named(tmp_path, capsys):
    folder = tmp_path / "results"
    folder.mkdir()
    for name, net in (("ann", 60), ("bob", 70), ("cy", 80)):
        (folder / f"{name}.json").write_text(json.dumps(result(name, net=net)))
    (folder / "deaf.json").write_text(json.dumps(result("deaf", reference=50)))
    (folder / "copy.json").write_text(json.dumps(result("ann", net=60)))
    whole = json.dumps(result("zoe"))
    (folder / "cut.json").write_text(whole[: len(whole) // 2])
    (folder / "list.json").write_text("[]")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "nan.json").write_text(json.dumps(result("nan", net=float("nan"))))
    (folder / "much.json").write_text(json.dumps(result("much", net=101)))
    (folder / "text.json").write_text(json.dumps(result("a", session="s") | {"trials": [{"stimuli": 3}]}))
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert guarded(lambda: command.listen([f"results={folder}"])) == 0
    captured = capsys.readouterr()
    for name in ("cut", "list", "deep", "nan", "much", "text", "bytes"):
        assert f"{name}.json is passed over" in captured.err
    assert "same session as" in captured.err and "3 listeners in the figures, 1 set apart" in captured.out
    out = folder / "summary"
    text = (out / "summary.md").read_text()
    row = next(line for line in text.splitlines() if "&lt;/script>" in line)
    half = 24.8413771
    mean = 70 + 8 / 2 / 6  # one of six excerpts was rated twice, the second time 8 points higher
    assert f"| system | {mean:.1f} | {mean - half:.1f} to {mean + half:.1f} | {mean:.1f} | 3 |" in row
    assert re.search(r"\| deaf \| 7 \| 7 \| 4\.0 \| yes \|", text)
    with (out / "summary.csv").open() as file:
        found = {row["kind"]: row for row in csv.DictReader(file)}
    assert float(found["system"]["mean"]) == pytest.approx(mean) and found["reference"]["listeners"] == "3"
    with (out / "ratings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 14 and {r["set_apart"] for r in rows if r["listener"] == "deaf"} == {"True"}
    assert (out / "ratings.png").read_bytes()[:4] == b"\x89PNG"


def test_results_of_several_pages_are_refused_and_nobody_left_is_said(tmp_path):
    for name, page in (("a", "0" * 16), ("b", "1" * 16)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(name, page)))
    with pytest.raises(UserError, match=r"a.json is of page 0000.*b.json of page 1111"):
        ratings.read(tmp_path)
    (tmp_path / "deaf.json").write_text(json.dumps(result("deaf", reference=0)))
    text, _, written = ratings_table.summarise(tmp_path / "deaf.json", tmp_path / "out")
    assert "No listener is left" in text and not any(path.suffix == ".png" for path in written)


def test_text_can_be_read_in_both_schemes():
    """Contrast as WCAG 2.2 defines it: 4.5 for text, 3 for the outlines of controls."""
    css = (REPORT / "listen.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in css.split("@media", 2)[:2])

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for scheme in (light, dark):
        for ground in ("ground", "panel"):
            assert all(contrast(scheme[text], scheme[ground]) >= 4.5 for text in ("ink", "soft"))
            assert all(contrast(scheme[edge], scheme[ground]) >= 3 for edge in ("control", "accent"))
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5
        assert contrast(scheme["accent"], scheme["band"]) >= 3


# ---- the pages in a browser


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    with chromium(**{"download.default_directory": str(folder)}) as found:
        found.downloads = folder
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "lstm": make_run(folder / "a"),
        "evil": make_run(folder / "b", HOSTILE, error=0.1),
        "hybrid": make_run(folder / "c", "tape_hybrid", parts={"net": "tape_delay_gru"}),
    }


WAIT = "const wait = (ms) => new Promise((ready) => setTimeout(ready, ms));\n"


def begin(driver, page, listener):
    """Opens a page and starts the practice as a listener does; a version counts as heard after 60 ms."""
    console_errors(driver), network_requests(driver)
    driver.get(page.as_uri())
    driver.execute_script("Desk.HEARD_SECONDS = 0.06; Desk.TICK_MS = 10;")
    field = driver.find_element("id", "listener")
    field.send_keys(listener)
    field.submit()
    driver.execute_async_script(
        WAIT + "const done = arguments[0]; (async () => { while (!test.view) await wait(10); done(); })()"
    )


def saved(driver):
    """The result that the page's button saves."""
    before = set(driver.downloads.glob("*.json"))
    driver.find_element("css selector", "button.save").click()
    end = time.monotonic() + 20
    while not (new := set(driver.downloads.glob("*.json")) - before):
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.05)
    (path,) = new
    assert console_errors(driver) == [] and network_requests(driver) == []
    assert driver.execute_script("return window.hacked ?? null") is None
    return path


# Answers by the controls that a listener uses: hears each version, moves each slider, goes on. Rates the reference 100.
RATE = (
    WAIT
    + """
const [qualities, done] = arguments;
(async () => {
  const seen = [];
  while (test.view) {
    const view = test.view, button = (text) => [...document.querySelectorAll("button")].find((b) => b.textContent === text);
    seen.push({title: document.querySelector("h2").textContent, text: document.body.innerText, html: test.main.innerHTML,
               locked: [...document.querySelectorAll("input[type=range]")].every((s) => s.disabled), next: test.next.disabled});
    button("Reference").click();
    await wait(40);
    for (const [i, name] of view.trial.order.entries()) {
      button(String(i + 1)).click();
      while (view.sliders[name].disabled) await wait(5);
      view.sliders[name].value = qualities[test.key[name].kind];
      view.sliders[name].dispatchEvent(new Event("input"));
    }
    seen.at(-1).open = !test.next.disabled;
    test.next.click();
    test.next.click();  // in haste
    while (test.view === view || (!test.view && !document.querySelector(".save"))) await wait(5);
  }
  done({seen});
})().catch((error) => done({error: String(error)}));
"""
)


@pytest.mark.slow  # about ten seconds of listening
def test_a_mushra_session_is_answered_and_its_file_summarised(driver, runs, tmp_path, capsys):
    page = tmp_path / "m.html"
    command.listen([str(runs["lstm"]), str(runs["evil"]), f"out={page}", "trials=6", "seconds=2", "repeat=1"])
    qualities = {"reference": 100, "system": 80, "linear": 60, "mid_anchor": 50, "dry": 40, "low_anchor": 10}
    begin(driver, page, "ear 7 <b>")
    found = driver.execute_async_script(RATE, qualities)
    assert "error" not in found, found
    titles = [one["title"] for one in found["seen"]]
    assert titles == ["Practice: nothing here is kept", *(f"Trial {i} of 7" for i in range(1, 8))]
    for one in found["seen"]:
        assert one["locked"] and one["next"] and one["open"], "nothing is rated before it is heard"
        for word in ("lstm", "kHz", "anchor", "linear", "dry", "onerror"):
            assert word not in one["text"] and word not in one["html"]
    path = saved(driver)
    content = json.loads(path.read_text())
    assert content["page"] == page_data(page)["page"] and content["listener"] == "ear 7 <b>"
    assert isinstance(content["seed"], int) and content["began"] < content["ended"]
    assert [trial["repeated"] for trial in content["trials"]].count(True) == 1
    assert len({trial["excerpt"] for trial in content["trials"]}) == 6
    orders = {tuple(s["name"] for s in trial["stimuli"]) for trial in content["trials"]}
    assert len(orders) > 1 and all(set(one) == set(next(iter(orders))) for one in orders)
    for trial in content["trials"]:
        assert all(s["rating"] == qualities[s["kind"]] and math.isfinite(s["gain_db"]) for s in trial["stimuli"])
        assert min(trial["heard_seconds"].values()) >= 0 and trial["seconds"] > 0
        assert len(trial["heard_seconds"]) == 8 and "open reference" in trial["heard_seconds"]
    capsys.readouterr()
    assert guarded(lambda: command.listen([f"results={path}", f"out={tmp_path / 'out'}"])) == 0
    text = capsys.readouterr().out
    assert "1 listener in the figures, 0 set apart; 6 excerpts" in text
    assert "| lstm | system | 80.0 | - | 80.0 | 1 |" in text and "| ear 7 &lt;b> | 7 | 0 | 0.0 | no |" in text
    assert "| 3.5 kHz low-pass | low_anchor | 10.0 |" in text


# Knows each time what the trial is: answers rightly, but for the first `wrong` of each pair.
ANSWER = (
    WAIT
    + """
const [wrong, done] = arguments;
(async () => {
  const seen = [], count = {};
  while (test.view) {
    const view = test.view, { pair, letters, x } = test.trial;
    const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    const locked = view.radios.every((radio) => radio.disabled) && test.next.disabled;
    const positions = [], calls = [], player = test.desk.player;
    for (const method of ["play", "switchTo", "restart"]) {
      player[method] = (...given) => { calls.push(method); return Player.prototype[method].apply(player, given); };
    }
    for (const name of Object.keys(view.buttons)) {
      press(name[0].toLowerCase());
      while (!test.desk.isHeard(name)) await wait(5);
      positions.push(test.desk.player.position());
    }
    const n = (count[pair.name] = (count[pair.name] ?? (test.plan.includes(test.trial) ? 0 : -1)) + 1);
    const right = x ?? letters.findIndex((name) => test.key[name].kind === "reference");
    press(String((n > 0 && n <= wrong ? 1 - right : right) + 1));
    seen.push({title: document.querySelector("h2").textContent, text: document.body.innerText, locked, positions, calls,
               buttons: Object.keys(view.buttons), mode: pair.mode, open: !test.next.disabled});
    document.body.focus();
    test.next.click();
    while (test.view === view || (!test.view && !document.querySelector(".save"))) await wait(5);
  }
  done({seen});
})().catch((error) => done({error: String(error)}));
"""
)


@pytest.mark.slow  # about ten seconds of listening
def test_an_abx_session_is_answered_and_its_file_summarised(driver, runs, tmp_path, capsys):
    page = tmp_path / "a.html"
    command.listen([str(runs["evil"]), str(runs["hybrid"]), "kind=abx", f"out={page}", "trials=10", "seconds=3"])
    begin(driver, page, "ear7")
    found = driver.execute_async_script(ANSWER, 2)
    assert "error" not in found, found
    assert [one["title"] for one in found["seen"]][1:] == [f"Trial {i} of 20" for i in range(1, 21)]
    for one in found["seen"]:
        assert one["locked"] and one["open"]
        assert "hybrid" not in one["text"] and "onerror" not in one["text"]
        inside = one["mode"] == "abx"
        assert one["buttons"] == (["A", "B", "X"] if inside else ["A", "B", "source"])
        # In step, each version goes on where the one before was; otherwise each begins at the beginning.
        called = ["play", "switchTo", "switchTo"] if inside else ["restart", "play"] * 3
        assert one["calls"] == called
        assert one["positions"] == sorted(one["positions"]) or not inside
    path = saved(driver)
    content = json.loads(path.read_text())
    assert {trial["x"] for trial in content["trials"] if trial["mode"] == "abx"} <= {"A", "B"}
    assert {trial["a"] for trial in content["trials"]} >= {"reference"}
    capsys.readouterr()
    assert guarded(lambda: command.listen([f"results={path}", f"out={tmp_path / 'out'}"])) == 0
    with (tmp_path / "out" / "summary.csv").open() as file:
        rows = {(row["mode"], row["listener"]): row for row in csv.DictReader(file)}
    for mode, sides in (("abx", 1), ("2afc", 2)):
        row = rows[mode, "all"]
        assert (row["correct"], row["total"]) == ("8", "10")
        assert float(row["p"]) == pytest.approx(sides * 56 / 1024)
    assert "8/10" in capsys.readouterr().out


@pytest.mark.slow  # starts a browser
def test_keys_do_all_that_the_mouse_does(driver, runs, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = tmp_path / "m.html"
    command.listen([str(runs["lstm"]), f"out={page}", "trials=2", "seconds=2", "repeat=0"])
    begin(driver, page, "ear7")

    def press(*keys):
        ActionChains(driver).send_keys(*keys).perform()

    def number(i):
        return f"test.view.sliders[test.view.trial.order[{i}]]"

    count = driver.execute_script("return test.view.trial.order.length")
    press("r")
    assert driver.execute_script("return [test.desk.player.playing, test.desk.player.current]") == [True, "reference"]
    for i in range(count):
        press(str(i + 1))
        wait = f"const done = arguments[0]; (async () => {{ while ({number(i)}.disabled) await wait(5); done(); }})()"
        driver.execute_async_script(WAIT + wait)
        press(Keys.ARROW_UP, Keys.ARROW_UP)
        assert driver.execute_script(f"return {number(i)}.value") == "52", "the slider has the keyboard"
        label = driver.execute_script(f"return {number(i)}.getAttribute('aria-valuetext')")
        assert label == "52, Fair"
    press(" ")
    assert driver.execute_script("return test.desk.player.playing") is False
    unnamed = driver.execute_script("""
        const named = (e) => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim();
        return [...document.querySelectorAll("button, input")].filter((e) => !named(e) || e.tabIndex < 0)
          .map((e) => e.outerHTML)""")
    assert unnamed == []
    press(Keys.ENTER)
    done = (
        "const done = arguments[0]; (async () => { while (!test.plan.includes(test.trial)) await wait(5); done(); })()"
    )
    driver.execute_async_script(WAIT + done)
    assert "Trial 1 of 2" in driver.find_element("tag name", "main").text
    driver.execute_script("test.saved = true")
    assert console_errors(driver) == [] and network_requests(driver) == []


@pytest.mark.slow  # starts a browser
def test_orders_are_drawn_anew_and_can_be_drawn_again(driver, runs, tmp_path):
    page = tmp_path / "m.html"
    command.listen([str(runs["lstm"]), f"out={page}", "trials=6", "seconds=1", "repeat=6"])
    driver.get(page.as_uri())
    plans = driver.execute_script("""
        return [1, 2, 1].map((seed) => test.method.plan(new Chance(seed)).map((t) => [t.index, t.repeated, ...t.order]))""")
    assert plans[0] == plans[2] != plans[1]
    many = driver.execute_script("""
        return [...Array(200).keys()].map((seed) => test.method.plan(new Chance(seed)).map((t) => t.index))""")
    for plan in many:
        assert sorted(plan) == sorted([*range(6), *range(6)])
        assert all(a != b for a, b in itertools.pairwise(plan))
    assert {plan[0] for plan in many} == set(range(6))
    draws = driver.execute_script("const c = new Chance(5); return [...Array(6000)].map(() => c.below(6))")
    assert scipy.stats.chisquare(np.bincount(draws)).pvalue > 1e-3
