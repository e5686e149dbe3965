"""``revox texture style=REF content=IN OUT``: what one recording sounds like in the texture of another."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning import texture as by_optimisation
from revox_lightning.commands import settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import TEXTURE as USAGE
from revox_lightning.dsp import texture as ear
from revox_lightning.dsp.resampling import resample
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.report import sounds_page, table
from revox_lightning.texture import TEXTURES, Options

_LEAST = {"iterations": 1, "seconds": 1, "content_weight": 0, "seed": 0, "window_seconds": 2, "bands": 4, "filters": 1}
OPTIONS = tuple(field.name for field in fields(Options))
_COLUMNS = ("statistics", "SNR before, dB", "SNR after, dB")


def texture(argv: list[str]) -> dict:
    """One file, the table of what was reached, and beside the audio its JSON and a page to listen to.

    Returns what the JSON holds.
    """
    named, others, words = settings.arguments(argv, {"style", "content", *OPTIONS})
    if others:
        raise UserError(f"texture has no option {others[0].split('=')[0]}: {USAGE}.")
    if len(words) != 1 or "style" not in named or "content" not in named:
        raise UserError(f"texture needs a style, a content and an output: {USAGE}.")
    style, content, target = (Path(word).expanduser() for word in (named.pop("style"), named.pop("content"), words[0]))
    if target.resolve() in (style.resolve(), content.resolve()):
        raise UserError(f"{target} would be overwritten: choose another output.")
    how = options(named)
    x, rate_hz = _at_least(*_read(content), how.rate_hz)
    reference, reference_hz = _read(style)
    mono, wanted = (_mono(signal, hz, how.rate_hz) for signal, hz in ((x, rate_hz), (reference, reference_hz)))
    log.info("moving %s towards %s, at most %.0f s ...", content, style, how.seconds)
    state, begun = target.with_suffix(".state"), time.monotonic()
    with disk_faults():
        outcome = by_optimisation.transfer(mono, wanted, how, state)
        y = _placed(x, mono, outcome.audio, rate_hz, how)
        figures = _figures(y, rate_hz, outcome, mono, _mono(reference, reference_hz, ear.RATE_HZ), how)
        figures |= {"seconds_taken": time.monotonic() - begun, "style": str(style), "content": str(content)}
        _write(target, y, rate_hz, figures)
        rows = [("reference (style)", reference[:, : 30 * reference_hz], reference_hz), ("input (content)", x, rate_hz)]
        title = f"{content.name} in the texture of {style.name}"
        page = target.with_suffix(".html")
        sounds_page.page(page, title, [*rows, ("output", y, rate_hz)], _COLUMNS, _lines(figures))
    table.show(title, _COLUMNS, _lines(figures))
    print(f"Written: {target}, {target.with_suffix('.json')}, {page}")
    if not outcome.finished:
        print(f"The time limit came first ({outcome.iterations} of {how.iterations} iterations a window): "
              f"the same command goes on from {state}.")  # fmt: skip
    return figures


def options(named: dict[str, str]) -> Options:
    """Those of a command line; raises UserError for values that are none."""
    values: dict[str, object] = {}
    for field in fields(Options):
        if field.name not in named:
            continue
        text, usual = named[field.name], getattr(Options, field.name)
        usual = 0.0 if usual is None else usual
        if isinstance(usual, str):
            known = tuple(TEXTURES) if field.name == "texture" else ("content", "noise")
            if text not in known:
                raise UserError(f"{field.name}={text}: choose one of {', '.join(known)}.")
            values[field.name] = text
            continue
        try:
            value = type(usual)(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < _LEAST[field.name]:
            kind = "a whole number" if isinstance(usual, int) else "a number"
            raise UserError(f"{field.name}={text}: give {kind} of at least {_LEAST[field.name]}.")
        values[field.name] = value
    return Options(**values)  # type: ignore[arg-type]


def _read(path: Path) -> tuple[Tensor, int]:
    return audio.read(path), audio.info(path).sample_rate_hz


def _at_least(x: Tensor, rate_hz: int, least_hz: int) -> tuple[Tensor, int]:
    """A content of a lower rate is written at the rate of the work, as the style may lie above what it holds."""
    return (x, rate_hz) if rate_hz >= least_hz else (resample(x, rate_hz, least_hz), least_hz)


def _mono(x: Tensor, from_hz: int, to_hz: int) -> Tensor:
    return resample(x.mean(0, keepdim=True), from_hz, to_hz)[0]


def _placed(x: Tensor, mono: Tensor, made: Tensor, rate_hz: int, options: Options) -> Tensor:
    """The output (channels, time): the content plus what changed in its mono mix, alike in all channels.

    So what lies above half the rate of the work (10 kHz) and what differs between channels stay the content's. From
    noise on nothing is the content's: the output is what was made.
    """
    change = made if options.start == "noise" else made - mono
    change = resample(change[None], options.rate_hz, rate_hz)[:, : x.shape[-1]]
    change = torch.nn.functional.pad(change, (0, x.shape[-1] - change.shape[-1]))
    y = change.expand_as(x) if options.start == "noise" else x + change
    highest = float(y.abs().max())
    if highest > 1:
        log.warning("lowered by %.1f dB, as it would be clipped", 20 * math.log10(highest))
        y = y / highest
    return y.contiguous()


def _figures(
    y: Tensor, rate_hz: int, outcome: by_optimisation.Outcome, mono: Tensor, style: Tensor, options: Options
) -> dict:
    """Measured on what is written, by the ear's statistics whatever was optimised."""
    made, begun = _mono(y, rate_hz, ear.RATE_HZ), _mono(outcome.start[None], options.rate_hz, ear.RATE_HZ)
    before, after = (by_optimisation.measured(x, style, options.bands, options.window_seconds) for x in (begun, made))
    content = _mono(mono[None], options.rate_hz, ear.RATE_HZ)
    count = min(len(made), len(content))
    together = torch.stack([made[:count], content[:count]])
    return {
        "snr_db": {name: [_snr_db(before[name]), _snr_db(after[name])] for name in before},
        "loss": [sum(before.values()), sum(after.values())],
        "distance": [math.sqrt(sum(part.values()) / len(part)) for part in (before, after)],
        "optimised_loss": list(outcome.loss),
        "correlation_with_content": float(torch.corrcoef(together)[0, 1].nan_to_num()),
        "iterations": outcome.iterations,
        "finished": outcome.finished,
        "options": asdict(options) | {"content_weight": options.weight},
    }


