"""Compiles the C++ kernels on first use with the user's own compiler, and keeps the result for this processor."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
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


def compiler() -> list[str]:
    """The command in CXX, which may hold options, or else c++, g++ or clang++. Raises NoCompiler."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for name, *words in [chosen] if chosen else [["c++"], ["g++"], ["clang++"]]:
        path = shutil.which(name)
        if path:
            return [path, *words]
    raise NoCompiler(
        f"CXX={shlex.join(chosen)} was not found" if chosen else "no C++ compiler was found (c++, g++, clang++)"
    )


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
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: nobody knows the user's home
        chosen = os.environ.get(FOLDER)
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = Path(chosen or Path(cache or Path.home() / ".cache") / "revox_lightning" / "kernels")
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    return _temporary()


@functools.cache
def _temporary() -> Path:
    """A folder for this process alone."""
    folder = tempfile.mkdtemp(prefix="revox_kernels_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _fingerprint(name: str, command: list[str]) -> str:
    """Changes with the source, the compiler, its options and the processor."""
    digest = hashlib.sha256()
    for source in sorted([SOURCES / f"{name}.cpp", *SOURCES.glob("*.h")]):
        digest.update(source.read_bytes())
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    digest.update(repr((command, version, FLAGS, targets(), _processor())).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _told(options: list[str]) -> str:
    """The option by which a kernel knows the others: the records of a run say them."""
    text = " ".join(options).replace("\\", "\\\\").replace('"', '\\"')
    return f'-DREVOX_OPTIONS="{text}"'


def _compile(command: list[str], source: Path, place: Path) -> None:
    """Raises NoCompiler with the compiler's last words; ``place`` appears whole or not at all."""
    said = ""
    for target in targets():
        try:
            handle, made = tempfile.mkstemp(suffix=".so", dir=place.parent)
            os.close(handle)
        except OSError as error:
            raise NoCompiler(f"{place.parent} cannot be written ({error.strerror})") from error
        try:
            words = [*command, *FLAGS, *target, _told([*FLAGS, *target]), str(source), "-o", made]
            run = subprocess.run(words, capture_output=True, text=True, check=False)
            if run.returncode == 0:
                os.replace(made, place)
                return
        finally:
            Path(made).unlink(missing_ok=True)
        said = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit status {run.returncode}"
    raise NoCompiler(f"{shlex.join(command)} could not compile {source.name} ({said})")
