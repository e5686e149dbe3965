"""The TCN's fused loops against torch's own, in float64; what a thread, a block or a history may not change."""

import copy

import pytest
import torch
from torch import nn

from revox_lightning.kernels import backend, build
from revox_lightning.models.tcn import TCN, folded, tcn

pytestmark = pytest.mark.skipif(backend.library("tcn") is None, reason="no C++ compiler")
FORMS = {
    "one": {"width": 1},
    "odd": {"width": 3, "growth": 3},
    "seventeen": {"width": 17, "kernel": 3},
    "wide": {"width": 97, "blocks": 2},
    "stereo": {"width": 6, "channels": 2, "side_channels": 1},
    "knobs": {"width": 8, "controls": 2},
    "paper_exact": {"width": 8, "paper_exact": True, "kernel": 2},
    "far": {"width": 4, "growth": 300, "blocks": 2, "kernel": 3},
    "undilated": {"width": 8, "growth": 1},
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
each_mode = pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])


def built(training: bool = False, **form) -> TCN:
    torch.manual_seed(0)
    net = TCN(**{"blocks": 3, "growth": 4, "kernel": 5, **form})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.01, 0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.3, 0.5)
    return net.train(training)


def played(net: TCN, batch: int, time: int):
    """x, knobs and a state, all random; x and state want gradients."""
    random = torch.Generator().manual_seed(time)
    x = 0.3 * torch.randn(batch, net.channels + net.side_channels, time, generator=random)
    controls = torch.rand(batch, net.controls, generator=random) if net.controls else None
    pasts = [(block.conv.in_channels, block.past_samples) for block in net.blocks]
    state = tuple(0.3 * torch.randn(batch, *past, generator=random) for past in pasts)
    return x.requires_grad_(), controls, tuple(part.requires_grad_() for part in state)


def outcome(net: TCN, name: str, x, controls=None, state=None):
    """Output, last state, all gradients of a loss that every output and state enters; and the norms' statistics."""
    with backend.using(name):
        y, ends = net(x, controls, state)
    random = torch.Generator().manual_seed(1)
    loss = (y * torch.randn(y.shape, generator=random).to(y)).sum()
    if state is not None:
        loss = loss + sum((end * torch.randn(end.shape, generator=random).to(end)).sum() for end in ends)
    wanted = [tensor for tensor in (x, *(state or ()), *net.parameters()) if tensor.requires_grad]
    return [y, *ends], list(torch.autograd.grad(loss, wanted)), [b for b in net.buffers() if b.is_floating_point()]


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
@each_mode
@pytest.mark.parametrize(("batch", "time"), [(2, 300), (3, 1), (1, 7)])
def test_output_state_gradients_and_statistics_are_those_of_torch_in_double_precision(form, training, batch, time):
    net = built(training, **form)
    x, controls, state = played(net, batch, time)
    exact_net, *signals = doubled(net, x, controls, state)
    theirs = outcome(exact_net, "torch", *signals)
    ours = outcome(net, "fused", x, controls, state)
    assert error(ours[0], theirs[0]) < 1e-6
    assert error(ours[1], theirs[1]) < 1e-5
    assert error(ours[2], theirs[2]) < 1e-6


@each_mode
def test_the_reference_itself_agrees_with_finite_differences(training):
    net = built(training, width=4, controls=1).double()
    net, x, controls, state = doubled(net, *played(net, 2, 9))
    assert torch.autograd.gradcheck(lambda x, *state: net(x, controls, state)[0], (x, *state))


@each_mode
def test_long_segments_without_history_keep_the_gradient_exact(training):
    net = built(training, width=16, growth=10, kernel=5, blocks=4)
    x, _, _ = played(net, 2, 12_000)
    exact_net, x64, *_ = doubled(net, x, None, None)
    ours, theirs = outcome(net, "fused", x), outcome(exact_net, "torch", x64)
    assert error(ours[0], theirs[0]) < 1e-6
    assert error(ours[1], theirs[1]) < 1e-5


