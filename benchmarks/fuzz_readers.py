"""Every reader of files that may come from elsewhere: small whole files to begin with, and what reads them.

``read`` gets the folder in which the damaged file lies and its path; whatever it returns must be usable.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import numpy as np
import torch
import yaml
from omegaconf import OmegaConf

from revox_lightning import audio
from revox_lightning.capture import layout
from revox_lightning.commands import assemble, paper, score, settings, subjects, sweep, sync, transfer
from revox_lightning.data import bench, recordings, trajectories
from revox_lightning.dsp import effects
from revox_lightning.export import captures, keras_json, mikkonen, mikkonen_unet, nam, wavenetva, wright
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm
from revox_lightning.models.unet_1d import UNet1d
from revox_lightning.models.wavenet import WaveNet
from revox_lightning.report import data_sheet, leaderboard, page_table, ratings, ratings_table, references, stimuli
from revox_lightning.runs import RunFolder, read_checkpoint

RATE_HZ = 8000


class Reader(NamedTuple):
    """``originals`` writes whole files into a folder; a damaged copy lies in ``beside`` of it under ``name``, or under
    the original's name."""

    mutate: Callable[[bytes, random.Random], bytes]
    originals: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    name: str | None = None


def _sounds(suffix: str, subtypes: tuple[str, ...]) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        x = 0.3 * torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
        paths = [folder / f"{n}{suffix}" for n in range(2 * len(subtypes))]
        for n, path in enumerate(paths):
            audio.write(path, x[: 1 + n % 2].clamp(-1, 1), RATE_HZ, subtypes[n // 2])
        return paths

    return write


def _sound(path: Path) -> None:
    told = audio.info(path)
    if told.frames < 2**22:  # longer ones go block by block, as they do wherever length is not known
        whole = audio.read(path)
        assert whole.shape == (told.channels, told.frames) and torch.isfinite(whole).all()
    assert sum(
        1 for _, block in zip(range(50), audio.blocks(path, 1000), strict=False) if block.shape[0] == told.channels
    )
    audio.read(path, 10, 100)


def _whole_sound(path: Path) -> None:
    audio.read(path)


def _manifests(folder: Path) -> list[Path]:
    _sounds(".wav", ("PCM_16",))(folder)
    rows = [["dry", "wet", "split", "start_seconds", "end_seconds", "delay_samples", "trajectory", "gain"]]
    rows += [
        ["0.wav", "0.wav", split, "0", "0.1", "0", "", str(n / 3)] for n, split in enumerate(("train", "val", "test"))
    ]
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return [folder / "pairs.csv"]


def _manifest(path: Path) -> None:
    source = recordings.Recordings(manifest=str(path))
    assert all(take.start < take.stop for take in source.takes())
    str(source.knobs).encode(errors="replace")


def _floors(folder: Path) -> list[Path]:
    (folder / "floor.json").write_text(json.dumps({"mean_square": [1e-6, None]}))
    return [folder / "floor.json"]


def _trajectories(folder: Path) -> list[Path]:
    np.savez(folder / "a.npz", delay_samples=np.linspace(0, 9, 500), sample_rate_hz=RATE_HZ)
    np.savez_compressed(folder / "b.npz", delay_samples=np.linspace(0, 9, 500).astype(np.float32))
    return [folder / "a.npz", folder / "b.npz"]


def _nams(folder: Path) -> list[Path]:
    torch.manual_seed(0)
    nets = [
        NAMWaveNet((3, 2), ([1, 2], [4])),
        nam_wavenet("a2_lite"),
        nam_lstm("nano"),
        ConvNet(3, [1, 2]),
        FIR(20, bias=True),
    ]
    for n, net in enumerate(nets):
        nam.write(net.eval(), folder / f"{n}.nam", 48_000, {"name": "it"})
    return sorted(folder.glob("*.nam"))


def _jsons(folder: Path) -> list[Path]:
    torch.manual_seed(0)
    keras_json.write(Recurrent("gru", hidden=4, skip=False), folder / "rtneural.json")
    keras_json.write(ConvNet(3, [1, 2]).eval(), folder / "convolutions.json")
    keras_json.write_aidax(Recurrent(hidden=8), folder / "aidax.json", {"samplerate": "48000"})
    wright.write(Recurrent(hidden=4), folder / "proteus.json")
    net, found = WaveNet([1, 2], width=2, kernel=2), []
    for name, value in net.state_dict().items():
        layer, *number, kind = name.split(".")
        index = number[0] if number else {"input": "-1", "mixer": "2"}[layer]
        label = ("W" if kind == "weight" else "b") + {"gated": "_conv", "residual": "_out"}.get(layer, "")
        found.append({"layer_idx": index, "name": label, "data": value.permute(*reversed(range(value.ndim))).tolist()})
    shape = {
        "activation": "gated",
        "input_channels": 1,
        "output_channels": 1,
        "residual_channels": 2,
        "filter_width": 2,
    }
    (folder / "wavenet.json").write_text(json.dumps(shape | {"dilations": [1, 2], "variables": found}))
    assert set(json.loads((folder / "wavenet.json").read_text())) >= set(wavenetva.KEYS)
    return sorted(folder.glob("*.json"))


def _capture(path: Path) -> None:
    found = captures.read(path)
    knobs = torch.zeros(1, found.net.controls) if found.net.controls else None
    with torch.no_grad():
        assert found.net(torch.zeros(1, 1, 10), knobs)[0].shape == (1, 1, 10)


def _tape_models(folder: Path) -> list[Path]:
    net = Recurrent("gru", 4, skip=False)
    named = {name.replace("rec.", "GRU.").replace("lin.", "output."): value for name, value in net.state_dict().items()}
    np.savez(folder / "gru.npz", **{f"GRU_ESR_a/{name}": value.numpy() for name, value in named.items()})
    return [folder / "gru.npz"]


def _tape_model(path: Path) -> None:
    for name in mikkonen.names(path):
        mikkonen.load(path, name)


def _unets(folder: Path) -> list[Path]:
    """A net of two levels under the published names, whose way up is counted from the bottom."""
    block = {"scale": "film.output_layer", "enter": "first_conv.1", "around": "res_conv"}
    known = {
        "embed.frequency": "embedding.RFF_freq", "first.weight": "init_conv.weight",
        "write_in.0.weight": "downs.0.2.conv1x1.weight", "read_out.0.weight": "ups.0.2.conv1x1.weight",
    }  # fmt: skip
    arrays = {}
    for name, value in UNet1d((4, 6), (2, 2), 8).state_dict().items():
        room, *rest = name.split(".")
        theirs = known.get(name) or name.replace("embed.layers", "embedding.MLP")
        if room in ("down", "up", "middle"):
            index, part, *tail = ["0", *rest] if room == "middle" else rest
            tail = [*tail[:-1], "conv", tail[-1]] if part == "layers" and tail[-1] == "weight" else tail
            at = 1 - int(index) if room == "up" else int(index)
            theirs = ".".join([room + "s" * (room != "middle"), str(at), "0", block.get(part, "H"), *tail])
        arrays[theirs] = value.numpy()
    np.savez(folder / "unet.npz", **arrays)
    return [folder / "unet.npz"]


CONFIG: dict[str, Any] = {
    "name": "lstm", "task": "effect", "seed": 0, "size": 4, "monitor": "val/esr", "kernels": "torch", "run_dir": "x",
    "parts": None, "linear_start": False, "linear_filter": {"taps": 16, "lookahead_samples": 0, "trainable": False},
    "delay_line": {"interpolation": None, "max_delay_samples": 64}, "audio_channels": 1, "knobs": [],
    "model": {"_target_": "revox_lightning.models.recurrent.Recurrent", "unit": "lstm", "hidden": 4, "layers": 1,
              "skip": True, "channels": 1, "controls": 0},
    "system": {"threads": 1}, "data": {"_target_": "revox_lightning.data.module.PairData", "sample_rate_hz": RATE_HZ,
              "source": {"_target_": "revox_lightning.data.recordings.Recordings", "root": "/songs"}},
}  # fmt: skip
FIGURES = {
    "test/esr": 0.1, "test/esr_gain_aligned": 0.1, "test/mrstft": 1.5, "test/lufs_error_db": -0.25, "test/esr_dry": 0.2,
    "test/esr_linear": 0.1, "test/esr_floor": 1e-4, "parameters": 1000, "multiply_adds_per_sample": 90,
    "real_time_factor": 12.5, "train_seconds": 60.0, "name": "lstm",
}  # fmt: skip


def run_folder(folder: Path) -> Path:
    """A small finished run, with weights and linear filters."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "metrics.json").write_text(json.dumps(FIGURES))
    (folder / "levels.json").write_text(json.dumps({"train_input_peak_dbfs": -1.0}))
    lines = "".join(f"{i},{i * 10},{i * 60},{0.1 / (i + 1)}\n" for i in range(5))
    (folder / "metrics.csv").write_text(f"epoch,train_seconds,audio_seconds_trained,val/esr\n{lines}")
    (folder / "stretches.csv").write_text("file,error,energy\n0,0.1,1\n0,0.2,1\n1,0.1,2\n")
    (folder / "checkpoints").mkdir(exist_ok=True)
    net = Recurrent("lstm", hidden=4)
    state = {
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        "epoch": 1,
        "callbacks": {},
    }
    torch.save(state, folder / "checkpoints" / "best.ckpt")
    torch.save({"linear": {"h": torch.ones(1, 8), "lookahead": 2}}, folder / "checkpoints" / "linear_filters.ckpt")
    return folder


def _of_run(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [run_folder(folder) / name]


def _checkpoint(path: Path) -> None:
    content = read_checkpoint(path)
    assert isinstance(content["state_dict"], dict)
    RunFolder(path.parents[1]).load_weights(Recurrent("lstm", hidden=4))  # type: ignore[arg-type]


def _report(path: Path) -> None:
    boards, _ = leaderboard.read([path.parent])
    for board in boards:
        for row in board.rows:
            page_table.table(board).encode()
            assert row.label and math.isfinite(row.esr)
    stimuli.systems([path.parent])


def _net(path: Path) -> None:
    net, cfg, folder = assemble.load_run(path.parent, "torch")
    assert cfg.data.sample_rate_hz and folder.read_json("levels.json") is not None
    with torch.no_grad():
        net(torch.zeros(1, net.channels, 10), torch.zeros(1, net.controls) if net.controls else None)


def _results(folder: Path) -> list[Path]:
    whole = {"format": ratings.FORMAT, "page": "p", "listener": "me", "session": "s1"}
    stimulus = [{"name": "tape", "kind": "reference", "rating": 100}, {"name": "lstm", "kind": "system", "rating": 50}]
    mushra = {
        "kind": "mushra",
        "trials": [{"excerpt": f"e{n}", "repeated": False, "stimuli": stimulus} for n in range(2)],
    }
    abx = {"kind": "abx", "trials": [{"mode": "abx", "system": "lstm", "excerpt": "e", "correct": True}] * 3}
    for name, kind in (("mushra.json", mushra), ("abx.json", abx)):
        (folder / name).write_text(json.dumps(whole | kind))
    return [folder / "mushra.json", folder / "abx.json"]


def _result(path: Path) -> None:
    sessions, _ = ratings.read(path)
    text, files = (_mushra if sessions[0].kind == "mushra" else ratings_table._abx)(sessions)
    assert text and files


def _mushra(sessions: list[ratings.Session]) -> tuple[str, Any]:
    rated = [rating for session in sessions for rating in session.answers]
    return ratings_table._table(*ratings_table._people(ratings.listeners(rated))), ratings_table._scores_csv(
        ratings.scores(rated)
    )


def _knobs(folder: Path) -> list[Path]:
    values = {name: value.item() for name, value in effects.denormalised(torch.full((1, 24), 0.5)).items()}
    (folder / "knobs.json").write_text(json.dumps({"knobs": values, "peak": 0.5}))
    return [folder / "knobs.json"]


def _knob(path: Path) -> None:
    p, peak = transfer._read_knobs(path)
    assert torch.isfinite(p).all() and math.isfinite(peak)


def _sweeps(folder: Path) -> list[Path]:
    content = {
        "program": "train.py", "method": "random", "metric": {"name": "val/esr", "goal": "minimize"}, "run_cap": 4,
        "parameters": {"model.hidden": {"values": [4, 8]}, "optim.lr": {"min": 1e-4, "max": 1e-2}},
        "command": ["${env}", "python", "${program}", "${args_no_hyphens}", "model=lstm"],
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return [folder / "sweep.yaml"]


def _sweep(path: Path) -> None:
    one = sweep.Sweep(path, path.parent / "out", 0)
    trial = sweep.Trial(0, {"model.hidden": 4})
    assert all(isinstance(word, str) for word in one.words(trial, []))


def _trials(folder: Path) -> list[Path]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    _sweeps(folder)
    told = [{"number": n, "parameters": {"model.hidden": 4}, "state": "finished", "value": 0.1} for n in range(3)]
    (out / "trials.json").write_text(json.dumps(told))
    return [out / "trials.json"]


def _trial(path: Path) -> None:
    sweep.Sweep(path.parent.parent / "sweep.yaml", path.parent, 0).rows()


def _papers(folder: Path) -> list[Path]:
    content = {
        "title": "T", "reference": "R", "budget": "B", "unpublished": "","words": ["trainer.max_epochs=1"], "seeds": 1,
        "sets": {"one": {"title": "S", "words": ["data=virtual_revox"]}},
        "rows": [{"label": "lstm", "words": ["model=lstm"], "published": {"one": {"ESR": 0.1}}}],
    }  # fmt: skip
    (folder / "table.yaml").write_text(yaml.safe_dump(content))
    return [folder / "table.yaml"]


def _paper(path: Path) -> None:
    paper.PLACE = path.parent
    told = paper.Paper.read(path.stem)
    assert [paper.row_words(row, {}) for row in told.rows] and list(told.sets)


def _cards(folder: Path) -> list[Path]:
    card = {"files": {"a.wav": "00"}, "machines": {"preisach": {"metrics": {"test/esr": 0.1, "test/mrstft": None}}}}
    (folder / "card.json").write_text(json.dumps(card))
    return [folder / "card.json"]


def _card(path: Path) -> None:
    card = {"files": {"a.wav": "00"}, "machines": {"preisach": {"metrics": {"test/esr": 0.1, "test/mrstft": None}}}}
    score._confirm(card, path)


def _benches(folder: Path) -> list[Path]:
    (folder / "a.txt").write_text("x")
    content = {"bench": "v1", "files": {"a.txt": bench.sha256(folder / "a.txt")}, "noise": {"a": 1e-6}, "machines": {}}
    (folder / "bench.json").write_text(json.dumps(content))
    return [folder / "bench.json"]


def _sheets(folder: Path) -> list[Path]:
    sheet = {
        "name": "m", "kind": "tape", "notes": ["n"], "response": {"lower_minus_3db_hz": [30.0, 31.0]}, "published": {},
        "speed": {"weighted_two_sigma_percent": 0.1}, "missed": {"target": "t", "sentences": ["s"]},
    }  # fmt: skip
    (folder / "data_sheet.json").write_text(json.dumps({"sheets": [sheet]}))
    return [folder / "data_sheet.json"]


def _sheet(path: Path) -> None:
    sheets = data_sheet.read_json(path)
    data_sheet.rows(sheets)


def _layouts(folder: Path) -> list[Path]:
    section = {
        "name": "a",
        "kind": "tone",
        "start": 0,
        "stop": 100,
        "channels": [0],
        "parameters": {"frequency_hz": 1000.0},
    }
    content = {
        "format": layout.FORMAT, "sample_rate_hz": RATE_HZ, "channels": 2, "samples": 1000, "zero_vu_dbfs": -18.0,
        "pulses_hz": 10.0, "sections": [section], "loopback_samples": 500, "loopback": [section],
    }  # fmt: skip
    (folder / "tape.json").write_text(json.dumps(content))
    return [folder / "tape.json"]


def _layout(path: Path) -> None:
    subjects._layout(path)
    layout.Layout.read(path).as_dict()


def _logs(folder: Path) -> list[Path]:
    from wandb.proto.wandb_internal_pb2 import Record

    content = [Record(num=n, uuid="x" * 50).SerializeToString() for n in range(20)]
    (folder / "run.wandb").write_bytes(sync.framed(b":W&B\x21\xbe\x00", content))
    return [folder / "run.wandb"]


def _overrides(folder: Path) -> list[Path]:
    lines = (
        "model=tcn\ntrainer.max_epochs=2\nseed=1\nname=x",
        "model=lstm\nmodel.hidden=4\ndata=recordings\ndata.root=/songs",
        "data=recordings\ndata.fractions=[0.8,0.1,0.1]\n+extra=1\nlogger=csv\nmachine.mol_db=6",
    )  # fmt: skip
    for n, text in enumerate(lines):
        (folder / f"{n}.txt").write_text(text)
    return sorted(folder.glob("*.txt"))


_composed: list[Any] = []


def _override(path: Path) -> None:
    words = path.read_bytes().decode(errors="replace").split("\n")
    cfg = settings.composed(words)
    OmegaConf.to_container(cfg, resolve=True)


def _change(path: Path) -> None:
    words = [
        word
        for word in path.read_bytes().decode(errors="replace").split("\n")
        if not word.startswith(("model=", "data", "logger=", "+"))
    ]
    if not _composed:
        _composed.append(settings.composed(["model=lstm"]))
    settings.arguments(words, {"run"})
    OmegaConf.to_container(settings.changed(_composed[0].copy(), words), resolve=True)


m = mutations
READERS: dict[str, Reader] = {
    "WAV": Reader(m.of_chunks, _sounds(".wav", ("PCM_16", "PCM_24", "FLOAT")), _sound),
    "FLAC": Reader(m.of_chunks, _sounds(".flac", ("PCM_16", "PCM_24")), _sound),
    "FLAC, read whole": Reader(m.of_chunks, _sounds(".flac", ("PCM_16",)), _whole_sound),
    "AIFF": Reader(m.of_chunks, _sounds(".aiff", ("PCM_16", "FLOAT")), _sound),
    "Ogg": Reader(m.of_bytes, _sounds(".ogg", ("VORBIS",)), _sound),
    "manifest": Reader(m.of_csv, _manifests, _manifest),
    "floor.json": Reader(m.of_json, _floors, lambda path: recordings._floor(path.parent)),
    "trajectory": Reader(m.of_archive, _trajectories, lambda path: trajectories.load.__wrapped__(path)),
    ".nam": Reader(m.of_json, _nams, _capture),
    "JSON models": Reader(m.of_json, _jsons, _capture),
    "tape models (.npz)": Reader(m.of_archive, _tape_models, _tape_model),
    "U-Nets (.npz)": Reader(m.of_archive, _unets, mikkonen_unet.load),
    "checkpoint": Reader(m.of_archive, _of_run("checkpoints/best.ckpt"), _checkpoint),
    "linear filters": Reader(m.of_archive, _of_run("checkpoints/linear_filters.ckpt"), references.load_filters),
    "config.yaml, reported": Reader(m.of_yaml, _of_run("config.yaml"), _report),
    "config.yaml, built": Reader(m.of_yaml, _of_run("config.yaml"), _net),
    "metrics.json": Reader(m.of_json, _of_run("metrics.json"), _report),
    "metrics.csv": Reader(m.of_csv, _of_run("metrics.csv"), _report),
    "stretches.csv": Reader(m.of_csv, _of_run("stretches.csv"), _report),
    "listening results": Reader(m.of_json, _results, _result),
    "knobs of a transfer": Reader(m.of_json, _knobs, _knob),
    "sweep": Reader(m.of_yaml, _sweeps, _sweep),
    "trials of a sweep": Reader(m.of_json, _trials, _trial),
    "table of a paper": Reader(m.of_yaml, _papers, _paper),
    "score card": Reader(m.of_json, _cards, _card),
    "bench.json": Reader(m.of_json, _benches, lambda path: bench.read(path.parent)),
    "data sheet": Reader(m.of_json, _sheets, _sheet),
    "layout of a test tape": Reader(m.of_json, _layouts, _layout),
    "log of W&B": Reader(m.of_bytes, _logs, lambda path: list(sync.records(path))),
    "overrides, composed": Reader(m.of_words, _overrides, _override),
    "overrides of a run": Reader(m.of_words, _overrides, _change),
}
