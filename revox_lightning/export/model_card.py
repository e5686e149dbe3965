"""The card beside an exported file: what it is, what it learned from, how near it comes, and what it is not for.

After M. Mitchell et al., "Model cards for model reporting", FAT* 2019. Everything is read from the run's folder; what
is not there is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from revox_lightning.files import write_atomically
from revox_lightning.report import table

_ROWS = {
    "this model": ("test/esr", "test/esr_gain_aligned"),
    "the best linear filter": ("test/esr_linear", "test/esr_linear_gain_aligned"),
    "the best causal linear filter": ("test/esr_linear_causal", "test/esr_linear_causal_gain_aligned"),
    "the dry signal": ("test/esr_dry", "test/esr_dry_gain_aligned"),
    "floor: the machine's own hiss": ("test/esr_floor", None),
}
_COMPUTED = {
    "computed/compiler_options": "compiler options", "computed/device": "device", "computed/processor": "processor",
    "computed/threads": "threads", "computed/precision": "precision", "computed/torch": "torch",
    "computed/version": "revox_lightning",
}  # fmt: skip
_LICENCE = (
    "_To be filled in by whoever publishes this file; recordings that it learned from may have terms of their own._"
)


@dataclass(frozen=True)
class Exported:
    """A file and what its net is; ``knobs`` by name, with the position that each was fixed at where it was."""

    path: Path
    form: str
    sample_rate_hz: int
    parameters: int
    latency_samples: int
    receptive_field: int | None
    knobs: Mapping[str, float | None]
    difference: float  # largest, in an independent player
    left_out: Sequence[str] = field(default_factory=tuple)
    scaled_to_db: float | None = None


def write(
    one: Exported, config: Mapping[str, Any], metrics: Mapping[str, Any], levels: Mapping[str, Any], machine: str | None
) -> Path:
    """Writes ``FILE.md`` beside the file and returns its path. ``machine`` is the preset that was learned, if any.

    config, metrics and levels are the run's; empty for a file of another program, of which nothing else is known.
    """
    name = config.get("name") or one.path.stem
    parts = [
        f"# {table.escaped(name)}\n",
        "An audio effect that was learned from recordings: audio in, audio out.\n",
        "## The model\n\n" + _lines(_model(one, config)),
    ]
    learned = _data(config, metrics, machine)
    parts += ["## What it learned from\n\n" + _lines(learned)] if learned else []
    parts += _figures(metrics, one.left_out)
    told = {"kernels": metrics.get("kernels")} | {said: metrics.get(key) for key, said in _COMPUTED.items()}
    # A compiler may lie in somebody's home: of a path its last part is told.
    computed = {said: re.sub(r"/(?:[^\s/,()]*/)+", "", str(value)) for said, value in told.items() if value is not None}
    parts += ["## What computed the training\n\n" + _lines(computed)] if computed else []
    parts.append("## Use and limits\n\n" + "".join(f"- {text}\n" for text in _limits(one, metrics, levels)))
    parts.append(f"## Licence\n\n{_LICENCE}\n")
    path, text = one.path.with_name(f"{one.path.name}.md"), "\n".join(parts)
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))
    return path


def _lines(facts: Mapping[str, Any]) -> str:
    return "".join(f"- {name}: {table.escaped(value)}\n" for name, value in facts.items() if value not in (None, ""))


def _model(one: Exported, config: Mapping[str, Any]) -> dict[str, Any]:
    model = config.get("model")
    model = model if isinstance(model, Mapping) else {}
    built = [
        f"{name}={value}" for name, value in model.items() if isinstance(value, int | float | str) and name[0] != "_"
    ]
    kind = str(model.get("_target_", "")).rsplit(".", 1)[-1]
    ms = 1000 / one.sample_rate_hz
    knobs = [name if at is None else f"{name} fixed at {at:g}" for name, at in one.knobs.items()]
    data = one.path.read_bytes()
    return {
        "net": f"{kind} ({', '.join(built)})" if built else kind,
        "parameters": f"{one.parameters:,}",
        "sample rate": f"{one.sample_rate_hz} Hz",
        "latency": f"{one.latency_samples} samples ({one.latency_samples * ms:.2f} ms)",
        "hears": "all that went before (recurrent)" if one.receptive_field is None
        else f"{one.receptive_field} samples ({one.receptive_field * ms:.1f} ms)",
        "knobs": ", ".join(knobs) or "none",
        "file": f"{one.path.name}, format {one.form}, {len(data)} bytes",
        "SHA-256": hashlib.sha256(data).hexdigest(),
        "largest difference in an independent player": f"{one.difference:.1e} of full scale",
    }  # fmt: skip


def _data(config: Mapping[str, Any], metrics: Mapping[str, Any], machine: str | None) -> dict[str, Any]:
    """Where the audio came from: the last part of a folder's name, no more."""
    data = config.get("data")
    data = data if isinstance(data, Mapping) else {}
    source = data.get("source")
    source = source if isinstance(source, Mapping) else {}
    place = next((source[key] for key in ("root", "dry", "manifest") if isinstance(source.get(key), str)), None)
    seconds = source.get("seconds")
    seconds = seconds.get("train") if isinstance(seconds, Mapping) else None
    found = {
        "source": str(source.get("_target_", "")).rsplit(".", 1)[-1],
        "machine": machine,
        "recordings": None if place is None else re.split(r"[/\\]", place.rstrip("/\\"))[-1],
        "seconds to learn from": data.get("train_seconds") or seconds,
        "left out of the machine": ", ".join(map(str, source.get("without") or [])),
        "seconds heard in training, repeats counted": metrics.get("audio_seconds_trained"),
        "seconds that training took": metrics.get("train_seconds"),
    }
    return {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in found.items() if value}


