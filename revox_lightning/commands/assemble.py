"""Builds data, net and system from a config; ``targets`` says which names in it become objects."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from revox_lightning.commands import settings, sizes, targets
from revox_lightning.commands.exits import log
from revox_lightning.errors import UserError
from revox_lightning.kernels import allocator, backend
from revox_lightning.models.contract import Net
from revox_lightning.models.delay_line import DelayLine
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.series import Series
from revox_lightning.runs import RunFolder, file_name

if TYPE_CHECKING:  # seconds of imports that a command which only plays a net does without
    from revox_lightning.data.module import PairData
    from revox_lightning.dsp.least_squares import Correlations
    from revox_lightning.system import System
    from revox_lightning.tape.machine import TapeMachine

_ALL_THREADS = torch.get_num_threads()
_MOST_THREADS, _MOST_CHANNELS = 1024, 64
_PRACTISED = 6000  # equalisers: less one another, millions
# The data group's own conveniences, which its source reads; the DataModule itself takes the rest.
_SOURCE_KEYS = {"root", "device", "dry", "wet", "manifest", "delay_samples", "zero_vu_dbfs", "kind", "limit_hz"}
_SOURCE_KEYS |= {"built_in"}


def build(node: DictConfig, **more: Any) -> Any:
    """Makes the object that a config node names; raises UserError for targets that ``targets.find`` does not allow."""
    # Resolved once, and plain from then on: no interpolation is left that could become another target.
    return targets.built(OmegaConf.to_container(node, resolve=True, throw_on_missing=True), more)


def build_machine(preset: str, overrides: list[str]) -> TapeMachine:
    """A virtual machine by the name of its file in ``conf/machine``, with ``machine.NAME=VALUE`` changes."""
    groups = [text for text in overrides if "/" in text.partition("=")[0]]
    cfg = settings.composed([f"machine={preset}", *groups])
    if cfg.machine is None:
        raise UserError(f"machine={preset} names no machine: choose a file of conf/machine.")
    return build(settings.changed(cfg, [text for text in overrides if text not in groups]).machine)


def build_source(cfg: DictConfig) -> Any:
    """Where the data comes from; fills in what the net must know of it: the number of knobs."""
    source = build(cfg.data.source)
    cfg.knobs = list(source.knobs)
    if cfg.model.get("controls", 0) is None:
        cfg.model.controls = len(source.knobs)
    return source


def build_data(cfg: DictConfig, test_only: bool = False) -> PairData:
    """The DataModule; its segment, warm-up and batch are the model's (``system``), its gaps the net's memory.

    Fills in ``audio_channels``, and the number of samples for ``system.warmup_samples=receptive_field``.
    """
    from revox_lightning.data.module import PairData

    _check_ranges(cfg)
    source = build_source(cfg)
    mono = build_mono(cfg)
    looks_back = mono.receptive_field or 0
    if cfg.system.warmup_samples == "receptive_field":
        if not looks_back:
            raise UserError(
                "system.warmup_samples=receptive_field: a recurrent net has none; give a number of samples."
            )
        cfg.system.warmup_samples = looks_back - 1
    # The histories of a linear filter and of a delay line fill up during the warm-up, too.
    if cfg.linear_start:
        cfg.system.warmup_samples = max(cfg.system.warmup_samples, cfg.linear_filter.taps)
    if cfg.delay_line.interpolation:
        cfg.system.warmup_samples = max(cfg.system.warmup_samples, cfg.delay_line.max_delay_samples)
    own = {k: v for k, v in cfg.data.items() if k not in _SOURCE_KEYS | {"source", "corruption", "_target_"}}
    data = PairData(
        source,
        **OmegaConf.to_container(OmegaConf.create(own), resolve=True),  # type: ignore[arg-type]
        corruption=build(cfg.data.corruption) if "corruption" in cfg.data else None,
        seed=cfg.seed,
        batch_size=cfg.system.batch_size,
        warmup_samples=cfg.system.warmup_samples,
        segment_samples=cfg.system.segment_samples,
        history_samples=max(looks_back, cfg.system.warmup_samples),
        test_only=test_only,
    )
    cfg.audio_channels = data.audio_channels
    return data


def _check_ranges(cfg: DictConfig) -> None:
    least = {"system.batch_size": 1, "system.hop_samples": 1, "system.segment_samples": 1, "system.warmup_samples": 0}
    for name, smallest in (least | {"linear_filter.taps": 1, "data.sample_rate_hz": 1}).items():
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, str) and value < smallest:
            raise UserError(f"{name}={value}: give {smallest} or more.")
    how = cfg.system
    if cfg.task in ("style", "proxy") and (how.warmup_samples != 0 or how.hop_samples != how.segment_samples):
        raise UserError(f"a {cfg.task} is learned from whole segments: leave system.warmup_samples=0, and "
                        "system.hop_samples as long as system.segment_samples.")  # fmt: skip


def build_mono(cfg: DictConfig) -> Net:
    """The net for one signal (or, with ``model.channels=2``, for both channels jointly)."""
    net = _undelayed(cfg)
    line = cfg.get("delay_line")
    if not line or not line.interpolation:
        return net
    return Delayed(net, DelayLine(line.max_delay_samples, line.interpolation))


def _undelayed(cfg: DictConfig) -> Net:
    if not cfg.linear_start or "playback_taps" in cfg.model:  # which is a place for the filter of its own
        return build(cfg.model)
    channels = cfg.model.get("channels", 1)
    fir = FIR(cfg.linear_filter.taps, cfg.linear_filter.lookahead_samples, channels, cfg.linear_filter.trainable)
    if cfg.linear_start == "series":
        return Series(build(cfg.model, **({"skip": True} if "skip" in cfg.model else {})), fir)
    changes = {"side_channels": channels} | ({"skip": False} if "skip" in cfg.model else {})
    return LinearStart(build(cfg.model, **changes), fir)


def build_net(cfg: DictConfig) -> Net:
    """The net of a run, reproducibly initialised from ``seed``: one for each channel where the data has several."""
    torch.manual_seed(cfg.seed)
    if cfg.get("parts"):
        return build_hybrid(cfg, {name: _part(cfg.model[name]) for name in cfg.parts})
    channels = cfg.get("audio_channels") or 1
    if not isinstance(channels, int) or not 1 <= channels <= _MOST_CHANNELS:
        raise UserError(f"audio_channels={str(channels)[:50]}: give a whole number from 1 to {_MOST_CHANNELS}.")
    joint = cfg.model.get("channels", 1)
    if joint > 1 and joint != channels:
        raise UserError(f"model.channels={joint} and the data has {channels}: use recordings with {joint} channels.")
    if channels == 1 or joint == channels:
        return build_mono(cfg)
    return EachChannel([build_mono(cfg) for _ in range(channels)])


def _part(node: DictConfig) -> Any:
    """A part of a machine: the net of a run, or something else that the config names."""
    return build_net(node) if "model" in node else build(node)


def build_hybrid(cfg: DictConfig, parts: Mapping[str, Any]) -> Net:
    """The machine that is put together of trained or fitted parts."""
    around = {name: node for name, node in cfg.model.items() if name not in parts}
    return build(OmegaConf.create(around), **parts)


def take_over(cfg: DictConfig) -> Net | None:
    """The net that ``cfg.start`` names, None without; what it is built by takes the place of the config's own."""
    if not cfg.get("start"):
        return None
    net, own, _ = load_run(cfg.start, cfg.kernels)
    for name in ("model", "linear_start", "linear_filter", "delay_line"):
        if name in own:
            cfg[name] = own[name]
    return net


