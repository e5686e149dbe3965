"""What is fuzzed of sounds, lists of them and models: whole files to begin with, and what reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.data import recordings
from revox_lightning.export import captures, keras_json, mikkonen, nam, wavenetva, wright
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm
from revox_lightning.models.unet_1d import UNet1d
from revox_lightning.models.wavenet import WaveNet

RATE_HZ = 8000


def sounds(suffix: str, subtypes: tuple[str, ...]) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        x = 0.3 * torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
        paths = [folder / f"{n}{suffix}" for n in range(2 * len(subtypes))]
        for n, path in enumerate(paths):
            audio.write(path, x[: 1 + n % 2].clamp(-1, 1), RATE_HZ, subtypes[n // 2])
        return paths

    return write


def sound(path: Path) -> None:
    told = audio.info(path)
    if told.frames < 2**22:  # longer ones go block by block, as they do wherever length is not known
        whole = audio.read(path)
        assert whole.shape == (told.channels, told.frames) and torch.isfinite(whole).all()
    assert sum(
        1 for _, block in zip(range(50), audio.blocks(path, 1000), strict=False) if block.shape[0] == told.channels
    )
    audio.read(path, 10, 100)


def whole_sound(path: Path) -> None:
    audio.read(path)


def manifests(folder: Path) -> list[Path]:
    sounds(".wav", ("PCM_16",))(folder)
    rows = [["dry", "wet", "split", "start_seconds", "end_seconds", "delay_samples", "trajectory", "gain"]]
    rows += [
        ["0.wav", "0.wav", split, "0", "0.1", "0", "", str(n / 3)] for n, split in enumerate(("train", "val", "test"))
    ]
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return [folder / "pairs.csv"]


def manifest(path: Path) -> None:
    source = recordings.Recordings(manifest=str(path))
    assert all(take.start < take.stop for take in source.takes())
    str(source.knobs).encode(errors="replace")


def floors(folder: Path) -> list[Path]:
    (folder / "floor.json").write_text(json.dumps({"mean_square": [1e-6, None]}))
    return [folder / "floor.json"]


def delays(folder: Path) -> list[Path]:
    np.savez(folder / "a.npz", delay_samples=np.linspace(0, 9, 500), sample_rate_hz=RATE_HZ)
    np.savez_compressed(folder / "b.npz", delay_samples=np.linspace(0, 9, 500).astype(np.float32))
    return [folder / "a.npz", folder / "b.npz"]


def nams(folder: Path) -> list[Path]:
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


def jsons(folder: Path) -> list[Path]:
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


def capture(path: Path) -> None:
    found = captures.read(path)
    knobs = torch.zeros(1, found.net.controls) if found.net.controls else None
    with torch.no_grad():
        assert found.net(torch.zeros(1, 1, 10), knobs)[0].shape == (1, 1, 10)


def tape_models(folder: Path) -> list[Path]:
    net = Recurrent("gru", 4, skip=False)
    named = {name.replace("rec.", "GRU.").replace("lin.", "output."): value for name, value in net.state_dict().items()}
    np.savez(folder / "gru.npz", **{f"GRU_ESR_a/{name}": value.numpy() for name, value in named.items()})
    return [folder / "gru.npz"]


def tape_model(path: Path) -> None:
    for name in mikkonen.names(path):
        mikkonen.load(path, name)


def unets(folder: Path) -> list[Path]:
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