def test_only_what_is_asked_for_gets_a_gradient():
    net = built(True, width=8)
    x, _, state = played(net, 2, 50)
    with backend.using("fused"):
        y, ends = net(x.detach(), None, tuple(part.detach() for part in state))
        ends[1].sum().backward()  # y takes no part
    first, second, last = net.blocks
    assert first.conv.weight.grad.abs().sum() > 0
    assert second.conv.weight.grad.abs().sum() == 0 and last.conv.weight.grad.abs().sum() == 0
    assert y.requires_grad and x.grad is None


@each_form
@pytest.mark.parametrize("block", [1, 64, 999])
@torch.no_grad()
def test_blocks_with_carried_state_equal_one_call(form, block):
    net = built(**form)
    x, controls, state = played(net, 2, 20 if block == 1 else 2100)
    with backend.using("fused"):
        whole, last = net(x, controls, state)
        parts = []
        for piece in x.split(block, dim=-1):
            y, state = net(piece, controls, state)
            parts.append(y)
    assert torch.allclose(torch.cat(parts, dim=-1), whole, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state, last, strict=True))


@torch.no_grad()
def test_inference_in_chunks_is_the_net_over_the_whole_signal():
    net = built(width=8, growth=30, blocks=3)
    x = 0.3 * torch.randn(1, 1, 9000)
    with backend.using("torch"):
        whole, state = net(x)
    with backend.using("fused"):
        ours, ends = net(x)
    assert torch.allclose(ours, whole, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ends, state, strict=True))


@each_mode
def test_a_signal_may_change_hands_in_the_middle(training):
    net = built(training, width=8, controls=2)
    x, controls, state = played(net, 2, 200)
    wholes = []
    for order in (("torch", "torch"), ("torch", "fused"), ("fused", "torch")):
        other = copy.deepcopy(net)
        with backend.using(order[0]):
            first, ends = other(x[..., :90], controls, state)
        with backend.using(order[1]):
            second, _ = other(x[..., 90:], controls, ends)
        wholes.append(torch.cat([first, second], dim=-1))
    assert torch.allclose(wholes[1], wholes[0], atol=2e-6) and torch.allclose(wholes[2], wholes[0], atol=2e-6)


@each_mode
def test_signals_and_states_may_lie_in_memory_as_they_like(training):
    net = built(training, width=6, channels=2)
    x, _, state = played(net, 3, 50)
    skewed = x.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0).requires_grad_()
    states = tuple(s.detach().permute(1, 0, 2).contiguous().permute(1, 0, 2).requires_grad_() for s in state)
    assert not skewed.is_contiguous() and not states[1].is_contiguous()
    ours, theirs = (outcome(copy.deepcopy(net), "fused", *p) for p in ((skewed, None, states), (x, None, state)))
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert torch.equal(a, b)


@each_mode
@pytest.mark.parametrize("growth", [4, 300])
def test_threads_change_nothing(training, growth):
    net = built(training, width=8, growth=growth)
    x, _, state = played(net, 2, 700)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            outputs, gradients, statistics = outcome(copy.deepcopy(net), "fused", x, None, state)
        finally:
            torch.set_num_threads(1)
        results.append((outputs, gradients, statistics))
    for other in results[1:]:
        assert max(error(a, b) for a, b in zip(other, results[0], strict=True)) < 1e-6


