"""Takes, splits, segments and chunks: nothing leaks, nothing is lost, every epoch can be had again."""

import logging

import pytest
import torch

from revox_lightning import audio
from revox_lightning.data import inspect
from revox_lightning.data.corruption import Corruption
from revox_lightning.data.module import PairData
from revox_lightning.data.recordings import Recordings
from revox_lightning.data.takes import Reader
from revox_lightning.dsp import effects
from revox_lightning.errors import UserError

RATE = 8000


def data(source, **changes):
    settings = {"sample_rate_hz": RATE, "segment_samples": 500, "warmup_samples": 100, "batch_size": 4} | changes
    return PairData(source, **settings)


def test_three_ways_to_name_pairs_find_the_same(tmp_path, pair):
    dry, wet = pair()
    (tmp_path / "two" / "dry").mkdir(parents=True)
    (tmp_path / "two" / "wet").mkdir()
    (tmp_path / "two" / "dry" / "a.wav").write_bytes(dry.read_bytes())
    (tmp_path / "two" / "wet" / "a.wav").write_bytes(wet.read_bytes())
    (tmp_path / "m.csv").write_text(f"dry,wet\n{dry},{wet}\n")
    for source in (
        Recordings(dry=str(dry), wet=str(wet)),
        Recordings(root=str(dry.parent)),
        Recordings(root=str(tmp_path / "two")),
        Recordings(manifest=str(tmp_path / "m.csv")),
    ):
        (take,) = source.takes()
        assert (take.start, take.stop, take.delay) == (0, 2 * RATE, 0)
        x, y = Reader().pair(take, 0, 100)
        assert torch.allclose(y, torch.tanh(2 * x) * 0.5, atol=1e-6)


def test_dotted_names_and_split_folders(tmp_path, pair):
    for split in ("train", "val", "test"):
        dry, wet = pair(folder=tmp_path / "set" / split)
        dry.rename(dry.with_name("x.input.wav"))
        wet.rename(wet.with_name("x.target.wav"))
    found = data(Recordings(root=str(tmp_path / "set")))
    assert [len(found.takes(s)) for s in ("train", "val", "test")] == [1, 1, 1]
    assert found.takes("val")[0].dry.parent.name == "val"


def test_a_split_by_time_is_contiguous_with_gaps_and_never_leaks(pair):
    pair(seconds=4)
    dry, wet = pair()
    found = data(Recordings(dry=str(dry), wet=str(wet)), history_samples=700, gap_seconds=0.01)
    train, val, test = (found.takes(s)[0] for s in ("train", "val", "test"))
    assert train.stop + 700 == val.start and val.stop + 700 == test.start
    seen = torch.zeros(test.stop, dtype=torch.bool)
    for epoch in range(5):
        for batch in found._batches(epoch):
            for (_, start), _ in batch:
                seen[max(start, 0) : start + 600] = True
    assert seen[: train.stop].all() or seen[: train.stop].float().mean() > 0.98
    assert not seen[train.stop :].any()
    # What val and test play as history lies in the gap, never in another split.
    for split, before in (("val", train.stop), ("test", val.stop)):
        chunks = found.chunks(split).dataset
        assert chunks.place(0)[1] >= before


def test_less_to_train_on_is_the_first_part_of_every_take_and_leaves_the_rest_alone(tmp_path, pair):
    for split in ("train", "val", "test"):
        pair(folder=tmp_path / "set" / split)
    pair(folder=tmp_path / "set" / "train", seconds=2, name="second")
    whole, less = (data(Recordings(root=str(tmp_path / "set")), train_seconds=s) for s in (None, 0.5))
    assert less.seconds("train") == pytest.approx(0.5, abs=1e-3)
    for one, other in zip(whole.takes("train"), less.takes("train"), strict=True):
        assert other.start == one.start and 0 < other.frames < one.frames
    assert [less.takes(s) for s in ("val", "test")] == [whole.takes(s) for s in ("val", "test")]
    assert data(Recordings(root=str(tmp_path / "set")), train_seconds=1e6).takes("train") == whole.takes("train")
    with pytest.raises(UserError, match=r"data\.train_seconds=-1"):
        data(Recordings(root=str(tmp_path / "set")), train_seconds=-1)


