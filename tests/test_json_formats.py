"""RTNeural's and AIDA-X' JSON, Proteus' and WaveNetVA's: read as their players play them, and written back."""

import json

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.export import captures, keras_json, wright
from revox_lightning.export.snapshot import snapshot
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.nam_wavenet import nam_wavenet
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import tcn
from revox_lightning.models.wavenet import wavenet

torch.set_num_threads(1)


@pytest.mark.parametrize("style", ["blues_deluxe", "british_lead", "california_clean"])
@torch.no_grad()
def test_published_aidax_captures_play_their_own_example(golden, style):
    path = golden / "amp" / "aidax" / f"tw40_{style}_deerinkstudios.json"
    content, capture = json.loads(path.read_text()), captures.read(path)
    x, y = (torch.tensor(content[f"{side}_batch"])[None, None] for side in ("input", "output"))
    torch.testing.assert_close(capture.net(x)[0], y, rtol=0, atol=1e-5)
    assert capture.sample_rate_hz == 48_000 and capture.facts["style"]


@pytest.mark.parametrize("file", ["wright/ht1-ht11", "wavenetva/WaveNet2-muff"])
def test_older_formats_are_captures_too(golden, file):
    capture = captures.read(golden / "amp" / f"{file}.json")
    again = type(capture.net)(**{k: v for k, v in capture.model.items() if k != "_target_"})
    again.load_state_dict(capture.net.state_dict())


def scrambled(net):
    torch.manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
    return net.eval()


def rtneural(net, path):
    keras_json.write(net, path)


def aidax(net, path):
    keras_json.write_aidax(net, path, {"name": "it", "samplerate": "44100"})


CASES = {
    "rtneural-lstm": (rtneural, lambda: Recurrent(hidden=6, layers=2, skip=False)),
    "rtneural-gru-knobs": (rtneural, lambda: Recurrent("gru", hidden=5, layers=3, skip=False, controls=2, bias=False)),
    "rtneural-conv_net": (rtneural, lambda: ConvNet(3, [1, 2, 4], kernel=3, controls=1)),
    "rtneural-conv_net-relu": (rtneural, lambda: ConvNet(3, [2], batch_norm=False, activation="ReLU")),
    "aidax-lstm": (aidax, lambda: Recurrent(hidden=16)),
    "aidax-gru-knobs": (aidax, lambda: Recurrent("gru", hidden=12, skip=False, controls=2)),
    "proteus-lstm": (lambda net, path: wright.write(net, path), lambda: Recurrent(hidden=40, controls=1)),
    "proteus-gru": (lambda net, path: wright.write(net, path), lambda: Recurrent("gru", 7, 2, skip=False, bias=False)),
}


@pytest.mark.parametrize(("write", "build"), CASES.values(), ids=CASES)
@torch.no_grad()
def test_what_is_written_comes_back_the_same(write, build, tmp_path):
    net = scrambled(build())
    write(net, tmp_path / "a.json")
    back = captures.read(tmp_path / "a.json").net
    x, knobs = 0.3 * torch.randn(2, 1, 500), torch.rand(2, net.controls) if net.controls else None
    torch.testing.assert_close(back(x, knobs)[0], net(x, knobs)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "write,build,message",
    [
        (rtneural, lambda: Recurrent(), "cannot add the input"),
        (rtneural, lambda: wavenet(1), "no layers that RTNeural knows"),
        (rtneural, lambda: ConvNet(3, [1], activation="LeakyReLU"), "knows no LeakyReLU"),
        (rtneural, lambda: Recurrent(channels=2, skip=False), "mono"),
        (aidax, lambda: Recurrent(hidden=33), "33 units"),
        (aidax, lambda: Recurrent(layers=2), "one layer"),
        (aidax, lambda: Recurrent(hidden=32, controls=3), "3 knobs"),
        (lambda net, path: wright.write(net, path), lambda: FIR(3), "mono LSTMs and GRUs"),
    ],
)
def test_what_no_player_computes_is_refused(write, build, message, tmp_path):
    with pytest.raises(UserError, match=message):
        write(build(), tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def written(tmp_path, change):
    torch.manual_seed(0)
    keras_json.write(Recurrent("gru", hidden=4, skip=False), tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda c: c.update(layers=[]), "at least two"),
        (lambda c: c["layers"][0].update(type="transformer"), "LSTMs, GRUs or convolutions"),
        (lambda c: c["layers"][0].update(shape=[10**9]), "whole number"),
        (lambda c: c["layers"][0].update(shape=None), "no shape"),
        (lambda c: c["layers"][0]["weights"].pop(), "3 arrays"),
        (lambda c: c["layers"][1].update(shape=[2]), "one is read"),
        (lambda c: c.update(in_shape=[10**12]), "whole number"),
        (lambda c: c.update(in_skip=2), "in_skip"),
        (lambda c: c.update(in_gain="loud"), "dB are expected"),
        (lambda c: c.update(metadata={"samplerate": "fast"}), "number of Hz"),
    ],
)
def test_bad_files_are_one_sentence(change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        captures.read(written(tmp_path, change))


@torch.no_grad()
def test_gains_of_a_file_are_part_of_the_net(tmp_path):
    plain = captures.read(written(tmp_path, lambda c: None)).net
    loud = captures.read(written(tmp_path, lambda c: c.update(in_gain=6, out_gain=-20))).net
    torch.manual_seed(0)
    x = torch.randn(1, 1, 100)
    assert loud(x)[0].shape == plain(x)[0].shape
    assert torch.equal(loud.lin.weight, plain.lin.weight * 10 ** (-20 / 20))


SNAPSHOTS = {
    "lstm": lambda: Recurrent(hidden=5, layers=2, controls=2),
    "wavenet": lambda: wavenet(2, controls=2),
    "nam": lambda: nam_wavenet("nano", controls=2),
    "panama": lambda: nam_wavenet("nano", controls=2, conditioning="bias"),
    "conv_net": lambda: ConvNet(3, [1, 2], batch_norm=False, controls=2),
}


@pytest.mark.parametrize("build", SNAPSHOTS.values(), ids=SNAPSHOTS)
@torch.no_grad()
def test_a_snapshot_is_the_model_with_its_knobs_there(build):
    net = scrambled(build())
    still = snapshot(net, [0.3, 0.8])
    x, knobs = 0.3 * torch.randn(1, 1, 3000), torch.tensor([[0.3, 0.8]])
    assert still.controls == 0 and net.controls == 2
    late = 10  # a convolution over the knobs has not seen them before the start
    torch.testing.assert_close(still(x)[0][..., late:], net(x, knobs)[0][..., late:], rtol=1e-5, atol=1e-5)


def test_snapshots_that_cannot_be():
    with pytest.raises(UserError, match="2 knobs and 1 positions"):
        snapshot(Recurrent(controls=2), [0.5])
    with pytest.raises(UserError, match="do not fold"):
        snapshot(tcn(100, controls=1), [0.5])
    net = Recurrent()
    assert snapshot(net, []) is net
