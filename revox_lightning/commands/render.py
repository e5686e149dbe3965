"""``revox render run=outputs/... IN OUT``: plays files of any length through a trained net, in constant memory."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from revox_lightning import audio
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.data.recordings import SUFFIXES
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.models.each_channel import EachChannel
from revox_lightning.runs import RunFolder
from revox_lightning.stream import Player

USAGE = "revox render run=outputs/NAME/TIME IN OUT [input_db=0] [output_db=0] [controls=0.5,0.5] [block_samples=16384]"


def render(argv: list[str]) -> None:
    """Renders one file or every audio file of a folder."""
    known = {"run", "input_db", "output_db", "controls", "block_samples"}
    named, others, words = settings.arguments(argv, known)
    if others:
        raise UserError(f"render has no option {others[0].split('=')[0]}: {USAGE}.")
    if "run" not in named or len(words) != 2:
        raise UserError(f"render needs a run, an input and an output (- for a name of its own): {USAGE}.")
    net, cfg, folder = assemble.load_run(named["run"])
    input_db, output_db = (_number(named, name, 0.0) for name in ("input_db", "output_db"))
    block_samples = int(_number(named, "block_samples", 16384))
    if block_samples < 1:
        raise UserError(f"block_samples={block_samples}: give 1 or more.")
    controls = _controls(cfg, named.get("controls"))
    failed = 0
    files = _files(Path(words[0]).expanduser(), words[1], cfg.name)
    for source, target in files:
        try:
            with disk_faults():
                _render_file(net, cfg, folder, source, target, input_db, output_db, controls, block_samples)
        except UserError as error:
            if len(files) == 1:
                raise
            log.error("error: %s", error)  # the other files of a folder go on
            failed += 1
    if failed:
        raise UserError(f"{failed} of {len(files)} files could not be rendered: see above.")


def _render_file(
    net: Net, cfg: DictConfig, folder: RunFolder, source: Path, target: Path,
    input_db: float, output_db: float, controls: Tensor, block_samples: int,
) -> None:  # fmt: skip
    """One file: read, (to the net's rate,) net, (back,) write; says what the listener should know."""
    info = audio.info(source)
    model_hz = cfg.data.sample_rate_hz
    net, batch_of = _for_channels(net, info.channels, source)
    player = Player(net)
    controls = controls.expand(info.channels if batch_of else 1, -1)
    to_model = audio.StreamResampler(info.sample_rate_hz, model_hz, info.channels)
    to_file = audio.StreamResampler(model_hz, info.sample_rate_hz, info.channels)
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("rendering %s (%.1f min) ...", source, info.frames / info.sample_rate_hz / 60)
    gain_in, gain_out = 10 ** (input_db / 20), 10 ** (output_db / 20)
    hottest, true_peak = 0.0, audio.TruePeak(info.channels)
    with (
        audio.writer(target, info.sample_rate_hz, info.channels, info.subtype, info.format) as out,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar,
        torch.inference_mode(),
    ):
        progress = bar.add_task(source.name, total=info.frames)
        left = info.frames

        def play(x: Tensor) -> Tensor:
            if not x.shape[-1]:
                return x
            y, _ = player.step(_batch(gain_in * x, batch_of), None, controls)
            return to_file.push(_unbatch(y, batch_of) * gain_out)

        def keep(y: Tensor) -> None:
            nonlocal left
            y = y[:, :left]
            left -= y.shape[-1]
            if not y.shape[-1]:
                return
            true_peak.update(y)
            out.write(y)

        for block in audio.blocks(source, block_samples):
            hottest = max(hottest, float(block.abs().max()) * gain_in)
            keep(play(to_model.push(block)))
            bar.advance(progress, block.shape[-1])
        keep(play(to_model.flush()))
        keep(play(torch.zeros(info.channels, net.latency_samples)))  # what the net still owes
        keep(to_file.flush())
        if left:
            keep(torch.zeros(info.channels, left))
    _say(folder, source, target, info, model_hz, hottest, true_peak.dbtp, out.clipped_samples)


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


def _for_channels(net: Net, channels: int, source: Path) -> tuple[Net, bool]:
    """The net that fits a file, and whether the file's channels go through it as a batch."""
    if net.channels == channels:
        return net, False
    if net.channels == 1:
        return net, True
    if isinstance(net, EachChannel) and channels == 1:
        log.warning("%s is mono: it goes through the net of the left channel", source)
        return net.nets[0], False  # type: ignore[return-value]
    raise UserError(f"{source} has {channels} channels and the net takes {net.channels}: convert the file first.")


def _batch(x: Tensor, batch_of: bool) -> Tensor:
    return x[:, None] if batch_of else x[None]


def _unbatch(y: Tensor, batch_of: bool) -> Tensor:
    return y[:, 0] if batch_of else y[0]


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


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: render(sys.argv[1:])))


if __name__ == "__main__":
    main()
