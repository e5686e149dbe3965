"""Compiles the C++ kernels on first use with the user's own compiler, and keeps the result for this processor."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
# No -ffast-math: NaN and infinity must stay what they are.
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math")
# What REVOX_KERNELS_MARCH may hold instead of the machine's own: "x86-64-v3" is AVX2 with FMA.
MARCH = "REVOX_KERNELS_MARCH"
MORE = "REVOX_KERNELS_FLAGS"  # further options of the compiler
FOLDER = "REVOX_KERNELS_CACHE"


class NoCompiler(Exception):
    """There is no C++ compiler, or it cannot compile the kernels; the text says why."""


def compiler() -> str:
    """The path of CXX, c++, g++ or clang++, whichever there is first. Raises NoCompiler."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise NoCompiler("no C++ compiler was found (c++, g++, clang++ or $CXX)")


def targets() -> list[list[str]]:
    """Options that name the processor, the first that the compiler understands is taken."""
    wanted, more = os.environ.get(MARCH), os.environ.get(MORE, "").split()
    choices = [f"-march={wanted}"] if wanted else ["-march=native", "-mcpu=native", "-O3"]
    return [[choice, *more] for choice in choices]


def load(name: str) -> ctypes.CDLL:
    """The library made of ``NAME.cpp``, compiled unless that was done before. Raises NoCompiler."""
    command = compiler()
    place = _folder() / f"{name}-{_fingerprint(name, command)}.so"
    if place.exists():
        with contextlib.suppress(OSError):  # spoilt: it is made again
            return ctypes.CDLL(str(place))
    log.info("compiling the %s kernel for this processor, once ...", name)
    _compile(command, SOURCES / f"{name}.cpp", place)
    try:
        return ctypes.CDLL(str(place))
    except OSError as error:
        raise NoCompiler(f"the compiled {place} cannot be loaded ({error})") from error


def _folder() -> Path:
    """Where compiled kernels are kept: the user's cache, or a new temporary folder where that cannot be written."""
    chosen = os.environ.get(FOLDER)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(chosen) if chosen else cache / "revox_lightning" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="revox_kernels_"))


def _fingerprint(name: str, command: str) -> str:
    """Changes with the source, the compiler, its options and the processor."""
    digest = hashlib.sha256()
    for source in sorted([SOURCES / f"{name}.cpp", *SOURCES.glob("*.h")]):
        digest.update(source.read_bytes())
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    digest.update(repr((version, FLAGS, targets(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _compile(command: str, source: Path, place: Path) -> None:
    """Raises NoCompiler with the compiler's last words; ``place`` appears whole or not at all."""
    words = ""
    for target in targets():
        handle, made = tempfile.mkstemp(suffix=".so", dir=place.parent)
        os.close(handle)
        run = subprocess.run(
            [command, *FLAGS, *target, str(source), "-o", made], capture_output=True, text=True, check=False
        )
        if run.returncode == 0:
            os.replace(made, place)
            return
        os.unlink(made)
        words = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit status {run.returncode}"
    raise NoCompiler(f"{command} could not compile {source.name} ({words})")
