"""``revox doctor [--fix]``: checks that the installed packages fit each other.

The published torchaudio is linked against one CUDA version. Beside a torch without CUDA its native library cannot
load; without that library torchaudio takes its own pure-Python path, which is all that is needed here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

from revox_lightning.commands.exits import guarded
from revox_lightning.errors import UserError


def torchaudio_error() -> str | None:
    """What ``import torchaudio`` says in a fresh process; None where it works."""
    probe = subprocess.run([sys.executable, "-c", "import torchaudio"], capture_output=True, text=True)
    return None if probe.returncode == 0 else (probe.stderr.strip().splitlines() or ["it crashed"])[-1]


def doctor(fix: bool) -> None:
    """Prints versions; removes torchaudio's native library where ``fix`` and torch has no CUDA to load it with."""
    import torch

    for name in ("torch", "torchaudio", "pytorch-lightning", "hydra-core", "wandb", "numpy"):
        print(f"{name:18s}{importlib.metadata.version(name)}")
    print(f"{'GPU':18s}{torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none'}")
    error = torchaudio_error()
    if error is not None and torch.version.cuda is None:
        if not fix:
            raise UserError(
                f"torchaudio does not load beside this torch without CUDA ({error}): run `revox doctor --fix`."
            )
        removed = _remove_native_library()
        error = torchaudio_error()
        print(f"removed {removed} native libraries of torchaudio, which need CUDA: it works in pure Python now")
    if error is not None:
        raise UserError(
            f"torchaudio does not load ({error}): install matching versions, `pip install 'torch>=2.11,<2.14' "
            "torchaudio==2.11.0`."
        )
    print("everything fits")


def _remove_native_library() -> int:
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or spec.origin is None:
        raise UserError("torchaudio is not installed: run `pip install torchaudio==2.11.0`.")
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*.so"))
    for library in libraries:
        library.unlink()
    return len(libraries)


def main() -> None:
    """Entry point."""
    words = sys.argv[1:]
    sys.exit(guarded(lambda: doctor("--fix" in words)))


if __name__ == "__main__":
    main()
