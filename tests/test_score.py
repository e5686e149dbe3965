"""The yardstick for any program: its files, their hashes, scores, cards."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, bench, score
from revox_lightning.commands.exits import guarded
from revox_lightning.data import bench as material
from revox_lightning.errors import UserError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bench with seconds instead of minutes, and one machine."""
    with pytest.MonkeyPatch.context() as patch:
        excerpts = {"train/music": (3.0, 1), "val/music": (1.0, 2), "test/music_1": (1.0, 3), "test/speech_1": (1.0, 4)}
        patch.setattr(material, "EXCERPTS", excerpts)
        patch.setattr(material, "MACHINES", {"jiles_atherton": "a77_7.5ips"})
        place = tmp_path_factory.mktemp("bench") / "v1"
        bench.write([str(place)])
        yield place


def submitted(folder, place, change=lambda y: y, side="target"):
    for name in material.tests():
        x = audio.read(place / "jiles_atherton" / f"test/{name}-{side}.wav")
        (folder / "jiles_atherton").mkdir(parents=True, exist_ok=True)
        audio.write(folder / "jiles_atherton" / f"{name}.wav", change(x), material.RATE_HZ, subtype="FLOAT")
    return folder


def scored(folder, place, *words):
    out = score.score([str(folder), f"bench={place}", *words])
    return json.loads((out / "card.json").read_text()), out


def test_the_machine_itself_has_no_error_and_the_dry_signal_its_own(small, tmp_path):
    card, out = scored(submitted(tmp_path / "perfect", small), small)
    figures = card["machines"]["jiles_atherton"]["metrics"]
    assert figures["test/esr"] == 0 and figures["test/esr_linear"] > 0 and figures["test/esr_floor"] > 0
    assert not card["frozen"] and set(card["machines"]["jiles_atherton"]["esr_of_excerpts"].values()) == {0.0}
    card, _ = scored(submitted(tmp_path / "dry", small, side="input"), small, "name=a wire")
    figures = card["machines"]["jiles_atherton"]["metrics"]
    assert figures["test/esr"] == pytest.approx(figures["test/esr_dry"], rel=1e-6) and card["name"] == "a wire"
    assert sorted(p.name for p in (out / "jiles_atherton" / "audio").iterdir())[0] == "01_music_1_difference.wav"


@pytest.mark.parametrize("late", [37, -5])
def test_a_constant_delay_is_taken_out(small, tmp_path, late):
    card, _ = scored(submitted(tmp_path / "late", small, lambda y: torch.roll(y, late, 1)), small)
    found = card["machines"]["jiles_atherton"]
    assert found["late_samples"] == late and found["metrics"]["test/esr"] < 1e-3


def test_anybody_can_confirm_a_card_and_nobody_a_forged_one(small, tmp_path, capsys):
    folder = submitted(tmp_path / "half", small, lambda y: 0.5 * y)
    card, out = scored(folder, small)
    assert card["machines"]["jiles_atherton"]["metrics"]["test/esr"] == pytest.approx(0.25)
    scored(folder, small, f"card={out / 'card.json'}", f"out={tmp_path / 'again'}")
    assert "confirmed" in capsys.readouterr().out
    card["machines"]["jiles_atherton"]["metrics"]["test/esr"] = 0.01
    (tmp_path / "forged.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"test/esr is 0.01, and here it is 0.25"):
        scored(folder, small, f"card={tmp_path / 'forged.json'}")
    submitted(folder, small, lambda y: 0.4 * y)
    with pytest.raises(UserError, match="other audio"):
        scored(folder, small, f"card={out / 'card.json'}")


def test_what_does_not_fit_is_said_before_anything_is_written(small, tmp_path):
    folder = submitted(tmp_path / "mine", small)
    wrong = {
        "2 channels": lambda p: audio.write(p, torch.zeros(2, 44100), 44100),
        "at 48000 Hz": lambda p: audio.write(p, torch.zeros(1, 48000), 48000),
        "render all of it": lambda p: audio.write(p, torch.zeros(1, 20000), 44100),
        "NaN": lambda p: soundfile.write(p, np.full(44100, np.nan), 44100, subtype="FLOAT"),
        "is missing": lambda p: p.unlink(),
    }
    for says, spoil in wrong.items():
        spoil(folder / "jiles_atherton" / "speech_1.wav")
        with pytest.raises(UserError, match=says):
            score.score([str(folder), f"bench={small}"])
    with pytest.raises(UserError, match="no folder"):
        score.score([str(tmp_path), f"bench={small}"])
    with pytest.raises(UserError, match="needs a folder"):
        score.score([str(folder)])
    assert not (tmp_path / "mine_scored").exists()


def test_a_bench_that_was_touched_is_refused(small, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(small, other)
    bench.write([str(other)])
    audio.write(other / "jiles_atherton/test/music_1-input.wav", torch.zeros(1, 44100), 44100, subtype="PCM_16")
    with pytest.raises(UserError, match="missing or changed"):
        material.read(other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    capsys.readouterr()
    assert guarded(lambda: bench.write([str(tmp_path / "full")])) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_bench_is_the_published_one_file_by_file(tmp_path):
    machines = {name: assemble.build_machine(preset, []) for name, preset in material.MACHINES.items()}
    assert material.write(machines, tmp_path) == material.frozen()
