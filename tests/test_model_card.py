"""The card beside an export: what the run's folder says and nothing else, as text that Markdown cannot take for markup."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from test_export_command import exported, trained  # noqa: F401
from test_hostile_run import HOSTILE, hostile

from revox_lightning.commands import settings
from revox_lightning.commands.export import _preset
from revox_lightning.export import model_card
from revox_lightning.report import table

torch.set_num_threads(1)
LSTM = ("model=nam_lstm", "size=nano")


def card_of(path: Path) -> str:
    return path.with_name(f"{path.name}.md").read_text()


def test_its_figures_are_the_runs_own(trained, tmp_path, capsys):  # noqa: F811
    run = trained(*LSTM)
    path = exported(run, "format=nam", "name=My A77", "normalise=-18")
    text, metrics = card_of(path), json.loads((run / "metrics.json").read_text())
    levels = json.loads((run / "levels.json").read_text())
    assert f"{path}.md" in capsys.readouterr().out
    assert text.startswith("# My A77\n") and hashlib.sha256(path.read_bytes()).hexdigest() in text
    for name, key in (("this model", "esr"), ("the best linear filter", "esr_linear"), ("the dry signal", "esr_dry")):
        esr, aligned = metrics[f"test/{key}"], metrics[f"test/{key}_gain_aligned"]
        assert f"| {name} | {esr:.5f} | {table.decibels(esr)} | {aligned:.5f} |" in text
    assert "floor" not in text, "nobody knows the hiss of these recordings"
    assert f"- parameters: {metrics['parameters']}\n" in text and "8000 Hz" in text and "format nam" in text
    assert f"up to {levels['train_input_peak_dbfs']:.1f} dBFS" in text and "loudness of -18 dB" in text
    assert f"- torch: {table.escaped(torch.__version__)}\n" in text and "- kernels: " in text
    assert "run-input\\.wav" in text, "the recording's name ..."
    assert str(tmp_path) not in text and "pairs" not in text, "... and not where it lies"
    assert ("does not beat the best linear filter" in text) == (metrics["test/esr"] >= metrics["test/esr_linear"])
    assert text.rstrip().endswith("_") and "## Licence" in text, "left to the user"


def test_what_is_not_known_is_left_out(trained, tmp_path):  # noqa: F811
    run = trained(*LSTM)
    capture = exported(run, "format=nam", f"out={tmp_path}/elsewhere/a.nam")
    (tmp_path / "elsewhere" / "metrics.json").write_text('{"test/esr": 0.5, "val/esr": 0.5}')  # of something else
    text = card_of(exported(capture, "format=aidax"))
    assert "## Figures" not in text and "## What it learned from" not in text and "nan" not in text.lower()
    assert "0.5" not in re.sub(r"[0-9a-f]{64}", "", text), "another run's figures are no figures of this file"
    assert "## The model" in text and "8000 Hz" in text
    (run / "metrics.json").unlink()
    assert "## Figures" not in card_of(exported(run, "format=nam"))


def test_a_part_says_what_it_lacks(trained):  # noqa: F811
    run = trained("model=lstm", "model.hidden=8", "linear_start=series")
    assert "without the filter behind the net" in card_of(exported(run, "format=aidax"))
    assert "without the filter" not in card_of(exported(run, "format=onnx"))


def test_names_are_no_markup(tmp_path):
    run = hostile(tmp_path / "run", name=HOSTILE, knobs=["<b>gain", "[x](http://y)"])
    text = card_of(exported(run, "format=proteus"))
    bare = re.sub(r"\\.", "", text)
    assert "<" not in bare and "](" not in bare and "onerror" in text
    assert table.escaped("a\nb\u202e\x1b# c") == "a b  \\# c"
    for text in ("# x", "a|b", "![x](y)", "<script>", "`x`", "https://x", "a@b.c", "1. x", "~~x~~", "$x$"):
        assert not re.search(r"(?<!\\)[\\`*_{}\[\]()<>#.!|&~$@:]", re.sub(r"\\.", "", table.escaped(text)))


@pytest.mark.parametrize("metrics", [{}, {"test/esr": None}, {"test/esr": "x"}, {"test/esr": True}, {"test/esr": [1]}])
def test_damaged_figures_are_no_figures(metrics, tmp_path):
    (tmp_path / "a.nam").write_bytes(b"x")
    one = model_card.Exported(tmp_path / "a.nam", "nam", 48_000, 10, 0, None, {}, 1e-7)
    text = model_card.write(one, {"data": 3, "model": []}, metrics, {"train_input_peak_dbfs": "loud"}, None).read_text()
    assert "## Figures" not in text and "dBFS" not in text


def test_a_compiler_is_told_without_its_folder(tmp_path):
    (tmp_path / "a.nam").write_bytes(b"x")
    one = model_card.Exported(tmp_path / "a.nam", "nam", 48_000, 10, 0, None, {}, 1e-7)
    metrics = {"kernels": "fused (/home/me/env/bin/c++ -I/home/me/x, vectors of 64 bytes)", "computed/threads": 2}
    text = model_card.write(one, {}, metrics, {}, None).read_text()
    assert "fused \\(c++ -Ix, vectors of 64 bytes\\)" in text and "home" not in text and "- threads: 2\n" in text


def test_a_preset_is_known_by_its_machine():
    cfg = settings.composed(["machine=worn"])
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(cfg, resolve=True)
    assert _preset(config) == "worn"
    config["data"]["source"]["machine"]["mol_db"] = 5.5
    assert _preset(config) is None and _preset({"data": {"source": {"root": "x"}}}) is None
