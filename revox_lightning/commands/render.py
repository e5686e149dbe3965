"""``revox render run=outputs/... IN OUT``: plays files of any length through a trained net, in constant memory."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import Tensor

from revox_lightning import audio, parallel
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import RENDER as USAGE
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.runs import RunFolder

_READ_FRAMES = 16_384
_GENERATED = ("wow_flutter", "hiss", "seed")  # of nets that make them up, and name them as what they `generate`


@dataclasses.dataclass(frozen=True)
class _Playing:
    """What plays, and how; controls (1, knobs)."""

    net: Net
    cfg: DictConfig
    folder: RunFolder
    controls: Tensor
    gain_in: float
    gain_out: float
    block_samples: int
    threads: int


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def render(argv: list[str]) -> None:
    """Renders one file or every audio file of a folder."""
    known = {"run", "kernels", "input_db", "output_db", "controls", "block_samples", "threads", *_GENERATED}
    named, others, words = settings.arguments(argv, known)
    if others:
        raise UserError(f"render has no option {others[0].split('=')[0]}: {USAGE}.")
    if "run" not in named or len(words) != 2:
        raise UserError(f"render needs a run, an input and an output (- for a name of its own): {USAGE}.")
    net, cfg, folder = assemble.load_run(named["run"], named.get("kernels"))
    _set_generated(net, named)
    block_samples, threads = (
        _at_least_one(named, name, usual) for name, usual in (("block_samples", 16384), ("threads", cores()))
    )
    how = _Playing(
        net, cfg, folder, _controls(cfg, named.get("controls")),
        10 ** (_number(named, "input_db", 0.0) / 20), 10 ** (_number(named, "output_db", 0.0) / 20),
        block_samples, threads,
    )  # fmt: skip
    torch.set_num_threads(1)  # the files' channels and stretches keep the cores busy
    failed = 0
    files = _files(Path(words[0]).expanduser(), words[1], cfg.name)
    for source, target in files:
        try:
            with disk_faults():
                _render_file(how, source, target)
        except UserError as error:
            if len(files) == 1:
                raise
            log.error("error: %s", error)  # the other files of a folder go on
            failed += 1
    if failed:
        raise UserError(f"{failed} of {len(files)} files could not be rendered: see above.")


def _set_generated(net: Net, named: dict[str, str]) -> None:
    """How much wow and flutter and hiss are made, and from which seed."""
    scales = _generates(net)
    for name in _GENERATED:
        if name in named and name not in (*scales, *(("seed",) if scales else ())):
            raise UserError(
                f"{name}= is for machines that make their own wow and flutter and hiss (model=tape_hybrid)."
            )
    for name in scales:
        setattr(net, name, _scale(named, name, getattr(net, name)))
    if "seed" in named:
        seed = _number(named, "seed", 0.0)
        if not seed.is_integer():
            raise UserError(f"seed={named['seed']}: give a whole number.")
        net.seed = int(seed)  # type: ignore[attr-defined]


def _generates(net: Net) -> tuple[str, ...]:
    """The scales of what a net makes up from its `seed`; none of a net that plays what it is given and no more."""
    return getattr(net, "generates", ())


def _scale(named: dict[str, str], name: str, usual: float) -> float:
    value = _number(named, name, usual)
    if not 0 <= value <= 100:
        raise UserError(f"{name}={named[name]}: give 0 (none), 1 (as trained) or something between or above.")
    return value


def _render_file(how: _Playing, source: Path, target: Path) -> None:
    """One file: read, (to the net's rate,) net, (back,) write; says what the listener should know."""
    info = audio.info(source)
    model_hz = how.cfg.data.sample_rate_hz
    net = _for_channels(how.net, info.channels, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("rendering %s (%.1f min) ...", source, info.frames / info.sample_rate_hz / 60)
    hottest, true_peak, left = 0.0, audio.TruePeak(info.channels), info.frames
    with (
        audio.writer(target, info.sample_rate_hz, info.channels, info.subtype, info.format) as out,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar,
        torch.inference_mode(),
    ):
        progress = bar.add_task(escape(source.name), total=info.frames)

        def loud() -> Iterator[Tensor]:
            nonlocal hottest
            for block in audio.blocks(source, _READ_FRAMES):
                hottest = max(hottest, float(block.abs().max()) * how.gain_in)
                yield how.gain_in * block

        # A published net starts settled, by silence.
        silence = 0 if _generates(net) else getattr(net, "preroll_samples", 0)
        x = audio.converted(loud(), info.sample_rate_hz, model_hz, info.channels)
        played = parallel.play(
            net, itertools.chain(_silent(silence, info.channels), x), how.controls,
            threads=1 if _generates(net) else how.threads,  # one tape, from its beginning to its end
            block_samples=how.block_samples, warmup_samples=model_hz,
            samples=math.ceil(info.frames * model_hz / info.sample_rate_hz) + silence,
        )  # fmt: skip
        heard = (how.gain_out * y for y in _without_first(played, silence))
        for y in audio.converted(heard, model_hz, info.sample_rate_hz, info.channels):
            kept = y[:, :left]  # conversion there and back may make a sample more
            left -= kept.shape[1]
            true_peak.update(kept)
            out.write(kept)
            bar.update(progress, completed=info.frames - left)
        out.write(torch.zeros(info.channels, left))
    _say(how.folder, source, target, info, model_hz, hottest, true_peak.dbtp, out.clipped_samples)


def _silent(samples: int, channels: int) -> Iterator[Tensor]:
    if samples:
        yield torch.zeros(channels, samples)


def _without_first(blocks: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    """Blocks (channels, time) without their first samples."""
    for block in blocks:
        left = block[:, samples:]
        samples = max(samples - block.shape[1], 0)
        if left.shape[1]:
            yield left


def _say(
    folder: RunFolder, source: Path, target: Path, info: audio.AudioInfo, model_hz: int, hottest: float,
    dbtp: float, clipped: int,
) -> None:  # fmt: skip
    log.info("%s -> %s: %.1f s, true peak %.1f dBTP", source, target, info.frames / info.sample_rate_hz, dbtp)
    if info.sample_rate_hz > model_hz:
        log.warning("the net works at %d Hz: nothing above %.1f kHz is left of %s", model_hz, model_hz / 2000, source)
    trained_dbfs = folder.read_json("levels.json").get("train_input_peak_dbfs")
    if trained_dbfs is not None and hottest > 0 and 20 * math.log10(hottest) > trained_dbfs + 0.1:
        log.warning(
            "%s peaks at %.1f dBFS and the net was trained up to %.1f dBFS: louder parts are a guess; "
            "try input_db=%.1f",
            source, 20 * math.log10(hottest), trained_dbfs, trained_dbfs - 20 * math.log10(hottest),
        )  # fmt: skip
    if clipped:
        log.warning(
            "%d samples of %s were clipped at full scale: render again with output_db=%.1f, or from a float file",
            clipped, target, -max(dbtp, 0.0) - 0.1,
        )  # fmt: skip


def _for_channels(net: Net, channels: int, source: Path) -> Net:
    """The net that fits a file; a mono net plays each channel by itself."""
    if getattr(net, "any_channels", False):
        net.channels = channels  # type: ignore[misc]  # each through the same net, all on one tape
    if net.channels in (1, channels):
        return net
    if isinstance(net, EachChannel) and channels == 1:
        log.warning("%s is mono: it goes through the net of the left channel", source)
        return net.nets[0]  # type: ignore[return-value]
    raise UserError(f"{source} has {channels} channels and the net takes {net.channels}: convert the file first.")


def _files(source: Path, target: str, name: str) -> list[tuple[Path, Path]]:
    """What to render into what; ``-`` names the output after the input and the model."""
    if not source.is_dir():
        audio.info(source)
        out = source.with_stem(f"{source.stem}_{name}") if target == "-" else Path(target).expanduser()
        out = out / source.name if out.is_dir() else out
        if out.suffix.lower() != source.suffix.lower():
            raise UserError(f"{out}: a rendering keeps its input's format, so its name ends in {source.suffix}.")
        if out.resolve() == source.resolve():
            raise UserError(f"{source} would be overwritten by its own rendering: choose another output.")
        return [(source, out)]
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{source} holds no audio files.")
    folder = source.with_name(f"{source.name}_{name}") if target == "-" else Path(target).expanduser()
    if folder.resolve() == source.resolve():
        raise UserError(f"{source} would be overwritten by its own renderings: choose another folder.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file and {source} is a folder: give a folder to write into.")
    return [(path, folder / path.name) for path in files]


def _controls(cfg: DictConfig, given: str | None) -> Tensor:
    """Knob values ``(1, knobs)``."""
    knobs = list(cfg.get("knobs") or [])
    try:
        values = [float(text) for text in given.split(",")] if given else []
    except ValueError:
        raise UserError(f"controls={given}: give numbers separated by commas.") from None
    if len(values) != len(knobs):
        wanted = f"controls= with {len(knobs)} numbers ({', '.join(knobs)})" if knobs else "no controls"
        raise UserError(f"the net takes {wanted}, and {len(values)} were given.")
    return torch.tensor([values])


def _number(named: dict[str, str], name: str, default: float) -> float:
    try:
        return float(named.get(name, default))
    except ValueError:
        raise UserError(f"{name}={named[name]}: expected a number.") from None


def _at_least_one(named: dict[str, str], name: str, usual: int) -> int:
    value = int(_number(named, name, usual))
    if value < 1:
        raise UserError(f"{name}={value}: give 1 or more.")
    return value


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: render(sys.argv[1:])))


if __name__ == "__main__":
    main()