def test_overlapping_manifest_splits_are_refused(tmp_path, pair):
    dry, wet = pair(seconds=4)
    rows = [f"{dry},{wet},train,0,2", f"{dry},{wet},val,1.9,3", f"{dry},{wet},test,3.2,4"]
    (tmp_path / "m.csv").write_text("dry,wet,split,start_seconds,end_seconds\n" + "\n".join(rows))
    with pytest.raises(UserError, match="overlap"):
        data(Recordings(manifest=str(tmp_path / "m.csv")))
    rows[1] = f"{dry},{wet},val,2.01,3"
    (tmp_path / "m.csv").write_text("dry,wet,split,start_seconds,end_seconds\n" + "\n".join(rows))
    with pytest.raises(UserError, match="longer gap"):
        data(Recordings(manifest=str(tmp_path / "m.csv")), history_samples=1000)


def test_split_by_file(tmp_path, pair):
    for i in range(5):
        pair(name=f"t{i}", seed=i)
    found = data(Recordings(root=str(tmp_path / "pairs")), split_by="file", fractions=[0.6, 0.2, 0.2])
    assert [len(found.takes(s)) for s in ("train", "val", "test")] == [3, 1, 1]
    assert len({t.dry for s in ("train", "val", "test") for t in found.takes(s)}) == 5


def test_knobs_come_from_a_manifest(tmp_path, pair):
    rows = []
    for split in ("train", "val", "test"):
        dry, wet = pair(name=split)
        rows.append(f"{dry},{wet},{split},0.25,{len(rows)}")
    (tmp_path / "m.csv").write_text("dry,wet,split,drive,bias\n" + "\n".join(rows))
    found = data(Recordings(manifest=str(tmp_path / "m.csv")))
    assert found.knobs == ("drive", "bias")
    batch = next(iter(found.train_dataloader()))
    assert torch.equal(batch["controls"], torch.tensor([[0.25, 0.0]]).expand(len(batch["dry"]), 2))


def test_an_epoch_depends_on_seed_and_epoch_alone(pair):
    dry, wet = pair()
    source = Recordings(dry=str(dry), wet=str(wet))
    first, again, other = data(source, seed=1), data(source, seed=1), data(source, seed=2)
    assert list(first._batches(3)) == list(again._batches(3))
    assert list(first._batches(3)) != list(first._batches(4))
    assert list(first._batches(3)) != list(other._batches(3))


def test_delay_is_taken_out(tmp_path, pair):
    dry, wet = pair()
    late = torch.cat([torch.zeros(1, 37), audio.read(wet)], -1)
    audio.write(tmp_path / "late.wav", late, RATE, subtype="FLOAT")
    (take,) = Recordings(dry=str(dry), wet=str(tmp_path / "late.wav"), delay_samples=37).takes()
    x, y = Reader().pair(take, 10, 50)
    assert torch.allclose(y, torch.tanh(2 * x) * 0.5, atol=1e-6)


def test_chunks_play_every_scored_sample_once(pair):
    dry, wet = pair()
    found = data(Recordings(dry=str(dry), wet=str(wet)), chunk_samples=333)
    take = found.takes("test")[0]
    parts = [batch["wet"][0, :, batch["meta"]["skip"] :] for batch in found.chunks("test")]
    assert torch.equal(torch.cat(parts, -1), Reader()(take.wet, take.start, take.frames))


@pytest.mark.parametrize("channels,expected", [("left", 0), ("right", 1), ("mix", None), ("each", slice(None))])
def test_channels(pair, channels, expected):
    dry, wet = pair(channels=2)
    x = audio.read(dry)
    found = data(Recordings(dry=str(dry), wet=str(wet)), channels=channels)
    got = next(iter(found.chunks("train")))["dry"][0]
    wanted = x.mean(0, keepdim=True) if expected is None else x[expected].reshape(-1, x.shape[-1])
    assert torch.allclose(got, wanted[:, : got.shape[-1]])
    assert found.audio_channels == (2 if channels == "each" else 1)


