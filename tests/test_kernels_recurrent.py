"""The fused recurrent loops against torch's own, in float64; what a thread or a block may not change."""

import copy

import pytest
import torch

from revox_lightning.kernels import backend, build
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.stream import Streamer, stream

pytestmark = pytest.mark.skipif(backend.library("recurrent") is None, reason="no C++ compiler")
SHAPES = [(1, 1, 1), (3, 5, 40), (17, 2, 61), (32, 7, 33), (97, 3, 20)]  # hidden, batch, time


def outcome(net, x, state, weight, name):
    """Output, last state and all gradients of a loss that every output and state enters."""
    with backend.using(name):
        y, ends = net(x, None, state)
    loss = (y * weight).sum() + sum(end.sin().sum() for end in ends)
    return [y, *ends], torch.autograd.grad(loss, [x, *state, *net.parameters()])


def case(unit, hidden, batch, time, layers=1, inputs=2):
    random = torch.Generator().manual_seed(hidden + layers)
    torch.manual_seed(hidden)
    net = Recurrent(unit, hidden, layers, side_channels=inputs - 1)
    x = torch.randn(batch, inputs, time, generator=random).requires_grad_()
    shape = (layers, batch, hidden)
    state = tuple(torch.randn(shape, generator=random).requires_grad_() for _ in range(2 if unit == "lstm" else 1))
    return net, x, state, torch.randn(batch, 1, time, generator=random)


def doubled(*tensors):
    return [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]


def error(estimates, exact):
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(estimates, exact, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("hidden", "batch", "time"), SHAPES)
@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_output_state_and_gradients_are_those_of_torch_in_double_precision(unit, hidden, batch, time, layers):
    net, x, state, weight = case(unit, hidden, batch, time, layers)
    ours = outcome(net, x, state, weight, "fused")
    (x64, w64), state64 = doubled(x, weight), tuple(doubled(*state))
    theirs = outcome(copy.deepcopy(net).double(), x64, state64, w64, "torch")
    assert error(ours[0], theirs[0]) < 2e-6
    assert error(ours[1], theirs[1]) < 1e-5


@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_the_reference_itself_agrees_with_finite_differences(unit):
    net, x, state, _ = case(unit, 3, 2, 5)
    net, x, state = net.double(), *doubled(x), tuple(doubled(*state))
    assert torch.autograd.gradcheck(lambda x, *state: net(x, None, state)[0], (x, *state))


@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_long_segments_keep_the_gradient_exact(unit):
    net, _, _, _ = case(unit, 32, 1, 1, inputs=1)
    x, y = torch.randn(2, 16, 1, 2048, generator=torch.Generator().manual_seed(0)) * 0.3
    gradients = []
    for model, signal, target, name in ((net, x, y, "fused"), (copy.deepcopy(net).double(), x.double(), y.double(), "torch")):  # fmt: skip
        with backend.using(name):
            loss = ((model(signal)[0] - target) ** 2).mean()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    assert error(*gradients) < 1e-5


@pytest.mark.parametrize("unit", ["lstm", "gru"])
@pytest.mark.parametrize("block", [1, 64, 999])
def test_blocks_with_carried_state_equal_one_call(unit, block):
    net, x, _, _ = case(unit, 17, 2, 1500)
    with backend.using("fused"), torch.no_grad():
        whole, state = net(x)
        parts, last = stream(net, x, block_samples=block)
    assert torch.allclose(parts, whole, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state, last, strict=True))


def test_a_signal_may_change_hands_in_the_middle():
    net, x, _, _ = case("lstm", 32, 2, 200)
    with torch.no_grad():
        whole, _ = net(x)
        with backend.using("torch"):
            first, state = net(x[..., :90])
        with backend.using("fused"):
            second, _ = net(x[..., 90:], None, state)
    assert torch.allclose(torch.cat([first, second], dim=-1), whole, atol=1e-6)


@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_signals_and_states_may_lie_in_memory_as_they_like(unit):
    net, x, state, weight = case(unit, 17, 4, 50)
    skewed = x.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    assert not skewed.is_contiguous()
    states = tuple(s.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for s in state)
    with backend.using("fused"):
        ours, theirs = outcome(net, skewed, states, weight, "fused"), outcome(net, x, state, weight, "fused")
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_threads_change_nothing(unit, monkeypatch):
    net, x, state, weight = case(unit, 32, 9, 64, layers=2)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(backend, "_threads", threads)
        outputs, gradients = outcome(net, x, state, weight, "fused")
        results.append([*outputs, *gradients])
    for other in results[1:]:
        assert error(other, results[0]) < 1e-6


def test_repeating_gives_the_same_bits(monkeypatch):
    net, x, state, weight = case("lstm", 8, 3, 12)
    monkeypatch.setattr(backend, "_threads", 2)
    first = [t for part in outcome(net, x, state, weight, "fused") for t in part]
    for _ in range(1000):
        again = [t for part in outcome(net, x, state, weight, "fused") for t in part]
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("bytes_", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_other_vector_widths_compute_the_same(bytes_, monkeypatch, tmp_path):
    monkeypatch.setenv(build.MORE, f"-DREVOX_VECTOR_BYTES={bytes_} -Wno-psabi")
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    monkeypatch.setattr(backend, "_libraries", {})
    assert backend.library("recurrent").vector_bytes() == bytes_
    for unit in ("lstm", "gru"):
        net, x, state, weight = case(unit, 17, 5, 30, layers=2)
        ours = outcome(net, x, state, weight, "fused")
        (x64, w64), state64 = doubled(x, weight), tuple(doubled(*state))
        theirs = outcome(copy.deepcopy(net).double(), x64, state64, w64, "torch")
        assert error([*ours[0], *ours[1]], [*theirs[0], *theirs[1]]) < 1e-5


def test_what_is_not_a_number_stays_so():
    net, x, _, _ = case("lstm", 8, 2, 20)
    x = x.detach()
    x[0, 0, 10] = float("nan")
    y, _ = net(x)
    assert y[0, 0, :10].isfinite().all() and y[0, 0, 10:].isnan().all() and y[1].isfinite().all()


def test_knobs_reach_the_fused_loop():
    net = Recurrent("gru", 8, controls=2)
    x, knobs = torch.randn(3, 1, 20), torch.rand(3, 2)
    with backend.using("torch"):
        expected, _ = net(x, knobs)
    assert torch.allclose(net(x, knobs)[0], expected, atol=1e-6)


@pytest.mark.parametrize("unit", ["lstm", "gru"])
def test_a_streamer_plays_what_the_net_plays(unit):
    net = Recurrent(unit, 20, layers=2)
    x = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, _ = net(x[None])
    streamer = Streamer(net)
    sizes, parts, at = [1, 64, 999, 700, 1236], [], 0
    for size in sizes:
        parts.append(streamer.play(x[:, at : at + size]))
        at += size
    assert at == 3000
    assert torch.allclose(torch.cat(parts, dim=-1), whole[0], atol=1e-6)
    assert not parts[0].requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")  # of jit.trace itself
def test_double_precision_and_tracing_stay_with_torch():
    net, x = Recurrent("lstm", 4).eval(), torch.randn(1, 1, 20)
    traced = torch.jit.trace(net, torch.zeros(1, 1, 20))
    assert torch.allclose(traced(x)[0], net(x)[0], atol=1e-6), "a kernel's output would be a constant in the trace"
    assert backend.fused("recurrent", torch.zeros(1).double()) is None
    assert net.double()(torch.zeros(1, 1, 5).double())[0].dtype == torch.float64
