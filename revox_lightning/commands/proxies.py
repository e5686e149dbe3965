"""Gives a style net that learns through neural proxies those that were trained before, from their run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from revox_lightning.commands import assemble
from revox_lightning.dsp import effects
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.effect_proxy import EffectProxy, NeuralProxy
from revox_lightning.runs import RunFolder


def take_over(cfg: DictConfig) -> dict[str, EffectProxy]:
    """The proxies that ``model.processor`` names by effect, none where it needs none; what they are built by goes into
    the config, so that the trained net does without their folders.

    Raises UserError where one is missing, is of another effect, or knows another sample rate.
    """
    node = cfg.model.get("processor")
    if node is None or not _learns_by_proxy(str(node.get("_target_"))):
        return {}
    found = {}
    for effect in effects.EFFECTS:
        option = f"model.processor.{effect}_run"
        path = node.get(f"{effect}_run")
        if path is None:
            raise UserError(
                f"the {effect} needs a trained net in its place: python train.py model=effect_proxy "
                f"model.effect={effect}, then +{option}=outputs/effect_proxy/TIME."
            )
        found[effect], own = _loaded(cfg, effect, option, path)
        OmegaConf.update(cfg, f"model.processor.{effect}", own, force_add=True)
        node[f"{effect}_run"] = str(Path(path).expanduser().resolve())
    return found


def give(net: Net, proxies: dict[str, EffectProxy]) -> None:
    """Puts the proxies' weights into a net that was built by the same config."""
    processor: Any = getattr(net, "processor", None)
    for effect, proxy in proxies.items():
        getattr(processor, effect).load_state_dict(proxy.state_dict())


def _learns_by_proxy(target: str) -> bool:
    return target.startswith("revox_lightning.") and issubclass(get_class(target), NeuralProxy)


def _loaded(cfg: DictConfig, effect: str, option: str, path: str) -> tuple[EffectProxy, Any]:
    RunFolder.existing(path, option)
    net, own, _ = assemble.load_run(path, cfg.kernels, playing=False)
    if not isinstance(net, EffectProxy) or net.effect != effect:
        what = f"of the {net.effect}" if isinstance(net, EffectProxy) else f"a {own.name} and no proxy"
        raise UserError(f"{option}={path} is {what}: name a run of model=effect_proxy model.effect={effect}.")
    if net.sample_rate_hz != cfg.data.sample_rate_hz:
        raise UserError(
            f"{option}={path} knows {net.sample_rate_hz} Hz and data.sample_rate_hz={cfg.data.sample_rate_hz}: train "
            "a proxy at that rate."
        )
    return net, OmegaConf.to_container(own.model, resolve=True)
