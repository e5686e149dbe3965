"""Every model by its published size, and the contract that all of them hold."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from revox_lightning.errors import UserError
from revox_lightning.models.conv_net import conv_net
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.greybox_tape import GreyBoxTape, greybox_tape
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.recurrent import Recurrent, nam_lstm
from revox_lightning.models.stn import stn
from revox_lightning.models.tcn import TCN, tcn
from revox_lightning.models.wavenet import WaveNet, wavenet

torch.set_num_threads(1)


class Line(NamedTuple):
    """One model as published; `build` takes channels, controls and side_channels."""

    name: str
    build: Callable[..., nn.Module]
    parameters: int
    receptive_field: int | None
    latency_samples: int = 0
    tolerance: float = 2e-6  # of equal results; more where the signals within are large


def linear_start(**others) -> LinearStart:
    """LSTM-32 beside 256 taps, of which 16 look ahead, after some training (its output layer is no longer zero)."""
    channels = others.get("channels", 1)
    net = LinearStart(Recurrent(skip=False, side_channels=channels, **others), FIR(256, 16, channels))
    torch.nn.init.normal_(net.net.output_layer.weight, std=0.1)
    return net


def grey_box(**others) -> GreyBoxTape:
    """After some training: the hysteresis' output layer is no longer zero."""
    net = greybox_tape(playback_taps=256, lookahead_samples=0, **others)
    torch.nn.init.normal_(net.hysteresis.output_layer.weight, std=0.1)
    return net


def tape_gru(**others) -> Recurrent:
    return Recurrent("gru", hidden=64, skip=False, **others)


# One line for each yaml in conf/model, and for each published size.
PUBLISHED = [
    Line("lstm", lambda **o: Recurrent("lstm", hidden=32, **o), 4_513, None),
    Line("lstm-96", lambda **o: Recurrent("lstm", hidden=96, **o), 38_113, None),
    Line("gru", lambda **o: Recurrent("gru", hidden=64, skip=False, **o), 12_929, None),
    Line("lstm_linear", linear_start, 4_641, None, 16),
    Line("tcn", lambda **o: tcn(300, **o), 40_897, 13_333),
    Line("tcn-100", lambda **o: tcn(100, **o), 16_065, 4_445),
    Line("tcn-1000", lambda **o: tcn(1000, **o), 21_313, 44_445),
    Line("tcn-paper-exact", lambda **o: tcn(100, paper_exact=True, **o), 16_065, 4_445, 1),
    Line("wavenet-1", lambda **o: wavenet(1, **o), 18_593, 2_047),
    Line("wavenet", lambda **o: wavenet(2, **o), 8_657, 2_045),
    Line("wavenet-3", lambda **o: wavenet(3, **o), 33_441, 2_045),
    Line("nam_wavenet", lambda **o: nam_wavenet("standard", **o), 13_802, 4_093),
    Line("nam_wavenet-lite", lambda **o: nam_wavenet("lite", **o), 6_554, 4_093),
    Line("nam_wavenet-feather", lambda **o: nam_wavenet("feather", **o), 3_026, 4_093),
    Line("nam_wavenet-a2", lambda **o: nam_wavenet("a2", **o), 12_146, 6_347),
    Line("nam_wavenet-a2_lite", lambda **o: nam_wavenet("a2_lite", **o), 1_871, 6_347),
    Line(
        "nam_lstm", lambda **o: nam_lstm("standard", **o), 2_569 + 96, None
    ),  # two biases, of which a file has the sum
    Line("conv_net", lambda **o: conv_net(**o), 12_593, 8_191),
    Line("tape_gru", tape_gru, 12_929, None),
    Line("tape_delay_gru", lambda **o: Delayed(tape_gru(bias=False, **o), DelayLine(64)), 12_928, None),
    Line("stn", lambda **o: stn(16, **o), 385, None, tolerance=1e-5),
    Line("stn-4", lambda **o: stn(4, **o), 49, None, tolerance=1e-5),
    Line("greybox_tape", grey_box, 258, None, 64, tolerance=1e-5),
    Line("nam_wavenet-nano", lambda **o: nam_wavenet("nano", **o), 842, 4_093),
]
# What a model can be asked for beside its published form.
FORMS = {"plain": {}, "knobs": {"controls": 2}, "stereo": {"channels": 2}, "all": {"channels": 2, "controls": 3}}
each_line = pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line.name)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def built(line: Line, **form) -> nn.Module:
    torch.manual_seed(0)
    net = line.build(**form).eval()
    for module in net.modules():  # Batch norm at its starting values would hide a missing one.
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.01, 0.1)
            nn.init.normal_(module.running_mean, std=0.1)
    return net


