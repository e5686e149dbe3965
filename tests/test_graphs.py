"""ONNX in onnxruntime and TorchScript without our classes play what torch plays, in blocks of any length."""

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.export import graphs
from revox_lightning.kernels import backend
from revox_lightning.models.conv_net import ConvNet
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.nam_wavenet import nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm
from revox_lightning.models.series import Series
from revox_lightning.models.stn import stn
from revox_lightning.models.tcn import tcn
from revox_lightning.models.wavenet import wavenet

torch.set_num_threads(1)

NETS = {
    "lstm": lambda: Recurrent(hidden=6, layers=2),
    "gru-knobs": lambda: Recurrent("gru", hidden=5, controls=2),
    "nam_lstm": lambda: nam_lstm("lite"),
    "lstm_linear": lambda: LinearStart(Recurrent(skip=False, side_channels=1), FIR(100, 16)),
    "series": lambda: Series(Recurrent("gru", hidden=4), FIR(100, 16, bias=True)),
    "wavenet": lambda: wavenet(2, controls=1),
    "nam_wavenet": lambda: nam_wavenet("nano", controls=2, conditioning="bias"),
    "a2_lite": lambda: nam_wavenet("a2_lite"),
    "tcn": lambda: tcn(100),
    "tcn-knobs": lambda: tcn(100, controls=2),
    "conv_net": lambda: ConvNet(3, [1, 2], controls=1),
    "stereo": lambda: Recurrent(hidden=4, channels=2),
    "linear": lambda: FIR(200),
}
FORMATS = {
    "onnx": (graphs.write_onnx, graphs.play_onnx),
    "torchscript": (graphs.write_torchscript, graphs.play_torchscript),
}


def scrambled(net):
    torch.manual_seed(0)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    for module in net.modules():
        if isinstance(module, FIR):
            module.load(0.05 * torch.randn(module.channels, module.taps))
    return net.eval()


@pytest.mark.parametrize(("write", "play"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_a_graph_plays_what_the_net_plays(build, write, play, tmp_path):
    if play is graphs.play_onnx:
        pytest.importorskip("onnxruntime", reason="onnxruntime is an option")
    net = scrambled(build())
    write(net, tmp_path / "a", {"name": "it", "latency_samples": 3})
    x, knobs = 0.3 * torch.randn(1, net.channels, 1000), torch.rand(1, net.controls) if net.controls else None
    with torch.no_grad(), backend.using("torch"):
        y = net(x, knobs)[0]
    for block in (64, 333, 1000):
        y_hat = play(tmp_path / "a", x.numpy(), None if knobs is None else knobs.numpy(), block)
        torch.testing.assert_close(torch.from_numpy(y_hat), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("write", [graphs.write_onnx, graphs.write_torchscript])
def test_a_net_with_a_loop_of_its_own_is_refused(write, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is an option")
    with pytest.raises(UserError, match="sample by sample"):
        write(stn(4), tmp_path / "a", {})
    assert not (tmp_path / "a").exists()
