"""``revox report``: runs as tables, and one page that plays them; driven in headless Chromium where there is one."""

import base64
import hashlib
import itertools
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from browser import chromium, console_errors, network_requests

from revox_lightning import audio
from revox_lightning.callbacks.checkpoints import save_atomically
from revox_lightning.commands import report as command
from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.report import excerpts, leaderboard, page, page_table

torch.set_num_threads(1)
RATE_HZ = 16_000
REPORT = Path(page.__file__).parent
HOSTILE = """<script>window.hacked=1</script><img src=x onerror=window.hacked=2>"'&"""


def sound(seconds=3.0, seed=0, channels=1, level=0.2):
    """Noise whose every stretch differs from every other."""
    noise = torch.randn(channels, round(seconds * RATE_HZ), generator=torch.Generator().manual_seed(seed))
    return (level * noise).clamp(-0.95, 0.95)


def make_run(
    folder,
    name="lstm",
    seed=0,
    esr=0.01,
    takes=("01_take",),
    data=None,
    dry=None,
    error=0.02,
    rate_hz=RATE_HZ,
    **config,
):
    """A finished run's folder: each target is its dry signal softly clipped, each estimate that plus noise."""
    folder.mkdir(parents=True)
    written = {
        "name": name, "task": "effect", "seed": seed, "run_dir": str(folder), "model": {"hidden": 8},
        "data": data or {"_target_": "x.PairData", "source": {"_target_": "x.Recordings", "root": "/songs"}},
    } | config  # fmt: skip
    (folder / "config.yaml").write_text(yaml.dump(written))
    figures = {
        "test/esr": esr, "test/esr_gain_aligned": esr * 0.9, "test/mrstft": 1.5, "test/lufs_error_db": -0.25,
        "test/esr_dry": 0.2, "test/esr_linear": 0.1, "test/esr_linear_causal": 0.11, "test/esr_floor": 1e-4,
        "parameters": 1000 + seed, "multiply_adds_per_sample": round(10 / esr), "real_time_factor": 12.5,
        "train_seconds": 60.0, "name": name,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(figures))
    rows = "".join(f"{i},{i * 10},{i * 60},{0.1 / (i + 1)}\n" for i in range(5))
    (folder / "metrics.csv").write_text(f"epoch,train_seconds,audio_seconds_trained,val/esr\n{rows}")
    for i, take in enumerate(takes):
        x = sound(seed=100 + i) if dry is None else dry[i] if isinstance(dry, list) else dry
        y = torch.tanh(3 * x) / 2
        y_hat = y + error * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        for kind, signal in (("dry", x), ("target", y), ("estimate", y_hat), ("estimate_level_matched", y_hat)):
            (folder / "audio").mkdir(exist_ok=True)
            audio.write(folder / "audio" / f"{take}_{kind}.wav", signal, rate_hz)
    return folder


# ---- tables


def test_seeds_of_one_model_are_one_row_with_mean_and_spread(tmp_path):
    for seed, esr in enumerate((0.01, 0.03, 0.02)):
        make_run(tmp_path / f"lstm_{seed}", f"lstm_{seed}", seed, esr, takes=())
    make_run(tmp_path / "tcn", "tcn", 0, 0.05, takes=(), model={"blocks": 4})
    (board,), problems = leaderboard.read([tmp_path])
    lstm, tcn = board.rows
    assert problems == [] and board.title == "recordings: songs"
    assert (lstm.label, tcn.label) == ("lstm", "tcn")
    assert lstm.esr == pytest.approx(0.02) and lstm.spread("test/esr") == pytest.approx(0.01)
    assert lstm.runs[0].seed == 2, "the middle one is heard"
    assert tcn.spread("test/esr") is None
    assert tcn.mean("esr_gain_db") == pytest.approx(10 * np.log10(0.1 / 0.05))
    assert board.references["best linear filter"] == 0.1


