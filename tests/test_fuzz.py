"""Damaged and hostile files by every reader: a few with each run of the tests, more in the slow ones, and what was found.

The whole campaign is ``python benchmarks/fuzz.py``; docs/fuzzing.md tells what it came to.
"""

import io
import json
import struct
import time
import zipfile

import fuzz
import fuzz_readers
import mutations
import numpy as np
import pytest
import torch
import yaml
from fuzz_readers import READERS
from fuzz_runs import CONFIG, run_folder

from revox_lightning import audio, plain_files
from revox_lightning.commands import score, settings, sweep_file
from revox_lightning.commands.exits import guarded
from revox_lightning.data import bench
from revox_lightning.data.recordings import Recordings
from revox_lightning.errors import UserError
from revox_lightning.export import mikkonen, mikkonen_unet
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.report import data_sheet, leaderboard, references
from revox_lightning.runs import RunFolder, load_tensors, read_checkpoint

torch.set_num_threads(1)
QUICK = [name for name in READERS if not name.startswith(("config", "sweep", "table", "overrides"))]


@pytest.mark.parametrize("reader", QUICK)
def test_a_few_damaged_files_are_read_or_refused(reader, tmp_path):
    originals = fuzz.begin(reader, tmp_path / "files")
    outcomes = [fuzz.case(reader, originals, 0, number) for number in range(4)]
    assert len(outcomes) == 4


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_more_damaged_files_in_processes_of_limited_memory(reader, tmp_path):
    tally = fuzz.run(reader, range(60), 1, tmp_path)
    assert tally.cases == 60 and not tally.bugs, tally.bugs
    assert tally.megabytes < 1000 and tally.seconds < fuzz.MOST_SECONDS


def test_the_same_seed_makes_the_same_file(tmp_path):
    data = fuzz.begin("manifest", tmp_path / "files")[0].read_bytes()
    made = [READERS["manifest"].mutate(data, fuzz.random.Random(7)) for _ in range(2)]
    assert made[0] == made[1] != data


def test_a_finding_is_counted_and_the_campaign_goes_on(tmp_path, monkeypatch):
    def read(path):
        text = path.read_bytes()
        if b"\n" not in text:
            return
        if len(text) % 3 == 0:
            fuzz.signal.raise_signal(fuzz.signal.SIGKILL)
        if len(text) % 3 == 1:
            raise KeyError("found")

    def originals(folder):
        (folder / "a").write_bytes(b"x" * 300)
        return [folder / "a"]

    reader = fuzz_readers.Reader(lambda data, rng: b"\n" * rng.randrange(1, 9), originals, read)
    monkeypatch.setitem(READERS, "poor", reader)
    tally = fuzz.run("poor", range(12), 0, tmp_path)
    assert tally.cases == 12 and 0 < sum(map(len, tally.bugs.values())) < 12
    assert any("KeyError" in what for what in tally.bugs) and "the process ends with -9" in tally.bugs
    assert "| poor | 12 |" in fuzz.page({"poor": tally}, 0)


def test_only_reading_is_timed(tmp_path, monkeypatch):
    def slowly(data, rng):
        time.sleep(0.6)
        return data

    def read(path):
        time.sleep(0.6 if path.read_bytes() == b"hangs" else 0)

    def originals(folder):
        (folder / "a").write_bytes(b"x")
        return [folder / "a"]

    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.3)
    monkeypatch.setitem(READERS, "slow to make", fuzz_readers.Reader(slowly, originals, read))
    tally = fuzz.run("slow to make", range(2), 0, tmp_path)
    assert tally.cases == 2 and not tally.bugs and tally.seconds < 0.3
    monkeypatch.setitem(READERS, "slow", fuzz_readers.Reader(lambda data, rng: b"hangs", originals, read))
    assert any(what.startswith("hangs in") for what in fuzz.run("slow", range(1), 0, tmp_path).bugs)


def test_every_kind_of_damage_is_done():
    rng = fuzz.random.Random(0)
    for mutate, data in (
        (mutations.of_json, b'{"a": [1, {"b": 2}]}'),
        (mutations.of_yaml, b"a: [1, {b: 2}]"),
        (mutations.of_csv, b"a,b\n1,2\n"),
    ):
        assert len({mutate(data, rng) for _ in range(50)}) > 25


# ---- what was found, each once


def flac(path, **fields):
    """A FLAC file whose header tells other things than its frames hold."""
    audio.write(path, 0.1 * torch.ones(2, 3000), 8000, "PCM_16")
    data = bytearray(path.read_bytes())
    for at, value in fields.values():
        data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_header_that_promises_too_much_is_not_believed(tmp_path):
    path = flac(tmp_path / "a.flac", frames=(22, b"\xff\xff\xff\xff"))  # 4 billion frames, 32 GB
    assert audio.info(path).frames > 2**31
    started = time.monotonic()
    with pytest.raises(UserError, match="damaged after"):
        audio.read(path)
    with pytest.raises(UserError, match="damaged after"):
        list(audio.blocks(path, 1000))
    assert time.monotonic() - started < 2


