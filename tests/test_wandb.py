"""What a run holds in Weights & Biases' offline format, read back from its log."""

import base64
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from wandb.proto.wandb_internal_pb2 import Record

from revox_lightning import audio
from revox_lightning.commands import loggers, train
from revox_lightning.commands.sync import framed, records, relocate
from revox_lightning.errors import UserError


@pytest.fixture
def run(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dry, wet = pair(seconds=4)
    words = [
        "model=lstm", "data=recordings", f"data.dry={dry}", f"data.wet={wet}", "data.sample_rate_hz=8000", "trainer.accelerator=cpu",
        "trainer.max_epochs=2", "system.batch_size=2", "system.segment_samples=600", "system.hop_samples=300",
        "system.warmup_samples=100", "data.gap_seconds=0.02", f"run_dir={tmp_path}/run",
    ]  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as ended:
        train.main()
    torch.set_num_threads(1)
    assert ended.value.code == 0
    return tmp_path / "run"


def test_wandb_holds_config_scalars_audio_images_and_the_table_inside_the_run_folder(run, tmp_path):
    (place,) = (run / "wandb").glob("offline-run-*")
    found = list(records(next(place.glob("*.wandb"))))
    config = {u.key: json.loads(u.value_json) for r in found for u in [*r.config.update, *r.run.config.update]}
    assert config["model"]["hidden"] == 32 and config["name"] == "lstm"
    history: dict = {}
    epochs = []
    for record in found:
        row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        history |= row
        epochs += [row["val/esr"]] if "val/esr" in row else []
    metrics = json.loads((run / "metrics.json").read_text())
    assert history["test/esr"] == pytest.approx(metrics["test/esr"]) and len(epochs) >= 2
    assert "train/loss" in history
    media = {key.rsplit("/", 1)[0]: value for key, value in history.items() if key.endswith("/path")}
    for name, kind in media.items():
        file = place / "files" / kind
        assert hashlib.sha256(file.read_bytes()).hexdigest() == history[f"{name}/sha256"]
    sounds = [place / "files" / path for name, path in media.items() if path.endswith(".wav")]
    assert len(sounds) == 9 and all(audio.info(path).subtype == "PCM_24" for path in sounds)
    assert sum(path.endswith(".png") for path in media.values()) == 5
    assert sum(path.endswith(".table.json") for path in media.values()) == 3
    assert {"test/results", "test/excerpts"} < set(media)
    # Of recordings the machine is not at hand: the model alone is measured, and heard beside what it was given.
    assert {f"examples/{name}_{kind}" for name in ("music", "speech") for kind in ("dry", "estimate")} < set(media)
    assert {"data_sheet/figures", "data_sheet/curves"} < set(media)
    # Nothing goes to the home folder: a run folder can be moved and synced elsewhere.
    assert not list((tmp_path / "home").rglob("*wandb*"))
    moved = tmp_path / "elsewhere" / "another name"
    moved.parent.mkdir()
    run.rename(moved)
    log = next(moved.glob("wandb/offline-run-*/*.wandb"))
    before = list(records(log))
    assert relocate(log, moved) > 5 and relocate(log, moved) == 0
    after = list(records(log))
    assert [r.WhichOneof("record_type") for r in after] == [r.WhichOneof("record_type") for r in before]
    entries = [entry for record in after for entry in record.artifact.manifest.contents]
    assert {"best.ckpt", "config.yaml"} < {entry.path for entry in entries}
    for entry in entries:
        md5 = hashlib.md5(Path(entry.local_path).read_bytes()).digest()
        assert Path(entry.local_path).is_relative_to(moved) and base64.b64encode(md5).decode() == entry.digest
    (moved / "wandb").joinpath("data").rename(tmp_path / "gone")
    with pytest.raises(UserError, match="move the whole run folder"):
        relocate(log, moved)


@pytest.mark.parametrize("size", [0, 1, 32744, 32745, 32746, 32761 - 14, 40000, 200_000])
def test_a_log_written_anew_reads_back_at_every_place_in_its_blocks(tmp_path, size):
    texts = ["a" * size, "b", "c" * (size // 2), "d"]
    contents = [Record(num=n, output_raw={"line": text}).SerializeToString() for n, text in enumerate(texts)]
    file = tmp_path / "run.wandb"
    file.write_bytes(framed(b":W&B\xe1\xbe\x01", contents))
    assert [record.output_raw.line for record in records(file)] == texts
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])  # a kill's last line
    assert [record.output_raw.line for record in records(file)] == texts[:-1]
    file.write_bytes(b"RIFF" + whole)
    with pytest.raises(UserError, match="not a log of W&B"):
        list(records(file))


class Broken:
    """A run of W&B's whose server, or process, is gone."""

    id, dir = "abc", "/somewhere/wandb/run-1/files"

    def __init__(self):
        self.asked = 0
        self.summary = self

    def log(self, values):
        self.asked += 1
        raise BrokenPipeError("the service is gone")

    update = finish = log


def test_a_failing_wandb_is_said_once_and_left_alone(caplog, monkeypatch):
    monkeypatch.setattr(loggers.log, "propagate", True)
    run = Broken()
    shielded = loggers.Shielded(run, Path("/somewhere/wandb/run-1"))
    shielded.log({"a": 1})
    shielded.log({"a": 2})
    shielded.summary.update({"a": 2})
    assert shielded.id == "abc" and run.asked == 1
    assert len({record.getMessage() for record in caplog.records}) == 1
    assert "the service is gone" in caplog.text and "revox sync /somewhere/wandb/run-1 " in caplog.text