def test_only_runs_on_the_same_data_share_a_table(tmp_path):
    source = {"_target_": "x.VirtualRevox", "machine": {"speed_ips": 7.5}}
    make_run(tmp_path / "a", data={"source": source, "train_seconds": 10, "cache_dir": "/a"}, takes=())
    make_run(tmp_path / "b", "gru", data={"source": source, "train_seconds": 10, "cache_dir": "/b"}, takes=(), model={})
    make_run(tmp_path / "c", data={"source": source, "train_seconds": 60}, takes=())
    other = make_run(tmp_path / "d", data={"source": source, "train_seconds": 60}, takes=())
    figures = json.loads((other / "metrics.json").read_text()) | {"test/esr_dry": 0.25}  # its files were changed
    (other / "metrics.json").write_text(json.dumps(figures))
    boards, _ = leaderboard.read([tmp_path])
    assert [len(board.rows) for board in boards] == [2, 1, 1]
    assert boards[0].title == "virtual revox (train_seconds=10)"
    assert len({board.title for board in boards}) == 3


def test_models_of_one_name_are_told_apart_by_what_differs(tmp_path):
    for hidden in (8, 16):
        make_run(tmp_path / str(hidden), esr=1 / hidden, takes=(), model={"hidden": hidden, "unit": "lstm"})
    (board,), _ = leaderboard.read([tmp_path])
    assert [row.label for row in board.rows] == ["lstm (model.hidden=16)", "lstm (model.hidden=8)"]


def test_a_repeated_seed_counts_once(tmp_path):
    make_run(tmp_path / "old", esr=0.5, takes=())
    time.sleep(0.02)
    make_run(tmp_path / "new", esr=0.1, takes=())
    (board,), problems = leaderboard.read([tmp_path])
    assert len(board.rows[0].runs) == 1 and board.rows[0].esr == 0.1
    assert "old was repeated as" in problems[0]


def test_ranks_do_not_separate_what_the_test_cannot(tmp_path):
    chance = np.random.default_rng(0)
    energy = np.ones(40)
    for name, error in (("one", 0.1), ("two", 0.1), ("bad", 0.5)):
        run = make_run(tmp_path / name, name, esr=error, takes=(), model={"name_of_net": name})
        errors = error * chance.uniform(0.5, 1.5, 40)
        rows = "".join(f"0,{e},{w}\n" for e, w in zip(errors, energy, strict=True))
        (run / "stretches.csv").write_text(f"file,error,energy\n{rows}")
    (board,), _ = leaderboard.read([tmp_path])
    assert {row.label: row.rank for row in board.rows} == {"one": 1, "two": 1, "bad": 3}
    assert " to &minus;" in page_table.table(board)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metrics.json", None, "epochs so far: 5"),
        ("metrics.json", "{", "damaged"),
        ("metrics.json", "[1]", "damaged"),
        ("metrics.json", '{"test/esr": "low"}', "no error on a test"),
        ("metrics.json", '{"test/esr": NaN}', "no error on a test"),
        ("metrics.json", '{"test/esr": 1' + "0" * 400 + "}", "no error on a test"),
        ("config.yaml", "[", "damaged"),
        ("config.yaml", "model: 1", "damaged"),
        ("config.yaml", "model: &a {x: *a}\ndata: {}", "damaged"),
    ],
)
def test_damaged_and_unfinished_runs_are_named_and_passed_over(tmp_path, file, text, said):
    make_run(tmp_path / "good", takes=())
    bad = make_run(tmp_path / "bad", takes=())
    (bad / file).unlink() if text is None else (bad / file).write_text(text)
    (board,), (problem,) = leaderboard.read([tmp_path])
    assert len(board.rows) == 1 and said in problem and "bad" in problem
    with pytest.raises(UserError, match="no finished run"):
        leaderboard.read([bad])


def test_a_damaged_history_only_costs_the_curve(tmp_path):
    run = make_run(tmp_path / "run", takes=())
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00epoch")
    (board,), _ = leaderboard.read([tmp_path])
    assert board.rows[0].runs[0].epochs == []