def test_a_sweep_of_endless_values_is_refused_unread(tmp_path, monkeypatch):
    """W&B's schema looks at each value several times: 42 kB of them took 2 s, and 5 s on a busy machine."""
    path = fuzz_readers._sweeps(tmp_path)[0]
    content = yaml.safe_load(path.read_text())
    content["parameters"]["model.hidden"]["values"] = list(range(1000))
    path.write_text(yaml.safe_dump(content, default_flow_style=True))
    assert len(sweep_file.read(path)[0]["parameters"]["model.hidden"]["values"]) == 1000
    content["parameters"]["model.hidden"]["values"] *= 5
    path.write_text(yaml.safe_dump(content, default_flow_style=True))
    monkeypatch.setattr(plain_files.yaml, "load", None)  # nobody calls it
    with pytest.raises(UserError, match="larger than 16 kB"):
        sweep_file.read(path)


def test_devices_and_endless_names_are_no_audio(tmp_path):
    for name in ("/dev/zero", "/dev/stdin", "a" * 5000, "/".join(["a" * 200] * 50)):
        with pytest.raises(UserError) as caught:
            audio.info(name)
        assert len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    "text",
    [b"dry,wet\n\xff,b\n", b'dry,wet\n"' + b"a" * 200_000, b"dry,wet\na\x00b,c\n", b"dry,wet\n" + b"a" * 5000 + b",b\n",
     b"dry,wet,\"k\nk\"\na.wav,a.wav,\n", b"dry,wet,gain\na.wav,a.wav," + b"9" * 5000],
    ids=["no text", "no end of a cell", "a zero byte", "a long name", "a knob of two lines", "a long number"],
)  # fmt: skip
def test_manifests(text, tmp_path):
    audio.write(tmp_path / "a.wav", torch.zeros(1, 800) + 0.1, 8000)
    (tmp_path / "pairs.csv").write_bytes(text)
    with pytest.raises(UserError) as caught:
        Recordings(manifest=str(tmp_path / "pairs.csv"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    "text",
    ["a: &a [x]\nb: *a", "a: 2026-99-99\nb: !!timestamp x", 'a: "\\UFFFFFFFF"', "a: 0x" + "f" * 6000, "a: " + "[" * 400,
     "a: 1\na: 2", "a: !!python/object/apply:os.system [true]", "? [a]\n: 1", 'a: "\\ud800"', "a: !!float x", "\x00", "a: " + "9" * 5000],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_yaml(text, tmp_path):
    with pytest.raises(ValueError) as caught:
        plain_files.parse_yaml(text)
    assert "\n" not in str(caught.value)
    run = run_folder(tmp_path / "run")
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG) + text + "\n")
    with pytest.raises(UserError):
        leaderboard.read([run])