def played(net, batch: int, time: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    x = 0.3 * torch.randn(batch, net.channels + net.side_channels, time)
    return x, torch.rand(batch, net.controls) if net.controls else None


def random_state(net, batch: int):
    x, controls = played(net, batch, 1)
    return pytree.tree_map(lambda part: 0.3 * torch.randn_like(part), net(x, controls)[1])


def close(a, b, tolerance: float = 2e-6) -> None:
    pytree.tree_map(lambda p, q: torch.testing.assert_close(p, q, rtol=0, atol=tolerance), a, b)


@each_line
def test_size_as_published(line):
    net = line.build()
    assert parameters(net) == line.parameters
    assert net.receptive_field == line.receptive_field
    assert net.latency_samples == line.latency_samples
    assert 0 < net.multiply_adds_per_sample <= line.parameters + 256


@pytest.mark.parametrize(("size", "count"), [(100, 25_905), (300, 50_737), (1000, 33_201)])
def test_tcn_with_two_knobs_has_its_published_size(size, count):
    assert parameters(tcn(size, controls=2)) == count


@each_line
@each_form
@pytest.mark.parametrize("block", [1, 64, 999])
@torch.no_grad()
def test_blocks_equal_one_call(line, form, block):
    net = built(line, **form)
    time = 10 if block == 1 else 1100
    x, controls = played(net, 2, time)
    state = start = random_state(net, 2)
    whole = net(x, controls, start)
    blocks = []
    for piece in x.split(block, dim=-1):
        y, state = net(piece, controls, state)
        blocks.append(y)
    assert whole[0].shape == (2, net.channels, time)
    close(whole, (torch.cat(blocks, dim=-1), state), line.tolerance)


@each_line
@torch.no_grad()
def test_no_state_is_silence_before_the_start(line):
    net = built(line)
    x, _ = played(net, 1, 50)
    zeros = pytree.tree_map(torch.zeros_like, net(x)[1])
    assert torch.equal(net(x)[0], net(x, state=zeros)[0])


@each_line
@torch.no_grad()
def test_the_future_does_not_change_the_past(line):
    net = built(line, controls=1)
    x, controls = played(net, 2, 400)
    other = torch.cat([x[..., :300], torch.randn_like(x[..., 300:])], dim=-1)
    a, b = net(x, controls)[0], net(other, controls)[0]
    close(a[..., :300], b[..., :300], line.tolerance)
    assert not torch.allclose(a[..., 300 + net.latency_samples :], b[..., 300 + net.latency_samples :])


@pytest.mark.parametrize("line", [line for line in PUBLISHED if line.receptive_field], ids=lambda line: line.name)
def test_memory_ends_with_the_receptive_field(line):
    net = built(line).double()  # through 18 layers the oldest sample is heard below single precision
    x = (0.3 * torch.randn(1, 1, line.receptive_field + 1, dtype=torch.float64)).requires_grad_()
    (heard,) = torch.autograd.grad(net(x)[0][0, 0, -1], x)
    assert heard[0, 0, 0] == 0 and heard[0, 0, 1] != 0


@each_line
@each_form
def test_gradients_are_finite_and_reach_every_weight_that_is_heard(line, form):
    net = built(line, **form).train()
    x, controls = played(net, 2, 300)
    net(x, controls)[0].square().mean().backward()
    # A WaveNet's last residual layer leads nowhere, and a factor that is not learned has no gradient.
    last = [name for name, _ in net.named_modules() if "residual." in name][-1:]
    for name, weight in net.named_parameters():
        if not weight.requires_grad or name.startswith(tuple(f"{layer}." for layer in last)):
            continue
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name


@each_line
@torch.no_grad()
def test_silence_in_finite_out(line):
    y, _ = built(line)(torch.zeros(1, 1, 2000))
    assert torch.isfinite(y).all()


@each_line
def test_a_few_steps_lower_the_loss(line):
    net = built(line).train()
    x = 0.3 * torch.randn(2, 1, 600)
    target = torch.tanh(3 * x)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        late = net(x)[0][..., net.latency_samples :]
        loss = (late - target[..., : late.shape[-1]]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@each_line
@torch.no_grad()
def test_knobs_that_stand_still_may_be_given_for_every_sample(line):
    net = built(line, controls=2)
    x, controls = played(net, 3, 200)
    close(net(x, controls), net(x, controls[..., None].expand(-1, -1, 200)), line.tolerance)
    close(net(x, controls), net(x, controls[..., None]), line.tolerance)
    assert not torch.allclose(net(x, controls)[0], net(x, 1 - controls)[0])


@each_line
@torch.no_grad()
def test_knobs_that_move_stream(line):
    net = built(line, controls=2)
    x, _ = played(net, 1, 300)
    knobs = torch.rand(1, 2, 300)
    whole, state = net(x, knobs)[0], None
    for n in range(0, 300, 64):
        y, state = net(x[..., n : n + 64], knobs[..., n : n + 64], state)
        close(y, whole[..., n : n + 64], line.tolerance)


@each_line
def test_knobs_must_match_the_model(line):
    net = built(line, controls=2)
    x, controls = played(net, 2, 10)
    for wrong in (None, controls[:, :1], torch.zeros(2, 2, 9)):
        with pytest.raises(UserError, match="knobs"):
            net(x, wrong)
    assert built(line)(x, torch.zeros(2, 0))[0].shape == (2, 1, 10)  # data without knobs


@pytest.mark.parametrize(
    "build",
    [
        lambda: Recurrent("rnn"),
        lambda: tcn(500),
        lambda: wavenet(4),
        lambda: nam_wavenet("huge"),
        lambda: NAMWaveNet((4,), [[1]], activation="Sine"),
        lambda: NAMWaveNet((4, 2), [[1]]),
        lambda: NAMWaveNet((4,), [[1]]).load_weights(torch.zeros(5)),
        lambda: TCN(channels=3),
        lambda: TCN(kernel=1),
        lambda: FIR(16, lookahead=16),
        lambda: FIR(16).load(torch.zeros(15)),
        lambda: FIR(2).load(torch.tensor([0.0, float("nan")])),
        lambda: LinearStart(Recurrent(side_channels=1), FIR(16)),
        lambda: LinearStart(Recurrent(skip=False), FIR(16)),
        lambda: LinearStart(Recurrent(skip=False, side_channels=1), FIR(16, channels=2)),
        lambda: EachChannel([]),
        lambda: EachChannel([Recurrent(channels=2)]),
        lambda: EachChannel([Recurrent(), FIR(16, lookahead=2)]),
        lambda: EachChannel([Recurrent(), Recurrent()])(torch.zeros(1, 1, 10)),
    ],
)
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(UserError):
        build()


def valid_reference(net: TCN, x: torch.Tensor) -> torch.Tensor:
    """The TCN by valid convolutions without history; the residual's crop ends at the last sample, or one before."""
    for block in net.blocks:
        z = block.activation(block.norm(block.conv(x)))
        residual = block.residual(x)
        stop = residual.shape[-1] - net.latency_samples
        x = z + residual[..., stop - z.shape[-1] : stop]
    return torch.tanh(net.output(x))


@pytest.mark.parametrize("exact", [False, True])
@torch.no_grad()
def test_tcn_crops_as_published_or_correctly(exact):
    net = built(Line("", lambda: TCN(blocks=3, growth=4, kernel=5, paper_exact=exact), 0, 0))
    x = torch.randn(1, 1, net.receptive_field + 99)
    # This net amplifies rounding: in single precision each is up to 5e-6 from the exact output.
    close(net(x)[0][..., -100:], valid_reference(net, x), 2e-5)


@torch.no_grad()
def test_wavenet_layer_by_layer():
    """Wright 2020, eqs of the gated layer, one sample written out."""
    torch.manual_seed(0)
    net = WaveNet([1, 2], width=2)
    x = torch.randn(1, 1, 20)
    h = net.input(x)
    outputs = []
    for gated, residual, dilation in zip(net.gated, net.residual, [1, 2], strict=True):
        past = [nn.functional.pad(h, (lag * dilation, 0))[..., :20] for lag in (2, 1, 0)]
        z = sum(torch.einsum("oi,bit->bot", gated.weight[..., k], past[k]) for k in range(3)) + gated.bias[:, None]
        outputs.append(torch.tanh(z[:, :2]) * torch.sigmoid(z[:, 2:]))
        h = h + residual(outputs[-1])
    close(net(x)[0], net.mixer(torch.cat(outputs, dim=1)))


@pytest.mark.parametrize("size,published", [("standard", 2_569), ("lite", 905), ("feather", 1_201), ("nano", 709)])
def test_the_lstms_of_neural_amp_modeler_have_the_published_weights(size, published):
    """A file holds the sum of torch's two biases."""
    net = nam_lstm(size)
    assert parameters(net) - net.rec.num_layers * 4 * net.rec.hidden_size == published


@torch.no_grad()
def test_a_learned_start_is_where_a_stream_begins():
    net = nam_lstm("lite")
    for part in net.initial:
        torch.nn.init.normal_(part)
    x = 0.3 * torch.randn(3, 1, 50)
    whole, _ = net(x)
    state = tuple(part.expand(-1, 3, -1).contiguous() for part in net.initial)
    assert torch.equal(whole, net(x, None, state)[0]) and not torch.allclose(
        whole, net(x, None, tuple(0 * s for s in state))[0]
    )
