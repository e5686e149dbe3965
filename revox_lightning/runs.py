"""A run's folder: what lies in it, and how it is read back without composing a config again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
    def filters_path(self) -> Path:
        return self.path / "checkpoints" / "linear_filters.ckpt"

    def config(self) -> dict[str, Any]:
        """The resolved config as plain types; raises UserError where it cannot be read."""
        try:
            content = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(
                f"{self.config_path} cannot be read ({_line(error)}): the run's folder is damaged."
            ) from error
        if not isinstance(content, dict) or "model" not in content:
            raise UserError(f"{self.config_path} is not a run's config: it has no model.")
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
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} cannot be read ({_line(error)}): the run's folder is damaged."
            ) from error

    def load_weights(self, net: Net, checkpoint: Path | None = None) -> None:
        """Loads ``best.ckpt`` (or another checkpoint) into a net built from this run's config.

        Raises UserError for a missing or damaged file and for the checkpoint of another model.
        """
        path = checkpoint or (self.best if self.best.exists() else self.last)
        content = read_checkpoint(path)
        weights = {k[len("net.") :]: v for k, v in content["state_dict"].items() if k.startswith("net.")}
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"{path} is the checkpoint of another model than {self.config_path} says: {_first_mismatch(error)}."
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors and plain types only. Raises UserError where it is missing or damaged."""
    import torch

    if not path.is_file():
        raise UserError(f"{path} does not exist: the run has not finished its first epoch; train it again.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({_line(error)}): it is damaged or of another kind."
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} is not a checkpoint of this program: it has no weights (state_dict).")
    return content


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".:")[:200]


def _first_mismatch(error: BaseException) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines()[1:] if line.strip()]
    return lines[0][:200] if lines else _line(error)