def test_evaluations_and_loggers_files_are_no_runs(tmp_path):
    run = make_run(tmp_path / "run", takes=())
    for inner in ("evaluations/1", "wandb/offline/files"):
        make_run(run / inner, "other", takes=(), model={"other": inner})
    (board,), _ = leaderboard.read([tmp_path, run])
    assert [row.label for row in board.rows] == ["lstm"]


# ---- excerpts


def test_an_excerpt_is_the_loudest_stretch_of_every_version_at_one_loudness(tmp_path):
    x = sound(4.0, level=0.01)
    x[:, 2 * RATE_HZ : 3 * RATE_HZ] = sound(1.0, seed=5, level=0.2)
    run = make_run(tmp_path / "run", dry=x)
    fir = FIR(8, 2)
    fir.load(torch.tensor([0.0, 0, 0.4, 0.1, 0, 0, 0, 0]))
    save_atomically({"linear": {"h": fir.h, "lookahead": 2}}, run / "checkpoints" / "linear_filters.ckpt")
    (board,), _ = leaderboard.read([tmp_path])
    (excerpt,) = excerpts.excerpts(board, 6, 1.0, [])
    assert excerpt.start == 2 * RATE_HZ and excerpt.name == "01_take"
    assert [v.kind for v in excerpt.versions] == ["dry", "target", "linear", "model"]
    dry, target, linear, model = excerpt.versions
    whole = audio.read(run / "audio" / "01_take_dry.wav")
    torch.testing.assert_close(dry.signal, whole[:, excerpt.start : excerpt.start + RATE_HZ])
    expected = torch.nn.functional.conv1d(torch.nn.functional.pad(whole, (5, 2))[None], fir.h.flip(-1)[None])[0]
    torch.testing.assert_close(linear.signal, expected[:, excerpt.start : excerpt.start + RATE_HZ], atol=1e-6, rtol=0)
    assert target.gain_db == 0
    levels = [excerpts._level(v.signal * 10 ** (v.gain_db / 20), RATE_HZ) for v in excerpt.versions]
    assert levels == pytest.approx([levels[1]] * 4, abs=0.01)
    assert abs(dry.gain_db) > 1 and model.row == 0


def test_a_run_that_was_tested_on_other_audio_is_left_out_of_the_excerpt(tmp_path):
    make_run(tmp_path / "a", "a", esr=0.01)
    make_run(tmp_path / "b", "b", esr=0.02, model={"b": 1}, dry=sound(seed=9))
    make_run(tmp_path / "c", "c", esr=0.03, model={"c": 1})
    broken = make_run(tmp_path / "d", "d", esr=0.04, model={"d": 1})
    (broken / "audio" / "01_take_estimate.wav").write_bytes(b"RIFF")
    (board,), problems = leaderboard.read([tmp_path])
    (excerpt,) = excerpts.excerpts(board, 6, 1.0, problems)
    assert [v.label for v in excerpt.versions] == ["dry", "target", "a", "c"]
    assert len(problems) == 2 and "its dry signal is not that of the other runs" in problems[0]


def test_what_runs_share_is_kept_once_and_read_back_bit_by_bit(tmp_path):
    store, x = excerpts.SoundStore(), sound(0.5, channels=2)
    assert store.add(x, RATE_HZ) == store.add(x.clone(), RATE_HZ) == 0
    assert store.add(x / 2, RATE_HZ) == 1
    (tmp_path / "x.flac").write_bytes(base64.b64decode(store.sounds[0]))
    read = audio.read(tmp_path / "x.flac")
    assert read.shape == x.shape and float((read - x).abs().max()) < 3 / 2**16
    assert audio.info(tmp_path / "x.flac").format == "FLAC"


