"""Published weights: the stored outputs of their own players, and files that are not what they seem."""

import json

import pytest
import torch

from revox_lightning import audio
from revox_lightning.errors import UserError
from revox_lightning.export import wavenetva, wright
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.wavenet import WaveNet
from revox_lightning.stream import stream

torch.set_num_threads(1)

WRIGHT = ["ht1-ht11", "ht1-ht13", "muff-muff1", "muff-muff3"]
WAVENETVA = ["WaveNet1-ds1", "WaveNet2-muff", "WaveNet3-ts7"]


@pytest.mark.parametrize(
    ("load", "place", "name"),
    [(wright.load, "wright", name) for name in WRIGHT] + [(wavenetva.load, "wavenetva", name) for name in WAVENETVA],
)
@torch.no_grad()
def test_published_models_play_as_their_own_engine_does(golden, load, place, name):
    folder = golden / "amp" / place
    x, y = (audio.read(folder / file)[None] for file in ("input.wav", f"{name}_out.wav"))
    y_hat, _ = stream(load(folder / f"{name}.json"), x, block_samples=4096)
    assert y.abs().max() > 0.05
    torch.testing.assert_close(y_hat, y, rtol=0, atol=1e-4)


def wright_file(net: Recurrent, **changes) -> dict:
    described = {
        "model": "SimpleRNN", "input_size": 1 + net.controls, "skip": int(net.skip), "output_size": 1,
        "unit_type": net.unit.upper(), "num_layers": net.rec.num_layers, "hidden_size": net.rec.hidden_size,
        "bias_fl": True,
    }  # fmt: skip
    return {
        "model_data": described | changes,
        "state_dict": {name: weight.tolist() for name, weight in net.state_dict().items()},
    }


def wavenetva_file(net: WaveNet, **changes) -> dict:
    layers = [(-1, "W", "b", net.input)]
    for n, (gated, residual) in enumerate(zip(net.gated, net.residual, strict=True)):
        layers += [(n, "W_conv", "b_conv", gated), (n, "W_out", "b_out", residual)]
    variables = []
    for index, weight, bias, layer in [*layers, (len(net.gated), "W", "b", net.mixer)]:
        taps = layer.weight.permute(2, 1, 0).flatten().tolist()  # (tap, in, out)
        variables.append({"layer_idx": index, "name": weight, "data": taps})
        variables.append({"layer_idx": index, "name": bias, "data": layer.bias.tolist()})
    described = {"activation": "gated", "input_channels": 1, "output_channels": 1, "residual_channels": 4}
    return described | {"filter_width": 3, "dilations": [1, 2], "variables": variables} | changes


@pytest.mark.parametrize("options", [{}, {"unit": "gru"}, {"layers": 2}, {"skip": False}, {"controls": 2}])
@torch.no_grad()
def test_wright_round_trip(tmp_path, options):
    net = Recurrent(hidden=8, **options)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(wright_file(net)))
    x, controls = torch.randn(1, 1, 50), torch.rand(1, net.controls)
    assert torch.equal(wright.load(path)(x, controls)[0], net(x, controls)[0])


@torch.no_grad()
def test_wright_without_output_bias(tmp_path):
    content = wright_file(Recurrent(hidden=8), bias_fl=False)
    del content["state_dict"]["lin.bias"]
    path = tmp_path / "model.json"
    path.write_text(json.dumps(content))
    assert wright.load(path).lin.bias.eq(0).all()


@torch.no_grad()
def test_wavenetva_round_trip(tmp_path):
    net = WaveNet([1, 2], width=4)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(wavenetva_file(net)))
    x = torch.randn(1, 1, 50)
    assert torch.equal(wavenetva.load(path)(x)[0], net(x)[0])


def broken_wright() -> dict:
    good = wright_file(Recurrent(hidden=4))
    weights = good["state_dict"]
    return {
        "no model": {},
        "no weights": {"model_data": good["model_data"]},
        "description is a list": {**good, "model_data": []},
        "weights are a list": {**good, "state_dict": []},
        "plain RNN": wright_file(Recurrent(hidden=4), unit_type="RNN"),
        "another class": wright_file(Recurrent(hidden=4), model="GatedConvNet"),
        "two outputs": wright_file(Recurrent(hidden=4), output_size=2),
        "skip of two": wright_file(Recurrent(hidden=4), skip=2),
        "other hidden size": wright_file(Recurrent(hidden=4), hidden_size=5),
        "a hidden size beyond memory": wright_file(Recurrent(hidden=4), hidden_size=10**7),
        "hidden size in words": wright_file(Recurrent(hidden=4), hidden_size="four"),
        "no inputs": wright_file(Recurrent(hidden=4), input_size=0),
        "a missing weight": {**good, "state_dict": {k: v for k, v in weights.items() if k != "lin.weight"}},
        "an unknown weight": {**good, "state_dict": weights | {"extra": [0.0]}},
        "a word among the weights": {**good, "state_dict": weights | {"lin.bias": ["loud"]}},
        "ragged weights": {**good, "state_dict": weights | {"lin.weight": [[0.0, 0.0], [0.0]]}},
        "not a number": {**good, "state_dict": weights | {"lin.bias": [float("nan")]}},
    }


def broken_wavenetva() -> dict:
    net = WaveNet([1, 2], width=4)
    good = wavenetva_file(net)
    return {
        "no model": {},
        "a wright file": wright_file(Recurrent(hidden=4)),
        "ungated": wavenetva_file(net, activation="relu"),
        "stereo": wavenetva_file(net, input_channels=2),
        "no dilations": wavenetva_file(net, dilations=[]),
        "a dilation of zero": wavenetva_file(net, dilations=[1, 0]),
        "another width": wavenetva_file(net, residual_channels=5),
        "another kernel": wavenetva_file(net, filter_width=2),
        "more layers than weights": wavenetva_file(net, dilations=[1, 2, 4]),
        "fewer layers than weights": wavenetva_file(net, dilations=[1]),
        "variables are an object": wavenetva_file(net, variables={}),
        "a variable without data": wavenetva_file(net, variables=[{"layer_idx": 0, "name": "W"}]),
        "a missing variable": wavenetva_file(net, variables=good["variables"][1:]),
        "a list as a name": wavenetva_file(net, variables=[{"layer_idx": [], "name": [], "data": []}]),
    }


BROKEN = [(wright.load, *case) for case in broken_wright().items()]
BROKEN += [(wavenetva.load, *case) for case in broken_wavenetva().items()]


@pytest.mark.parametrize(("load", "name", "content"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_that_holds_no_such_model_is_one_sentence(tmp_path, load, name, content):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"model\.json") as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("load", [wright.load, wavenetva.load])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[1, 2]", b'"model"'])
def test_a_file_that_is_no_json_object_is_one_sentence(tmp_path, load, content):
    path = tmp_path / "model.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.json") as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="cannot read"):
        load(tmp_path)
