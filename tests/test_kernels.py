"""Choosing, compiling and keeping the kernels; doing without them."""

import ctypes
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend, build
from revox_lightning.models.nam_wavenet import nam_wavenet
from revox_lightning.models.recurrent import Recurrent
from revox_lightning.models.tcn import TCN
from revox_lightning.models.wavenet import WaveNet
from revox_lightning.stream import Streamer

compiled = pytest.mark.skipif(backend.library("recurrent") is None, reason="no C++ compiler")


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Nothing compiled yet, and a cache of its own."""
    monkeypatch.setenv(build.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(build.MORE, "-O0")  # which takes a third of the time
    monkeypatch.setattr(backend, "_libraries", {})
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(empty, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError, match="choose one of auto, torch, fused"):
        backend.choose("quick")


def test_using_ends_with_the_block():
    with backend.using("torch"):
        assert backend.fused("recurrent", torch.zeros(1)) is None
        assert backend.describe(Recurrent()) == "torch"
    with pytest.raises(RuntimeError, match="stop"), backend.using("torch"):
        raise RuntimeError("stop")
    assert backend._chosen == "auto"


def test_without_a_compiler_torch_computes_and_one_line_says_so(no_compiler, caplog):
    net, x = Recurrent("lstm", 4), torch.randn(2, 1, 30)
    with caplog.at_level(logging.WARNING):
        y, _ = net(x)
        net(x)
    assert len(caplog.records) == 1 and "no C++ compiler was found" in caplog.text
    assert backend.describe(net) == "torch"
    with backend.using("torch"):
        assert torch.equal(net(x)[0], y)


def test_fused_without_a_compiler_is_refused(no_compiler):
    with pytest.raises(UserError, match="install one, or take kernels=torch"):
        backend.choose("fused")


def test_a_compiler_that_fails_is_quoted(empty, monkeypatch, tmp_path):
    broken = tmp_path / "spoilt"
    broken.write_text("#!/bin/sh\necho 'cannot find crt1.o' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(build.NoCompiler, match=r"cannot find crt1\.o"):
        build.load("recurrent")
    assert not list(empty.iterdir()), "nothing half-made stays behind"


@compiled
def test_a_kernel_is_compiled_once(empty, caplog):
    with caplog.at_level(logging.INFO):
        build.load("recurrent")
        (made,) = empty.iterdir()
        when = made.stat().st_mtime_ns
        build.load("recurrent")
    assert made.stat().st_mtime_ns == when
    assert caplog.text.count("compiling the recurrent kernel") == 1


@compiled
def test_a_spoilt_kernel_is_made_again(empty):
    build.load("recurrent")
    (made,) = empty.iterdir()
    made.unlink()  # the loaded one must not change under our feet
    made.write_bytes(b"not a library")
    assert build.load("recurrent").vector_bytes() in (16, 32, 64)


@compiled
def test_another_processor_or_compiler_option_is_another_kernel(empty, monkeypatch):
    before = build._fingerprint("recurrent", build.compiler())
    monkeypatch.setenv(build.MORE, "-O2")
    assert build._fingerprint("recurrent", build.compiler()) != before
    monkeypatch.setenv(build.MORE, "-O0")
    monkeypatch.setattr(build, "_processor", lambda: "another")
    assert build._fingerprint("recurrent", build.compiler()) != before


@compiled
def test_a_cache_that_cannot_be_written_is_replaced(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(build.FOLDER, str(blocked / "cache"))
    monkeypatch.setenv(build.MORE, "-O0")
    assert isinstance(build.load("recurrent"), ctypes.CDLL)


@compiled
def test_the_description_is_of_the_net():
    said = backend.describe(Recurrent())
    assert said.startswith("fused (") and "bytes" in said
    assert backend.describe(torch.nn.Linear(1, 1)) == "torch"


@compiled
def test_threads_that_play_first_at_once_compile_once(empty, caplog):
    net = Recurrent("lstm", 4)
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: net(torch.zeros(1, 1, 8)), range(3)))
    assert caplog.text.count("compiling the recurrent kernel") == 1


@compiled
def test_nobody_at_home_is_no_reason_to_stop(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(build.FOLDER, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(build.MORE, "-O0")
    monkeypatch.setattr(build.Path, "home", nobody)
    assert isinstance(build.load("recurrent"), ctypes.CDLL)


def test_the_compilers_command_may_hold_options(monkeypatch):
    monkeypatch.setenv("CXX", "sh -c nothing")
    assert build.compiler()[1:] == ["-c", "nothing"]
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(build.NoCompiler, match="CXX=no-such-compiler -O1 was not found"):
        build.compiler()


@compiled
@pytest.mark.parametrize("net", [Recurrent("gru", 4), TCN(blocks=2, kernel=3, width=4).eval(), WaveNet([1, 2], 4)])
def test_shapes_that_do_not_fit_reach_no_kernel(net):
    _, state = net(torch.zeros(2, 1, 9))
    with pytest.raises(RuntimeError):
        net(torch.zeros(2, 3, 9))
    with pytest.raises(RuntimeError):
        net(torch.zeros(5, 1, 9), None, state)


@compiled
@pytest.mark.parametrize(
    "make",
    [
        lambda knobs: Recurrent("lstm", 6, controls=knobs),
        lambda knobs: TCN(blocks=2, kernel=3, width=4, controls=knobs),
        lambda knobs: WaveNet([1, 2, 4], 8, controls=knobs),
        lambda knobs: nam_wavenet("nano", controls=knobs),
    ],
)
@pytest.mark.parametrize("knobs", [0, 2])
def test_a_streamer_plays_what_the_net_plays(make, knobs):
    net = make(knobs).eval()
    x, controls = torch.randn(1, 1, 300), torch.rand(knobs) if knobs else None
    with torch.inference_mode():
        whole, _ = net(x, None if controls is None else controls[None])
    streamer = Streamer(net, controls)
    parts = [streamer.play(x[0, :, at : at + 64]) for at in range(0, 300, 64)]
    assert torch.allclose(torch.cat(parts, dim=-1), whole[0], atol=2e-6)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_a_streamer_plays_into_the_place_it_is_given(kernels):
    net, x, place = Recurrent("gru", 5), torch.randn(1, 64), torch.empty(1, 64)
    with backend.using(kernels):
        y = Streamer(net).play(x, place)
        assert y is place and torch.equal(y, Streamer(net).play(x))
        for wrong in (torch.empty(1, 63), torch.empty(1, 64, dtype=torch.float64), torch.empty(1, 128)[:, ::2]):
            with pytest.raises(UserError, match="a place of"):
                Streamer(net).play(x, wrong)


@compiled
def test_mixed_precision_gives_a_tcn_with_knobs_no_rubbish():
    net, x, knobs = TCN(blocks=2, kernel=3, width=8, controls=1), torch.randn(2, 1, 400), torch.rand(2, 1)
    exact, _ = net(x, knobs)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = net(x, knobs)
    y.float().sum().backward()
    assert (y.float() - exact).abs().max() < 0.05
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_allocator_is_tuned_where_glibc_is():
    glibc = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    assert allocator.tune() is glibc
