"""One piece of music and one of speech to hear a model with: dry, from its machine where there is one, and its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.data import performer, speech
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net
from revox_lightning.stream import Player

log = logging.getLogger(__name__)

SECONDS = 10.0  # of the built-in ones
SEED = 20_260_000  # of a performance that no split of any data set holds
_BLOCK_SAMPLES = 65_536
Machine = Callable[[np.ndarray], np.ndarray]


def check(paths: Sequence[str] | None) -> None:
    """Raises UserError, before anything is trained, for an example that is no audio file or not mono or stereo."""
    if isinstance(paths, str):
        raise UserError(f"report.examples={paths}: give a list of files, report.examples=[music.wav,speech.wav].")
    for path in paths or ():
        channels = audio.info(Path(path).expanduser()).channels
        if channels > 2:
            raise UserError(f"report.examples: {path} has {channels} channels; give mono or stereo files.")


def examples(paths: Sequence[str] | None, seconds: float, sample_rate_hz: int) -> Iterator[tuple[str, Tensor]]:
    """Names and dry signals (channels, time): the first ``seconds`` of the files, or None: music and speech, built in.

    The built-in ones are ten seconds of the performer and of a synthetic voice, mono. Raises as ``check`` does.
    """
    check(paths)
    if paths is None:
        seconds = min(seconds, SECONDS)
        yield "music", torch.from_numpy(performer.perform(seconds, sample_rate_hz, SEED))[None]
        yield "speech", torch.from_numpy(speech.speak(seconds, sample_rate_hz, SEED))[None]
        return
    names: list[str] = []
    for path in (Path(text).expanduser() for text in paths):
        rate_hz = audio.info(path).sample_rate_hz
        names.append(path.stem)
        count = names.count(path.stem)
        x = audio.read(path, 0, round(seconds * rate_hz))
        yield path.stem if count == 1 else f"{path.stem}_{count}", audio.resample(x, rate_hz, sample_rate_hz)


def write(
    net: Net, controls: Tensor, dry: Iterator[tuple[str, Tensor]], machine: Machine | None, folder: Path, rate_hz: int
) -> dict[str, Path]:
    """Plays each example through the net, and through the machine where there is one; the 24-bit files by their names.

    ``NAME_dry.wav``, ``NAME_target.wav`` and ``NAME_estimate.wav`` in the folder; controls (1, knobs).
    """
    written: dict[str, Path] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, x in dry:
        if getattr(net, "generates", ()) or net.channels > 1:
            x = x.expand(net.channels, -1) if len(x) == 1 else x
        signals = {"dry": x}
        if machine is not None:
            signals["target"] = torch.from_numpy(machine(x.numpy()))
        signals["estimate"] = played(net, x, controls)
        for kind, signal in signals.items():
            path = folder / f"{name}_{kind}.wav"
            if float(signal.abs().max()) > 1:
                log.warning("%s goes beyond full scale and is clipped in its file", path)
            audio.write(path, signal, rate_hz, subtype="PCM_24")
            written[f"{name}_{kind}"] = path
    return written


def played(net: Net, x: Tensor, controls: Tensor) -> Tensor:
    """x (channels, time) through a net, aligned with it: its look-ahead is taken off. (channels, time).

    A mono net plays each channel by itself, as a batch; controls (1, knobs). Raises UserError where the channels do
    not fit.
    """
    if net.channels not in (1, len(x)):
        raise UserError(f"the net takes {net.channels} channels and the audio has {len(x)}: give it as many.")
    player, as_batch, parts = Player(net), net.channels == 1, []
    signal = torch.cat([x, x.new_zeros(len(x), net.latency_samples)], dim=1)
    knobs = controls.expand(len(x) if as_batch else 1, -1)
    with torch.inference_mode():
        for block in signal.split(_BLOCK_SAMPLES, dim=1):
            y, _ = player.step(block[:, None] if as_batch else block[None], None, knobs)
            parts.append(y[:, 0] if as_batch else y[0])
    return torch.cat(parts, dim=1)