def test_the_spectrum_of_a_sine_lies_in_its_band_and_that_of_silence_at_the_floor():
    hz = excerpts.bands_hz(RATE_HZ)
    x = 0.5 * torch.sin(2 * np.pi * hz[30] * torch.arange(4 * RATE_HZ) / RATE_HZ)[None]
    found = excerpts.spectrum_db(x, RATE_HZ)
    assert found.argmax() == 30 and found[30] == pytest.approx(10 * np.log10(0.125), abs=0.1)
    assert (excerpts.spectrum_db(0 * x, RATE_HZ) == -140).all()


def test_the_input_output_curve_of_a_memoryless_clipper_is_the_clipper():
    x = sound(4.0)
    levels, (own, other) = excerpts.transfer(x, [x, torch.tanh(3 * x)])
    assert np.allclose(own, levels) and np.allclose(other, np.tanh(3 * levels), atol=3e-3)
    assert len(excerpts.transfer(0 * x, [x])[0]) == 1, "silence has one value"


# ---- the page as text


def written(folder, out, *options):
    """The page of all runs in a folder, by the command."""
    command.report([str(folder), f"out={out}", *options])
    return out.read_text()


def test_names_are_never_markup(tmp_path):
    make_run(tmp_path / "runs" / "a<b>&'", HOSTILE, takes=("01_take",), data={"source": {"root": f"/{HOSTILE}"}})
    text = written(tmp_path / "runs", tmp_path / "r.html")
    assert "<script>window" not in text and "<img" not in text and "<b>&'" not in text
    assert text.count("<script") == text.count("</script>")
    data = json.loads(re.findall(r'id="report-data">(.*?)</script>', text)[0])
    assert data["boards"][0]["rows"][0]["label"] == HOSTILE


def test_a_run_says_what_computed_it(tmp_path):
    make_run(tmp_path / "runs" / "a")
    told = {"kernels": "fused (<c++>)", "computed/device": "cpu", "computed/threads": 2, "computed/torch": "2.13.0"}
    path = tmp_path / "runs" / "a" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    make_run(tmp_path / "runs" / "older", name="b", model={"hidden": 9})
    text = written(tmp_path / "runs", tmp_path / "r.html")
    assert "computed by fused (&lt;c++&gt;), 2 threads, cpu, 2.13.0</li>" in text and text.count("computed by") == 1


def test_only_the_pages_own_scripts_may_run(tmp_path):
    make_run(tmp_path / "run")
    text = written(tmp_path / "run", tmp_path / "r.html")
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 3 and "default-src 'none'" in policy and "unsafe" not in policy
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)


def test_excerpts_are_shortened_until_the_page_is_small_enough(tmp_path, monkeypatch, caplog):
    make_run(tmp_path / "run", takes=("01_take", "02_take", "music"))
    whole = written(tmp_path / "run", tmp_path / "r.html")
    monkeypatch.setattr(page, "LIMIT_CHARACTERS", 200_000)
    text = written(tmp_path / "run", tmp_path / "r.html")
    assert len(whole) > 500_000 and len(text) < 300_000 and "are shortened to" in text
    assert written(tmp_path / "run", tmp_path / "r.html", "excerpts=1").count('id="sound-') == 3


def test_runs_without_audio_make_a_page_without_sound(tmp_path):
    make_run(tmp_path / "run", takes=())
    text = written(tmp_path / "run", tmp_path / "r.html")
    assert 'id="listen"' not in text and "lstm" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs folders"),
        (["nowhere"], "does not exist"),
        (["."], "no finished run"),
        ([".", "excerpts=-1"], "whole number"),
        ([".", "seconds=nan"], "0.5 to 600"),
        ([".", "colour=red"], "no option colour"),
        ([".", "out=."], "is a folder"),
    ],
)
def test_what_cannot_be_reported_is_said_in_a_sentence(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: command.report(words)) == 2
    assert said in capsys.readouterr().err


