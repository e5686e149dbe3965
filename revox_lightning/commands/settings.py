"""Reads and checks configs: where conf/ lies, values of the wrong type, earlier runs' configs with changes."""

from __future__ import annotations

import difflib
import os
import re
import textwrap
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from revox_lightning.errors import UserError

_PACKAGED = Path(__file__).resolve().parents[1] / "conf"
# A source checkout keeps conf/ beside the package; the wheel carries it inside.
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "conf"


_GROUPS = {path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()}
# Examples of what stands in options whose default is null.
_NULLABLE = {
    "callbacks.early_stopping_patience": 10,
    "loss.noise_floor_db": -60.0,
    "system.threads": 2,
    "system.clip_norm": 1.0,
    "data.zero_vu_dbfs": -18.0,
    "model.controls": 2,
}


# Values of another kind than the default.
_BESIDE = {"linear_start": ("series",)}


_NOT_HYDRAS_OWN = (OSError, TypeError, ValueError, AttributeError, LookupError, OverflowError, RecursionError)
_SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)


def _environment(name: str, *default: str | None) -> str | None:
    """``${oc.env:NAME}`` in a config, which is written into the run's folder; raises UserError for what is secret."""
    if _SECRET.search(name):
        raise UserError(f"${{oc.env:{name}}} stays out of configs, which are written and shown: leave it out.")
    if name not in os.environ and not default:
        raise UserError(f"${{oc.env:{name}}}: the environment has no {name}.")
    return os.environ.get(name, *default)


OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


def help_text() -> str:
    """What ``train.py --help`` says: the groups with their choices, and the root's own options as they stand there."""
    groups = "".join(
        f"  {folder.relative_to(CONF).as_posix():20s}{', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}\n"
        for folder in sorted(path for path in CONF.rglob("*") if path.is_dir())
    )
    root = (CONF / "train.yaml").read_text(encoding="utf-8")
    options = textwrap.indent(root[root.index("\nname:") : root.index("\nhydra:")].strip(), "  ")
    return (
        "usage: python train.py [GROUP=CHOICE ...] [NAME=VALUE ...]      such as: model=tcn trainer.max_epochs=20\n\n"
        f"groups and their choices:\n{groups}\n"
        f"options of every run (nested ones are written report.audio_seconds=30):\n{options}\n\n"
        "flags:\n"
        "  --cfg job        print all options with their values, those of the chosen groups, too\n"
        "  -m, --multirun   one run for each of several values: -m model=lstm,tcn seed=0,1\n"
        "  --hydra-help     the flags of Hydra, which reads all this\n"
    )


def composed(overrides: list[str]) -> DictConfig:
    """The root config with overrides, whether or not a ``hydra.main`` application is running."""
    try:
        if GlobalHydra.instance().is_initialized():
            return compose("train", overrides)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides)
    except (HydraException, OmegaConfBaseException):  # some are ValueErrors or OSErrors, too
        raise
    except _NOT_HYDRAS_OWN as error:  # which it raises for options of a form that it does not expect
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"the options {' '.join(overrides)[:200]} cannot be read: {said}.") from error


def groups_only(overrides: list[str]) -> list[str]:
    """Those overrides that choose a file of a config group."""
    names = {path.name for path in CONF.iterdir() if path.is_dir()}
    return [text for text in overrides if text.lstrip("+~").split("=", 1)[0].split("@")[0] in names]


def check_types(cfg: DictConfig, overrides: list[str]) -> None:
    """Raises UserError where an override gives another kind of value than the config has: text for a number, say."""
    reference = compose("train", groups_only(overrides)) if GlobalHydra.instance().is_initialized() else None
    for text in overrides:
        name, equals, _ = text.lstrip("+~").partition("=")
        if not equals or text in groups_only(overrides) or name.startswith("hydra"):
            continue
        given = OmegaConf.select(cfg, name)
        usual = OmegaConf.select(reference, name) if reference is not None else None
        if usual is None:
            usual = _NULLABLE.get(name)
        problem = None if given in _BESIDE.get(name, ()) else _mismatch(given, usual)
        if problem:
            raise UserError(f"{name}={given!r}: expected {problem}, such as {name}={_written(usual)}.")


def _mismatch(given: Any, usual: Any) -> str | None:
    if usual is None or given is None:
        return None
    number = (int, float)
    if isinstance(usual, bool):
        return None if isinstance(given, bool) else "true or false"
    if isinstance(usual, int):
        fits = isinstance(given, int) and not isinstance(given, bool)
        return None if fits else "a whole number"
    if isinstance(usual, float):
        return None if isinstance(given, number) and not isinstance(given, bool) else "a number"
    if isinstance(usual, ListConfig):
        return None if isinstance(given, ListConfig) else "a list"
    if isinstance(usual, DictConfig):
        return None if isinstance(given, DictConfig) else "a group of options"
    return None


def _written(value: Any) -> str:
    return (
        str(OmegaConf.to_container(value))
        if OmegaConf.is_config(value)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def changed(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """An earlier run's config with ``name=value`` changes; raises UserError for names it does not have."""
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{text!r}: write options as name=value.")
        if OmegaConf.select(cfg, name, default="?") == "?":
            known = difflib.get_close_matches(name, _names(cfg), 1)
            raise UserError(f"there is no option {name}" + (f": did you mean {known[0]}?" if known else "."))
        usual = OmegaConf.select(cfg, name)
        try:
            OmegaConf.update(cfg, name, OmegaConf.from_dotlist([f"v={value}"]).v)
        except OmegaConfBaseException:
            raise
        except (*_NOT_HYDRAS_OWN, YAMLError) as error:
            raise UserError(f"{text[:200]!r} cannot be read: write options as name=value.") from error
        problem = _mismatch(OmegaConf.select(cfg, name), usual)
        if problem:
            raise UserError(f"{text}: expected {problem}, such as {name}={_written(usual)}.")
    return cfg


def _names(cfg: DictConfig, prefix: str = "") -> list[str]:
    names = []
    for key, value in cfg.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, DictConfig):
            names += _names(value, f"{prefix}{key}.")
    return names


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # longer than the name of any file
        return False


def arguments(argv: list[str], known: set[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Splits a command line into known ``name=value``, other ``name=value`` and positional words."""
    named: dict[str, str] = {}
    others, words = [], []
    for text in argv:
        name, equals, value = text.partition("=")
        a_path = "/" in name and name not in _GROUPS  # and not a config group such as machine/hysteresis
        if not equals or a_path or _exists(text):
            words.append(text)
        elif name in known:
            named[name] = value
        else:
            others.append(text)
    return named, others, words