def _figures(metrics: Mapping[str, Any], left_out: Sequence[str]) -> list[str]:
    """ESR beside what it has to be compared with."""
    rows = []
    for name, (key, aligned) in _ROWS.items():
        esr, after = _number(metrics, key), _number(metrics, aligned)
        if esr is not None:
            rows.append(f"| {name} | {esr:.5f} | {table.decibels(esr)} | {table.number(after, 5)} |\n")
    if _number(metrics, "test/esr") is None:
        return []
    text = "## Figures on the test split\n\n| | ESR | ESR, dB | after the best gain |\n|---|---:|---:|---:|\n"
    text += "".join(rows) + "\nESR: the error's energy over the target's, over the whole test.\n"
    if left_out:
        text += f"\nThey are of the whole run; this file is without {table.escaped(', '.join(left_out))}.\n"
    return [text]


def _number(metrics: Mapping[str, Any], key: str | None) -> float | None:
    value = metrics.get(key or "")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9 else None


def _limits(one: Exported, metrics: Mapping[str, Any], levels: Mapping[str, Any]) -> list[str]:
    """What follows from how it was made."""
    said = ["For music and speech that is to sound as if it had gone through what this model learned from."]
    said.append(f"It computes at {one.sample_rate_hz} Hz: resample other audio, or it is another effect.")
    peak = levels.get("train_input_peak_dbfs")
    if isinstance(peak, int | float):
        said.append(f"It has heard input up to {peak:.1f} dBFS; what it does with louder input, nobody measured.")
    if not one.knobs:
        said.append("It knows one setting of the machine's knobs: the one that was recorded.")
    esr, linear = _number(metrics, "test/esr"), _number(metrics, "test/esr_linear")
    if esr is not None and linear is not None and esr >= linear:
        said.append("On its own test it does not beat the best linear filter, which is simpler.")
    if one.scaled_to_db is not None:
        said.append(
            f"Its output was scaled to a loudness of {one.scaled_to_db:g} dB; the figures are from before that."
        )
    if any(one.left_out):
        said.append(f"Not in this file: {table.escaped(', '.join(one.left_out))}.")
    return said
