"""The benchmarks run in small and leave the keys that others read; their figures are nobody's business here."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
KEYS = {"job", "ours", "reference", "ratio", "unit", "threads"}


@pytest.fixture
def bench():
    """Imports a benchmark by its name."""
    return importlib.import_module


def rows(script, path, *words):
    """The JSON of a benchmark run in small."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--json", str(path), "--quick", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert all(set(row) >= KEYS for row in found), found
    for row in found:
        assert row["job"] in done.stdout, "every row is printed"
    return found, done.stdout


@pytest.mark.slow
def test_training_stands_beside_stock_torch_and_the_peak(tmp_path):
    (row,), _ = rows("train_speed", tmp_path / "a.json", "--jobs", "lstm-32", "--threads", "1")
    assert row["job"] == "lstm-32" and row["unit"] == "s audio / s" and row["threads"] == 1
    assert len(row["seconds"]["ours"]) == len(row["seconds"]["reference_tuned"]) == 2
    assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert row["fraction"] == pytest.approx(row["gflops"] / row["peak_gflops"])


@pytest.mark.slow
def test_rendering_counts_blocks_and_names_other_engines(tmp_path):
    (row,), printed = rows("render_speed", tmp_path / "a.json", "--jobs", "lstm-64")
    assert row["block_cost"] > 0 and row["reference_blocks"] > 0
    assert "measured elsewhere" in printed and "RTNeural" in row["elsewhere"]


@pytest.mark.slow
def test_scaling_fits_an_exponent_and_reports_memory(tmp_path):
    found, _ = rows("scaling", tmp_path / "a.json", "--jobs", "threads,render", "--threads", "1")
    assert [row["job"] for row in found] == [
        "LSTM-32, threads 1", "render, 0.05 min", "render, 0.1 min", "render, exponent over length"
    ]  # fmt: skip
    assert found[1]["peak_mb"] > 50 and "memory_growth_mb" in found[-1]


def test_accuracy_of_a_fused_update(tmp_path):
    (row,), _ = rows("accuracy", tmp_path / "a.json", "--jobs", "lstm-32", "--threads", "1")
    assert row["ours"] < 1e-5 and row["output"] < 1e-5 and row["bit_equal"] == "yes"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence(tmp_path):
    found, printed = rows("gpu", tmp_path / "a.json")
    assert found == [] and "no GPU" in printed


@pytest.mark.slow
def test_the_logic_of_the_gpu_script_on_a_processor(tmp_path):
    (row,), _ = rows("gpu", tmp_path / "b.json", "--device", "cpu", "--jobs", "lstm-32")
    assert row["batch"] in (2, 4) and row["ours"] >= row["reference"]


def test_without_peers_one_sentence(tmp_path):
    found, printed = rows("peers", tmp_path / "a.json", "--venv", str(tmp_path / "nowhere"))
    assert found == [] and "--install" in printed


@pytest.mark.slow
def test_epochs_of_a_training_wait_for_their_turn(tmp_path, bench):
    pairs, peers = bench("pairs"), bench("peers")
    job = {"batch": 2, "segment": 2048, "hop": 1024, "ours": ["model=lstm"]}
    peers.recordings(tmp_path, job, batches=3)
    with pairs.Child(peers.our_side(job, tmp_path, 3, 1), log=tmp_path / "log") as child:
        first, second = child.ask("epoch"), child.ask("epoch")
    assert first["batches"] == second["batches"] >= 3 and second["seconds"] > 0


def test_sides_take_turns_and_ratios_are_of_a_round(bench, capsys):
    pairs = bench("pairs")
    order = []
    seconds = iter([1.0, 4.0, 6.0, 2.0])

    def side(name):
        return lambda: (order.append(name), next(seconds))[1]

    taken = pairs.in_turn({"a": side("a"), "b": side("b")}, 2)
    assert order == ["a", "b", "b", "a"] and taken == {"a": [1.0, 2.0], "b": [4.0, 6.0]}
    row = pairs.row("job", taken["a"], taken["b"], "x", 1, amount=3.0, more=7)
    assert row["ratio"] == 3.5 and row["ratio_min"] == 3.0 and row["ratio_max"] == 4.0
    assert row["ours"] == 2.0 and row["reference"] == pytest.approx(0.6) and row["more"] == 7
    assert "2/2" in capsys.readouterr().err


def test_a_child_that_fails_says_why(bench, tmp_path):
    pairs = bench("pairs")
    script = tmp_path / "child.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import pairs\n"
        "def double(x): print('noise'); return 2 * x\n"
        "def fail(): raise ValueError('too late')\n"
        "pairs.serve({'double': double, 'fail': fail, 'leave': lambda: sys.exit(3)})\n"
    )
    with pairs.Child([sys.executable, str(script)], log=tmp_path / "log") as child:
        assert child.ask("double", x=4) == 8
        with pytest.raises(RuntimeError, match="ValueError: too late"):
            child.ask("fail")
        with pytest.raises(RuntimeError, match="ended with status 3"):
            child.ask("leave")


def test_the_page_holds_every_question_and_what_was_measured(bench, tmp_path):
    writer = bench("write_performance")
    row = {"job": "lstm-32", "ours": 80.0, "reference": 10.0, "ratio": 8.0, "unit": "s audio / s", "threads": 2}
    (tmp_path / "train_speed.json").write_text(json.dumps([row]))
    page = writer.page(tmp_path)
    for question in writer.QUESTIONS:
        assert f"## {question.heading}" in page
        assert (FOLDER / f"{question.script}.py").exists(), question.script
    assert "| lstm-32 | 2 | 80 | 10 | 8 |" in page and "Not measured on this machine." in page
    assert "processor: " in page and "torch " in page


@pytest.mark.parametrize("name", ["pairs", "scaling", "write_performance"])
def test_examples_in_the_docstrings(bench, name):
    outcome = doctest.testmod(bench(name))
    assert outcome.attempted and not outcome.failed
