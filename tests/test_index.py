"""Hours of recordings: what is known of files is kept, damaged ones are left out, and no more is read than needed."""

import importlib
import json
import logging
import os

import pytest
import soundfile
import torch
from test_data import RATE, data
from test_export_command import TINY

from revox_lightning import audio
from revox_lightning.commands import settings
from revox_lightning.commands.exits import guarded
from revox_lightning.data import inspect, module, passages
from revox_lightning.data.dry import Dry
from revox_lightning.data.index import Index
from revox_lightning.data.recordings import Recordings
from revox_lightning.data.takes import Reader, Take
from revox_lightning.errors import UserError
from revox_lightning.report import references

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path, pair):
    """Four pairs of two seconds."""
    for i in range(4):
        pair(name=f"t{i}", seed=i)
    return tmp_path / "pairs"


@pytest.fixture
def opened(monkeypatch):
    """The names of files whose headers are read, in the order of reading."""
    names, info = [], soundfile.info

    def counted(path):
        if not path.endswith(".part"):  # which are being written
            names.append(os.path.basename(path))
        return info(path)

    monkeypatch.setattr(soundfile, "info", counted)
    return names


@pytest.fixture
def looks(monkeypatch):
    """The names of the takes that are looked at."""
    names, look = [], inspect._look
    monkeypatch.setattr(inspect, "_look", lambda take, *how: names.append(take.name) or look(take, *how))
    return names


def said(caplog, text):
    """How many notes of the log say something."""
    return len({id(record) for record in caplog.records if text in record.getMessage()})


def source(folder, **how):
    return Recordings(root=str(folder), cache_dir=str(folder.parent / "cache"), **how)


def cut_off(path):
    """A FLAC file in the place of a WAV one, without its last part: its header still tells of it."""
    whole = path.with_suffix(".flac")
    audio.write(whole, audio.read(path), RATE)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    whole.unlink()