def begin_with(net: Net, trained: Net, path: str) -> None:
    """Gives a net the weights of another of its kind; raises UserError where the data asks for another kind."""
    try:
        net.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"start={path} is a net for other channels or knobs than these recordings have: choose data.channels=left "
            "or mix, or recordings with its knobs."
        ) from error


def fit_linear_start(net: Net, correlations: list[Correlations]) -> None:
    """Puts the least-squares filter of the training split into every net that starts from one."""
    firs: list[Any] = [module.fir for module in net.modules() if hasattr(module, "fir")]
    taps = torch.stack([c.solve(firs[0].taps, firs[0].lookahead) for c in correlations])
    if len(firs) == 1:
        firs[0].load(taps)
        return
    for fir, h in zip(firs, taps, strict=True):
        fir.load(h)


def practise(system: System, data: PairData) -> None:
    """Where a style net's controller can learn equalisers without audio, it does."""
    from revox_lightning.models.effect_tcn import EndToEnd
    from revox_lightning.models.style_controller import SmallController

    net: Any = system.net
    steps = system.objective.practice_steps
    if not steps or not isinstance(net.controller, SmallController) or isinstance(net.processor, EndToEnd):
        return
    log.info("the controller practises equalisers ...")
    corruption: Any = data.corruption
    error_db = net.controller.practise(corruption.responses(_PRACTISED), net.sample_rate_hz, steps)
    log.info("... and finds them to %.1f dB", error_db)


