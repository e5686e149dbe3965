"""What makes two runs the same: their resolved config, their audio, the code, and what computes."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from revox_lightning.kernels.backend import Parts

_PACKAGE = Path(__file__).resolve().parent
_CODE = {".py", ".cpp", ".h", ".hpp"}
# What does not change a figure: where a run lies and what is logged and drawn of it.
_BESIDE = ("run_dir", "resume", "show", "logger", "report", "launcher", "campaign")


def identity(config: Mapping[str, Any], audio: Iterable[Path], kernels: str) -> dict[str, str]:
    """Hashes of a resolved config, of the audio files' contents and of the code, and the kernels' backend.

    Runs whose identities are equal print the same figures; whoever keeps results by them reuses none silently after a
    change of a file or of a line of code.
    """
    kept = {name: value for name, value in config.items() if name not in _BESIDE}
    text = json.dumps(_without_places(kept), sort_keys=True, default=str)
    files = "".join(file_hash(path) for path in audio)
    return {
        "config": hashlib.sha256(text.encode()).hexdigest()[:16],
        "audio": hashlib.sha256(files.encode()).hexdigest()[:16],
        "code": code_hash(),
        "kernels": kernels,
    }


def short(found: Mapping[str, str]) -> str:
    """Eight characters for a whole identity."""
    return hashlib.sha256(json.dumps(dict(found), sort_keys=True).encode()).hexdigest()[:8]


@functools.cache
def code_hash() -> str:
    """Of every source file of the package, so that a dirty tree differs from a clean one."""
    total = hashlib.sha256()
    for path in sorted(path for path in _PACKAGE.rglob("*") if path.suffix in _CODE):
        total.update(str(path.relative_to(_PACKAGE)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


@functools.cache
def version() -> str:
    """The package's version, and in a checkout the commit, marked where the tree is dirty."""
    from revox_lightning import __version__

    try:
        told = subprocess.run(
            ["git", "-C", str(_PACKAGE), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__} ({told})"


def computed(net: Parts, device: torch.device, precision: object = "32-true") -> dict[str, Any]:
    """What computed a run, as flat keys of metrics.json: two runs whose figures differ can be told apart by it.

    ``kernels`` is what ran, not what was asked for; ``computed/threads`` is the number of whoever did the work.
    """
    import torch

    from revox_lightning.kernels import backend

    fused = device.type == "cpu" and backend.computes(net)
    found = {
        "kernels": backend.describe(net) if fused else "torch",
        "computed/compiler_options": backend.options(net) if fused else None,
        "computed/device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "computed/processor": _processor(),
        "computed/threads": backend.threads() if fused else torch.get_num_threads(),
        "computed/precision": str(precision),
        "computed/torch": torch.__version__,
        "computed/version": version(),
    }
    return {name: value for name, value in found.items() if value is not None}


@functools.cache
def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _without_places(config: Any) -> Any:
    """The config without absolute paths, whose contents are hashed: a moved folder stays what it is."""
    if isinstance(config, Mapping):
        return {name: _without_places(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_without_places(value) for value in config]
    return Path(config).name if isinstance(config, str) and Path(config).is_absolute() else config


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    return _hash_of_file(path, path.stat().st_mtime_ns, path.stat().st_size)


@functools.cache
def _hash_of_file(path: Path, changed_ns: int, size: int) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
