"""``revox transfer run=... style=REF IN OUT``: the production style of a reference, and the knobs that make it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from revox_lightning import audio, plain_files
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log, set_up_logging
from revox_lightning.commands.usage import TRANSFER as USAGE
from revox_lightning.data.corruption import PEAK_DBFS
from revox_lightning.dsp import effects
from revox_lightning.dsp.resampling import resample
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.models.effect_tcn import EndToEnd
from revox_lightning.report import sounds_page, style_plots

_HEARD_SECONDS = 60.0  # of either recording, by the encoder
_SILENCE = 1e-6
_LOUDEST_PEAK = 1000.0


def transfer(argv: list[str]) -> None:
    """One file: chooses the knobs, or reads those of an earlier transfer, and renders."""
    named, others, words = settings.arguments(argv, {"run", "style", "knobs"})
    if others:
        raise UserError(f"transfer has no option {others[0].split('=')[0]}: {USAGE}.")
    if len(words) != 2 or ("knobs" in named) == ("run" in named) or ("run" in named) != ("style" in named):
        raise UserError(f"transfer needs a run and a style, or knobs, and an input and an output: {USAGE}.")
    source, target = (Path(word).expanduser() for word in words)
    style = Path(named.get("style", source)).expanduser()
    if target.resolve() in (source.resolve(), style.resolve()):
        raise UserError(f"{target} would be overwritten: choose another output.")
    x, rate_hz = _peaked(source)
    heard: list[tuple[str, Tensor, int]] = []
    if "knobs" in named:
        p, peak = _read_knobs(Path(named["knobs"]).expanduser())
    else:
        reference, reference_hz = _peaked(style)
        p, peak = _chosen(named["run"], x, rate_hz, reference, reference_hz), _peak(style)
        heard = [("reference (style)", reference[:, : round(_HEARD_SECONDS * reference_hz)], reference_hz)]
    log.info("rendering %s ...", source)
    # Both were heard at one peak; what comes out is as much louder as the reference file is.
    gain = peak / 10 ** (PEAK_DBFS / 20)
    y = gain * effects.render_exactly(x[None], p, rate_hz)[0]
    highest = float(y.abs().max())
    if highest > 1:
        log.warning("lowered by %.1f dB, as it would be clipped", 20 * torch.tensor(highest).log10())
        y = y / highest
    with disk_faults():
        target.parent.mkdir(parents=True, exist_ok=True)
        audio.write(target, y, rate_hz)
        _leave(p, peak, rate_hz, target)
        heard = [(name, gain * part, hz) for name, part, hz in [*heard, ("input", x, rate_hz)]]
        page = target.with_suffix(".html")
        how = f"in the style of {style.name}" if "style" in named else f"with the knobs of {named['knobs']}"
        sounds_page.page(page, f"{source.name} {how}", [*heard, ("output", y, rate_hz)])
    print(f"Listen: {page}")


def _peak(path: Path) -> float:
    return float(audio.read(path).abs().max())


def _peaked(path: Path) -> tuple[Tensor, int]:
    """A file (channels, time) with its peak where the net has learned it, and its rate."""
    rate_hz, x = audio.info(path).sample_rate_hz, audio.read(path)
    peak = float(x.abs().max()) if x.numel() else 0.0
    if peak < _SILENCE:
        raise UserError(f"{path} is silent: there is no style in it.")
    return x * (10 ** (PEAK_DBFS / 20) / peak), rate_hz


def _chosen(run: str, x: Tensor, rate_hz: int, reference: Tensor, reference_hz: int) -> Tensor:
    """The net's knobs (1, 24)."""
    net, cfg, _ = assemble.load_run(run, playing=False)
    if cfg.task != "style":
        raise UserError(f"run={run} is of task {cfg.task}: name a run of model=style_transfer.")
    heard = [
        resample(part[:, : round(_HEARD_SECONDS * hz)].mean(0, keepdim=True), hz, cfg.data.sample_rate_hz)
        for part, hz in ((x, rate_hz), (reference, reference_hz))
    ]
    shortest = min(part.shape[-1] for part in heard)
    if shortest < 2 * 4096:
        raise UserError("the input or the style is shorter than a third of a second: give more of it.")
    if isinstance(net.processor, EndToEnd):  # type: ignore[attr-defined]
        raise UserError(
            f"run={run} has nets in the place of effects, whose knobs mean nothing: name a run with effects."
        )
    with torch.inference_mode():
        return net(*(part[None] for part in heard))[1]


def _read_knobs(path: Path) -> tuple[Tensor, float]:
    try:
        content = plain_files.read_json(path)
        peak = float(content["peak"])
        if not 0 < peak <= _LOUDEST_PEAK:
            raise ValueError(f"peak is {peak:g}: give a number above 0 and at most {_LOUDEST_PEAK:g}")
        return effects.normalised(content["knobs"]), peak
    except FileNotFoundError as error:
        raise UserError(f"knobs={path}: there is no such file.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"knobs={path} does not hold the knobs of a transfer: {str(error)[:200]}.") from error


def _leave(p: Tensor, peak: float, rate_hz: int, target: Path) -> None:
    """Knobs as a table, as JSON to edit, and as a picture beside the audio."""
    knobs = {name: value.item() for name, value in effects.denormalised(p).items()}
    beside = target.with_suffix(".json")
    text = json.dumps({"knobs": knobs, "peak": peak}, indent=2) + "\n"
    write_atomically(beside, lambda file: file.write(text.encode()))
    style_plots.draw(p, rate_hz, target.with_suffix(".png"))
    for name in effects.SECTIONS:
        gain, hz, q = (knobs[f"{name}_{what}"] for what in ("gain_db", "frequency_hz", "q"))
        print(f"{name.replace('_', ' '):12s}{gain:+7.1f} dB at {hz:6.0f} Hz, Q {q:.2f}")
    print(
        f"compressor  threshold {knobs['threshold_db']:.1f} dB, ratio {knobs['ratio']:.1f}, "
        f"knee {knobs['knee_db']:.1f} dB, attack {1000 * knobs['attack_seconds']:.1f} ms, "
        f"release {1000 * knobs['release_seconds']:.0f} ms, "
        f"make-up {knobs['makeup_db']:+.1f} dB"
    )
    if "drive_db" in knobs:
        print(
            f"tape        drive {knobs['drive_db']:.1f} dB, spacing {knobs['spacing_um']:.1f} um at 7.5 ips, "
            f"wow {knobs['wow_percent']:.2f} % weighted, hiss {knobs['hiss_dbfs']:.0f} dB (A) "
            f"where the programme peaks at {PEAK_DBFS:g} dBFS"
        )
    print(f"Written: {target}, {target.with_suffix('.png')}")
    print(f"To change a knob, edit {beside}, then: revox transfer knobs={beside} IN OUT")


def main() -> None:
    """Entry point of ``revox transfer``."""
    set_up_logging()
    sys.exit(guarded(lambda: transfer(sys.argv[1:])))


if __name__ == "__main__":
    main()
