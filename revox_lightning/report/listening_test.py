"""Blind listening tests as one HTML file that needs nothing else: MUSHRA (ITU-R BS.1534-3) and ABX."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.report import page_parts
from revox_lightning.report.excerpts import SoundStore
from revox_lightning.report.stimuli import Excerpt, Stimulus, System, excerpts, systems

MOST_STIMULI = 12  # in one trial: ITU-R BS.1534-3, section 5.2
FEWEST_ABX_TRIALS = 10  # with fewer, chance alone is hardly ever ruled out
_ABX_EXCERPTS = 6
_TITLES = {"mushra": "Listening test (MUSHRA)", "abx": "Listening test (ABX)"}


def write(
    path: Path, runs: Sequence[Path], kind: str, trials: int, seconds: float, repeat: int, seed: int
) -> list[str]:
    """Writes the page and returns notes on what it lacks.

    mushra: ``trials`` excerpts of at most ``seconds``, of which ``repeat`` come twice. abx: ``trials`` answers for
    each run, over several excerpts. ``seed`` shuffles the names under which the page keeps its sounds; the order of
    trials and stimuli is drawn anew for each listener. Raises UserError as ``stimuli.systems`` and ``excerpts`` do,
    and for more runs than a listener can rate together.
    """
    under_test = systems(runs)
    found, notes = excerpts(under_test, trials if kind == "mushra" else _ABX_EXCERPTS, seconds, kind == "mushra")
    most = max(len(one.stimuli) for one in found)
    if kind == "mushra" and most > MOST_STIMULI:
        spare = MOST_STIMULI - (most - len(under_test))
        raise UserError(f"a trial would have {most} stimuli and listeners manage {MOST_STIMULI}: name {spare} runs.")
    if kind == "abx":
        notes = [note for note in notes if "long enough" not in note]  # few excerpts come again
    shuffle = np.random.default_rng(seed)
    store = SoundStore()
    data = {
        "kind": kind,
        "page": _identity(kind, trials, found),
        "rate_hz": found[0].sample_rate_hz,
        "restarts": any(system.generates for system in under_test),
    }
    if kind == "mushra":
        data |= _mushra(found, min(repeat, len(found)), store, shuffle)
    else:
        data |= _abx(under_test, found, trials, store, shuffle)
    page_parts.write(path, _document(data, store.sounds))
    return notes


def _identity(kind: str, trials: int, found: Sequence[Excerpt]) -> str:
    """Of a test: every sample that is heard, and what it is."""
    digest = hashlib.sha256(f"{kind} {trials if kind == 'abx' else ''}".encode())
    for excerpt in found:
        digest.update(json.dumps([excerpt.name, excerpt.start_seconds, excerpt.sample_rate_hz]).encode())
        for stimulus in excerpt.stimuli:
            digest.update(json.dumps([stimulus.name, stimulus.kind]).encode())
            digest.update(stimulus.signal.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _label(excerpt: Excerpt) -> str:
    return f"{excerpt.name} at {excerpt.start_seconds:.1f} s"


def _mushra(found: Sequence[Excerpt], repeat: int, store: SoundStore, shuffle: np.random.Generator) -> dict[str, Any]:
    trials, key = [], {}
    for excerpt in found:
        sounds = {}
        for i in shuffle.permutation(len(excerpt.stimuli)):
            stimulus = excerpt.stimuli[i]
            name = shuffle.bytes(5).hex()
            sounds[name] = store.add(stimulus.signal, excerpt.sample_rate_hz)
            key[name] = _what(stimulus)
        reference = store.add(excerpt.stimuli[0].signal, excerpt.sample_rate_hz)
        trials.append({"excerpt": _label(excerpt), "reference": reference, "sounds": sounds})
    return {"trials": trials, "repeat": repeat, "key": _hidden(key)}


def _abx(
    under_test: Sequence[System], found: Sequence[Excerpt], trials: int, store: SoundStore, shuffle: np.random.Generator
) -> dict[str, Any]:
    pairs, key = [], {}
    for system in under_test:
        heard = []
        for excerpt in found:
            by_name = {stimulus.name: stimulus for stimulus in excerpt.stimuli if stimulus.kind == "system"}
            dry = next(stimulus for stimulus in excerpt.stimuli if stimulus.kind == "dry")
            both = [excerpt.stimuli[0], by_name[system.name]]
            sounds = {}
            for i in shuffle.permutation(2):
                name = shuffle.bytes(5).hex()
                sounds[name] = store.add(both[i].signal, excerpt.sample_rate_hz)
                key[name] = _what(both[i])
            source = store.add(dry.signal, excerpt.sample_rate_hz) if system.generates else None
            heard.append({"excerpt": _label(excerpt), "sounds": sounds, "source": source})
        name = shuffle.bytes(5).hex()
        key[name] = {"name": system.name, "kind": "system", "gain_db": 0.0}
        pairs.append({"name": name, "mode": "2afc" if system.generates else "abx", "excerpts": heard})
    return {"pairs": pairs, "trials": trials, "key": _hidden(key)}


def _what(stimulus: Stimulus) -> dict[str, Any]:
    return {"name": stimulus.name, "kind": stimulus.kind, "gain_db": round(stimulus.gain_db, 2)}


def _hidden(key: dict[str, Any]) -> str:
    """Which stimulus is which, so that nobody reads it by accident."""
    return base64.b64encode(json.dumps(key).encode()).decode()


def _document(data: dict[str, Any], sounds: Sequence[str]) -> str:
    scripts = [page_parts.part(name) for name in ("player.js", "listen.js", f"{data['kind']}.js")]
    title = _TITLES[data["kind"]]
    return "\n".join([
        page_parts.head(title, page_parts.part("listen.css"), scripts),
        f'<body>\n<header><h1>{title}</h1></header>\n<main id="test"><p>This page needs JavaScript.</p></main>',
        page_parts.foot("test", data, sounds, scripts),
    ])  # fmt: skip
