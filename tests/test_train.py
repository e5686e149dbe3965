"""Training from the command line to the run folder, on short recordings."""

import csv
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from revox_lightning import audio
from revox_lightning.commands import assemble, compare, evaluate, exits, train, training
from revox_lightning.commands.exits import guarded
from revox_lightning.report import plots
from revox_lightning.runs import RunFolder

# What test_hybrid, test_generator_runs and test_style_transfer train.
_OTHERS = {"tape_hybrid", "wow_flutter_diffusion", "hiss_diffusion", "style_transfer", "effect_proxy"}
MODELS = sorted({path.stem for path in (Path(__file__).parents[1] / "conf" / "model").glob("*.yaml")} - _OTHERS)
SHORT = [
    "data=recordings",
    "data.sample_rate_hz=8000",
    "logger=none",
    "report.audio_seconds=1",
    "report.data_sheet=false",
    "report.examples=[]",
    "trainer.accelerator=cpu",
]
TINY = [
    "trainer.max_epochs=2", "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300",
    "system.warmup_samples=100", "linear_filter.taps=64", "linear_filter.lookahead_samples=8", "data.gap_seconds=0.02",
]  # fmt: skip
WHOLE = {
    "tcn": ["size=100", "system.hop_samples=600"],
    "wavenet": ["system.hop_samples=600"],
    "conv_net": ["system.hop_samples=600"],
    "nam_wavenet": ["size=nano", "system.hop_samples=600"],
    "tape_delay_gru": ["data.trajectory=null"],  # these recordings have none
}


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs train.py in this process; returns its exit code and what it printed."""

    def run(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
        monkeypatch.setattr(train, "_failed", [])
        with pytest.raises(SystemExit) as ended:
            train.main()
        torch.set_num_threads(1)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.fixture
def recorded(pair):
    dry, wet = pair(seconds=4)
    return [*SHORT, *TINY, f"data.dry={dry}", f"data.wet={wet}"]


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """Drawing takes longer than these trainings: one of whole run folders alone does it."""
    if "whole_run_folder[lstm]" not in request.node.name:
        monkeypatch.setattr(plots, "draw", lambda *_: [])


def test_lightnings_chatter_stays_out(command, recorded, monkeypatch):
    assert training.set_up_logging is exits.set_up_logging
    for module in (train, exits):  # Lightning is imported later, and sets its own level
        monkeypatch.setattr(module, "set_up_logging", lambda: None)
    for name in ("lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.INFO)
    assert command("model=lstm", "size=4", *recorded, "run_dir=run")[0] == 0
    for name in ("lightning_fabric", "pytorch_lightning"):
        assert logging.getLogger(name).level == logging.ERROR


def rows_of(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_and_leaves_a_whole_run_folder(model, command, recorded, tmp_path):
    code, out, err = command(
        f"model={model}", *recorded, *WHOLE.get(model, []), f"run_dir={tmp_path}/run", "logger=csv"
    )
    assert code == 0, err
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("esr", "esr_dry", "esr_linear", "esr_linear_causal", "esr_gain_aligned", "esr_delay_aligned",
                 "esr_linear_gain_aligned", "esr_preemphasis", "mae", "mrstft", "lufs_error_db", "rms_error_db",
                 "spectral_centroid_error_hz", "esr_band_1khz"):  # fmt: skip
        assert f"test/{name}" in metrics
    for name in ("val/esr", "parameters", "audio_seconds_trained", "train_seconds", "real_time_factor"):
        assert metrics[name] > 0
    assert [row["epoch"] for row in rows_of(run)] == ["0", "1"]
    kinds = {path.stem.split("_", 2)[-1] for path in (run / "audio").iterdir()}
    assert kinds == {"dry", "target", "estimate", "difference", "estimate_level_matched"}
    signals = {
        kind: audio.read(next((run / "audio").glob(f"*_{kind}.wav"))) for kind in ("target", "estimate", "difference")
    }
    assert torch.allclose(signals["difference"], signals["target"] - signals["estimate"], atol=3e-7)
    assert audio.info(next((run / "audio").glob("*_dry.wav"))).subtype == "PCM_24"
    assert len(list((run / "plots").glob("*.png"))) == (4 if model == "lstm" else 0)
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "linear_filters.ckpt"}
    assert json.loads((run / "levels.json").read_text())["train_input_peak_dbfs"] < 0
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["audio_channels"] == 1 and isinstance(config["system"]["warmup_samples"], int)
    assert "linear filter" in out and "dry signal" in out
    # The same figure comes out of the folder alone.
    again = evaluate.evaluate([f"run={run}"])
    torch.set_grad_enabled(True)
    assert again["test/esr"] == pytest.approx(metrics["test/esr"], rel=1e-5)


def test_a_linear_start_begins_at_the_least_squares_filter(command, recorded, tmp_path):
    code, _, err = command(
        "model=lstm_linear", *recorded, f"run_dir={tmp_path}/run", "optim.lr=0.0", "trainer.max_epochs=1"
    )
    assert code == 0, err
    net, _, _ = assemble.load_run(tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "checkpoints" / "linear_filters.ckpt", weights_only=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert net.fir.h.abs().max() > 0.01 and set(kept) == {"linear", "linear_causal"}
    assert metrics["test/esr"] < metrics["test/esr_dry"]


def test_stereo_trains_one_net_a_channel_or_one_for_both(command, pair, tmp_path):
    dry, wet = pair(seconds=4, channels=2)
    words = [*SHORT, *TINY, f"data.dry={dry}", f"data.wet={wet}", "trainer.max_epochs=1"]
    for name, change, parameters in (("each", "model=lstm", 2 * 4513), ("joint", "model.channels=2", None)):
        code, _, err = command("model=lstm", change, *words, f"run_dir={tmp_path}/{name}")
        assert code == 0, err
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert parameters is None or metrics["parameters"] == parameters
        assert audio.info(next((tmp_path / name / "audio").glob("*_estimate.wav"))).channels == 2


def test_the_virtual_machine_knows_its_floor(command, tmp_path):
    words = [
        "data.source.seconds={train: 3, val: 1.5, test: 1.5}",
        "data.sample_rate_hz=16000",
        "machine.oversampling=2",
    ]
    words += [*SHORT[2:], *(word for word in TINY if not word.startswith("data.")), "trainer.max_epochs=1"]
    code, out, err = command(*words, f"run_dir={tmp_path}/run")
    assert code == 0, err
    floor = json.loads((tmp_path / "run" / "metrics.json").read_text())["test/esr_floor"]
    assert 0 < floor < 0.01 and "floor" in out
    rendered = list((tmp_path / "outputs" / "cache" / "virtual_revox").glob("*/*.wav"))
    stamp = rendered[0].stat().st_mtime_ns
    assemble.build_data(OmegaConf.create(RunFolder(tmp_path / "run").config()))
    assert rendered[0].stat().st_mtime_ns == stamp, "rendered twice"


def test_show_prints_the_network_and_writes_nothing(command, recorded, tmp_path):
    code, out, _ = command("model=tcn", *recorded, "show=true")
    assert code == 0 and "40,897" in out and "302.3" not in out and "1666.6 ms" in out and "multiply-adds" in out
    assert not (tmp_path / "outputs").exists()


def test_rows_of_a_multirun_that_was_killed_go_with_the_next_and_those_of_a_living_one_stay(tmp_path):
    cfg = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    killed, living, next_one = (compare.ComparisonTable() for _ in range(3))
    killed.on_multirun_start(cfg)
    (tmp_path / killed._place / ".000000.json.part").touch()
    os.close(killed._lock)  # as the end of its process does
    living.on_multirun_start(cfg)
    next_one.on_multirun_start(cfg)
    assert {*tmp_path.iterdir()} == {living._place, next_one._place}
    for one in (living, next_one):
        one.on_multirun_end(cfg)
    assert not any(tmp_path.iterdir())


def test_multirun_ends_with_one_table_and_goes_on_past_a_failing_job(command, recorded):
    code, out, err = command(
        "-m", "model=lstm,gru", *recorded, "trainer.max_epochs=1", "system.segment_samples=600,999999"
    )
    assert code == 2 and err.count("error:") == 2
    table = out[out.index("Comparison, data=") :]
    assert "model=lstm" in table and "model=gru" in table and "best linear filter" in table and "FAILED" in table


@pytest.mark.parametrize(
    "words",
    [
        ["schedule=plateau", "loss=wright2019", "callbacks.early_stopping_patience=1"],
        ["schedule=exponential", "loss=mae_mrstft", "trainer=cpu", "trainer.precision=bf16-mixed"],
        [
            "schedule=constant",
            "loss.weights.esr_a_weighting=0.5",
            "loss.weights.mse=1",
            "trainer.check_val_every_n_epoch=2",
        ],
        ["experiment=wright2019", "trainer.max_epochs=4"],
        ["model=tcn", "size=100", "model.paper_exact=true", "linear_start=true", "system.hop_samples=600"],
        ["model=tcn", "size=100", "system.hop_samples=600", "trainer.precision=64-true"],
    ],
    ids=" ".join,
)
def test_other_group_files_train_too(words, command, recorded, tmp_path):
    words = [*recorded, *words, f"run_dir={tmp_path}/run", "logger=csv"]
    code, _, err = command(*(["model=lstm"] if "model=tcn" not in words else []), *words)
    assert code == 0, err
    rows = rows_of(tmp_path / "run")
    assert all(float(row["lr"]) > 0 for row in rows) and any(row["val/esr"] for row in rows)


def test_a_run_that_lost_its_checkpoints_starts_over_and_one_that_is_done_only_reports(command, recorded, tmp_path):
    run = tmp_path / "run"
    assert command("model=lstm_linear", *recorded, f"run_dir={run}", "logger=csv")[0] == 0
    first = json.loads((run / "metrics.json").read_text())
    for gone in ((), ("best.ckpt", "last.ckpt")):
        for name in gone:
            (run / "checkpoints" / name).unlink()
        (run / "metrics.json").unlink()
        assert command(f"resume={run}")[0] == 0
        assert json.loads((run / "metrics.json").read_text())["test/esr"] == pytest.approx(first["test/esr"], rel=1e-6)
        assert len(rows_of(run)) == 2


def test_more_epochs_go_on_along_the_longer_cosine(command, recorded, tmp_path):
    run = tmp_path / "run"
    assert command("model=lstm", *recorded, f"run_dir={run}", "logger=csv", "optim.lr=0.01")[0] == 0
    assert command(f"resume={run}", "trainer.max_epochs=5")[0] == 0
    rates = [float(row["lr"]) for row in rows_of(run)]
    cosine = [0.005 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(5)]
    assert rates == pytest.approx([0.01, 0.005, *cosine[2:]], rel=1e-6)
    code, _, err = command(f"resume={run}", "optim.lr=0.1")
    assert code == 2 and "cannot change optim.lr" in err


def test_an_untrained_linear_start_is_the_first_candidate(command, recorded, tmp_path):
    run = tmp_path / "run"
    assert (
        command(
            "model=lstm_linear", *recorded, f"run_dir={run}", "optim.lr=1.0", "logger=csv", "system.clip_norm=null"
        )[0]
        == 0
    )
    net, _, _ = assemble.load_run(run)
    assert net.net.output_layer.weight.abs().max() == 0, "a ruined net was preferred to the filter it started from"


def test_evaluate_on_other_recordings(command, recorded, pair, tmp_path, capsys):
    run = tmp_path / "run"
    assert command("model=lstm", *recorded, f"run_dir={run}")[0] == 0
    dry, wet = pair(name="other", seconds=2, seed=5, folder=tmp_path / "elsewhere")
    own = evaluate.evaluate([f"run={run}"])["test/esr"]
    other = evaluate.evaluate([f"run={run}", f"data.dry={dry}", f"data.wet={wet}"])["test/esr"]
    assert other != own and "2 s of other recordings" in capsys.readouterr().out
    assert other == evaluate.evaluate([f"run={run}", "data=recordings", f"data.root={dry.parent}"])["test/esr"]
    for words, sentence in (
        (["optim.lr=1"], "cannot change optim.lr"),
        (["data.root=/nowhere"], "no such folder"),
        ([], "needs a run"),
    ):
        assert (
            guarded(
                lambda words=words, first=bool(sentence != "needs a run"): evaluate.evaluate(
                    [f"run={run}"] * first + words
                )
            )
            == 2
        )
        assert sentence in capsys.readouterr().err


def test_a_full_disk_while_metrics_are_written_is_one_sentence(command, recorded, tmp_path, monkeypatch):
    from revox_lightning.callbacks import records

    def full(path, write):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(records, "write_atomically", full)
    code, _, err = command("model=lstm", *recorded, f"run_dir={tmp_path}/run", "logger=csv")
    assert code == 2 and "No space left" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "words,sentence",
    [
        (
            ["model=transformer"],
            f"there is no model=transformer: choose one of {', '.join(sorted([*MODELS, *_OTHERS]))}.",
        ),
        (["optim.learning_rate=1"], "there is no option optim.learning_rate"),
        (["optim.lr=fast"], "optim.lr='fast': expected a number"),
        (["trainer.max_epochs=2.5"], "expected a whole number"),
        (["linear_start=perhaps"], "expected true or false"),
        (["model=tcn", "size=7"], "100, 300"),
        (["data=recordings"], "data.root=FOLDER"),
        (["data=recordings", "data.root=/nowhere"], "no such folder"),
        (["monitor=val/beauty"], "monitor=val/beauty is not measured"),
        (["loss.weights.esr=0"], "weight"),
        (["trainer.accelerator=abacus"], "abacus"),
        (["resume=/nowhere"], "resume=/nowhere: there is no such folder"),
        (["system.batch_size=0"], "system.batch_size=0: give 1 or more"),
        (["trainer.max_epochs=0"], "give 1 or more"),
        (["kernels=quick"], "kernels=quick: choose one of auto, torch, fused"),
        (["optim.lr=-1.0"], "optim: Invalid learning rate"),
        (["callbacks.early_stopping_patience=often"], "expected a whole number"),
        (["-m", "run_dir=here"], "a multirun makes one for each job"),
    ],
)
def test_a_wrong_word_gets_one_sentence_and_exit_code_2(words, sentence, command, recorded):
    where = [] if words[0] in ("data=recordings", "resume=/nowhere") else recorded
    code, _, err = command(*where, *words)
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1 and sentence in errors[0], err
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_stops_the_run_with_the_last_good_checkpoint(
    command, pair, recorded, tmp_path, monkeypatch
):
    from revox_lightning.losses import Losses

    calls = []
    total = Losses.total

    def broken(self, terms):
        calls.append(1)
        return total(self, terms) * (float("nan") if len(calls) > 200 else 1)

    monkeypatch.setattr(Losses, "total", broken)
    code, _, err = command("model=lstm", *recorded, "trainer.max_epochs=50", f"run_dir={tmp_path}/run")
    assert code == 2 and "the loss became nan in epoch" in err
    weights = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(w.isfinite().all() for w in weights.values())


def test_a_defect_of_ours_is_a_traceback_and_exit_code_1(capsys):
    def broken():
        raise ZeroDivisionError("inside")

    assert guarded(broken) == 1
    assert "Traceback" in capsys.readouterr().err


def test_unreadable_run_folders_and_foreign_checkpoints(command, recorded, tmp_path, capsys):
    for name, model in (("a", "model=lstm"), ("b", "model=gru")):
        assert command(model, *recorded, "trainer.max_epochs=1", f"run_dir={tmp_path}/{name}")[0] == 0
    a, b = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")

    def fails_with(sentence):
        assert guarded(lambda: assemble.load_run(tmp_path / "a")) == 2
        err = capsys.readouterr().err
        assert sentence in err and err.count("\n") == 1, err

    kept = a.best.read_bytes()
    a.best.write_bytes(b.best.read_bytes())
    fails_with("the checkpoint of another model")
    a.best.write_bytes(kept[: len(kept) // 2])
    fails_with("not a readable checkpoint")
    a.best.unlink()
    a.last.unlink()
    fails_with("does not exist")
    a.config_path.write_text("model: [")
    fails_with("cannot be read")
    a.config_path.unlink()
    fails_with("no config.yaml")


def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    from revox_lightning.callbacks import checkpoints
    from revox_lightning.errors import UserError

    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoints.save_atomically({"x": torch.zeros(3)}, path)

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save_atomically({"x": torch.ones(3)}, path)
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(path, weights_only=True)["x"].sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lstm", "lstm_linear", "tcn"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(model, pair, tmp_path):
    dry, wet = pair(seconds=30)
    words = [*SHORT, *TINY, *WHOLE.get(model, []), "trainer.max_epochs=6", "logger=csv", "system.threads=1"]
    words += [f"model={model}", f"data.dry={dry}", f"data.wet={wet}"]
    base = [sys.executable, "-m", "revox_lightning.commands.train"]
    subprocess.run([*base, *words, f"run_dir={tmp_path}/whole"], check=True, cwd=tmp_path, capture_output=True)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [*base, *words, f"run_dir={killed}"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch   3/"):
                time.sleep(0.3)
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()
    subprocess.run([*base, f"resume={killed}"], check=True, cwd=tmp_path, capture_output=True)
    whole, resumed = (json.loads((p / "metrics.json").read_text()) for p in (tmp_path / "whole", killed))
    for name in whole:
        if name.startswith(("test/", "val/")) and whole[name] is not None:
            assert resumed[name] == pytest.approx(whole[name], abs=1e-6, rel=1e-6), name
    assert resumed["audio_seconds_trained"] == pytest.approx(whole["audio_seconds_trained"])
    rows = [[row["epoch"] for row in rows_of(p)] for p in (tmp_path / "whole", killed)]
    assert rows[0] == rows[1] == [str(i) for i in range(6)]
