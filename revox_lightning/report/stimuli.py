"""What is heard in a listening test: reference, anchors and runs' estimates of the same moments, equally loud."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from revox_lightning import audio
from revox_lightning.dsp.loudness import Loudness
from revox_lightning.errors import UserError
from revox_lightning.models.fir import FIR
from revox_lightning.report.examples import played
from revox_lightning.report.references import load_filters
from revox_lightning.runs import RunFolder

LOW_ANCHOR_HZ, MID_ANCHOR_HZ = 3500.0, 7000.0
_KINDS = re.compile(r"(.+)_(dry|target|estimate)\.wav")
_ALIKE = 1e-4  # largest difference of two runs' copies of one recording: rounding to 24 bits
_WARM_SECONDS = 0.5  # of signal before and after a piece, for what filters
_FADE_SECONDS = 0.01  # at both ends, so that the piece can be looped
_SILENT_RMS = 1e-3
_SHORTEST_SECONDS = 1.0


@dataclass(frozen=True)
class System:
    """A run under test; ``generates``: it makes up its own wow and flutter and never runs in step with the tape."""

    name: str
    run: RunFolder
    generates: bool


@dataclass(frozen=True)
class Stimulus:
    """One version of an excerpt, (channels, time), ``gain_db`` applied; ``kind``: reference, low_anchor, mid_anchor,
    dry, linear or system."""

    name: str
    kind: str
    signal: Tensor
    gain_db: float


@dataclass(frozen=True)
class Excerpt:
    """A moment and its versions, all of one shape, the reference first."""

    name: str
    start_seconds: float
    sample_rate_hz: int
    stimuli: tuple[Stimulus, ...]


def systems(paths: Sequence[Path]) -> list[System]:
    """The runs under test with names of their own; raises UserError for what is no run or is named twice."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("a run is named twice: name each run once.")
    runs = [RunFolder.existing(path) for path in paths]
    configs = [run.config() for run in runs]
    names = [plain(str(config.get("name") or run.path.name)) for run, config in zip(runs, configs, strict=True)]
    names = [_apart(names, i, [f"seed {config.get('seed')}" for config in configs]) for i in range(len(names))]
    names = [_apart(names, i, [plain(run.path.resolve().name) for run in runs]) for i in range(len(names))]
    names = [_apart(names, i, [str(j + 1) for j in range(len(runs))]) for i in range(len(names))]
    return [System(n, run, bool(config.get("parts"))) for n, run, config in zip(names, runs, configs, strict=True)]


