"""The State Transition Network: laws of hysteresis, then the fused loop against torch in double precision."""

import copy
import math

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.kernels import backend, build
from revox_lightning.models.stn import STN, langevin, stn
from revox_lightning.stream import Streamer, stream

needs_compiler = pytest.mark.skipif(backend.library("stn") is None, reason="no C++ compiler")
SHAPES = [((4, 4), 1, 40), ((16, 16), 7, 61), ((5,), 4, 33), ((9, 3, 7), 6, 50)]  # hidden, batch, time


def case(hidden, batch, time, controls=0, channels=1):
    torch.manual_seed(sum(hidden))
    net = STN(hidden, channels, controls, memory_samples=math.inf if batch % 2 else 300.0)
    x = 0.2 * torch.randn(batch, channels, time)
    knobs = torch.rand(batch, controls) if controls else None
    state = 0.3 * torch.randn(batch, channels, 4)
    return net, x, knobs, state


def outcome(net, x, knobs, state, name):
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    with backend.using(name):
        y, last = net(x, knobs, state)
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)
    return [y, last], torch.autograd.grad((weight * y).sin().sum() + last.sin().sum(), [x, state, *net.parameters()])


def doubled(*tensors):
    return [None if t is None else t.double() for t in tensors]


def error(estimates, exact):
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(estimates, exact, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in pairs)


@pytest.mark.parametrize("size,controls,count", [(4, 0, 49), (4, 3, 57), (8, 3, 145), (16, 0, 385), (16, 3, 417)])
def test_sizes(size, controls, count):
    assert sum(weight.numel() for weight in stn(size, controls=controls).parameters()) == count


@pytest.mark.parametrize("controls", [0, 2, 3])
@torch.no_grad()
def test_the_loop_is_odd(controls):
    net, x, knobs, _ = case((8, 8), 3, 300, controls)
    assert torch.allclose(net(-x, knobs)[0], -net(x, knobs)[0], atol=1e-6)


@torch.no_grad()
def test_a_field_that_rests_leaves_the_magnetisation_where_it_is():
    net, x, _, _ = case((4, 4), 3, 200)
    held = torch.cat([x[..., :100], x[..., 99:100].expand(-1, -1, 400)], dim=-1)
    y = net(held)[0]
    assert y[..., 99].abs().min() > 0.01
    assert torch.allclose(y[..., 300:], y[..., 299:300].expand(-1, -1, 200), atol=1e-6)
    assert not net(torch.zeros(1, 1, 100))[0].any()


@torch.no_grad()
def test_a_net_with_a_short_memory_forgets():
    net = STN((4, 4), memory_samples=100.0)
    step = torch.cat([torch.linspace(0, 0.5, 50), torch.full((850,), 0.5)])[None, None]
    y = net(step)[0][0, 0]
    assert y[50].abs() > 0.01
    assert y[850] == pytest.approx(float(y[350]) * math.exp(-5), rel=1e-3)


@torch.no_grad()
def test_the_magnetisation_stays_within_the_saturation_whatever_the_weights():
    net, x, _, _ = case((4, 4), 5, 500, 3)
    torch.nn.init.normal_(net.output_layer.weight, std=30.0)
    knobs = torch.rand(5, 3)
    y = net(20 * x, knobs)[0]
    limit = 0.5 + 1.5 * (1 - knobs[:, 1])
    assert torch.all(y.abs() <= limit[:, None, None] * (1 + 1e-6))
    assert (y.abs() > 0.99 * limit[:, None, None]).any(), "nothing came near it"


@torch.no_grad()
def test_it_remembers():
    """The same field, reached from above and from below."""
    net, _, _, _ = case((4, 4), 1, 1)
    ramp = torch.linspace(0, 1, 50)
    loop = torch.cat([ramp, ramp.flip(0), -ramp, -ramp.flip(0), ramp])[None, None]
    y = net(loop)[0][0, 0]
    assert abs(float(y[74] - y[224])) > 1e-3


@pytest.mark.parametrize("block", [1, 64, 999])
@pytest.mark.parametrize("grad", [True, False])
def test_blocks_equal_one_call(block, grad):
    net, x, knobs, start = case((8, 8), 2, 1300 if block > 1 else 40, 3)
    with torch.set_grad_enabled(grad):
        whole, last = net(x, knobs, start)
        parts, state = stream(net, x, knobs, start, block_samples=block)
    assert torch.allclose(parts, whole, atol=5e-6)
    assert torch.allclose(state, last, atol=5e-6)