def test_text_can_be_read_in_both_schemes():
    """Contrast as WCAG 2.2 defines it: 4.5 for text, 3 for lines and swatches."""
    css = (REPORT / "page.css").read_text()
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
            for text in ("ink", "soft", "accent"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
            for line in [f"series-{i}" for i in range(10)] + ["dry", "target", "linear"]:
                assert contrast(scheme[line], scheme[ground]) >= 3, (line, ground)
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5


# ---- the page in a browser


@pytest.fixture(scope="module")
def driver():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two models, one of three seeds, and one with a hostile name; two excerpts."""
    folder, takes, x = tmp_path_factory.mktemp("page"), ("01_take", "music"), sound(5.0)
    for seed in range(3):
        make_run(folder / "runs" / f"lstm_{seed}", f"lstm_{seed}", seed, 0.01 + 0.001 * seed, takes, dry=x)
    make_run(folder / "runs" / "tcn", "tcn", 7, 0.1, takes, dry=x, model={"tcn": 1}, error=0.1)
    make_run(folder / "runs" / "evil", HOSTILE, 8, 0.05, takes, dry=x, model={"evil": 1}, error=0.05)
    command.report([str(folder / "runs"), f"out={folder / 'report.html'}", "seconds=5"])
    return folder


@pytest.fixture
def opened(driver, runs):
    """The page, freshly opened, with its list of complaints and requests empty."""
    console_errors(driver)
    network_requests(driver)
    driver.get((runs / "report.html").as_uri())
    yield driver
    assert console_errors(driver) == []
    assert network_requests(driver) == []
    assert driver.execute_script("return window.hacked") is None


def column(driver, number):
    script = "return [...document.querySelectorAll('tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    return driver.execute_script(script, number)


def test_the_table_sorts_by_any_column_with_unknown_figures_last(opened):
    def click(number):
        opened.execute_script("document.querySelectorAll('thead button')[arguments[0]].click()", number)
        heading = opened.find_elements("css selector", "thead th")[number]
        return heading.get_attribute("aria-sort")

    assert column(opened, 0)[0] == "the machine's own hiss" and column(opened, 0)[1] == "lstm"
    assert click(1) == "descending" and column(opened, 0)[0] == "dry signal"
    assert click(7) == "ascending"  # parameters
    assert column(opened, 7) == ["1,001 ± 1", "1,007", "1,008", *["\u2013"] * 4]
    assert click(7) == "descending" and column(opened, 7)[:3] == ["1,008", "1,007", "1,001 ± 1"]
    assert len(opened.find_elements("css selector", "th[aria-sort]")) == 1
    assert click(0) == "ascending" and column(opened, 0)[0] == HOSTILE


def test_everything_can_be_named_and_reached_by_keyboard(opened):
    missing = opened.execute_script("""
        const named = (e) => e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim();
        return [...document.querySelectorAll("button, select, input, svg, canvas, [role=region]")]
          .filter((e) => !named(e) || e.tabIndex < (e.matches("svg, canvas") ? -1 : 0)).map((e) => e.outerHTML)""")
    assert missing == []
    assert opened.execute_script("return document.querySelectorAll('figure svg path.series').length") > 10


RECORD = """
const [names, done] = arguments;
(async () => {
  const wait = (ms) => new Promise((ready) => setTimeout(ready, ms));
  document.getElementById("listen").scrollIntoView({behavior: "instant"});
  while (!listening.visible) await wait(20);
  await listening.prepare();
  const player = listening.player, context = player.context;
  const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process([input]) { if (input[0]) this.port.postMessage(input[0]); return true; } });`;
  await context.audioWorklet.addModule("data:text/javascript," + encodeURIComponent(code));
  const tap = new AudioWorkletNode(context, "tap", {channelCount: 1, channelCountMode: "explicit"}), heard = [];
  tap.port.onmessage = (e) => heard.push(...e.data);
  player.output.connect(tap);
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  press(" ");
  for (const name of names) { await wait(200); press(name); }
  await wait(200);
  const playing = player.playing, at = player.position();
  press(" ");
  await wait(200);
  done({heard, playing, at, stopped: !player.playing, status: document.querySelector(".status").textContent,
        gains: listening.excerpt.versions.map((v) => listening.gain(v)), rate: context.sampleRate,
        pressed: listening.buttons.map((b) => b.getAttribute("aria-pressed"))});
})().catch((error) => done({error: String(error)}));
"""


def test_switching_by_keys_stays_in_step_to_the_sample(opened, runs):
    """What WebAudio puts out, recorded while 1, 2, 3 are pressed, is the files' own samples, all with one delay."""
    opened.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})  # the page lets no recorder in
    opened.refresh()
    found = opened.execute_async_script(RECORD, ["2", "3", "1"])
    assert "error" not in found, found
    assert found["playing"] and found["stopped"] and found["rate"] == RATE_HZ and 0.6 < found["at"] < 4.5
    assert found["pressed"] == ["true"] + ["false"] * 4 and found["status"] == "Standing at dry"
    heard = np.array(found["heard"])
    (board,), _ = leaderboard.read([runs / "runs"])
    versions = excerpts.excerpts(board, 1, 5.0, [])[0].versions
    assert [v.label for v in versions] == ["dry", "target", "lstm", HOSTILE, "tcn"]
    signals = [v.signal[0].numpy() * gain for v, gain in zip(versions, found["gains"], strict=True)]
    opened.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    begun, ended = np.flatnonzero(np.abs(heard) > 1e-5)[[0, -1]]
    # Where the dry signal, which is heard first, fits best tells the recorder's delay.
    part = heard[begun + 512 : begun + 1024]
    energies = np.concatenate(([0.0], np.cumsum(signals[0] ** 2)))
    misfit = energies[512:] - energies[:-512] - 2 * np.correlate(signals[0], part, "valid")
    delay = int(np.argmin(misfit)) - (begun + 512)
    order, lost = [], 0
    for start in range(begun + 512, ended - 512, 256):
        errors = [np.abs(heard[start : start + 256] - x[start + delay : start + delay + 256]).max() for x in signals]
        if min(errors) < 1e-4:
            order.append(int(np.argmin(errors)))
        else:
            lost += 1
    assert [order[0]] + [b for a, b in itertools.pairwise(order) if b != a] == [0, 1, 2, 0]
    assert lost <= 2 * 3, "a crossfade touches two windows at most; all else is a version's own samples at that delay"


def test_keys_loop_seek_restart_and_choose(opened):
    found = opened.execute_async_script("""
    const done = arguments[0];
    (async () => {
      const wait = (ms) => new Promise((ready) => setTimeout(ready, ms));
      const press = (key, more = {}) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, ...more}));
      document.getElementById("listen").scrollIntoView({behavior: "instant"});
      while (!listening.visible) await wait(20);
      await listening.prepare();
      const player = listening.player, out = {};
      press("ArrowRight"); await wait(20); out.right = player.position();
      press("ArrowLeft", {shiftKey: true}); await wait(20); out.left = player.position();
      press("ArrowUp"); await wait(20); out.last = listening.version;
      press("ArrowDown"); await wait(20); out.first = listening.version;
      listening.loopStart.value = 0.5; listening.loopEnd.value = 0.8;
      press("l"); await wait(20); out.region = player.region;
      press("r"); await wait(500); out.looped = player.position(); out.playing = player.playing;
      press("l"); await wait(20); out.free = player.region;
      press("1", {ctrlKey: true});
      listening.menu.value = 1; listening.menu.dispatchEvent(new Event("change")); await wait(300);
      out.after = [player.playing, listening.excerpt.name, player.names.length];
      out.painted = listening.heard.canvas.getContext("2d").getImageData(200, 120, 1, 1).data[3];
      done(out);
    })().catch((error) => done({error: String(error)}));
    """)
    assert "error" not in found, found
    assert found["right"] == 1 and found["left"] == pytest.approx(0.9)
    assert found["last"] == 4 and found["first"] == 0
    assert found["region"] == [0.5, 0.8] and 0.5 <= found["looped"] < 0.8 and found["playing"]
    assert found["free"] is None and found["after"] == [False, "music", 5] and found["painted"] == 255


# ---- the player alone, rendered offline: every sample is known


OFFLINE = """
const [sounds, steps, seconds, done] = arguments;
(async () => {
  const context = new OfflineAudioContext(1, Math.round(seconds * 16000), 16000);
  const player = new Player(context), told = {};
  await player.load(sounds, {half: 0.5});
  for (const [at, code] of steps) {
    const act = () => { const value = eval(code); if (typeof value === "number") told[at] = value; };
    if (at === 0) act(); else context.suspend(at).then(() => { act(); context.resume(); });
  }
  const heard = await context.startRendering();
  done({heard: Array.from(heard.getChannelData(0)), told, playing: player.playing, at: player.position()});
})().catch((error) => done({error: String(error.message)}));
"""
START = 480  # samples by which the player plans ahead: 30 ms
SWITCH = START + 80  # and the crossfade
DRY, WET = (sound(2.0, seed=seed)[0].numpy() for seed in (20, 21))


@pytest.fixture
def play(driver, tmp_path):
    """Renders steps [(seconds, script)] with the sounds dry and wet (24-bit WAV, FLAC) and half (wet at half gain)."""
    (tmp_path / "p.html").write_text(
        f"<!doctype html><title>p</title><script>{(REPORT / 'player.js').read_text()}</script>"
    )
    driver.get((tmp_path / "p.html").as_uri())
    sounds = {}
    for name, x, kind in (("dry", DRY, "wav"), ("wet", WET, "flac"), ("half", WET, "flac")):
        audio.write(tmp_path / f"{name}.{kind}", torch.from_numpy(x)[None], RATE_HZ)
        data = base64.b64encode((tmp_path / f"{name}.{kind}").read_bytes()).decode()
        sounds[name] = f"data:audio/{kind};base64,{data}"

    def render(steps, seconds=1.0, **others):
        # A rendering stops at whole blocks of 128 samples.
        blocks = [(round(at * RATE_HZ / 128) * 128 / RATE_HZ, code) for at, code in steps]
        found = driver.execute_async_script(OFFLINE, sounds | others, blocks, seconds)
        return found if "error" in found else found | {"heard": np.array(found["heard"])}

    return render


def same(heard, start, stop, signal, at):
    """Whether heard[start:stop] is signal from sample ``at`` on."""
    return np.abs(heard[start:stop] - signal[at : at + stop - start]).max() < 1e-6


def test_versions_run_in_step_and_at_their_gain(play):
    heard = play([(0, "player.play('dry', 0.25)"), (0.4, "player.switchTo('half')"), (0.6, "player.switchTo('dry')")])[
        "heard"
    ]
    assert not heard[:START].any()
    assert same(heard, START + 80, 6400, DRY, 4000 + 80)
    assert same(heard, 6400 + SWITCH, 9600, 0.5 * WET, 6400 + SWITCH - START + 4000)
    assert same(heard, 9600 + SWITCH, 16000, DRY, 9600 + SWITCH - START + 4000)
    assert np.abs(heard).max() < 1


def test_a_crossfade_of_one_sound_with_itself_is_not_heard(play):
    heard = play([(0, "player.setGain('half', 1); player.play('wet', 0)"), (0.4, "player.switchTo('half')")])["heard"]
    assert same(heard, START + 80, 16000, WET, 80)


def test_a_loop_repeats_its_samples_exactly(play):
    found = play([(0, "player.loop(0.5, 0.7); player.play('wet', 0)"), (0.8, "player.position()")])
    heard = found["heard"]
    assert same(heard, START + 80, START + 3200, WET, 8000 + 80)
    for lap in range(1, 4):
        begin = START + 3200 * lap
        assert same(heard, begin, begin + 3200, WET, 8000)
    assert found["told"]["0.8"] == pytest.approx(0.5 + (0.8 - 0.03) % 0.2)


def test_restart_pause_seek_and_the_end(play):
    heard = play([(0, "player.play('dry', 0.5)"), (0.4, "player.restart('wet')"), (0.8, "player.pause()")])["heard"]
    assert same(heard, 6400 + START + 80, 12800, WET, 80)
    assert not heard[12800 + SWITCH :].any()
    found = play([(0, "player.play('dry', 0.5)"), (0.4, "player.pause(); player.position()"), (0.48, "player.play()")])
    assert found["told"]["0.4"] == pytest.approx(0.5 + 0.4 - 0.03)
    assert same(found["heard"], 7680 + START + 80, 16000, DRY, round(0.87 * RATE_HZ) + 80)
    found = play([(0, "player.seek(1.9); player.play('dry')"), (0.8, "player.position()")])
    assert not found["playing"] and found["told"]["0.8"] == 0


def test_a_busy_machine_gets_more_time_to_start_all_versions_at_once(driver, play, tmp_path):
    """The clock is made to run 40 ms between looks at it: 30 ms and 60 ms ahead are too short, 120 ms will do."""
    play([])
    uri = "data:audio/wav;base64," + base64.b64encode((tmp_path / "dry.wav").read_bytes()).decode()
    script = """
        const [uri, done, player] = [...arguments, new Player(new AudioContext({sampleRate: 16000}))];
        player.load({one: uri, other: uri}).then(() => {
          let looks = 0;
          performance.now = () => 40 * looks++;
          player.play("one", 0);
          done(player._take.began - player.context.currentTime);
        }).catch((error) => done(String(error)))"""
    assert 0.09 < driver.execute_async_script(script, uri) < 0.121


def test_a_shorter_file_of_another_rate_ends_in_silence(play, tmp_path):
    audio.write(tmp_path / "s.wav", sound(0.25, seed=3), 8000, "FLOAT")  # half a second at 8 kHz
    uri = "data:audio/wav;base64," + base64.b64encode((tmp_path / "s.wav").read_bytes()).decode()
    heard = play([(0, "player.play('short', 0)"), (0.8, "player.duration")], short=uri)
    assert heard["told"]["0.8"] == pytest.approx(2.0)
    assert np.abs(heard["heard"][START : START + 8000]).max() > 0.1 and not heard["heard"][START + 8010 :].any()


@pytest.mark.parametrize("source", ["data:audio/wav;base64,AAAA", "data:audio/flac;base64,ZkxhQwAAAA==", "data:,%%"])
def test_what_cannot_be_decoded_is_named(play, source):
    assert play([], bad=source)["error"].startswith("bad cannot be played")
    assert "load it first" in play([(0, "player.play('gone')")])["error"]


@pytest.mark.slow
def test_twenty_runs_with_six_excerpts_stay_small_and_open_at_once(driver, tmp_path):
    takes = [f"0{i}_take" for i in range(1, 7)]
    rate_hz = 44_100
    # Ten seconds of noise: nothing packs worse.
    drys = [sound(10 * rate_hz / RATE_HZ, seed=i, level=0.1) for i in range(6)]
    for i in range(20):
        make_run(
            tmp_path / "runs" / str(i), f"net {i}", i, 0.01 + i / 1000, takes, dry=drys, rate_hz=rate_hz, model={"n": i}
        )
    command.report([str(tmp_path / "runs"), f"out={tmp_path / 'r.html'}"])
    assert (tmp_path / "r.html").stat().st_size < 60e6
    begun = time.monotonic()
    driver.get((tmp_path / "r.html").as_uri())
    driver.execute_script("return document.querySelectorAll('tbody tr').length")
    took = time.monotonic() - begun
    print(f"{(tmp_path / 'r.html').stat().st_size / 1e6:.1f} MB opened in {took:.2f} s")
    assert took < 3