def divide_threads(cfg: DictConfig, net: Net) -> None:
    """Gives ``system.threads`` (null: all cores) to the kernels, or to torch's loops where those compute the net.

    What torch has left to do beside a kernel is too small to share, and its threads then cost more than they bring;
    so they do in its recurrent loops, many times over on a busy machine.
    """
    wanted = cfg.system.threads or _ALL_THREADS
    if not isinstance(wanted, int) or not 1 <= wanted <= _MOST_THREADS:  # OpenMP ends the process over more
        raise UserError(f"system.threads={wanted}: give a whole number from 1 to {_MOST_THREADS}, or null.")
    backend.set_threads(wanted)
    _share_with_numba(wanted)
    compiled = backend.computes(net)
    slow = net.receptive_field is None and not cfg.system.threads
    torch.set_num_threads(1 if compiled or slow else wanted)


def _share_with_numba(threads: int) -> None:
    """Numba's parallel loops get so many; their first one would give torch all cores, and so other sums."""
    import numba

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def build_system(cfg: DictConfig, net: Net) -> System:
    """The LightningModule around a net."""
    from revox_lightning.losses import Losses
    from revox_lightning.system import System

    losses = Losses(**OmegaConf.to_container(cfg.loss, resolve=True), sample_rate_hz=cfg.data.sample_rate_hz)  # type: ignore[arg-type]
    how = cfg.system
    return System(
        net,
        build(cfg.objective, **({"losses": losses} if _takes_losses(cfg.objective) else {})),
        build(cfg.optim.optimizer),
        build(cfg.optim.scheduler) if cfg.optim.get("scheduler") else None,
        sample_rate_hz=cfg.data.sample_rate_hz,
        warmup_samples=how.warmup_samples,
        hop_samples=how.hop_samples,
        warmup_gradient=how.warmup_gradient,
        clip_norm=how.clip_norm,
        lr_warmup_iterations=how.get("lr_warmup_iterations", 0),
        ema=how.get("ema"),
        monitor=cfg.monitor,
        seed=cfg.seed,
    )


def _takes_losses(objective: DictConfig) -> bool:
    """Whether an objective weighs the terms of ``loss``; others have losses of their own."""
    return "losses" in inspect.signature(targets.find(objective.get("_target_"))).parameters


def load_run(path: str | Path, kernels: str | None = None, playing: bool = True) -> tuple[Net, DictConfig, RunFolder]:
    """A trained net with its best weights, its config and its folder: ``net, cfg, folder = load_run(path)``.

    A file that another program trained (.nam, or JSON) is as good; its folder is the one it lies in.
    The run's ``kernels`` become those of this process, unless others are named. Raises UserError where the net is to
    be ``playing`` audio, and makes signals instead.
    """
    if Path(path).expanduser().is_file():
        return _load_capture(Path(path).expanduser(), kernels)
    folder = RunFolder.existing(path)
    cfg = OmegaConf.create(folder.config())
    if playing and cfg.task != "effect":
        raise UserError(f"{path} was trained to make signals ({cfg.task}) and plays none: name a run of task effect.")
    cfg.name, cfg.kernels = file_name(cfg.name), cfg.kernels if kernels is None else kernels
    allocator.tune()
    backend.choose(cfg.kernels)
    with sizes.bounded(folder.config_path, folder.weights_path):
        net = build_net(cfg)
        sizes.check_playable(net, cfg.data.sample_rate_hz, folder.config_path)
        divide_threads(cfg, net)
    folder.load_weights(net)
    return net.eval(), cfg, folder


def _load_capture(path: Path, kernels: str | None) -> tuple[Net, DictConfig, RunFolder]:
    from revox_lightning.export import captures

    capture = captures.read(path)
    cfg = settings.composed(["model=lstm", "logger=none"])
    cfg.name, cfg.kernels = file_name(path.stem), cfg.kernels if kernels is None else kernels
    cfg.model, cfg.audio_channels = OmegaConf.create(capture.model), 1
    cfg.knobs = [f"knob_{n}" for n in range(capture.net.controls)]
    cfg.data.sample_rate_hz = capture.sample_rate_hz or cfg.data.sample_rate_hz
    allocator.tune()
    backend.choose(cfg.kernels)
    divide_threads(cfg, capture.net)
    return capture.net, cfg, RunFolder(path.parent)
