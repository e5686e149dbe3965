"""``python train.py model=...``: the command line. What trains is imported once there is something to train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from revox_lightning.commands import launchers, settings
from revox_lightning.commands.exits import disk_faults, guarded, log, set_up_logging
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

_failed: list[str] = []  # the run folders of jobs that the user must change


def task(cfg: DictConfig) -> dict[str, Any] | float:
    """One job of Hydra: a run, or with show=true a look at the network."""
    hydra_cfg = HydraConfig.get()
    set_up_logging()
    path = Path(hydra_cfg.runtime.output_dir)
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    cfg.run_dir = str(path)
    try:
        settings.check_types(cfg, list(hydra_cfg.overrides.task))
        _refuse_processes(cfg, hydra_cfg)
        if cfg.show:
            from revox_lightning.commands.show import show

            return show(cfg)
        metrics = _trained(cfg, path, hydra_cfg)
        # A sweeper that searches wants the one number that it is to make small.
        return metrics[cfg.monitor] if "optuna" in str(hydra_cfg.sweeper.get("_target_")).lower() else metrics
    except UserError as error:
        # Hydra would print more than one sentence; the other jobs of a multirun go on, and its table names this one.
        print(f"error: {error}", file=sys.stderr)
        _remove_if_empty(path)
        _failed.append(str(path))
        return {"name": cfg.name, "task": cfg.task, "error": str(error)}
    except Exception as error:
        error.run_folder = str(path)  # type: ignore[attr-defined]
        raise


def _trained(cfg: DictConfig, path: Path, hydra_cfg: Any) -> dict[str, Any]:
    """The metrics of a job, which in a campaign may be finished, or go on where it was stopped."""
    stands = "new"
    if "job_folder" in str(OmegaConf.to_container(hydra_cfg.sweep, resolve=False)):
        launchers.claim_gpu()
        with disk_faults():
            stands = launchers.before(path, list(hydra_cfg.overrides.task))
    folder = RunFolder(path)
    if stands == "finished":
        log.info("%s is finished already", path)
        return folder.read_json("metrics.json")
    from revox_lightning.commands.training import train

    with disk_faults():
        if stands == "interrupted":
            return train(OmegaConf.create(folder.config()), path, resume=True)
        return train(cfg, path)


def _refuse_processes(cfg: DictConfig, hydra_cfg: Any) -> None:
    """Every process of a training composes the job for itself: a sweeper that draws would give each another."""
    draws = "BasicSweeper" not in str(hydra_cfg.sweeper.get("_target_"))
    if draws and str(hydra_cfg.mode).endswith("MULTIRUN") and cfg.trainer.devices not in (1, "auto"):
        raise UserError("a sweeper that draws values trains in one process: leave trainer.devices=1.")


def _remove_if_empty(path: Path) -> None:
    for place in (path, path.parent):  # a name of "" is the folder that we are in
        if place.is_dir() and not any(place.iterdir()) and place.name not in ("outputs", ""):
            place.rmdir()


# What a run that goes on may be told anew; everything else made it the run it is.
_CHANGEABLE = ("trainer.", "callbacks.", "logger.", "report.", "kernels=")
_CHANGEABLE += ("system.threads=", "system.auto_batch=", "data.workers=")


def resume(argv: list[str]) -> int:
    """``resume=outputs/...``: goes on in that folder with its own config; returns the exit code."""
    named, changes, words = settings.arguments(argv, {"resume"})
    if words:
        raise UserError(f"resume does not understand {words[0]!r}: write options as name=value.")
    fixed = [text for text in changes if not text.startswith(_CHANGEABLE)]
    if fixed:
        raise UserError(
            f"resume cannot change {fixed[0].split('=')[0]}: only trainer., callbacks., logger., report., "
            "system.threads, system.auto_batch, data.workers and kernels; start a new run for the rest."
        )
    folder = RunFolder.existing(named["resume"], "resume")
    cfg = OmegaConf.create(folder.config())
    epochs = cfg.trainer.max_epochs
    cfg = settings.changed(cfg, changes)
    if cfg.optim.get("scheduler") and cfg.optim.scheduler.get("T_max") == epochs:
        cfg.optim.scheduler.T_max = cfg.trainer.max_epochs
    from revox_lightning.commands.training import train

    with disk_faults():
        train(cfg, folder.path, resume=True)
    return 0


def _refuse_run_dir() -> None:
    raise UserError("run_dir= names one folder; a multirun makes one for each job, outputs/<name>/<time>_<job>/.")


def _translate(argv: list[str]) -> None:
    sys.argv[1:] = launchers.translated(argv)


def main() -> None:
    """Entry point of train.py and ``revox train``."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach exits.guarded instead of Hydra's own printer
    argv = sys.argv[1:]
    if {"-h", "--help"} & set(argv):  # Hydra's own takes about a second
        print(settings.help_text(), end="")
        return
    if any(text.startswith("resume=") and text not in ("resume=", "resume=null") for text in argv):
        sys.exit(guarded(lambda: resume(argv)))
    many = bool({"-m", "--multirun"} & set(argv))
    if many and any(text.startswith("run_dir=") for text in argv):
        sys.exit(guarded(_refuse_run_dir))
    if code := guarded(lambda: _translate(argv)):
        sys.exit(code)
    if "show=true" in [text.lower() for text in argv]:
        sys.argv += ["hydra.run.dir=."]  # nothing is written
    application = hydra.main(version_base="1.3", config_path=str(settings.CONF), config_name="train")(task)
    code = guarded(lambda: application() or (2 if _failed else 0))
    if many and not code:
        from revox_lightning.commands import compare  # which Hydra has loaded by now

        code = 2 if compare.failed else 0
    sys.exit(code)


if __name__ == "__main__":
    main()