def _snr_db(share: float) -> float:
    return -10 * math.log10(max(share, 1e-12))


def _lines(figures: dict) -> list[list[str]]:
    lines = [[name.replace("_", " "), *(f"{v:.1f}" for v in pair)] for name, pair in figures["snr_db"].items()]
    means = [sum(pair[i] for pair in figures["snr_db"].values()) / len(figures["snr_db"]) for i in (0, 1)]
    lines.append(["mean of the classes", *(f"{v:.1f}" for v in means)])
    lines.append(["loss (sum of relative squared errors)", *(f"{v:.3g}" for v in figures["loss"])])
    lines.append(["distance to the style (root of their mean)", *(f"{v:.3f}" for v in figures["distance"])])
    if figures["options"]["texture"] != "mcdermott":
        lines.append(["loss of the network (what was moved)", *(f"{v:.3g}" for v in figures["optimised_loss"])])
    begun = "1" if figures["options"]["start"] == "content" else "-"
    lines.append(["correlation with the content", begun, f"{figures['correlation_with_content']:.3f}"])
    return lines


def _write(target: Path, y: Tensor, rate_hz: int, figures: dict) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    audio.write(target, y, rate_hz)
    text = json.dumps(figures, indent=2) + "\n"
    write_atomically(target.with_suffix(".json"), lambda file: file.write(text.encode()))


def main() -> None:
    """Entry point of ``revox texture``."""
    sys.exit(guarded(lambda: texture(sys.argv[1:])))


if __name__ == "__main__":
    main()