def spoilt(path):
    """A FLAC file in the place of a WAV one, with a hole in it that its header and its last sample do not show."""
    whole = path.with_suffix(".flac")
    audio.write(whole, audio.read(path), RATE)
    content = bytearray(whole.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(content)
    whole.unlink()
    with pytest.raises(audio.DamagedAudio):
        audio.read(path)


def test_no_header_is_read_twice(folder, opened, looks):
    found = data(source(folder))
    found.check()
    next(iter(found.train_dataloader()))
    assert sorted(opened) == sorted(path.name for path in folder.iterdir())
    assert len(looks) == 12  # four takes in three parts
    opened.clear(), looks.clear()
    data(source(folder)).check()
    assert not opened and not looks


def test_a_changed_or_added_file_costs_only_itself(folder, pair, opened, looks):
    data(source(folder)).check()
    opened.clear(), looks.clear()
    dry, _ = pair(name="t2", seed=9)
    os.utime(dry, ns=(1, 1))
    pair(name="new", seed=5)
    data(source(folder)).check()
    assert {name.split("-")[0] for name in opened} == {"t2", "new"}
    assert {name.split("-")[0] for name in looks} == {"t2", "new"} and len(looks) == 6
    opened.clear()
    data(source(folder), channels="mix").check()  # another setting looks again, but opens nothing
    assert not opened and len(looks) == 6 + 15
    dry.unlink(), dry.with_name("t2-target.wav").unlink()
    assert len(source(folder).takes()) == 4


def test_batches_are_the_same_with_and_without_the_index(folder):
    bare, first, second = Recordings(root=str(folder)), source(folder), source(folder)
    batches = []
    for one in (bare, first, second):
        found = data(one, seed=3)
        level = found.check()
        batches.append(
            (
                level,
                [
                    batch
                    for epoch in range(2)
                    for batch in found._loader(found.takes("train"), found._batches(epoch), epoch)
                ],
            )
        )
    for level, others in batches[1:]:
        assert level == batches[0][0] and len(others) == len(batches[0][1])
        for a, b in zip(batches[0][1], others, strict=True):
            assert torch.equal(a["dry"], b["dry"]) and torch.equal(a["wet"], b["wet"])


def test_what_cannot_be_read_is_left_out_and_named_in_one_list(folder, caplog):
    logging.getLogger("revox_lightning").propagate = True
    (folder / "t0-input.wav").write_bytes(b"RIFF, or so it says")
    (folder / "t1-target.wav").write_bytes(b"")
    cut_off(folder / "t2-target.wav")
    found = source(folder)
    assert [take.name for take in found.takes()] == ["t3-input"]
    (warning,) = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert warning.startswith("3 of 8 files cannot be read")
    assert all(name in warning for name in ("t0-input.wav", "t1-target.wav", "t2-target.wav"))
    data(found).check()
    (folder / "t3-input.wav").write_bytes(b"")
    with pytest.raises(UserError, match="no other pair is whole"):
        source(folder)


def test_damage_inside_a_file_is_found_and_left_out_for_good(folder, caplog, looks):
    logging.getLogger("revox_lightning").propagate = True
    spoilt(folder / "t1-target.wav")
    found = data(source(folder), split_by="file", fractions=[0.6, 0.2, 0.2])
    found.check()
    names = {take.name for split in ("train", "val", "test") for take in found.takes(split)}
    assert names == {"t0-input", "t2-input", "t3-input"} and said(caplog, "is damaged after") == 1
    looks.clear()
    again = data(source(folder), split_by="file", fractions=[0.6, 0.2, 0.2])
    again.check()
    assert not looks and all(again.takes(split) == found.takes(split) for split in ("train", "val", "test"))
    # One pair of which nothing is left is the user's to mend.
    alone = Recordings(dry=str(folder / "t1-input.wav"), wet=str(folder / "t1-target.wav"))
    with pytest.raises(UserError, match=r"t1-target\.wav is damaged after"):
        data(alone).check()


def test_damage_that_training_meets_does_not_end_it(folder, caplog):
    logging.getLogger("revox_lightning").propagate = True
    spoilt(folder / "t1-target.wav")
    found = data(source(folder), memory_mb=0.0)
    places = [[place for place, _ in batch] for batch in found._batches(0)]
    batches = list(found.train_dataloader())
    assert [len(batch["dry"]) for batch in batches] == [len(batch) for batch in places]
    assert said(caplog, "is damaged after") == 1
    whole = Reader()
    takes, replaced = found.takes("train"), 0
    for batch, asked in zip(batches, places, strict=True):
        for dry, (index, start) in zip(batch["dry"], asked, strict=True):
            replaced += not torch.equal(dry, whole(takes[index].dry, start, 600))
    assert 0 < replaced < sum(map(len, places)) / 2


def test_damage_that_validation_meets_is_silence_and_the_filters_do_without(folder, caplog):
    logging.getLogger("revox_lightning").propagate = True
    whole = data(source(folder), memory_mb=0.0)
    energies = [float(batch["wet"].square().sum()) for batch in whole.chunks("train")]
    everything = references.correlations(whole, "train")[0]
    spoilt(folder / "t1-target.wav")
    found = data(source(folder), memory_mb=0.0, chunk_samples=1000)
    chunks = list(found.chunks("train"))
    assert sum(float(chunk["wet"].square().sum()) for chunk in chunks) < sum(energies)
    silent = [chunk for chunk in chunks if not chunk["wet"].any()]
    assert silent and not any(chunk["dry"].any() for chunk in silent) and len(silent) < len(chunks) / 3
    assert said(caplog, "t1-target.wav is damaged after") == 1
    part = references.correlations(found, "train")[0]
    assert 0 < part.samples < everything.samples


def test_a_missing_file_of_a_manifest_is_the_users_to_mend(folder, tmp_path, caplog):
    logging.getLogger("revox_lightning").propagate = True
    (folder / "t0-input.wav").write_bytes(b"")
    rows = [
        f"pairs/t{i}-input.wav,pairs/t{i}-target.wav,{split}"
        for i, split in enumerate(("train", "train", "val", "test"))
    ]
    (tmp_path / "m.csv").write_text("dry,wet,split\n" + "\n".join(rows))
    assert len(Recordings(manifest=str(tmp_path / "m.csv")).takes()) == 3 and "1 of 8 files" in caplog.text
    (folder / "t1-input.wav").unlink()
    with pytest.raises(UserError, match=r"no audio file.*t1-input"):
        Recordings(manifest=str(tmp_path / "m.csv"))


def test_wrong_rates_are_refused_as_ever(folder):
    audio.write(folder / "t1-target.wav", torch.rand(1, 2 * RATE), 16_000)
    with pytest.raises(UserError, match="one rate"):
        source(folder)


def test_a_training_ends_with_2_where_nothing_can_be_read(folder, tmp_path, capsys):
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    training = importlib.import_module("revox_lightning.commands.training")
    words = [
        *TINY,
        f"data.root={folder}",
        f"data.cache_dir={tmp_path / 'cache'}",
        f"run_dir={tmp_path / 'run'}",
        "model=lstm",
    ]
    assert guarded(lambda: training.train(settings.composed(words), tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert "with all 8 files" in said and "Traceback" not in said


@pytest.mark.parametrize("content", ["{", "[]", '{"form": 0}', '{"form": 1, "files": {"a": 3}}'])
def test_a_damaged_index_is_made_anew(content, folder, opened):
    data(source(folder)).check()
    (place,) = (folder.parent / "cache" / "index").iterdir()
    whole = json.loads(place.read_text())
    place.write_text(content)
    opened.clear()
    data(source(folder)).check()
    assert len(opened) == 8 and json.loads(place.read_text()) == whole


def test_what_is_kept_in_memory_stays_within_its_limit(folder):
    room_mb = 2.5 * 2 * RATE * 4 / 1e6  # of two and a half files
    read = Reader(memory_mb=room_mb)
    files = sorted(folder.iterdir())
    for path in files * 2:
        assert read(path, 10, 100).shape == (1, 100)
    assert len(read._kept) == 2 and sum(x.numel() * 4 for x in read._kept.values()) <= room_mb * 1e6
    # The module keeps all of the files or none: a few of many would only make the start slower.
    for memory_mb, kept in ((room_mb, 0), (8 * 2 * RATE * 4 / 1e6, 8)):
        found = data(source(folder), memory_mb=memory_mb)
        found.check()
        list(found.train_dataloader())
        assert len(found._read._kept) == kept


def test_an_epoch_of_so_many_seconds_is_the_beginning_of_a_whole_one(folder):
    whole, short = (data(source(folder), epoch_seconds=seconds) for seconds in (None, 1.0))
    wanted = [place for batch in whole._batches(2) for place in batch][:16]
    assert [place for batch in short._batches(2) for place in batch] == wanted
    assert len(short.train_dataloader()) == 4 and list(short._batches(0)) != list(short._batches(1))
    with pytest.raises(UserError, match=r"data\.epoch_seconds=0"):
        data(source(folder), epoch_seconds=0)


def test_of_hours_a_part_is_looked_at_and_silence_is_still_certain(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect, "_LOOKED_AT_SECONDS", 16)
    x = torch.zeros(1, 60 * RATE)
    x[0, 31 * RATE + 5 : 31 * RATE + 50] = 0.5  # which no passage meets
    for name, signal in (("a-input", x), ("a-target", 0.5 * x), ("b-input", x), ("b-target", 0 * x)):
        audio.write(tmp_path / f"{name}.wav", signal, RATE)
    read, index = Reader(memory_mb=0), Index()
    a, b = Recordings(root=str(tmp_path)).takes()
    takes = [Take("a", a.dry, a.wet, 0, a.stop, split="train"), Take("b", b.dry, b.wet, 0, b.stop, split="test")]
    asked = []
    counted = lambda path, start, frames: asked.append(frames) or read(path, start, frames)  # noqa: E731
    level = inspect.level(counted, a.dry, 0, a.stop, 4 * RATE)  # type: ignore[arg-type]
    assert level.peak == 0.5 and sum(asked[:2]) == 4 * RATE
    loud = torch.rand(1, 60 * RATE)
    audio.write(tmp_path / "loud.wav", loud, RATE)
    asked.clear()
    inspect.level(counted, tmp_path / "loud.wav", 0, 60 * RATE, 4 * RATE)  # type: ignore[arg-type]
    assert sum(asked) == 4 * RATE
    with pytest.raises(UserError, match=r"b-target\.wav is silent"):
        inspect.check(takes, read, index, RATE)


def test_linear_filters_read_so_much_of_hours_from_everywhere(folder, monkeypatch):
    found = data(source(folder))
    everything = references.correlations(found, "train")[0]
    monkeypatch.setattr(references, "_FITTED_SECONDS", 2.0)
    part = references.correlations(found, "train")[0]
    assert everything.samples == round(found.seconds("train") * RATE) > part.samples
    assert part.samples == pytest.approx(2 * RATE, rel=0.1)
    assert torch.allclose(part.solve(2, 0), everything.solve(2, 0), atol=0.05)
    takes = found.takes("train")
    assert {take.name for take, *_ in passages.spread(takes, 2 * RATE)} == {take.name for take in takes}
    assert all(take.start <= a < b <= take.stop for take, a, b in passages.spread(takes, 2 * RATE))


def test_recordings_without_a_wet_side_are_indexed_alike(folder, tmp_path, opened, caplog):
    logging.getLogger("revox_lightning").propagate = True
    (folder / "t0-input.wav").write_bytes(b"")
    for _ in range(2):
        opened.clear()
        found = Dry(root=str(folder), cache_dir=str(tmp_path / "cache"))
        assert len(found.takes()) == 7
    assert not opened and said(caplog, "1 of 8 files cannot be read") == 2


def test_thousands_of_takes_are_split_in_no_time(monkeypatch):
    takes = [Take(f"{i}", f"{i}d", f"{i}w", 0, 10_000) for i in range(20_000)]  # type: ignore[arg-type]
    parts = module.split(takes, "time", (0.8, 0.1, 0.1), 100, 10)
    module.keep_apart(parts, 100)
    assert len(parts) == 60_000 and parts[1].lead == 100
