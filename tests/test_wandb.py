"""What a run holds in Weights & Biases' offline format, read back from its log."""

import hashlib
import json
import struct
import sys

import pytest
import torch
from wandb.proto.wandb_internal_pb2 import Record

from revox_lightning import audio
from revox_lightning.commands import train


def records(path):
    """The records of a .wandb file: a 7-byte header, then LevelDB log framing in blocks of 32 KiB."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, part = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        part += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(part)
            yield record
            part = b""


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