@needs_compiler
@pytest.mark.parametrize("controls", [0, 2, 3])
@pytest.mark.parametrize(("hidden", "batch", "time"), SHAPES)
def test_output_state_and_gradients_are_those_of_torch_in_double_precision(hidden, batch, time, controls):
    net, x, knobs, state = case(hidden, batch, time, controls, channels=2 if batch == 6 else 1)
    ours = outcome(net, x, knobs, state, "fused")
    x, knobs, state = doubled(x, knobs, state)
    theirs = outcome(copy.deepcopy(net).double(), x, knobs, state, "torch")
    assert error(ours[0], theirs[0]) < 1e-5
    assert error(ours[1], theirs[1]) < 5e-4


@needs_compiler
@pytest.mark.parametrize("controls", [0, 3])
@torch.no_grad()
def test_rendering_and_streaming_equal_the_path_with_a_graph(controls):
    net, x, knobs, state = case((16, 16), 9, 400, controls, channels=2)
    with torch.enable_grad():
        expected, last = net(x, knobs, state)
    y, carried = net(x, knobs, state)
    assert torch.allclose(y, expected, atol=1e-5) and torch.allclose(carried, last, atol=1e-5)
    streamer = Streamer(net, None if knobs is None else knobs[0])
    played = torch.cat([streamer.play(part) for part in x[0].split([1, 64, 300, 35], dim=-1)], dim=-1)
    assert torch.allclose(played, net(x[:1], None if knobs is None else knobs[:1])[0][0], atol=1e-6)


def test_the_reference_agrees_with_finite_differences():
    net, x, knobs, state = case((3, 2), 2, 6, 3)
    # away from the corners: where the derivative of the field changes its sign, and at the saturation
    x, state = torch.linspace(0.1, 0.4, 6).double().expand(2, 1, 6) + 0.01 * x.double(), 0 * state.double()
    net, knobs = net.double(), knobs.double() * 0.8 + 0.1
    x, knobs, state = x.sort(dim=-1).values.requires_grad_(), knobs.requires_grad_(), state.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: net(*given)[0], (x, knobs, state))


@needs_compiler
def test_threads_change_nothing(monkeypatch):
    net, x, knobs, state = case((16, 16), 11, 64, 3)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(backend, "_threads", threads)
        with torch.no_grad():
            rendered = net(x, knobs, state)
        outputs, gradients = outcome(net, x, knobs, state, "fused")
        results.append([*rendered, *outputs, *gradients])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


@needs_compiler
@pytest.mark.parametrize("bytes_", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_other_vector_widths_compute_the_same(bytes_, monkeypatch, tmp_path):
    net, x, knobs, state = case((9, 5), 6, 40, 3)
    exact = outcome(copy.deepcopy(net).double(), *doubled(x, knobs, state), "torch")
    monkeypatch.setenv(build.MORE, f"-DREVOX_VECTOR_BYTES={bytes_} -Wno-psabi")
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    monkeypatch.setattr(backend, "_libraries", {})
    assert backend.library("stn").vector_bytes() == bytes_
    ours = outcome(net, x, knobs, state, "fused")
    assert error(ours[0], exact[0]) < 1e-5 and error(ours[1], exact[1]) < 5e-4
    with torch.no_grad():
        assert torch.allclose(net(x, knobs, state)[0].double(), exact[0][0], atol=1e-5)


@needs_compiler
@torch.no_grad()
def test_what_is_not_a_number_stays_with_its_signal():
    net, x, _, _ = case((8, 8), 2, 60)
    x[0, 0, 30] = float("nan")
    y, _ = net(x)
    assert y[0, 0, :30].isfinite().all() and y[0, 0, 30:].isnan().all() and y[1].isfinite().all()


@torch.no_grad()
def test_drive_saturation_and_width_bend_the_loop():
    net, x, _, _ = case((8, 8), 1, 400, 3)
    middle = torch.tensor([[0.5, 0.5, 0.5]])
    y = net(x, middle)[0]
    for knob in range(3):
        other = middle.clone()
        other[0, knob] = 0.9
        assert not torch.allclose(net(x, other)[0], y, atol=1e-3)


@pytest.mark.parametrize("hidden", [(), (4, 0)])
def test_a_net_needs_units(hidden):
    with pytest.raises(UserError, match="hidden"):
        STN(hidden)


def test_the_anhysteretic_curve_is_exact_on_both_sides_of_where_its_series_ends():
    q = torch.linspace(-30, 30, 2001, dtype=torch.float64, requires_grad=True)
    exact = [1 / math.tanh(v) - 1 / v if v else 0.0 for v in q.tolist()]
    y = langevin(q)
    assert torch.allclose(y, torch.tensor(exact, dtype=torch.float64), atol=2e-9)
    (slope,) = torch.autograd.grad(y.sum(), q)
    assert slope.isfinite().all() and abs(slope.max() - 1 / 3) < 1e-9
