"""Tables of papers: their yamls, what is trained and what is kept, intervals and ranks, and what is written."""

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from revox_lightning import audio, identity
from revox_lightning.commands import assemble, paper, rows, settings, texture_row
from revox_lightning.commands.exits import guarded
from revox_lightning.commands.paper import Paper
from revox_lightning.errors import UserError
from revox_lightning.report import intervals, paper_table
from revox_lightning.report.intervals import Stretches

torch.set_num_threads(1)
PAPERS = sorted(path.stem for path in paper.PLACE.glob("*.yaml"))


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_of_every_table_composes_and_has_its_published_size(name):
    told = Paper.read(name)
    tried = set()
    for number, row in enumerate(told.rows):
        for which in row.get("sets", told.sets):
            if number and which in tried and which != next(iter(row.get("sets", told.sets))):
                continue  # every set once, every row once
            tried.add(which)
            data = [text.format(folder="/somewhere") for text in told.sets[which]["words"]]
            places = {part: f"/runs/{part}" for part in row.get("after", [])}
            words = [*told.words, *data, *paper.row_words(row, places), "seed=0"]
            if told.command == "texture_row":
                assert texture_row.described(words)[0]["iterations"] > 0
                continue
            cfg = settings.composed(words)
            assert cfg.task == ("style" if name == "steinmetz2022" else "effect")
            if row.get("parameters"):
                cfg.model.controls, cfg.audio_channels = 0, 1
                net = assemble.build_net(cfg)
                assert sum(p.numel() for p in net.parameters()) == row["parameters"], row["label"]
    for words in told.first.values():
        assert settings.composed([*words, *next(iter(told.sets.values()))["words"]]).task == "proxy"
    published = {name for row in told.rows for name in row.get("published", {})}
    assert published <= set(told.sets)
    nulls = any(v is None for row in told.rows for one in row.get("published", {}).values() for v in one.values())
    assert not nulls or "null:" in told.unpublished, "a null needs its reason"


def drawn(esr, seeds=3, stretches=20, spread=0.05, seed=0):
    random = np.random.default_rng(seed)
    energy = np.tile(random.uniform(0.5, 1.5, stretches), (seeds, 1))
    error = esr * energy * np.exp(spread * random.standard_normal((seeds, stretches)))
    return Stretches(error, energy, np.arange(stretches))


def test_an_interval_holds_its_mean_and_narrows_with_the_spread():
    wide, narrow = intervals.interval(drawn(0.01, spread=0.5)), intervals.interval(drawn(0.01, spread=0.05))
    assert wide.low < wide.mean < wide.high and narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < 0.3 * (wide.high - wide.low)
    exact = intervals.interval(drawn(0.01, spread=0.0))
    assert exact.low == pytest.approx(0.01) == pytest.approx(exact.high)


def test_the_mean_of_a_bootstrap_is_that_of_the_sample():
    found = drawn(0.02, spread=0.3)
    assert intervals.bootstrap(found).mean() == pytest.approx(found.esr.mean(), rel=0.02)
    assert intervals.interval(found) == intervals.interval(found), "the same draws every time"


def test_ranks_do_not_separate_what_the_data_cannot():
    a, b, worse = drawn(0.01, seed=1), drawn(0.0101, seed=2), drawn(0.02, seed=3)
    assert not intervals.better(a, b) and not intervals.better(b, a) and intervals.better(a, worse)
    assert intervals.ranks([{"a": a, "b": b, "worse": worse}]) == {"a": 1, "b": 1, "worse": 3}
    other = {"a": drawn(0.02, seed=4), "b": drawn(0.01, seed=5), "worse": drawn(0.005, seed=6)}
    assert intervals.ranks([{"a": a, "b": b, "worse": worse}, other]) == {"a": 1, "b": 1, "worse": 1}, "on both or not"


def test_pairing_sees_a_small_difference_under_a_large_common_spread():
    random = np.random.default_rng(0)
    energy = np.ones((3, 30))
    common = np.exp(random.standard_normal(30))
    a, b = (Stretches(esr * common * energy, energy, np.arange(30)) for esr in (0.010, 0.011))
    assert intervals.better(a, b) and intervals.interval(a).high > intervals.interval(b).low


def test_stretches_of_other_tests_are_refused(tmp_path):
    for name, energy in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).write_text(f"file,error,energy\n0,0.1,{energy}\n0,0.2,1\n")
    assert intervals.read([tmp_path / "a"] * 2).esr.tolist() == pytest.approx([0.15, 0.15])
    with pytest.raises(ValueError, match="same audio"):
        intervals.read([tmp_path / "a", tmp_path / "b"])


def test_many_files_are_drawn_as_files(tmp_path):
    path = tmp_path / "many"
    path.write_text("file,error,energy\n" + "".join(f"{n // 3},0.1,1\n" for n in range(30)))
    assert set(intervals.read([path]).unit.tolist()) == set(range(10))