@pytest.mark.slow
def test_repeating_gives_the_same_bits():
    net = built(True, width=4, blocks=2)
    x, _, state = played(net, 2, 300)
    torch.set_num_threads(2)
    try:
        first = [t for part in outcome(copy.deepcopy(net), "fused", x, None, state) for t in part]
        for _ in range(1000):
            again = [t for part in outcome(copy.deepcopy(net), "fused", x, None, state) for t in part]
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("bytes_", [16, 64])
def test_other_vector_widths_compute_the_same(bytes_, monkeypatch, tmp_path):
    monkeypatch.setenv(build.MORE, f"-DREVOX_VECTOR_BYTES={bytes_} -Wno-psabi")
    monkeypatch.setenv(build.FOLDER, str(tmp_path))
    monkeypatch.setattr(backend, "_libraries", {})
    assert backend.library("tcn").vector_bytes() == bytes_
    for form in ("seventeen", "stereo", "paper_exact"):
        for training in (True, False):
            net = built(training, **FORMS[form])
            x, controls, state = played(net, 2, 300)
            exact_net, *signals = doubled(net, x, controls, state)
            theirs = outcome(exact_net, "torch", *signals)
            ours = outcome(net, "fused", x, controls, state)
            assert max(error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-5


@torch.no_grad()
def test_what_is_not_a_number_stays_so():
    net = built(width=8)
    x = 0.3 * torch.randn(2, 1, 300)
    x[0, 0, 100] = float("nan")
    with backend.using("fused"):
        y, _ = net(x)
    ends = 100 + net.receptive_field
    assert y[0, 0, :100].isfinite().all() and y[1].isfinite().all() and y[0, 0, ends:].isfinite().all()
    assert y[0, 0, 100:ends].isnan().all()
    with backend.using("fused"):
        assert net.train()(x)[0].isnan().all()  # through the statistics of the batch


def test_running_statistics_follow_several_batches():
    net = built(True, width=8)
    other = copy.deepcopy(net)
    for seed in range(3):
        x = torch.randn(2, 1, 100, generator=torch.Generator().manual_seed(seed))
        with backend.using("torch"):
            other(x)
        with backend.using("fused"), torch.no_grad():
            net(x)
    for a, b in zip(net.buffers(), other.buffers(), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_stream_plays_what_the_net_plays():
    net = built(width=8, controls=2)
    x, controls, _ = played(net, 1, 6000)
    stream = net.fused_stream(controls)
    parts = []
    for piece in x.split([1, 64, 999, 4500, 436], dim=-1):
        piece = piece.contiguous()
        parts.append(torch.empty(1, 1, piece.shape[-1]))
        stream.play(piece.data_ptr(), parts[-1].data_ptr(), piece.shape[-1])
    with backend.using("torch"):
        whole, state = net(x, controls)
    assert torch.allclose(torch.cat(parts, dim=-1), whole, atol=1e-6)
    other = net.fused_stream(controls)
    other.load(stream.state())
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(other.state(), state, strict=True))


def test_what_the_kernel_does_not_cover_stays_with_torch():
    moving = built(width=8, controls=1)
    x, controls, _ = played(moving, 2, 40)
    still, _ = moving(x, controls)
    assert torch.allclose(moving(x, controls[:, :, None].expand(-1, -1, 40))[0], still, atol=1e-6)
    frozen = built(True, width=8)
    frozen.blocks[0].norm.eval()
    before = frozen.blocks[0].norm.running_mean.clone()
    frozen(torch.randn(2, 1, 40))
    assert torch.equal(frozen.blocks[0].norm.running_mean, before)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        built(True, width=8)(torch.zeros(1, 1, 1))
    assert built(width=8).double()(torch.zeros(1, 1, 5).double())[0].dtype == torch.float64
    with backend.using("torch"):
        assert built(width=8).fused_stream() is None


def test_without_a_compiler_torch_computes(monkeypatch, tmp_path):
    net = built(True, width=8, growth=10)
    x, _, state = played(net, 2, 900)
    reference = outcome(copy.deepcopy(net), "torch", x, None, state)
    monkeypatch.setenv(build.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "_libraries", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    ours = outcome(net, "auto", x, None, state)
    assert max(error(a, b) for a, b in zip(ours, reference, strict=True)) < 1e-5


@pytest.mark.parametrize("frames", [400, 401, 439, 130])
@pytest.mark.parametrize("dilation", [1, 8, 20])
def test_a_folded_convolution_is_the_same_convolution(frames, dilation):
    conv = nn.Conv1d(3, 4, 5, dilation=dilation, bias=False)
    window = torch.randn(2, 3, frames, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(conv, window), conv(window), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_published_net_at_its_own_size():
    net = tcn(300).eval()
    x = 0.3 * torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    with backend.using("torch"):
        reference, _ = copy.deepcopy(net).double()(x.double())
    with backend.using("fused"):
        assert error([net(x)[0]], [reference]) < 1e-6
