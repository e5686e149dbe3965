"""Models with knobs: trained from a manifest, scored by setting, exported where a knob stands."""

import csv
import json
import math

import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import evaluate, export, settings, training
from revox_lightning.export import captures
from revox_lightning.report import plots
from revox_lightning.scorer import BySetting

torch.set_num_threads(1)


@pytest.fixture
def manifest(tmp_path):
    """A clipper at three gains, one of them nearly silent, each with a test part."""
    rows = [("dry", "wet", "split", "gain", "tone")]
    for gain, level in ((0.0, 1e-4), (0.5, 0.5), (1.0, 1.0)):
        for split, seconds in (("train", 2), ("val", 0.5), ("test", 0.5)):
            noise = torch.randn(1, int(8000 * seconds), generator=torch.Generator().manual_seed(len(rows)))
            x = 0.3 * noise
            names = [f"{split}_{gain}-{side}.wav" for side in ("input", "target")]
            for name, signal in zip(names, (x, level * torch.tanh(2 * x)), strict=True):
                audio.write(tmp_path / name, signal, 8000, subtype="FLOAT")
            rows.append((*names, split, gain, 0.5))
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "pairs.csv"


def test_a_parametric_run_is_scored_by_setting(manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "draw", lambda *_: [])
    run = tmp_path / "run"
    cfg = settings.composed([
        "model=nam_wavenet", "size=nano", "model.conditioning=bias", "data=recordings", f"data.manifest={manifest}",
        "data.sample_rate_hz=8000", "logger=none", "trainer=cpu", "trainer.max_epochs=1", "report.data_sheet=false",
        "report.examples=[]", "system.segment_samples=2000", "system.hop_samples=2000", "system.warmup_samples=100",
        "system.batch_size=2", f"run_dir={run}",
    ])  # fmt: skip
    metrics = training.train(cfg, run)
    torch.set_num_threads(1)
    assert metrics["test/settings"] == 3 and metrics["test/settings_heard"] == 2
    assert metrics["test/esr_worst_setting"] >= metrics["test/esr_median_of_settings"] > 0
    listed = list(csv.DictReader((run / "settings.csv").read_text().splitlines()))
    assert [*listed[0]] == ["gain", "tone", "esr", "level_dbfs"] and listed[0]["gain"] == "0"
    assert "worst 3 of 3 settings" in capsys.readouterr().out
    again = evaluate.evaluate([f"run={run}"])
    assert again["test/esr_mean_of_settings"] == pytest.approx(metrics["test/esr_mean_of_settings"], rel=1e-4)
    path = export.export([f"run={run}", "format=nam", "controls=0.5,0.5"])
    assert json.loads(path.read_text())["architecture"] == "WaveNet" and captures.read(path).net.controls == 0


def test_settings_have_the_ratio_of_their_sums():
    by = BySetting(1)
    y = torch.ones(1, 4)
    by.update(torch.tensor([[0.1]]), 0.5 * y, y)
    by.update(torch.tensor([[[0.1, 0.1]]]), y, y)
    by.update(torch.tensor([[0.2, 9.0]]), 0.0 * y, 0.5 * y)
    by.update(torch.tensor([[0.3]]), y, 0.0 * y)
    worst, best = by.worst()
    assert (worst.knobs, worst.esr) == ((pytest.approx(0.2),), 1.0) and best.esr == 0.125
    assert worst.level_dbfs == pytest.approx(20 * math.log10(0.5))
    assert by.summary()["esr_mean_of_settings"] == pytest.approx(0.5625)
    assert BySetting(2).summary() == {} and BySetting(0).worst() == []
