"""Files that were damaged, or made to do harm: one sentence each, and neither memory nor time is spent on them."""

import copy
import json
import random
import time

import pairs
import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.export import captures, keras_json, nam, wright
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm

torch.set_num_threads(1)

BAD_VALUES = (
    None, True, -1, 0, 1e9, 10**9, 10**30, 1e308, float("nan"), float("inf"), "", "x", "../../etc/passwd", [], [[]], {},
    "__import__('os').system('true')", [None] * 5, {"type": "Tanh"}, -0.5, "0.5.4", [1] * 70_000,
)  # fmt: skip


def samples(folder):
    """A small file of every format and architecture."""
    torch.manual_seed(0)
    nets = [
        NAMWaveNet((3, 2), ([1, 2], [4])), nam_wavenet("a2_lite"), nam_lstm("nano"), ConvNet(3, [1, 2]), FIR(20, bias=True),
    ]  # fmt: skip
    for n, net in enumerate(nets):
        nam.write(net.eval(), folder / f"{n}.nam", 48_000, {"name": "it"})
    keras_json.write(Recurrent("gru", hidden=4, skip=False), folder / "rtneural.json")
    keras_json.write(ConvNet(3, [1, 2]).eval(), folder / "convolutions.json")
    keras_json.write_aidax(Recurrent(hidden=8), folder / "aidax.json", {"samplerate": "48000"})
    wright.write(Recurrent(hidden=4), folder / "proteus.json")
    return [path.read_text() for path in sorted(folder.iterdir())]


def places(content, found, path=()):
    """All places of a JSON value; of long lists, the first few."""
    found.append(path)
    items = (
        content.items() if isinstance(content, dict) else enumerate(content[:4]) if isinstance(content, list) else ()
    )
    for key, value in items:
        places(value, found, (*path, key))
    return found


def mutated(text, rng):
    """The text with one to three changes: of a value, of a key, or of the bytes themselves."""
    if rng.random() < 0.3:
        cut, kind = rng.randrange(len(text)), rng.random()
        if kind < 0.4:
            return text[:cut].encode()
        garbage = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        return text[:cut].encode() + garbage + text[cut + (len(garbage) if kind < 0.7 else 0) :].encode()
    content = json.loads(text)
    for _ in range(rng.randrange(1, 4)):
        place = rng.choice(places(content, [()])[2:] or [()])
        if not place:
            break
        holder = content
        for key in place[:-1]:
            holder = holder[key]
        if isinstance(holder, dict) and rng.random() < 0.25:
            del holder[place[-1]]
        else:
            holder[place[-1]] = copy.deepcopy(rng.choice(BAD_VALUES))
    return json.dumps(content).encode()


def fuzz(count, folder, seed=0):
    """Reads that many damaged files; returns how many were refused. Whatever is read must play."""
    rng, originals = random.Random(seed), samples(folder)
    path, refused = folder / "mutated.nam", 0
    for _ in range(count):
        path.write_bytes(mutated(rng.choice(originals), rng))
        try:
            capture = captures.read(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500, error
            continue
        knobs = torch.zeros(1, capture.net.controls) if capture.net.controls else None
        with torch.no_grad():
            assert capture.net(torch.zeros(1, 1, 10), knobs)[0].shape == (1, 1, 10)
    return refused


def test_damaged_files_are_refused_or_play(tmp_path):
    assert 150 < fuzz(300, tmp_path) < 300


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path):
    pairs.forget_peak()
    before = pairs.peak_mb()
    assert fuzz(10_000, tmp_path, seed=1) > 5_000
    assert pairs.peak_mb() - before < 500


def test_a_pickle_is_not_opened(tmp_path):
    torch.save({"model": torch.zeros(3)}, tmp_path / "a.nam")
    with pytest.raises(UserError, match="not a JSON file"):
        captures.read(tmp_path / "a.nam")


def test_sizes_beyond_reason_cost_nothing(tmp_path):
    content = {"version": "0.5.4", "architecture": "LSTM", "weights": [0.0] * 10}
    content["config"] = {"input_size": 1, "hidden_size": 65_536, "num_layers": 64}
    (tmp_path / "a.nam").write_text(json.dumps(content))
    started = time.process_time()
    with pytest.raises(UserError, match="weights, and the file holds 10"):
        captures.read(tmp_path / "a.nam")
    assert time.process_time() - started < 2