def test_files_beyond_the_memory_are_read_piecewise_and_alike(pair):
    dry, wet = pair()
    source = Recordings(dry=str(dry), wet=str(wet))
    a, b = (next(iter(data(source, memory_mb=mb).train_dataloader())) for mb in (100, 0.0))
    assert torch.equal(a["dry"], b["dry"]) and torch.equal(a["wet"], b["wet"])


def test_resampling_only_when_asked(tmp_path, pair):
    dry, wet = pair()
    source = Recordings(dry=str(dry), wet=str(wet))
    with pytest.raises(UserError, match=r"data\.resample=true"):
        data(source, sample_rate_hz=16000)
    found = data(source, sample_rate_hz=16000, resample=True, cache_dir=str(tmp_path / "cache"))
    assert audio.info(found.takes("train")[0].dry).sample_rate_hz == 16000
    assert found.takes("test")[0].stop == 32000


def bad(tmp_path, pair, wet=None, dry=None, rate_hz=RATE):
    good_dry, good_wet = pair()
    paths = []
    for name, signal, good in (("dry", dry, good_dry), ("wet", wet, good_wet)):
        paths.append(good)
        if signal is not None:
            paths[-1] = tmp_path / f"bad-{name}.wav"
            audio.write(paths[-1], signal, rate_hz, subtype="FLOAT")
    return Recordings(dry=str(paths[0]), wet=str(paths[1]))


def test_bad_recordings_are_named_in_one_sentence(tmp_path, pair, caplog):
    with pytest.raises(UserError, match=r"silent.*nothing to learn"):
        data(bad(tmp_path, pair, wet=torch.zeros(1, 2 * RATE))).check()
    with pytest.raises(UserError, match="one rate"):
        bad(tmp_path, pair, wet=torch.ones(1, RATE), rate_hz=16000)
    for split in ("train", "val", "test"):
        pair(name=split, seconds=1.0, folder=tmp_path / "short" / split)
    with pytest.raises(UserError, match="shorter than one segment"):
        data(Recordings(root=str(tmp_path / "short")), segment_samples=RATE + 1)
    with pytest.raises(UserError, match="too short to split"):
        data(bad(tmp_path, pair), segment_samples=1500, gap_seconds=0.9)
    with caplog.at_level(logging.WARNING, "revox_lightning"):
        logging.getLogger("revox_lightning").propagate = True
        clipped = (3 * torch.sin(torch.arange(2 * RATE) / 20)).clamp(-1, 1)[None]
        data(bad(tmp_path, pair, wet=clipped)).check()
        bad(tmp_path, pair, wet=torch.rand(1, RATE))
    assert "clipped in" in caplog.text and "only the common" in caplog.text


def test_a_dead_channel_and_two_names_of_one_file_are_noticed(tmp_path, pair):
    dry, wet = pair(channels=2)
    half = audio.read(wet)
    half[1] = 0
    audio.write(tmp_path / "half.wav", half, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="one of its channels"):
        data(Recordings(dry=str(dry), wet=str(tmp_path / "half.wav"))).check()
    data(Recordings(dry=str(dry), wet=str(tmp_path / "half.wav")), channels="left").check()
    (tmp_path / "x").mkdir()
    again = tmp_path / "x" / ".." / "pairs" / dry.name
    rows = [f"{dry},{wet},train", f"{again},{wet},val", f"{dry},{wet},test"]
    (tmp_path / "m.csv").write_text("dry,wet,split\n" + "\n".join(rows))
    with pytest.raises(UserError, match="overlap"):
        data(Recordings(manifest=str(tmp_path / "m.csv")))


