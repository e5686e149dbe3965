"""The WaveNets' fused pass against torch's own, in float64; what a thread, a block or a history may not change."""

import copy

import pytest
import torch

from revox_lightning.kernels import backend, build
from revox_lightning.kernels import wavenet as fused
from revox_lightning.models.nam_wavenet import NAMWaveNet, nam_wavenet
from revox_lightning.models.wavenet import WaveNet, wavenet
from revox_lightning.stream import Streamer

pytestmark = pytest.mark.skipif(backend.library("wavenet") is None, reason="no C++ compiler")

FORMS = {
    "one": lambda: WaveNet([1, 2], width=1),
    "odd": lambda: WaveNet([1, 2, 64], width=3, kernel=2, channels=2, side_channels=1, controls=2),
    "seventeen": lambda: WaveNet([100, 1], width=17, kernel=4),
    "wide": lambda: WaveNet([1, 2], width=97),
    "without_past": lambda: WaveNet([1], width=4, kernel=1),
    "nam": lambda: NAMWaveNet((4, 2), ([1, 2], [8])),
    "nam_odd": lambda: NAMWaveNet((17, 3, 1), ([1, 2], [8], [100, 1]), kernel=4),
    "nam_wide": lambda: NAMWaveNet((97,), ([3],), channels=2, controls=1, side_channels=1),
    "nam_gated": lambda: NAMWaveNet((5, 8), ([1, 2], [4]), gated=True, channels=2, head_scale=0.5),
    "nam_relu": lambda: NAMWaveNet((5, 4), ([1, 2], [4]), activation="ReLU", controls=2),
    "nam_gated_relu": lambda: NAMWaveNet((3,), ([1, 7],), activation="ReLU", gated=True),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def built(form):
    torch.manual_seed(0)
    return form()


def played(net, batch: int, time: int):
    """x, knobs and a state, all random; x and state want gradients."""
    random = torch.Generator().manual_seed(time)
    x = 0.3 * torch.randn(batch, net.channels + net.side_channels, time, generator=random)
    controls = torch.rand(batch, net.controls, generator=random) if net.controls else None
    with torch.no_grad(), backend.using("torch"):
        ends = net(x, controls)[1]
    state = tuple(0.3 * torch.randn(end.shape, generator=random) for end in ends)
    return x.requires_grad_(), controls, tuple(part.requires_grad_() for part in state)


def outcome(net, name: str, x, controls=None, state=None, unscored: int = 0):
    """Outputs and last state; all gradients of a loss of every state, and every output from `unscored` on."""
    with backend.using(name):
        y, ends = net(x, controls, state)
    random = torch.Generator().manual_seed(1)
    loss = (y * torch.randn(y.shape, generator=random).to(y))[..., unscored:].sum()
    if state is not None:
        loss = loss + sum((end * torch.randn(end.shape, generator=random).to(end)).sum() for end in ends)
    wanted = [tensor for tensor in (x, *(state or ()), *net.parameters()) if tensor.requires_grad]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    zeroed = [torch.zeros_like(w) if g is None else g for g, w in zip(gradients, wanted, strict=True)]
    return [y, *ends], zeroed


def doubled(net, x, controls, state):
    def double(part):
        return None if part is None else part.detach().double().requires_grad_(part.requires_grad)

    return copy.deepcopy(net).double(), double(x), double(controls), state and tuple(map(double, state))


def error(estimates, exact) -> float:
    """Norm of the error of all parts together, relative to theirs."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(estimates, exact, strict=True)]
    size = sum(float(b.square().sum()) for _, b in pairs) ** 0.5
    return sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5 / max(size, 1e-30)


@each_form
@pytest.mark.parametrize("carried", [False, True], ids=["silence", "history"])
@pytest.mark.parametrize(("batch", "time", "unscored"), [(2, 300, 0), (3, 1, 0), (1, 7, 3), (2, 500, 350)])
def test_output_state_and_gradients_are_those_of_torch_in_double_precision(form, carried, batch, time, unscored):
    net = built(form)
    x, controls, state = played(net, batch, time)
    state = state if carried else None
    exact_net, *signals = doubled(net, x, controls, state)
    theirs = outcome(exact_net, "torch", *signals, unscored)
    ours = outcome(net, "fused", x, controls, state, unscored)
    assert error(ours[0], theirs[0]) < 1e-6
    assert error(ours[1], theirs[1]) < 1e-5


@pytest.mark.parametrize("form", ["odd", "nam_gated"])
def test_the_reference_itself_agrees_with_finite_differences(form):
    net, x, controls, state = doubled(*(lambda net: (net, *played(net, 1, 5)))(built(FORMS[form])))
    weights = tuple(p for p in net.parameters() if p.requires_grad)
    assert torch.autograd.gradcheck(lambda x, *_: net(x, controls, state)[0], (x, *state[:1], *weights))


@pytest.mark.parametrize("build_net", [nam_wavenet, lambda: wavenet(1)], ids=["nam", "wright"])
def test_the_gradient_of_a_scored_end_is_exact_over_a_whole_segment(build_net):
    net = built(build_net)
    x = 0.3 * torch.randn(2, 1, 6000)
    exact_net, x64, *_ = doubled(net, x, None, None)
    ours, theirs = outcome(net, "fused", x, unscored=4092), outcome(exact_net, "torch", x64, unscored=4092)
    assert error(ours[0], theirs[0]) < 1e-6
    assert error(ours[1], theirs[1]) < 1e-5


def test_only_what_is_asked_for_gets_a_gradient():
    net = built(FORMS["nam"])
    x, _, state = played(net, 2, 50)
    with backend.using("fused"):
        y, ends = net(x.detach(), None, tuple(part.detach() for part in state))
        ends[1].sum().backward()  # y takes no part, nor what comes after the second layer's input
    first, second = net.arrays
    assert first.conv[0].weight.grad.abs().sum() > 0
    assert first.conv[1].weight.grad.abs().sum() == 0 and second.head.weight.grad.abs().sum() == 0
    assert y.requires_grad and x.grad is None


def test_a_factor_that_is_learned_is_left_to_torch():
    net = built(FORMS["nam"])
    net.head_scale.requires_grad_()
    x, _, _ = played(net, 1, 20)
    y, _ = net(x)
    y.sum().backward()
    assert net.head_scale.grad is not None


@each_form
@pytest.mark.parametrize("block", [1, 64, 999])
@torch.no_grad()
def test_blocks_with_carried_state_equal_one_call(form, block):
    net = built(form)
    x, controls, state = played(net, 2, 20 if block == 1 else 2100)
    with backend.using("fused"):
        whole, last = net(x, controls, state)
        parts = []
        for piece in x.split(block, dim=-1):
            y, state = net(piece, controls, state)
            parts.append(y)
    assert torch.allclose(torch.cat(parts, dim=-1), whole, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state, last, strict=True))


@each_form
@torch.no_grad()
def test_a_signal_may_change_hands_in_the_middle(form):
    net = built(form)
    x, controls, state = played(net, 2, 200)
    wholes = []
    for order in (("torch", "torch"), ("torch", "fused"), ("fused", "torch")):
        with backend.using(order[0]):
            first, ends = net(x[..., :90], controls, state)
        with backend.using(order[1]):
            second, _ = net(x[..., 90:], controls, ends)
        wholes.append(torch.cat([first, second], dim=-1))
    assert torch.allclose(wholes[1], wholes[0], atol=2e-6) and torch.allclose(wholes[2], wholes[0], atol=2e-6)


@pytest.mark.parametrize("form", ["odd", "nam_gated"])
def test_signals_and_states_may_lie_in_memory_as_they_like(form):
    net = built(FORMS[form])
    x, controls, state = played(net, 3, 50)
    skewed = x.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    states = tuple(s.detach().permute(1, 0, 2).contiguous().permute(1, 0, 2).requires_grad_() for s in state)
    assert not skewed.is_contiguous() and not states[1].is_contiguous()
    ours, theirs = outcome(net, "fused", skewed, controls, states), outcome(net, "fused", x, controls, state)
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("form", ["odd", "nam_gated"])
def test_threads_change_nothing(form):
    net = built(FORMS[form])
    x, controls, state = played(net, 4, 400)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(outcome(net, "fused", x, controls, state))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert error(other[0], results[0][0]) == 0 and error(other[1], results[0][1]) < 1e-6


def test_repeating_gives_the_same_bits():
    net = built(FORMS["nam"])
    x, _, state = played(net, 2, 200)
    torch.set_num_threads(2)
    try:
        first = [t for part in outcome(net, "fused", x, None, state) for t in part]
        for _ in range(1000):
            again = [t for part in outcome(net, "fused", x, None, state) for t in part]
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("bytes_", [16, 64])
def test_other_vector_widths_compute_the_same(bytes_, monkeypatch, tmp_path):
    monkeypatch.setenv(build.MORE, f"-DREVOX_VECTOR_BYTES={bytes_} -Wno-psabi")
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    monkeypatch.setattr(backend, "_libraries", {})
    assert backend.library("wavenet").vector_bytes() == bytes_
    for form in ("odd", "seventeen", "nam_odd", "nam_gated"):
        net = built(FORMS[form])
        x, controls, state = played(net, 2, 150)
        exact_net, *signals = doubled(net, x, controls, state)
        ours, theirs = outcome(net, "fused", x, controls, state), outcome(exact_net, "torch", *signals)
        assert error(ours[0], theirs[0]) < 1e-6 and error(ours[1], theirs[1]) < 1e-5


@pytest.mark.parametrize("form", ["odd", "nam", "nam_relu"])
def test_what_is_no_number_stays_none(form):
    net = built(FORMS[form])
    x, controls, _ = played(net, 2, 300)
    broken = x.detach().clone()
    broken[0, 0, 100] = float("nan")
    with backend.using("fused"):
        y = net(broken, controls)[0]
    assert torch.isfinite(y[0, :, :100]).all() and torch.isfinite(y[1]).all()
    assert torch.isnan(y[0, :, 100]).all()
    y.sum().backward()
    assert any(torch.isnan(p.grad).any() for p in net.parameters() if p.grad is not None)


def test_shapes_that_do_not_fit_are_refused_as_torch_does():
    net = built(FORMS["nam"])
    _, state = net(torch.zeros(2, 1, 30))
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 3, 10))
    with pytest.raises(RuntimeError):
        net(torch.zeros(3, 1, 10), state=state)


@torch.no_grad()
def test_only_single_precision_is_fused(monkeypatch):
    calls = []
    monkeypatch.setattr(fused, "play", lambda *given: calls.append(given) or (None, ()))
    for form in ("nam", "odd"):
        net = built(FORMS[form])
        x, controls, _ = played(net, 1, 40)
        assert net(x, controls)[0] is None and len(calls) == 1
        y, _ = copy.deepcopy(net).double()(x.double(), None if controls is None else controls.double())
        assert y.dtype == torch.float64 and len(calls) == 1
        calls.clear()


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_stream_plays_blocks_of_any_length_and_hands_its_state_over(form):
    net = built(FORMS[form])
    x, controls, state = played(net, 1, 700)
    stream = fused.Stream(backend.library("wavenet"), net.description, None if controls is None else controls[0])
    for start in (None, state):
        whole, ends = net(x, controls, start)
        stream.state = start
        for block in x[0].split([1, 64, 96, 97, 300, 142], dim=-1):
            block, y = block.contiguous(), torch.empty(net.channels, block.shape[-1])
            stream.play(block.data_ptr(), y.data_ptr(), block.shape[-1])
            assert torch.allclose(y, whole[0, :, : y.shape[-1]], atol=1e-6)
            whole = whole[..., y.shape[-1] :]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(stream.state, ends, strict=True))


def test_a_net_streams_only_what_it_is_given():
    assert built(FORMS["nam"]).fused_stream() is not None
    assert built(FORMS["nam_relu"]).fused_stream() is None and built(FORMS["odd"]).fused_stream(torch.ones(2)) is None
    assert built(FORMS["nam_relu"]).fused_stream(torch.ones(1, 2)) is not None
    with backend.using("torch"):
        assert built(FORMS["nam"]).fused_stream() is None


@torch.no_grad()
def test_the_streamer_plays_what_the_net_does():
    net = built(FORMS["nam_relu"])
    x, controls, _ = played(net, 1, 200)
    streamer = Streamer(net, controls[0])
    y = torch.cat([streamer.play(block) for block in x[0].split(64, dim=-1)], dim=-1)
    assert torch.allclose(y, net(x, controls)[0][0], atol=1e-6)