def plain(text: str) -> str:
    """A name in one line, without what cannot be printed, as the result files ask for."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:200] or "?"


def _apart(names: Sequence[str], i: int, additions: Sequence[str]) -> str:
    """A name, with an addition where another one is the same."""
    return f"{names[i]} ({additions[i]})" if names.count(names[i]) > 1 else names[i]


def excerpts(
    under_test: Sequence[System], count: int, seconds: float, anchors: bool
) -> tuple[list[Excerpt], list[str]]:
    """At most ``count`` pieces of ``seconds`` of the runs' audio, no two overlapping, and notes on what is missing.

    In turn from each recording, music and speech first, its loudest pieces first. ``anchors``: with what MUSHRA adds.
    Raises UserError where the runs have no recording in common or where their dry signals or targets differ.
    """
    files = [_files(system.run) for system in under_test]
    names = [name for name in sorted(files[0], key=_music_first) if all(name in one for one in files)]
    if not names:
        either = "has" if len(under_test) == 1 else "have in common"
        folders = ", ".join(str(system.run.path / "audio") for system in under_test)
        raise UserError(f"{folders}: no excerpt with dry, target and estimate {either}; name runs tested alike.")
    notes = [
        f"excerpt {name} is left out: not every run has its dry signal, target and estimate."
        for name in sorted({name for one in files for name in one} - set(names))
    ]
    places = _places([(name, [one[name] for one in files]) for name in names], count, seconds)
    if len(places) < count:
        notes.append(f"the runs' audio is long enough for {len(places)} of {count} trials of {seconds:g} s.")
    found = [_excerpt(under_test, name, [one[name] for one in files], start, frames) for name, start, frames in places]
    if anchors:
        fir, note = _linear(under_test[0])
        notes += [note] * (fir is None)
        found = [_anchored(one, files[0][place[0]], fir, notes) for one, place in zip(found, places, strict=True)]
    return [_level_matched(one) for one in found], list(dict.fromkeys(notes))


def _files(run: RunFolder) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted((run.path / "audio").glob("*.wav")):
        if match := _KINDS.fullmatch(path.name):
            found.setdefault(match[1], {})[match[2]] = path
    return {name: paths for name, paths in found.items() if len(paths) == 3}


def _music_first(name: str) -> tuple[bool, str]:
    return name[:1].isdigit(), name


def _places(named: list[tuple[str, list[dict[str, Path]]]], count: int, seconds: float) -> list[tuple[str, int, int]]:
    """Name, first sample and length of each piece, by name and then by place."""
    waiting = []
    for name, files in named:
        target = files[0]["target"]
        rate = audio.info(target).sample_rate_hz
        whole = min(audio.info(path).frames for one in files for path in one.values())
        frames = min(round(seconds * rate), whole)
        if frames < _SHORTEST_SECONDS * rate:
            continue
        pieces = [(i * frames, audio.read(target, i * frames, frames)) for i in range(whole // frames)]
        heard = sorted((-float(y.square().mean()), start) for start, y in pieces)
        waiting.append([(name, start, frames) for energy, start in heard if -energy > _SILENT_RMS**2])
    chosen: list[tuple[str, int, int]] = []
    for turn in range(max(map(len, waiting), default=0)):
        chosen += [pieces[turn] for pieces in waiting if turn < len(pieces)]
    if not chosen:
        raise UserError("the runs' audio is silent or shorter than a second: nothing can be compared by ear.")
    return sorted(chosen[:count], key=lambda place: (_music_first(place[0]), place[1]))


def _excerpt(under_test: Sequence[System], name: str, files: list[dict[str, Path]], start: int, frames: int) -> Excerpt:
    """The target and every system's estimate; raises UserError where a run's dry signal or target is another."""
    first, rate = files[0], audio.info(files[0]["target"]).sample_rate_hz
    dry, y = (audio.read(first[kind], start, frames) for kind in ("dry", "target"))
    stimuli = [Stimulus("reference", "reference", y, 0.0)]
    for system, paths in zip(under_test, files, strict=True):
        for kind, expected in (("dry", dry), ("target", y), ("estimate", y)):
            own = audio.read(paths[kind], start, frames)
            same = own.shape == expected.shape and audio.info(paths[kind]).sample_rate_hz == rate
            if not same or (kind != "estimate" and float((own - expected).abs().max()) > _ALIKE):
                what = f"the {kind} signal of {first['target'].parent.parent}" if kind != "estimate" else "its target"
                raise UserError(f"{paths[kind]} does not match {what}: only runs tested on the same audio compare.")
        stimuli.append(Stimulus(system.name, "system", own, 0.0))
    stimuli.append(Stimulus("dry signal", "dry", dry, 0.0))
    return Excerpt(plain(name), start / rate, rate, tuple(stimuli))


def _linear(system: System) -> tuple[FIR | None, str]:
    path = system.run.filters_path
    if not path.is_file():
        return None, f"{path} does not exist: the best linear filter is not among the anchors."
    try:
        return load_filters(path)["linear"], ""
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds no linear filter: the run's folder is damaged; train it again.") from error


def _anchored(excerpt: Excerpt, paths: dict[str, Path], fir: FIR | None, notes: list[str]) -> Excerpt:
    """The excerpt with its low-pass anchors and what the linear filter makes of the dry signal."""
    rate, frames = excerpt.sample_rate_hz, excerpt.stimuli[0].signal.shape[-1]
    start = round(excerpt.start_seconds * rate)
    before = min(start, round(_WARM_SECONDS * rate))
    y = audio.read(paths["target"], start - before, before + frames + round(_WARM_SECONDS * rate))
    added = []
    for kind, cutoff_hz in (("low_anchor", LOW_ANCHOR_HZ), ("mid_anchor", MID_ANCHOR_HZ)):
        if cutoff_hz + 500 > rate / 2:
            notes.append(f"at {rate} Hz there is no anchor of {cutoff_hz:g} Hz.")
            continue
        low = low_pass(y, cutoff_hz, rate)[:, before : before + frames]
        added.append(Stimulus(f"{cutoff_hz / 1000:g} kHz low-pass", kind, low, 0.0))
    if fir is not None:
        warm = min(start, max(round(_WARM_SECONDS * rate), fir.taps))
        x = audio.read(paths["dry"], start - warm, warm + frames + fir.latency_samples)
        linear = played(fir, x, x.new_zeros(1, 0))[:, warm : warm + frames]
        added.append(Stimulus("best linear filter", "linear", linear, 0.0))
    return Excerpt(excerpt.name, excerpt.start_seconds, rate, (*excerpt.stimuli, *added))


def low_pass(signal: Tensor, cutoff_hz: float, sample_rate_hz: float) -> Tensor:
    """Linear-phase low-pass without delay, as ITU-R BS.1534-3, section 5.1, asks: flat (0.1 dB) up to the cutoff, down
    25 dB half a kilohertz above and 50 dB a kilohertz above. (channels, time) -> the same.

    >>> low_pass(torch.zeros(2, 1000), 3500, 48_000).shape
    torch.Size([2, 1000])
    """
    taps = scipy.signal.kaiserord(60.0, 500 / (sample_rate_hz / 2))[0] | 1
    h = scipy.signal.firwin(taps, cutoff_hz + 250, width=500, fs=sample_rate_hz)
    y = scipy.signal.oaconvolve(signal.numpy().astype(np.float64), np.asarray(h)[np.newaxis], axes=-1)
    return torch.from_numpy(y[:, taps // 2 : taps // 2 + signal.shape[-1]]).float()


def _level_matched(excerpt: Excerpt) -> Excerpt:
    """All versions as loud as the reference, together softer where one would clip, faded at both ends."""
    rate = excerpt.sample_rate_hz
    wanted = level_db(excerpt.stimuli[0].signal, rate)
    own = [level_db(stimulus.signal, rate) for stimulus in excerpt.stimuli]
    gains_db = [wanted - level if level > -90 else 0.0 for level in own]
    peaks = [float(s.signal.abs().max()) * 10 ** (g / 20) for s, g in zip(excerpt.stimuli, gains_db, strict=True)]
    common_db = min(0.0, -20 * math.log10(max(*peaks, 1e-9)) - 0.1)
    frames, fade = excerpt.stimuli[0].signal.shape[-1], round(_FADE_SECONDS * rate)
    window = torch.ones(frames)
    window[:fade] = 0.5 - 0.5 * torch.cos(math.pi * torch.arange(fade) / fade)
    window[frames - fade :] = window[:fade].flip(0)
    stimuli = [
        Stimulus(s.name, s.kind, s.signal * window * 10 ** ((g + common_db) / 20), g + common_db)
        for s, g in zip(excerpt.stimuli, gains_db, strict=True)
    ]
    return Excerpt(excerpt.name, excerpt.start_seconds, rate, tuple(stimuli))


def level_db(signal: Tensor, sample_rate_hz: int) -> float:
    """Loudness in LUFS (ITU-R BS.1770-4); of what is too soft for that its mean square in dB."""
    meter = Loudness(sample_rate_hz, len(signal))
    meter.update(signal.numpy())
    return meter.lufs if math.isfinite(meter.lufs) else 10 * math.log10(float(signal.square().mean()) + 1e-14)