@pytest.mark.parametrize(
    "row,message",
    [
        ("a.wav,", "must both name"),
        ("{dry},{wet},,nan", "start_seconds is 'nan'"),
        ("{dry},{wet},dev", "write train, val or test"),
    ],
)
def test_bad_rows_of_a_manifest_are_named_by_their_line(row, message, tmp_path, pair):
    dry, wet = pair()
    (tmp_path / "m.csv").write_text("dry,wet,split,start_seconds\n" + row.format(dry=dry, wet=wet) + "\n")
    with pytest.raises(UserError, match=message) as raised:
        Recordings(manifest=str(tmp_path / "m.csv"))
    assert "line 2" in str(raised.value)


def test_several_wets_of_one_dry_file_are_cut_at_the_same_places(tmp_path, pair):
    dry, wet = pair(seconds=4)
    short = tmp_path / "short.wav"
    audio.write(short, audio.read(wet)[:, : 3 * RATE], RATE, subtype="FLOAT")
    (tmp_path / "m.csv").write_text(f"dry,wet,drive\n{dry},{wet},0\n{dry},{short},1\n")
    found = data(Recordings(manifest=str(tmp_path / "m.csv")))
    for split in ("train", "val", "test"):
        a, b = found.takes(split)
        assert (a.start, a.stop) == (b.start, b.stop)


def test_a_late_recording_is_noticed_and_its_delay_named(tmp_path, pair, caplog):
    logging.getLogger("revox_lightning").propagate = True
    dry, wet = pair()
    late = torch.cat([torch.zeros(1, 137), audio.read(wet)], -1)
    audio.write(tmp_path / "late.wav", late, RATE, subtype="FLOAT")
    for delay, noticed in ((0, True), (137, False)):
        caplog.clear()
        data(Recordings(dry=str(dry), wet=str(tmp_path / "late.wav"), delay_samples=delay)).check()
        assert ("data.delay_samples=137" in caplog.text) == noticed


def test_level_counts_peak_rms_and_clipped_runs():
    level = inspect.Level()
    x = 0.5 * torch.ones(1, 1000)
    x[0, 100:110] = 1.0
    x[0, 500] = 1.0  # a single touch of full scale is no clipping
    level.add(x)
    assert level.clipped_runs == 1
    assert level.peak_dbfs == 0.0
    assert level.rms_dbfs == pytest.approx(10 * torch.log10(x.square().mean()).item(), abs=1e-4)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({}, "exactly one"),
        ({"root": "/nowhere"}, "no such folder"),
        ({"manifest": "/nowhere.csv"}, "no such file"),
        ({"dry": "/nowhere.wav", "wet": "/nowhere.wav"}, "no audio file"),
    ],
)
def test_wrong_places(arguments, message):
    with pytest.raises(UserError, match=message):
        Recordings(**arguments)


def test_a_folder_without_pairs_or_with_a_widow(tmp_path, pair):
    with pytest.raises(UserError, match="no pairs"):
        Recordings(root=str(tmp_path))
    _, wet = pair()
    wet.unlink()
    with pytest.raises(UserError, match="no partner"):
        Recordings(root=str(tmp_path))


@pytest.mark.parametrize("chain", [None, "tape", pytest.param("studio", marks=pytest.mark.slow)])
def test_batches_do_not_depend_on_the_number_of_workers(chain, pair):
    dry, wet = pair()
    # What trains on effects has threads of OpenMP, which a process that is forked from it may not use.
    effects.render(torch.zeros(2, 1, 8), torch.full((2, 28), 0.5), RATE)
    how = {} if chain is None else {"corruption": Corruption(RATE, chain=chain), "warmup_samples": 0}

    def batches(workers):
        return list(data(Recordings(dry=str(dry), wet=str(wet)), workers=workers, **how).train_dataloader())

    alone, helped = batches(0), batches(2)
    assert len(alone) == len(helped) > 2
    for a, b in zip(alone, helped, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_negative_number_of_workers_is_refused(pair):
    dry, wet = pair()
    with pytest.raises(UserError, match=r"data\.workers=-1"):
        data(Recordings(dry=str(dry), wet=str(wet)), workers=-1)
