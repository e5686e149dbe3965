"""A net behind a delay line: the last control is the delay."""

import pytest
import torch

from revox_lightning.commands import assemble, settings
from revox_lightning.errors import UserError
from revox_lightning.kernels import backend
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.fir import FIR
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import tcn
from revox_lightning.models.wavenet import wavenet
from revox_lightning.stream import Player, Streamer, stream

torch.set_num_threads(1)


def tape_gru(**options) -> Recurrent:
    return Recurrent("gru", 64, skip=False, bias=False, preroll_samples=1024, **options)


CORES = {
    "gru": tape_gru,
    "lstm": lambda **o: Recurrent("lstm", 8, **o),
    "tcn": lambda **o: tcn(100, **o),
    "tcn with latency": lambda **o: tcn(100, paper_exact=True, **o),
    "wavenet": lambda **o: wavenet(1, **o),
}
each_core = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())


def case(core, knobs=0, batch=2, samples=1500, interpolation="band_limited"):
    torch.manual_seed(0)
    net = Delayed(core(controls=knobs), DelayLine(400, interpolation)).eval()
    delay = 100 + 50 * torch.sin(torch.arange(samples) / 300).expand(batch, 1, samples)
    controls = torch.cat([torch.rand(batch, knobs, 1).expand(-1, -1, samples), delay], dim=1)
    return net, 0.3 * torch.randn(batch, net.channels, samples), controls


def test_size_as_published():
    net = Delayed(tape_gru(), DelayLine(8192))
    assert sum(weight.numel() for weight in net.parameters()) == 12_928
    assert (net.controls, net.channels, net.receptive_field, net.latency_samples) == (1, 1, None, 0)
    assert net.preroll_samples == 1024 and len(net.state_dict()) == 5
    assert sum(weight.numel() for weight in Recurrent("gru", 64, skip=False).parameters()) == 12_929


@each_core
@torch.no_grad()
def test_the_core_plays_and_then_the_line(core):
    net, x, controls = case(core, knobs=1)
    p, _ = net.core(x, controls[:, :1])
    late = torch.cat([controls[:, 1:, :1].expand(-1, -1, net.latency_samples), controls[:, 1:]], dim=-1)
    expected, _ = DelayLine(400, "band_limited")(p, late[..., : x.shape[-1]])
    assert torch.equal(net(x, controls)[0], expected)


@each_core
@pytest.mark.parametrize("block", [1, 64, 999])
@torch.no_grad()
def test_blocks_equal_one_call(core, block):
    net, x, controls = case(core, knobs=2, samples=40 if block == 1 else 1500)
    whole, last = net(x, controls)
    parts, state = stream(net, x, controls, block_samples=block)
    torch.testing.assert_close(parts, whole, rtol=0, atol=4e-6)
    torch.testing.assert_close(state[1], last[1], rtol=0, atol=4e-6)


@torch.no_grad()
def test_without_a_delay_the_core_is_heard_and_the_line_remembers():
    net, x, controls = case(tape_gru)
    undelayed, state = net(x[..., :700])
    assert torch.equal(undelayed, net.core(x[..., :700])[0])
    later, _ = net(x[..., 700:], controls[..., 700:], state)
    torch.testing.assert_close(later, net(x, controls)[0][..., 700:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_core_with_latency_is_compared_at_the_same_moment():
    """The player drops the latency; what is left is in time with the wet signal."""
    net = Delayed(FIR(64, 16), DelayLine(400, "band_limited"))
    _, x, controls = case(tape_gru, batch=1)
    y_hat, wet = Player(net).step(x, DelayLine(400, "band_limited")(x, controls)[0], controls, first=True)
    assert net.latency_samples == 16 and net.receptive_field == 64 + 400 + 15
    torch.testing.assert_close(y_hat[..., 200:], wet[..., 200:], rtol=0, atol=1e-6)


@each_core
def test_gradients_reach_every_weight_of_the_core(core):
    net, x, controls = case(core, knobs=1, samples=600, interpolation="linear")
    net.train()
    net(x, controls.requires_grad_())[0].square().mean().backward()
    assert controls.grad is not None and controls.grad[:, 1].abs().max() > 0
    quiet = [name for name, weight in net.named_parameters() if weight.requires_grad and weight.grad is None]
    assert all("residual" in name for name in quiet)


def test_a_few_steps_lower_the_loss():
    net, x, controls = case(lambda **o: Recurrent("gru", 16, skip=False, bias=False, **o), samples=600)
    target = DelayLine(400, "band_limited")(torch.tanh(3 * x), controls)[0]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (net(x, controls)[0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@torch.no_grad()
def test_a_delay_that_stands_still_may_be_one_number():
    net, x, controls = case(tape_gru, knobs=1)
    still = controls[..., 0]
    assert torch.equal(net(x, still)[0], net(x, still[..., None].expand(-1, -1, x.shape[-1]))[0])


def test_other_numbers_of_controls_are_refused():
    net, x, _ = case(tape_gru, knobs=1)
    for wrong in (None, torch.rand(2, 3)):
        with pytest.raises(UserError, match="a delay"):
            net(x, wrong)


@pytest.mark.skipif(backend.library("recurrent") is None, reason="no C++ compiler")
def test_a_read_out_without_bias_is_fused_as_torch_computes_it():
    net, x, controls = case(tape_gru)
    assert backend.computes(net) and backend.describe(net).startswith("fused")
    weight, results = torch.randn_like(x), []
    for name in ("torch", "fused"):
        with backend.using(name):
            y, _ = net(x, controls)
            results.append([y, *torch.autograd.grad((y * weight).sum(), list(net.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_streamer_plays_the_core_without_delay_and_the_whole_with_one():
    net, x, _ = case(tape_gru, batch=1)
    streamer = Streamer(net)
    parts = torch.cat([streamer.play(part) for part in x[0].split(100, dim=-1)], dim=-1)
    torch.testing.assert_close(parts[None], net(x)[0], rtol=0, atol=2e-6)
    streamer = Streamer(net, torch.tensor([33.5]))
    parts = torch.cat([streamer.play(part) for part in x[0].split(100, dim=-1)], dim=-1)
    torch.testing.assert_close(parts[None], net(x, torch.tensor([[33.5]]))[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("model", ["tcn", "lstm_linear", "greybox_tape"])
def test_any_model_gets_a_delay_line_from_the_config(model):
    cfg = settings.composed([f"model={model}", "delay_line.interpolation=linear", "delay_line.max_delay_samples=300"])
    cfg.model.controls = 0
    net = assemble.build_mono(cfg)
    assert isinstance(net, Delayed) and net.controls == 1 and net.line.max_delay_samples == 300
    cfg.delay_line.interpolation = None
    assert type(assemble.build_mono(cfg)) is type(net.core)
