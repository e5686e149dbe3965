"""Published data sets are read as their authors' folders lie."""

import pytest
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, settings
from revox_lightning.errors import UserError


def put(path, seed=0, seconds=1.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.1 * torch.randn(1, int(seconds * 44100), generator=torch.Generator().manual_seed(seed)), 44100)


def built(*words):
    return assemble.build_data(settings.composed(["model=lstm", *words]))


def test_one_device_of_wrights_folder_is_read_and_the_others_stay(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("ht1-input", "ht1-target", "muff-input", "muff-target"):
            put(tmp_path / split / f"{name}.wav")
    data = built("data=wright", f"data.root={tmp_path}", "data.device=ht1")
    takes = [take for split in ("train", "val", "test") for take in data.takes(split)]
    assert [take.dry.name for take in takes] == ["ht1-input.wav"] * 3
    assert [take.split for take in takes] == ["train", "val", "test"]
    with pytest.raises(UserError, match=r"train/ts9-input\.wav"):
        built("data=wright", f"data.root={tmp_path}", "data.device=ts9")
    with pytest.raises(UserError, match=r"data\.device"):
        built("data=wright")


def test_signaltrain_brings_its_two_knobs(tmp_path):
    for split, number in (("Train", 138), ("Val", 153), ("Test", 176)):
        put(tmp_path / split / f"input_{number}_.wav", number)
        put(tmp_path / split / f"target_{number}_LA2A_3c__1__35.wav", number)
    words = ["data=signaltrain", f"data.root={tmp_path}"]
    data = built(*words)
    assert data.knobs == ("limit", "peak_reduction") and data.takes("train")[0].controls == (1.0, 0.35)
    assert data.takes("test")[0].dry.name == "input_176_.wav"
    put(tmp_path / "Val" / "target_9_mine.wav")
    with pytest.raises(UserError, match="not named as in SignalTrain"):
        built(*words)
    with pytest.raises(UserError, match=r"Train/target"):
        built("data=signaltrain", f"data.root={tmp_path / 'Val'}")
