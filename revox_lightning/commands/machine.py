"""``revox machine IN OUT preset=a77_7.5ips``: plays a file through the virtual tape recorder."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch

from revox_lightning import audio
from revox_lightning.commands import assemble, settings
from revox_lightning.commands.exits import disk_faults, guarded, log
from revox_lightning.commands.usage import MACHINE as USAGE
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.tape.machine import Playback


def machine(argv: list[str]) -> None:
    """Plays one file; ``truth=`` keeps the delay, noise and gain that went into it."""
    named, others, words = settings.arguments(argv, {"preset", "without", "seed", "truth"})
    if len(words) != 2:
        raise UserError(f"machine needs an input and an output: {USAGE}.")
    unknown = [text for text in others if not text.startswith(("machine.", "machine/"))]
    if unknown:
        raise UserError(f"machine has no option {unknown[0].split('=')[0]}: {USAGE}.")
    source, target = (Path(word).expanduser() for word in words)
    if source.resolve() == target.resolve():
        raise UserError(f"{source} would be overwritten by its own copy: choose another output.")
    truth = Path(named["truth"]).expanduser() if "truth" in named else None
    if truth is not None and truth.resolve() in (source.resolve(), target.resolve()):
        raise UserError(f"truth={truth} would overwrite the audio: choose another file, ending in .npz.")
    recorder = assemble.build_machine(named.get("preset", "a77_7.5ips"), others)
    recorder = recorder.without(*(stage for stage in named.get("without", "").split(",") if stage))
    if not named.get("seed", "0").isdecimal():
        raise UserError(f"seed={named['seed']}: give a whole number of at least 0.")
    seed = int(named.get("seed", 0))
    info = audio.info(source)
    log.info("playing %s (%.1f min) ...", source, info.frames / info.sample_rate_hz / 60)
    playback = recorder.play(audio.read(source).numpy(), info.sample_rate_hz, seed)
    with disk_faults():
        target.parent.mkdir(parents=True, exist_ok=True)
        subtype = info.subtype if target.suffix.lower() == source.suffix.lower() else "PCM_24"
        with audio.writer(target, info.sample_rate_hz, info.channels, subtype) as out:
            out.write(torch.from_numpy(playback.wet))
        if truth is not None:
            _write_truth(truth, playback, info.sample_rate_hz)
    _say(target, playback, info, out.clipped_samples)


def _write_truth(path: Path, playback: Playback, sample_rate_hz: int) -> None:
    write_atomically(
        path,
        lambda file: np.savez_compressed(
            file,
            delay_samples=playback.delay_samples,
            noise=playback.noise,
            gain=playback.gain,
            sample_rate_hz=sample_rate_hz,
        ),
    )


def _say(target: Path, playback: Playback, info: audio.AudioInfo, clipped: int) -> None:
    peak = float(np.abs(playback.wet).max(initial=0.0))
    noise = float(np.sqrt(2 * np.mean(playback.noise.astype(np.float64) ** 2))) if playback.noise.size else 0.0
    delay_ms = 1e3 / info.sample_rate_hz * playback.delay_samples
    text = [f"peak {_db(peak)} dBFS", f"noise {_db(noise)} dBFS"]
    if delay_ms.any():
        text.append(f"delay {delay_ms.mean():.2f} ms, {delay_ms.min():.2f} to {delay_ms.max():.2f}")
    log.info("%s: %.1f s, %s", target, info.frames / info.sample_rate_hz, ", ".join(text))
    if clipped:
        log.warning("%d samples of %s were clipped at full scale: try machine.input_gain_db=-6", clipped, target)


def _db(amplitude: float) -> str:
    return f"{20 * math.log10(amplitude):.1f}" if amplitude > 0 else "-inf"


def main() -> None:
    """Entry point."""
    sys.exit(guarded(lambda: machine(sys.argv[1:])))


if __name__ == "__main__":
    main()
