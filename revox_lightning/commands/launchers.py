"""Where the jobs of a multirun run, ``launcher=``, and how one that was stopped goes on, ``campaign=``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from revox_lightning.commands import settings, status
from revox_lightning.errors import UserError
from revox_lightning.runs import RunFolder

_PLUGINS = {"joblib": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher"}
_GPUS, _LOCKS = "REVOX_GPUS", "REVOX_GPU_LOCKS"  # what a worker finds in its environment
_WORDS = "words.txt"  # in the folder of a campaign's job: what it was started with
_FREE = ("launcher", "campaign", "logger", "report", "hydra")  # words that do not make a run another one
_held: list[Any] = []  # the lock on a GPU, as long as this process lives


def translated(argv: Sequence[str]) -> list[str]:
    """A command line with what ``launcher=`` and ``campaign=`` mean to Hydra added.

    Raises UserError where the launcher's plugin is not installed, and for either without --multirun.
    """
    flags = [text for text in argv if text.startswith("-")]
    given = [text for text in argv if not text.startswith("-")]
    told = dict(text.split("=", 1) for text in given if "=" in text)
    kind, campaign = told.get("launcher", "local"), told.get("campaign", "null")
    if kind == "local" and campaign in ("", "null"):
        return list(argv)
    if not {"-m", "--multirun"} & set(flags):
        raise UserError("launcher= and campaign= are for the jobs of a multirun: add -m.")
    plan = _plan(kind, {n.partition(".")[2]: v for n, v in told.items() if n.startswith("launcher.")})
    if kind != "local" and told.get("trainer.devices", "1") != "1":
        raise UserError(
            f"launcher={kind}: its jobs are of one process each; leave trainer.devices=1, or launcher=local."
        )
    overrides = OverridesParser.create().parse_overrides(given)
    count = math.prod(len(list(one.sweep_string_iterator())) for one in overrides if _is_sweep(one))
    more = _joblib(plan, count, told) if kind == "joblib" else _slurm(plan) if kind == "slurm" else []
    # A job that Slurm requeues is to find its folder again.
    campaign = f"multirun_{time.strftime('%Y-%m-%d_%H-%M-%S')}" if campaign in ("", "null") else campaign
    if not re.fullmatch(r"[\w.@+-]+", campaign) or campaign.startswith("."):
        raise UserError(f"campaign={campaign}: give a name of letters, digits and -_.@+, which becomes a folder's.")
    still = [one.get_key_element().lstrip("+~") for one in overrides if not _is_sweep(one)]
    more += [
        f"hydra.sweep.dir=outputs/{campaign}",
        "hydra.sweep.subdir='${job_folder:${hydra:job.override_dirname}}'",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(still)}]",
    ]
    return [*argv, *(text for text in more if text.split("=")[0] not in told)]


def _is_sweep(one: Override) -> bool:
    return one.is_sweep_override()


def _plan(kind: str, changes: dict[str, str]) -> DictConfig:
    """The launcher's file with the changes of the command line."""
    path = settings.CONF / "launcher" / f"{Path(kind).name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"there is no launcher={kind}: choose one of {known}.")
    plan = settings.changed(OmegaConf.load(path), [f"{n}={v}" for n, v in changes.items()])  # type: ignore[arg-type]
    with contextlib.suppress(ModuleNotFoundError):  # of hydra_plugins itself
        if kind not in _PLUGINS or importlib.util.find_spec(f"hydra_plugins.{_PLUGINS[kind]}"):
            return plan
    name = _PLUGINS[kind].replace("_", "-")
    raise UserError(f"launcher={kind} needs {name}: pip install 'revox_lightning[parallel]', or leave launcher=local.")


def _joblib(plan: DictConfig, count: int, told: dict[str, str]) -> list[str]:
    """As many jobs at once as there are GPUs, or cores; each worker takes a GPU, and its share of the threads."""
    on_cpu = told.get("trainer") == "cpu" or told.get("trainer.accelerator") == "cpu"
    gpus = [] if on_cpu else _gpus()
    jobs = max(min(plan.jobs or len(gpus) or cores(), count), 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // jobs, 1)))  # workers inherit it
    if gpus:
        os.environ[_GPUS], os.environ[_LOCKS] = ",".join(gpus), tempfile.mkdtemp(prefix="revox_gpus_")
    return ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"]


def _slurm(plan: DictConfig) -> list[str]:
    told = {
        "timeout_min": plan.minutes, "max_num_timeout": plan.requeues, "cpus_per_task": plan.cpus,
        "gpus_per_node": plan.gpus or None, "mem_gb": plan.memory_gb, "partition": plan.partition,
        "account": plan.account, "array_parallelism": plan.at_once,
    }  # fmt: skip
    words = [f"hydra.launcher.{name}={value}" for name, value in told.items() if value is not None]
    threads = f"hydra.launcher.setup=['export OMP_NUM_THREADS={plan.cpus}']"
    return ["hydra/launcher=submitit_slurm", *words, threads, "+hydra.launcher.additional_parameters.requeue=true"]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(n) for n, line in enumerate(line for line in said.splitlines() if line.startswith("GPU "))]


def claim_gpu() -> None:
    """Gives a worker the first GPU that no other worker has, for as long as it lives."""
    if _held or _LOCKS not in os.environ:
        return
    import fcntl  # where there are GPUs to divide, there is Linux

    for gpu in os.environ[_GPUS].split(","):
        file = open(Path(os.environ[_LOCKS]) / re.sub(r"\W", "_", gpu), "w")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _held.append(file)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return


def job_folder(words: str) -> str:
    """The folder's name for the words that a job differs by from its fellows.

    >>> job_folder("model=lstm,data.dry=/a/b.wav")
    'model=lstm,data.dry=_a_b.wav'
    """
    name = re.sub(r"[^\w.,=@+-]", "_", words) or "job"
    return name if len(name) <= 120 else f"{name[:110]}_{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def before(path: Path, words: Sequence[str]) -> str:
    """How a campaign's job stands in its folder: ``new``, ``interrupted`` or ``finished``; notes what it is made by.

    Raises UserError where the folder holds a run that was made by other words.
    """
    folder = RunFolder(path)
    made_by = "\n".join(sorted(w for w in words if re.split(r"[./=]", w.lstrip("+~"))[0] not in _FREE)) + "\n"
    if (path / _WORDS).is_file() and (path / _WORDS).read_text(encoding="utf-8") != made_by:
        raise UserError(f"{path} holds a run that was made by other options: give this multirun another campaign=.")
    folder.write_text(_WORDS, made_by)
    if folder.read_json("metrics.json") and status.of(folder)[0] == status.FINISHED:
        return "finished"
    return "interrupted" if folder.last.exists() and folder.config_path.is_file() else "new"


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
