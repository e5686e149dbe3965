"""Weights & Biases as a run uses it: offline by default, everything inside the run folder, and never in its way."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically

KINDS = ("wandb", "csv", "none")


def build_logger(cfg: DictConfig, folder: Path, plain_config: dict[str, Any]) -> Any:
    """Lightning's WandbLogger for ``logger=wandb``, otherwise False.

    W&B stages artifacts and caches in the home directory by default; here they stay in the run folder, so that it
    can be moved and uploaded from elsewhere (``revox sync``).
    """
    if cfg.logger.kind not in KINDS:
        raise UserError(f"logger.kind={cfg.logger.kind}: choose one of {', '.join(KINDS)}.")
    if cfg.logger.kind != "wandb":
        return False
    place = (folder / "wandb").resolve()
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        path = place / name.lower()
        path.mkdir(parents=True, exist_ok=True)
        os.environ[f"WANDB_{name}_DIR"] = str(path)
    os.environ["WANDB_DIR"] = str(folder.resolve())
    os.environ.setdefault("WANDB_SILENT", "true")
    from pytorch_lightning.loggers import WandbLogger

    known = place / "run_id"  # a run that goes on stays one run in W&B
    run = _begun(cfg, folder, plain_config, known.read_text() if known.exists() else None)
    write_atomically(known, lambda file: file.write(run.id.encode()))
    shielded: Any = Shielded(run, Path(run.dir).parent)
    logger = WandbLogger(save_dir=folder, experiment=shielded)
    # Nets of other batches and hops compare by what they heard, not by steps; epochs say best how much that is.
    logger.experiment.define_metric("audio_seconds_trained")
    for part in ("train/*", "val/*"):
        logger.experiment.define_metric(part, step_metric="audio_seconds_trained", step_sync=True)
    return logger


def _begun(cfg: DictConfig, folder: Path, plain_config: dict[str, Any], known: str | None) -> Any:
    """A run of W&B's; offline where its server does not answer. Raises UserError where it refuses the run."""
    import wandb
    from wandb.errors import AuthenticationError, CommError

    seconds = cfg.logger.get("finish_seconds", 300.0)  # which runs of older versions do not name
    limit: Any = {"finish_timeout": seconds, "finish_timeout_raises": True}
    limit = limit if limit.keys() <= wandb.Settings.model_fields.keys() else {}
    told = {name: cfg.logger.get(name) for name in ("project", "entity", "group", "job_type")}

    def begin(mode: Any) -> Any:
        return wandb.init(
            id=known, resume="allow", name=f"{cfg.name}/{folder.name}", dir=str(folder.resolve()),
            tags=list(cfg.logger.tags), mode=mode, config=plain_config,
            settings=wandb.Settings(console="off", silent=True, **limit), **told,
        )  # fmt: skip

    try:
        return begin("offline" if cfg.logger.offline else "online")
    except CommError as error:
        if cfg.logger.offline or isinstance(error, AuthenticationError):
            raise _refused(error) from error
        log.warning("W&B does not answer (%s): the run is kept offline; revox sync %s uploads it", _line(error), folder)
        return begin("offline")
    except wandb.Error as error:
        raise _refused(error) from error


def _refused(error: Exception) -> UserError:
    return UserError(f"W&B refused the run ({_line(error)}): run `wandb login`, or use logger.offline=true.")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]


class Shielded:
    """A run of W&B's that fails nobody: the first failure is said, and then it is left alone.

    What it took until then lies in ``place`` and can be uploaded later.
    """

    def __init__(self, run: Any, place: Path, failed: list[str] | None = None) -> None:
        self._run, self._place = run, place
        self._failed: list[str] = [] if failed is None else failed

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._run, name)
        if name == "summary":
            return Shielded(value, self._place, self._failed)
        return functools.partial(self._safely, value) if callable(value) else value

    def _safely(self, call: Callable[..., Any], *words: Any, **named: Any) -> Any:
        if self._failed:
            return None
        try:
            return call(*words, **named)
        except Exception as error:
            self._failed.append(_line(error))
            log.warning(
                "W&B failed (%s): the run goes on without it; revox sync %s uploads what is missing",
                self._failed[0], self._place,
            )  # fmt: skip
            return None


def close(logger: Any) -> None:
    """Ends the W&B run, and W&B's process with it, so that the next run of a multirun starts afresh."""
    if logger:
        import wandb

        logger.experiment.finish()
        with contextlib.suppress(Exception):  # of a process that is gone
            wandb.teardown()
