"""A run's folder: what lies in it, and how it is read back without composing a config again."""

from __future__ import annotations

import json
import math
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revox_lightning import plain_files
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

if TYPE_CHECKING:  # a command line is read, and refused, without torch
    from revox_lightning.models.contract import Net


class RunFolder:
    """``outputs/<name>/<time>/``: config.yaml, levels.json, checkpoints/, metrics.csv, metrics.json, audio/, plots/."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def existing(cls, path: str | Path, option: str = "run") -> RunFolder:
        """A run that was made before, named by ``option``; raises UserError where the folder holds none."""
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            raise UserError(f"{option}={path}: there is no such folder; runs lie in outputs/<name>/<time>/.")
        if not folder.config_path.is_file():
            inner = sorted(p.parent for p in folder.path.glob("**/config.yaml"))
            hint = f"; did you mean {option}={inner[-1]}?" if inner else "."
            raise UserError(f"{option}={path} is not a run's folder: it has no config.yaml{hint}")
        return folder

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def weights_path(self) -> Path:
        """Where the best weights lie, or before there are any, the last."""
        return self.best if self.best.exists() else self.last

    @property
    def filters_path(self) -> Path:
        return self.path / "checkpoints" / "linear_filters.ckpt"

    def config(self) -> dict[str, Any]:
        """The resolved config as plain types; raises UserError where it cannot be read, or is not resolved.

        An interpolation would be filled in where it is read: with the environment's secrets, say.
        """
        try:
            content = plain_files.read_yaml(self.config_path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.config_path} cannot be read ({_line(error)}): the run's folder is damaged."
            ) from error
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise UserError(f"{self.config_path} is not a run's config: it has no model.")
        if _interpolates(content):
            raise UserError(f"{self.config_path} holds ${{...}}, which no run writes: do not use this folder.")
        return {"kernels": "auto"} | content  # runs of older versions do not name them

    def write_text(self, name: str, text: str) -> None:
        """Writes a file so that it is whole or absent."""
        target = self.path / name
        try:
            write_atomically(target, lambda file: file.write(text.encode()))
        except OSError as error:
            raise UserError(
                f"could not write {target} ({_line(error)}): make room or choose another run_dir."
            ) from error

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A flat JSON object; values that are not finite become null."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
        self.write_text(name, json.dumps(finite, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object of the run; an empty one where there is none."""
        try:
            content = plain_files.read_json(self.path / name)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} cannot be read ({_line(error)}): the run's folder is damaged."
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"{self.path / name} holds no figures by name: the run's folder is damaged.")
        return content

    def load_weights(self, net: Net, checkpoint: Path | None = None) -> None:
        """Loads ``best.ckpt`` (or another checkpoint) into a net built from this run's config.

        Raises UserError for a missing or damaged file and for the checkpoint of another model.
        """
        path = checkpoint or self.weights_path
        try:
            net.load_state_dict(_weights(path))
        except (RuntimeError, TypeError, AttributeError, LookupError) as error:
            raise UserError(
                f"{path} is the checkpoint of another model than {self.config_path} says: {_first_mismatch(error)}."
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain types only. Raises UserError where it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: the run has not finished its first epoch; train it again.")
    try:
        content = load_tensors(path)
    except Exception as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({_line(error)}): it is damaged or of another kind."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of this program: it has no weights (state_dict).")
    return content


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors and plain types, none of them larger than the file. Raises any Exception."""
    import torch

    if not path.is_file():
        raise ValueError("it is no file")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError("it is cut short, or not written by this program") from error
    # torch.save compresses nothing; what is compressed could become as large as one likes.
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("it is compressed")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise ValueError("its parts overlap")
    content = torch.load(path, map_location="cpu", weights_only=True)
    if _numbers(content) > path.stat().st_size:
        raise ValueError("its tensors are larger than the file")
    return content


def _numbers(content: Any) -> int:
    """How many numbers the tensors show; one that repeats its storage shows more than the file holds."""
    import torch

    total, waiting, seen = 0, [content], set()  # what is stored once may be there many times, or hold itself
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            total += one.numel()
        elif isinstance(one, (dict, list, tuple, set)):
            waiting += one.values() if isinstance(one, dict) else one
    return total


def _weights(path: Path) -> dict[str, Any]:
    """The net's own weights in a checkpoint."""
    found = read_checkpoint(path)["state_dict"]
    return {k[len("net.") :]: v for k, v in found.items() if isinstance(k, str) and k.startswith("net.")}


def file_name(text: object) -> str:
    """A run's name as part of a file's name, which leads nowhere else and tells the terminal nothing.

    >>> file_name("../lstm 32"), file_name("")
    ('_lstm 32', 'run')
    """
    return re.sub(r"[^\w .,@+=()-]+", "_", str(text)).strip(" .").replace("..", "_")[:100] or "run"


def _interpolates(content: Any) -> bool:
    if isinstance(content, dict):
        return any(_interpolates(name) or _interpolates(value) for name, value in content.items())
    return any(map(_interpolates, content)) if isinstance(content, list) else "${" in str(content)


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".:")[:200]


def _first_mismatch(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    return lines[0][:200] if lines else _line(error)
