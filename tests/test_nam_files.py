"""Captures of Neural Amp Modeler: read as their own player plays them, written so that they come back the same."""

import json
from pathlib import Path

import pytest
import torch

from revox_lightning import audio
from revox_lightning.errors import UserError
from revox_lightning.export import captures, nam
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm

torch.set_num_threads(1)

PUBLISHED = ["wavenet", "wavenet_a1_standard", "lstm", "syn_convnet_bn", "syn_linear_64b", "syn_wavenet_v07_head5"]


@torch.no_grad()
def settled(net, x: torch.Tensor) -> torch.Tensor:
    """y after the silence that players feed a capture first."""
    preroll = getattr(net, "preroll_samples", 0)
    state = net(torch.zeros(1, 1, preroll))[1] if preroll else None
    return net(x, None, state)[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_captures_play_as_in_their_own_player(golden, name):
    folder = golden / "amp" / "nam"
    capture = captures.read(folder / f"{name}.nam")
    x, y = (audio.read(folder / file)[None] for file in ("input.wav", f"{name}_out.wav"))
    torch.testing.assert_close(settled(capture.net, x), y, rtol=0, atol=1e-5)
    assert capture.sample_rate_hz == 48_000


def scrambled(net):
    """With weights, and statistics of batch norms, that are none of their usual values."""
    torch.manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
    return net.eval()


NETS = {
    "nano": lambda: nam_wavenet("nano"),
    "gated": lambda: NAMWaveNet((3, 2), ([1, 2], [4]), gated=True, activation="ReLU"),
    "a2_lite": lambda: nam_wavenet("a2_lite"),
    "lstm_lite": lambda: nam_lstm("lite"),
    "lstm_without_start": lambda: Recurrent(hidden=8, layers=3, skip=False, bias=False),
    "conv_net": lambda: ConvNet(3, [1, 2, 4]),
    "conv_net_plain": lambda: ConvNet(3, [1, 2, 4], batch_norm=False, activation="LeakyReLU"),
    "linear": lambda: FIR(40),
    "linear_bias": lambda: FIR(40, bias=True, trainable=True),
}


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_what_is_written_comes_back_the_same(build, tmp_path):
    net = scrambled(build())
    nam.write(net, tmp_path / "a.nam", 44_100, {"name": "it"})
    back = captures.read(tmp_path / "a.nam")
    x = 0.3 * torch.randn(1, 1, 3000)
    silence = torch.zeros(1, 1, 8192)
    with torch.no_grad():
        y = net(torch.cat([silence, x], -1))[0][..., 8192:]
    torch.testing.assert_close(settled(back.net, x), y, rtol=0, atol=1e-6 * max(1.0, float(y.abs().max())))
    assert (back.sample_rate_hz, back.facts["name"]) == (44_100, "it")
    again = type(net)(**{k: v for k, v in back.model.items() if k != "_target_"})
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in back.net.state_dict().items()}


@pytest.mark.parametrize(
    "build,message",
    [
        (lambda: Recurrent("gru", skip=False), "a GRU"),
        (lambda: Recurrent("lstm"), "adds its input"),
        (lambda: nam_wavenet("nano", controls=2), "knows no knobs"),
        (lambda: nam_wavenet("nano", channels=2), "mono"),
        (lambda: ConvNet(3, [1], kernel=3), "two samples"),
        (lambda: torch.nn.Identity(), "no place"),
    ],
)
def test_what_no_player_computes_is_refused(build, message, tmp_path):
    with pytest.raises(UserError, match=message):
        nam.write(build(), tmp_path / "a.nam", 48_000, {})
    assert not (tmp_path / "a.nam").exists()


def changed(golden, name, change):
    content = json.loads((golden / "amp" / "nam" / f"{name}.nam").read_text())
    change(content)
    return content


@pytest.mark.parametrize(
    "name,change,message",
    [
        ("wavenet", lambda c: c["weights"].pop(), "has 131 weights, and the file holds 130"),
        ("wavenet", lambda c: c["weights"].__setitem__(3, float("nan")), "not finite"),
        ("wavenet", lambda c: c["weights"].__setitem__(3, "x"), "not an array of numbers"),
        ("wavenet", lambda c: c["config"]["layers"][0].update(channels=10**9), "from 1 to"),
        ("wavenet", lambda c: c["config"]["layers"][1].update(dilations=[2**22] * 9), "looks back"),
        ("wavenet", lambda c: c["config"]["layers"][0].update(activation="Sine"), "only Tanh"),
        ("wavenet", lambda c: c.update(version="0.8.0"), "0.5 to 0.7"),
        ("wavenet", lambda c: c.update(sample_rate=-5), "cannot be played"),
        ("wavenet", lambda c: c.update(sample_rate=[1]), "number of Hz"),
        ("wavenet", lambda c: c.update(architecture=["LSTM"]), "architectures that can be read"),
        ("wavenet", lambda c: c["config"].update(layers=None), "list of layer arrays"),
        ("syn_wavenet_v07_head5", lambda c: c["config"]["layers"][0].update(bottleneck=2), "bottleneck"),
        ("lstm", lambda c: c["config"].update(hidden_size=True), "whole number"),
        ("syn_linear_64b", lambda c: c["config"].update(receptive_field=2**40), "whole number"),
    ],
)
def test_bad_captures_are_one_sentence(golden, name, change, message, tmp_path):
    path = tmp_path / "bad.nam"
    path.write_text(json.dumps(changed(golden, name, change)))
    with pytest.raises(UserError, match=message):
        captures.read(path)


def test_a_capture_without_a_rate_is_of_the_usual_one(golden, tmp_path):
    (tmp_path / "a.nam").write_text(json.dumps(changed(golden, "wavenet", lambda c: c.update(sample_rate=None))))
    assert captures.read(tmp_path / "a.nam").sample_rate_hz == 48_000


def test_a_container_gives_its_largest_model(golden, tmp_path):
    small, large = (json.loads((golden / "amp" / "nam" / f"{n}.nam").read_text()) for n in ("lstm", "wavenet"))
    models = [{"max_value": 0.5, "model": small}, {"max_value": 1.0, "model": large}]
    content = {"version": "0.7.0", "architecture": "SlimmableContainer", "config": {"submodels": models}, "weights": []}
    (tmp_path / "a.nam").write_text(json.dumps(content))
    assert isinstance(captures.read(tmp_path / "a.nam").net, NAMWaveNet)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\x80\x04\x95", b"[" * 100_000, b"null", b'{"layers": 3}']
)
def test_files_that_are_no_model(content, tmp_path):
    path = Path(tmp_path / "a.nam")
    path.write_bytes(content)
    with pytest.raises(UserError):
        captures.read(path)