def test_an_identity_follows_config_audio_code_and_kernels_and_nothing_else(tmp_path, monkeypatch):
    wav = tmp_path / "a.wav"
    audio.write(wav, torch.zeros(1, 10), 8000)
    first = identity.identity({"seed": 0, "run_dir": "x", "data": {"root": str(tmp_path)}}, [wav], "torch")
    same = identity.identity({"seed": 0, "run_dir": "y", "data": {"root": f"/else/{tmp_path.name}"}}, [wav], "torch")
    assert same == first
    assert identity.identity({"seed": 1, "data": {"root": str(tmp_path)}}, [wav], "torch")["config"] != first["config"]
    audio.write(wav, torch.ones(1, 10), 8000)
    assert identity.identity({}, [wav], "fused")["audio"] != first["audio"]
    package = tmp_path / "package"
    shutil.copytree(identity._PACKAGE / "active", package)
    monkeypatch.setattr(identity, "_PACKAGE", package)
    identity.code_hash.cache_clear()
    before = identity.code_hash()
    with open(package / "knobs.py", "a") as file:
        file.write("# a line\n")
    identity.code_hash.cache_clear()
    assert identity.code_hash() != before
    monkeypatch.undo()
    identity.code_hash.cache_clear()


@pytest.fixture
def tiny(tmp_path, pair, monkeypatch):
    """A table of two rows on two seconds of noise, and one set that is not here."""
    dry, wet = pair(seconds=4)
    content = {
        "title": "Tiny & small", "reference": "Nobody", "budget": "one pass", "unpublished": "null: nobody said.",
        "words": [
            "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000", "trainer=cpu",
            "trainer.max_epochs=1", "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300",
            "system.warmup_samples=100", "linear_filter.taps=64", "linear_filter.lookahead_samples=8",
            "data.gap_seconds=0.02", "report.audio_seconds=0",
        ],
        "sets": {
            "here": {"title": "here", "words": []},
            "there": {"title": "there", "words": [], "needs": {"source": "the moon", "files": {"a.wav": None}}},
        },
        "rows": [
            {"label": "LSTM-2", "words": ["model=lstm", "size=2"], "parameters": 43,
             "published": {"here": {"ESR": 0.5}, "there": {"ESR": None}}},
            {"label": "GRU-2", "words": ["model=gru", "size=2"], "physics": True, "published": {"here": {"ESR": None}}},
        ],
        "seeds": 2,
    }  # fmt: skip
    monkeypatch.setattr(paper, "PLACE", tmp_path / "papers")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "tiny.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


@pytest.mark.slow
def test_a_table_trains_what_is_missing_and_nothing_twice(tiny, caplog):
    caplog.set_level("INFO")
    out = tiny / "out"
    words = ["paper=tiny", f"out={out}", "logger=none", "jobs=2"]
    paper.paper(words)
    assert "get a.wav from the moon" in caplog.text and "0 of 4 trainings are done" in caplog.text
    runs = sorted((out / "runs").iterdir())
    stamps = {path.name: (path / "metrics.json").stat().st_mtime_ns for path in runs}
    assert len(runs) == 4
    table = (out / "table.md").read_text()
    assert "| LSTM-2 | 43 |" in table and "| GRU-2 † |" in table and "0.5" in table and "null" in table
    body = list(csv.reader((out / "table.csv").read_text().splitlines()))
    assert body[0][:5] == ["set", "model", "parameters", "ESR", "ESR published"] and len(body) == 3
    assert r"Tiny" not in (out / "table.tex").read_text() and r"\toprule" in (out / "table.tex").read_text()
    (lstm, again) = (
        json.loads((path / "metrics.json").read_text())["test/esr"] for path in runs if "LSTM" in path.name
    )
    assert lstm != again, "another seed is another figure"

    victim = next(path for path in runs if "LSTM" in path.name)
    equal = json.loads((victim / "metrics.json").read_text())["test/esr"]
    (victim / "metrics.json").unlink()  # as if it had been killed before the end
    paper.paper(words)
    assert "3 of 4 trainings are done" in caplog.text
    assert json.loads((victim / "metrics.json").read_text())["test/esr"] == equal
    left = {path.name: (path / "metrics.json").stat().st_mtime_ns for path in runs if path != victim}
    assert left == {name: stamp for name, stamp in stamps.items() if name != victim.name}
    paper.paper(words)
    assert "4 of 4 trainings are done" in caplog.text and len(list((out / "runs").iterdir())) == 4


