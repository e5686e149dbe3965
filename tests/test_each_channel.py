"""One net per channel."""

import torch

from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.recurrent import Recurrent

torch.set_num_threads(1)


@torch.no_grad()
def test_each_channel_has_its_own_net():
    torch.manual_seed(0)
    nets = [LinearStart(Recurrent(skip=False, side_channels=1, controls=1), FIR(64, 16)) for _ in range(2)]
    for net in nets:
        torch.nn.init.normal_(net.net.output_layer.weight)
    both = EachChannel(nets)
    x, controls = torch.randn(2, 2, 150), torch.rand(2, 1)
    y, state = both(x, controls)
    for i, net in enumerate(nets):
        torch.testing.assert_close(y[:, i : i + 1], net(x[:, i : i + 1], controls)[0])
    first, carried = both(x[..., :70], controls)
    second, carried = both(x[..., 70:], controls, carried)
    torch.testing.assert_close((y, state), (torch.cat([first, second], dim=-1), carried))
    assert both.latency_samples == 16 and both.receptive_field is None and both.channels == 2 and both.controls == 1
    assert both.multiply_adds_per_sample == 2 * nets[0].multiply_adds_per_sample
