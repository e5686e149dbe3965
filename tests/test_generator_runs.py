"""Generators of wow and flutter and of hiss from the command line: trained, compared, kept, resumed."""

import json

import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.training import train
from revox_lightning.errors import UserError
from revox_lightning.report import wandb_log

TINY = {
    "wow_flutter_diffusion": [
        "model.net.widths=[2,2,2,2]", "model.net.embedding=4", "model.steps=2", "system.segment_samples=512",
        "data.source.seconds={train: 60, val: 20, test: 30}",
    ],
    "hiss_diffusion": [
        "model.net.embedding=4", "model.steps=2", "system.segment_samples=8192", "system.hop_samples=8192",
        "machine.oversampling=1", "data.source.seconds={train: 1, val: 0.5, test: 0.5}", "model.overlap_samples=100",
    ],
}  # fmt: skip


def run(model, folder, *words, resume=False, logger="csv"):
    cfg = settings.composed(
        [f"model={model}", *TINY[model], f"logger={logger}", "trainer=cpu", "system.lr_warmup_iterations=3", *words]
    )
    cfg.run_dir, cfg.data.cache_dir = str(folder), str(folder.parent / "cache")
    return train(cfg, folder, resume)


@pytest.mark.parametrize("model", TINY)
def test_a_generator_stands_beside_its_plain_rival(model, tmp_path):
    metrics = run(model, tmp_path / "run", "trainer.max_epochs=1")
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())
    for name in ("std_db", "values", "increments", "spectrum_db"):
        assert metrics[f"test/{name}"] >= 0 or name == "std_db"
        assert f"test/{name}_rival" in metrics
    assert metrics["test/values_rival"] < metrics["test/values"]  # after one epoch it can make nothing yet
    heard = {path.name for path in (tmp_path / "run" / "audio").glob("*")}
    assert heard == ({"real.wav", "rival.wav", "made.wav"} if model == "hiss_diffusion" else set())
    drawn = {path.name for path in (tmp_path / "run" / "plots").glob("*")}
    assert drawn == {"spectra.png", "stretch.png", "increments.png"}
    net, _, _ = assemble.load_run(tmp_path / "run", playing=False)
    with pytest.raises(UserError, match="plays none"):
        assemble.load_run(tmp_path / "run")
    assert net.sample(50, torch.Generator().manual_seed(0)).isfinite().all()


def test_pictures_sounds_and_the_table_are_logged(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(wandb_log, "log_result", lambda experiment, *what: handed.append(what))
    run("hiss_diffusion", tmp_path / "run", "trainer.max_epochs=1", logger="wandb")
    ((metrics, rows, heard, drawn),) = handed
    assert metrics["test/spectrum_db"] > 0 and "name" not in metrics
    assert [row["row"] for row in rows] == ["test split", "training split", "shaped noise", "hiss_diffusion"]
    assert [set(sounds) for sounds in heard] == [{"real", "rival", "made"}] and len(drawn) == 3
    made = audio.read(heard[0]["made"])
    assert made.shape == (1, 5 * 44100) and made.std() > 0


@pytest.mark.slow
def test_a_run_that_goes_on_ends_as_one_that_was_never_interrupted(tmp_path):
    model, words = "wow_flutter_diffusion", ["schedule=constant", "trainer.max_epochs=2"]
    torch.manual_seed(0)
    whole = run(model, tmp_path / "whole", *words)
    run(model, tmp_path / "parted", "schedule=constant", "trainer.max_epochs=1")
    (tmp_path / "parted" / "metrics.json").unlink()
    again = run(model, tmp_path / "parted", *words, resume=True)
    assert again["audio_seconds_trained"] == pytest.approx(whole["audio_seconds_trained"])
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "parted")
    ]
    assert states[0]["average_steps"] == states[1]["average_steps"] > 0
    assert states[0]["trained"].keys() == states[1]["trained"].keys()