TEXTURES = {
    "title": "Textures", "reference": "Nobody", "budget": "two iterations", "unpublished": "null: no table.",
    "command": "texture_row", "seeds": 1, "words": ["audio_seconds=1", "bands=8", "iterations=2"],
    "columns": {"distance": "test/distance", "falls, times": "test/loss_ratio"},
    "sets": {"here": {"title": "here", "words": ["content=speech", "style=crackle"]}},
    "rows": [{"label": "from the content", "words": [], "published": {"here": {"distance": None}}},
             {"label": "from noise", "words": ["start=noise"]}],
}  # fmt: skip


@pytest.mark.slow
def test_a_table_of_textures_is_made_once(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(paper, "PLACE", tmp_path)
    (tmp_path / "textures.yaml").write_text(yaml.safe_dump(TEXTURES))
    words = ["paper=textures", f"out={tmp_path / 'out'}", "logger=none"]
    paper.paper(words)
    paper.paper(words)
    assert "0 of 2 trainings are done" in caplog.text and "2 of 2 trainings are done" in caplog.text
    body = list(csv.reader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert body[0] == ["set", "model", "distance", "distance published", "falls, times"], "nothing of trainings"
    assert [row[1] for row in body[1:]] == ["from the content", "from noise"] and body[1][3] == "null"
    runs = {path.name.split("_seed")[0]: path for path in (tmp_path / "out" / "runs").iterdir()}
    assert (runs["here_from_noise"] / "out.html").exists()
    (runs["here_from_noise"] / "metrics.json").unlink()  # as if it had been killed before the end
    paper.paper([*words, "rows=from noise"])
    assert "0 of 1 trainings are done" in caplog.text and (runs["here_from_noise"] / "metrics.json").exists()


def test_a_table_of_an_unknown_command_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "PLACE", tmp_path)
    (tmp_path / "textures.yaml").write_text(yaml.safe_dump(TEXTURES | {"command": "os"}))
    with pytest.raises(UserError, match="its command is os"):
        Paper.read("textures")


@pytest.mark.slow
def test_a_row_that_fails_leaves_the_others_and_says_why(tiny, capsys):
    with pytest.raises(UserError, match=r"1 of 2 trainings failed: .*log"):
        content = yaml.safe_load((tiny / "papers" / "tiny.yaml").read_text())
        content["rows"][1]["words"].append("trainer.max_epochs=0")
        (tiny / "papers" / "tiny.yaml").write_text(yaml.safe_dump(content))
        paper.paper(["paper=tiny", f"out={tiny / 'out'}", "logger=none", "seeds=1"])
    assert "LSTM-2" in (tiny / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    "words,says",
    [
        ([], "paper needs paper=NAME"),
        (["paper=nobody1999"], "choose one of"),
        (["paper=tiny", "rows=LSTM-3"], "rows=LSTM-3"),
        (["paper=tiny", "sets=where"], "sets=where"),
        (["paper=tiny", "seeds=0"], "seeds=0"),
        (["paper=tiny", "set.where=x"], "set.where"),
    ],
)
def test_bad_words_get_one_sentence(tiny, capsys, words, says):
    assert guarded(lambda: paper.paper(words)) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_set_that_is_not_whole_is_one_sentence(tmp_path):
    assert "get a.wav from there, and give it" in str(rows.missing("it", None, ["a.wav"], "there"))
    assert "has no a.wav" in str(rows.missing("it", str(tmp_path), ["a.wav"], "there"))
    (tmp_path / "a.wav").write_bytes(b"1")
    assert rows.missing("it", str(tmp_path), ["a.wav"], "there") is None
    with pytest.raises(UserError, match="not the published file"):
        rows.checked(tmp_path, {"a.wav": "0" * 64})


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux")
def test_a_training_does_not_outlive_who_started_it():
    assert "prctl(1, 15)" in rows.START
    code = rows.START.replace(
        "from revox_lightning.commands.train import main\nmain()",
        "import time; print('up', flush=True); time.sleep(60)",
    )
    parent = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {code!r}], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    pid = int(subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True).stdout)
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it goes on")


def test_a_cell_without_runs_shows_what_was_published():
    one = paper_table.Table("s", "s", {"ESR": "test/esr"}, [paper_table.Cell("A_1", False, 10, {"ESR": 0.25}, [], [])])
    heading, row = paper_table.lines([one])["s"]
    assert row[heading.index("ESR published")] == "0.25" and row[1] == "10 published" and row[2] == "-"
    assert r"A\_1" in paper_table._latex([one], paper_table.lines([one]))


@pytest.mark.parametrize(
    "values,said",
    [
        ([], "-"),
        ([9], "9"),
        ([19747.44], "19747"),
        ([1.32256], "1.323"),
        ([0.00198, 0.00202], "0.00200 ± 0.00003"),
        ([0.0], "0"),
    ],
)
def test_a_figure_has_four_digits_and_at_most_five_decimals(values, said):
    assert paper_table._spread(values) == said