def test_a_date_in_yaml_is_text_and_a_long_number_of_json_is_infinite(tmp_path):
    assert plain_files.parse_yaml("a: 2026-11-23\nb: 1.5\nc: [1, true, null]") == {
        "a": "2026-11-23",
        "b": 1.5,
        "c": [1, True, None],
    }
    (tmp_path / "a.json").write_text('{"a": ' + "9" * 400 + ', "b": 12, "c": "\\ud83d\\ude00"}')
    assert plain_files.read_json(tmp_path / "a.json") == {"a": float("inf"), "b": 12, "c": "\U0001f600"}
    for text in ("[" * 100_000, '"\\ud800"', "\xff"):
        (tmp_path / "b.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError):
            plain_files.read_json(tmp_path / "b.json")


def archive(path, members, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


def test_checkpoints_become_no_larger_than_their_file(tmp_path):
    run = run_folder(tmp_path / "run")
    whole = zipfile.ZipFile(run / "checkpoints" / "best.ckpt")
    members = {name: whole.read(name) for name in whole.namelist()}
    torch.save({"state_dict": {"net.x": torch.zeros(1).expand(10**9)}}, run / "views.ckpt")
    one: list = []
    for _ in range(60):  # in memory sixty lists; walked through without care, 2 ** 60 of them
        one = [one, one]
    torch.save({"state_dict": {}, "more": one}, run / "shared.ckpt")
    archive(run / "packed.ckpt", members | {"archive/data/9": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    for name, words in (("views", "larger than the file"), ("packed", "compressed")):
        with pytest.raises(UserError, match=words):
            read_checkpoint(run / f"{name}.ckpt")
    assert read_checkpoint(run / "shared.ckpt")["state_dict"] == {}
    assert load_tensors(run / "checkpoints" / "best.ckpt")["epoch"] == 1
    for state in ([], {3: 4}, {"net.lin.weight": "x"}, {"net.lin.weight": 3}):
        torch.save({"state_dict": state}, run / "checkpoints" / "best.ckpt")
        with pytest.raises(UserError):
            RunFolder(run).load_weights(Recurrent("lstm", hidden=4))
    torch.save({"linear": {"h": torch.zeros(()), "lookahead": -1}}, run / "filters.ckpt")
    with pytest.raises(UserError, match="no linear filters"):
        references.load_filters(run / "filters.ckpt")


def npy(shape, kind="<f4"):
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def test_weights_of_others_in_npz(tmp_path, monkeypatch):
    for members in (
        {"GRU_a/GRU.weight_hh_l0.npy": npy("(3, 0)")}, {"a.npy": npy("(10000000000,)")}, {"GRU_a/GRU.weight_hh_l0.npy": npy("()") + bytes(4)}, {"a.npy": npy("(1,)", "|O")},
        {"downs.0.0.first_conv.1.weight.npy": npy("()") + bytes(4), "downs.2.0.first_conv.1.weight.npy": npy("()") + bytes(4),
         "embedding.MLP.0.bias.npy": npy("(1,)") + bytes(4)}, {"x.npy": b""},
    ):  # fmt: skip
        path = archive(tmp_path / "a.npz", members)
        with pytest.raises(UserError):
            mikkonen_unet.load(path)
        with pytest.raises(UserError):
            mikkonen.load(path, "GRU_a")
    big = io.BytesIO()
    np.save(big, np.zeros(2**16, np.int32))
    monkeypatch.setattr(mikkonen, "_LARGEST_BYTES", 2**16)
    with pytest.raises(UserError, match="file of weights"):
        mikkonen.arrays(archive(tmp_path / "b.npz", {"a.npy": big.getvalue()}, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "change",
    [{"command": "sh"}, {"command": ["${program}", 3]}, {"run_cap": "x"}, {"metric": {"name": "val/esr", "goal": "?"}}, {"metric": []},
     {"parameters": {"hydra.callbacks.x._target_": {"value": "os.system"}}}, {"parameters": {"--config-dir": {"value": "/evil"}}},
     {"parameters": {"x": {"min": "a", "max": []}}}, {"method": []}, {"early_terminate": 3}],
    ids=str,
)  # fmt: skip
def test_sweep_files(change, tmp_path):
    pytest.importorskip("sweeps", reason="W&B's engine is the extra 'sweep'")
    path = fuzz_readers._sweeps(tmp_path)[0]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(UserError):
        sweep_file.read(path)
    for words in (
        ["--config-dir=/evil"],
        ["hydra.run.dir=x"],
        ["+hydra.callbacks.x._target_=os.system"],
        ["a"],
        ["-m"],
    ):
        with pytest.raises(UserError, match="only options of a run"):
            sweep_file.checked(words, path)


def test_names_of_a_bench_that_no_file_can_have(tmp_path):
    for name in ("a" * 5000, "a\x00b", "/etc/passwd", "../x"):
        (tmp_path / "bench.json").write_text(json.dumps({"bench": "v1", "files": {name: "0"}, "noise": {}}))
        with pytest.raises(UserError, match="missing or changed"):
            bench.read(tmp_path)


def test_a_net_of_true_layers_plays():
    assert Recurrent(hidden=2, layers=True)(torch.zeros(1, 1, 5))[0].shape == (1, 1, 5)


def test_cards_and_sheets(tmp_path):
    card = {"files": {}, "machines": {"a": {"metrics": {"x": None}}}}
    (tmp_path / "card.json").write_text(json.dumps(card | {"machines": {"a": {"metrics": {"x": 1.0}}}}))
    with pytest.raises(UserError, match="x is 1"):
        score._confirm(card, tmp_path / "card.json")
    (tmp_path / "sheet.json").write_text('{"kind": "tape", "latency": {"milliseconds": ' + "9" * 400 + "}}")
    data_sheet.rows(data_sheet.read_json(tmp_path / "sheet.json"))


def test_overrides(capsys):
    for words in (
        ["model=" + "a" * 3000],
        ["model=null"],
        ["model=1"],
        ["machine=[1]"],
        ["name=" + "[" * 2000 + "]" * 2000],
        ["a" * 5000],
    ):
        assert guarded(lambda words=words: settings.composed(words)) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("error: ") and "\n" not in said and len(said) < 1200
    for text in ("seed=*a", "seed=&a [*a]", "seed=" + "[" * 5000, "seed=!!x", "seed='a", "seed=2026-99-99"):
        with pytest.raises(UserError):
            settings.changed(settings.OmegaConf.create({"seed": 0}), [text])
    assert settings.arguments(["x=" + "a" * 5000], {"x"})[0] == {"x": "a" * 5000}


def test_what_is_quoted_cannot_end_the_line_or_speak_to_the_terminal():
    said = str(UserError("no \x1b[31mfile\nerror: another\x00 \udc80" + "x" * 5000))
    assert "\n" not in said and said.isprintable() and len(said) < 1100
