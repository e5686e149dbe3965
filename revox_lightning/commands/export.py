"""``revox export run=... format=...``: a trained model in the formats that players load, checked before it is done."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from revox_lightning import audio
from revox_lightning.commands import assemble, settings, usage
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.show import count
from revox_lightning.errors import UserError
from revox_lightning.export import graphs, keras_json, loudness, model_card, nam, players, wright
from revox_lightning.export.snapshot import snapshot
from revox_lightning.models.delayed import Delayed
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.models.fir import FIR
from revox_lightning.models.linear_start import LinearStart
from revox_lightning.models.series import Series
from revox_lightning.models.tape_hybrid import TapeHybrid
from revox_lightning.runs import RunFolder
from revox_lightning.stream import stream

SUFFIXES = {
    "nam": ".nam", "rtneural": ".json", "aidax": ".json", "proteus": ".json", "onnx": ".onnx", "torchscript": ".pt",
}  # fmt: skip
_GRAPHS = ("onnx", "torchscript")
_PLAYERS_RATE_HZ = 48_000
_CHECKED_SAMPLES, _BLOCK_SAMPLES = 9_600, 64
_TOLERANCE = 1e-4  # of the largest sample: more is no rounding
_OPTIONS = {
    "run", "format", "out", "controls", "channel", "name", "modeled_by", "gear_make", "gear_model", "gear_type",
    "tone_type", "input_level_dbu", "output_level_dbu", "normalise",
}  # fmt: skip


def main() -> None:
    """Entry point of ``revox export``."""
    sys.exit(guarded(lambda: export(sys.argv[1:])))


def export(argv: list[str]) -> Path:
    """Writes the file, plays it in a player of its own kind and compares; returns its path."""
    named, others, words = settings.arguments(argv, _OPTIONS)
    if others or words:
        raise UserError(f"export does not know {(others + words)[0]!r}: {usage.EXPORT}.")
    form = named.get("format", "")
    if "run" not in named or form not in SUFFIXES:
        raise UserError(f"export needs a run and a format ({', '.join(SUFFIXES)}): {usage.EXPORT}.")
    whole, cfg, folder = assemble.load_run(named["run"], kernels="torch")
    net, fir = _exportable(whole, form, named)
    if named.get("controls") and form not in _GRAPHS:
        net = snapshot(net, _positions(named["controls"]))
    if "normalise" in named:
        _normalise(net, cfg, named["normalise"])
    facts = _facts(net, cfg, folder, named)
    out = Path(named.get("out") or folder.path / f"{cfg.name}{SUFFIXES[form]}").expanduser()
    with disk_faults():
        error = _written(net, out, form, int(cfg.data.sample_rate_hz), facts)
        print(f"{out}: {form}, largest difference in an independent player {error:.1e}")
        if fir is not None:
            impulse = out.with_name(f"{out.stem}-ir.wav")
            audio.write(impulse, fir.h.detach(), int(cfg.data.sample_rate_hz), subtype="FLOAT")
            print(f"{impulse}: the filter behind it, for the player's cabinet slot ({fir.lookahead} samples late)")
        card = _card(out, form, whole, net, cfg, folder, named, error)
        print(f"{card}: what it is, for whoever gets it; its licence is yours to fill in")
    return out


def _card(
    out: Path, form: str, whole: Any, net: Any, cfg: DictConfig, folder: RunFolder, named: dict[str, str], error: float
) -> Path:
    """The card of what was written; of a file of another program it holds what the file itself says."""
    made_here = not Path(named["run"]).expanduser().is_file()
    names = [str(name) for name in cfg.knobs or []]
    fixed: list[float | None] = list(_positions(named["controls"])) if named.get("controls") else [None] * len(names)
    if form in _GRAPHS:  # which keep their knobs
        fixed = [None] * len(names)
    left = [
        said for kind, said in (
            (TapeHybrid, "generated wow and flutter and hiss"), (EachChannel, "the other channels' nets"),
            (Delayed, "the delay line"), (Series, "the filter behind the net, which is a file of its own"),
        ) if _holds(whole, kind) and not _holds(net, kind)
    ]  # fmt: skip
    one = model_card.Exported(
        out, form, int(cfg.data.sample_rate_hz), count(net), net.latency_samples, net.receptive_field,
        dict(zip(names, fixed, strict=False)), error, left, _number(named, "normalise"),
    )  # fmt: skip
    if not made_here:
        return model_card.write(one, {}, {}, {}, None)
    config = folder.config() | {"name": named.get("name", cfg.name)}
    metrics, levels = folder.read_json("metrics.json"), folder.read_json("levels.json")
    return model_card.write(one, config, metrics, levels, _preset(config))


def _holds(net: Any, kind: type) -> bool:
    return any(isinstance(part, kind) for part in net.modules())


def _preset(config: dict[str, Any]) -> str | None:
    """The name of the preset whose machine a run learned; None for recordings, and for a machine that was changed."""
    source = config.get("data", {}).get("source")
    machine = source.get("machine") if isinstance(source, dict) else None
    if not machine:
        return None
    for path in sorted((settings.CONF / "machine").glob("*.yaml")):
        if OmegaConf.to_container(settings.composed([f"machine={path.stem}"]).machine, resolve=True) == machine:
            return path.stem
    return None


def _exportable(net: Any, form: str, named: dict[str, str]) -> tuple[Any, FIR | None]:
    """The part of a net that a player can compute, and the filter that goes beside it."""
    if isinstance(net, TapeHybrid):
        log.warning("the generated wow and flutter and hiss are left out: no player makes them up")
        net = net.net
    if isinstance(net, EachChannel):
        sides = {"left": 0, "right": 1}
        if named.get("channel") not in sides:
            raise UserError("the run has a net for each channel: export one, channel=left or channel=right.")
        net = net.nets[sides[named["channel"]]]
    if isinstance(net, Delayed):
        log.warning("the delay line is left out: wow and flutter come from a machine, not from a player")
        net = net.core
    if form in _GRAPHS:
        return net, None
    if isinstance(net, LinearStart):
        raise UserError(
            f"a player of {form} has no place for a filter beside the net: train with linear_start=series, which it "
            "has (net, then cabinet), or export format=onnx or torchscript, which hold the whole"
        )
    return (net.net, net.fir) if isinstance(net, Series) else (net, None)


def _positions(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"controls={text}: give a number for each knob, controls=0.5,0.7.") from error


def _number(named: dict[str, str], name: str) -> float | None:
    if name not in named:
        return None
    try:
        value = float(named[name])
    except ValueError as error:
        raise UserError(f"{name}={named[name]}: give a number.") from error
    if not np.isfinite(value):
        raise UserError(f"{name}={named[name]}: give a finite number.")
    return value


def _normalise(net: Any, cfg: DictConfig, wanted: str) -> None:
    """Scales the output so that the loudness signal comes out as loud as wanted."""
    target = _number({"normalise": wanted}, "normalise")
    layer = getattr(net, "output_layer", None)
    if layer is None or getattr(net, "skip", False):
        raise UserError(f"normalise= needs a net that ends in a linear layer; a {type(net).__name__} here does not.")
    assert target is not None
    gain = 10 ** ((target - loudness.loudness_db(net, int(cfg.data.sample_rate_hz))) / 20)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= gain


def _facts(net: Any, cfg: DictConfig, folder: RunFolder, named: dict[str, str]) -> dict[str, Any]:
    """What a player shows of a capture, under the names of .nam files."""
    made_here = not Path(named["run"]).expanduser().is_file()  # figures beside a file of another program are others'
    rate_hz, metrics = int(cfg.data.sample_rate_hz), folder.read_json("metrics.json") if made_here else {}
    if rate_hz != _PLAYERS_RATE_HZ:
        log.warning(
            "the model runs at %d Hz, and most players at %d: they resample, or refuse; train at 48 kHz with "
            "data.sample_rate_hz=48000", rate_hz, _PLAYERS_RATE_HZ,
        )  # fmt: skip
    now = datetime.datetime.now(datetime.timezone.utc)
    names = ("modeled_by", "gear_make", "gear_model", "gear_type", "tone_type")
    facts: dict[str, Any] = {
        "date": {part: getattr(now, part) for part in ("year", "month", "day", "hour", "minute", "second")},
        "name": named.get("name", cfg.name),
        **{name: named[name] for name in names if name in named},
        **{name: _number(named, name) for name in ("input_level_dbu", "output_level_dbu") if name in named},
        "training": {
            "validation_esr": metrics.get("val/esr"),
            "data": {"latency": {"residual_samples": net.latency_samples}},
        },
        "revox_lightning": {
            key: metrics[key] for key in ("test/esr", "parameters", "train_seconds", "audio_seconds_trained")
            if metrics.get(key) is not None
        } | {"latency_samples": net.latency_samples, "model": cfg.name},
    }  # fmt: skip
    if not net.controls and net.channels == 1:
        facts |= {"loudness": loudness.loudness_db(net, rate_hz), "gain": loudness.gain(net, rate_hz)}
    return facts


def _written(net: Any, out: Path, form: str, rate_hz: int, facts: dict[str, Any]) -> float:
    """Writes under a name of its own, compares, and only then gives the file its name; the largest difference."""
    out.parent.mkdir(parents=True, exist_ok=True)
    trial = out.with_name(f".{out.name}.part")
    try:
        _write(net, trial, form, rate_hz, facts)
        error, peak = difference(net, trial, form)
        if not error <= _TOLERANCE * peak:
            raise RuntimeError(
                f"{form}: an independent player differs by {error:.1e} of {peak:.1e}; nothing is written"
            )
        facts["revox_lightning"]["largest_difference"] = error
        _write(net, trial, form, rate_hz, facts)
        trial.replace(out)
    finally:
        trial.unlink(missing_ok=True)
    return error


def _write(net: Any, path: Path, form: str, rate_hz: int, facts: dict[str, Any]) -> None:
    if form == "nam":
        nam.write(net, path, rate_hz, facts)
    elif form == "rtneural":
        keras_json.write(net, path)
    elif form == "aidax":
        esr = facts["training"]["validation_esr"]
        about = {"name": facts["name"], "samplerate": str(rate_hz), **({} if esr is None else {"esr": esr})}
        keras_json.write_aidax(net, path, about | {"revox_lightning": json.dumps(facts["revox_lightning"])})
    elif form == "proteus":
        wright.write(net, path)
    else:
        write = graphs.write_onnx if form == "onnx" else graphs.write_torchscript
        write(net, path, facts | {"sample_rate_hz": str(rate_hz)})


def difference(net: Any, path: Path, form: str) -> tuple[float, float]:
    """Largest difference between the net and its file in a player of that format, and the largest sample.

    Both have settled before.
    """
    settle = max(net.receptive_field or 0, getattr(net, "preroll_samples", 0), 4800)
    noise = torch.randn(net.channels, _CHECKED_SAMPLES, generator=torch.Generator().manual_seed(0))
    x = torch.cat([torch.zeros(net.channels, settle), 0.1 * noise], dim=-1)[None]
    knobs = torch.rand(1, net.controls, generator=torch.Generator().manual_seed(0)) if net.controls else None
    with torch.no_grad():
        y = stream(net, x, knobs)[0][..., settle:].numpy()
    if form in _GRAPHS:
        play = graphs.play_onnx if form == "onnx" else graphs.play_torchscript
        y_hat = play(path, x.numpy(), None if knobs is None else knobs.numpy(), _BLOCK_SAMPLES)[..., settle:]
    else:
        still = np.zeros(0) if knobs is None else knobs[0].double().numpy()
        y_hat = players.play(path, x[0, 0].double().numpy(), still)[None, None, settle:]
    return float(np.abs(y - y_hat).max()), max(float(np.abs(y).max()), 1e-6)


if __name__ == "__main__":
    main()
