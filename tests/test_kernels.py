"""Choosing, compiling and keeping the kernels; doing without them."""

import ctypes
import logging

import pytest
import torch

from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend, build
from revox_lightning.models.recurrent import Recurrent

compiled = pytest.mark.skipif(backend.library("recurrent") is None, reason="no C++ compiler")


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """Nothing compiled yet, and a cache of its own."""
    monkeypatch.setenv(build.FOLDER, str(tmp_path / "cache"))
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
        assert backend.describe() == "torch"
    with pytest.raises(RuntimeError, match="stop"), backend.using("torch"):
        raise RuntimeError("stop")
    assert backend._chosen == "auto"


def test_without_a_compiler_torch_computes_and_one_line_says_so(no_compiler, caplog):
    net, x = Recurrent("lstm", 4), torch.randn(2, 1, 30)
    with caplog.at_level(logging.WARNING):
        y, _ = net(x)
        net(x)
    assert len(caplog.records) == 1 and "no C++ compiler was found" in caplog.text
    assert backend.describe() == "torch"
    with backend.using("torch"):
        assert torch.equal(net(x)[0], y)


def test_fused_without_a_compiler_is_refused(no_compiler):
    with pytest.raises(UserError, match="install one, or take kernels=torch"):
        backend.choose("fused")


def test_a_compiler_that_fails_is_quoted(empty, monkeypatch, tmp_path):
    broken = tmp_path / "c++"
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
    monkeypatch.delenv(build.MORE)
    monkeypatch.setattr(build, "_processor", lambda: "another")
    assert build._fingerprint("recurrent", build.compiler()) != before


@compiled
def test_a_cache_that_cannot_be_written_is_replaced(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(build.FOLDER, str(blocked / "cache"))
    assert isinstance(build.load("recurrent"), ctypes.CDLL)


@compiled
def test_the_description_names_compiler_and_width():
    backend.library("recurrent")
    assert backend.describe().startswith("fused (") and "bytes" in backend.describe()


def test_the_allocator_says_whether_it_was_tuned():
    assert allocator.tune() == allocator.tune()
