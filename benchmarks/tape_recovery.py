"""Is a tape told from a recording that is no pair? python benchmarks/tape_recovery.py RUN [--settings 100] [--json F].

RUN is of `model=style_transfer model.chain=tape`. Known settings of the tape's four knobs, drawn evenly, are put on a
recording that nothing else was done to; the net hears it as the reference, and another recording, untouched, as the
input. Told are, for each knob, the error of what it chose beside that of always saying the middle of the range, and
Spearman's rank correlation. Recordings: the built-in pieces of the run's kind, of seeds that no training has.
REVOX_GOLDEN=FOLDER adds the recordings in FOLDER/audio, as references.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from revox_lightning import audio
from revox_lightning.commands import assemble
from revox_lightning.data import dry
from revox_lightning.data.corruption import at_peak, on_tape
from revox_lightning.dsp import effects
from revox_lightning.report import table

SECONDS, UNHEARD = 10.0, 900_000_000  # seeds from here on


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--settings", type=int, default=100)
    parser.add_argument("--json", type=Path)
    how = parser.parse_args()
    torch.set_num_threads(1)
    net, cfg, _ = assemble.load_run(how.run, playing=False)
    rows, count = recover(net, cfg.data.get("kind", "music"), cfg.data.sample_rate_hz, how.settings)
    if how.json:
        how.json.write_text(json.dumps(rows, indent=1) + "\n")
    columns = ["knob", "median error", "of the middle", "rank correlation"]
    table.show(
        f"{count} settings, unpaired", columns, [[r["knob"], *(f"{r[c]:.3g}" for c in columns[1:])] for r in rows]
    )


def recover(net: torch.nn.Module, kind: str, rate_hz: int, settings: int) -> tuple[list[dict], int]:
    """A row for each knob, and how many settings they are of."""
    rng = np.random.default_rng(0)
    pieces = [dry.MAKERS[kind](SECONDS, rate_hz, UNHEARD + n) for n in range(min(settings, 24))]
    inputs, references = pieces, pieces + _golden(rate_hz)
    truth, guess = rng.random((settings, len(effects.TAPE))), []
    for n, p in enumerate(truth):
        reference = references[n % len(references)]
        x = inputs[(n % len(references) + 1 + n // len(references)) % len(inputs)]
        wet = on_tape(at_peak(np.asarray(reference, float)), rate_hz, p, seed=n)[0]
        heard = (torch.from_numpy(at_peak(np.asarray(part, float))).float()[None, None] for part in (x, wet))
        with torch.inference_mode():
            guess.append(net(*heard)[1][0, -len(effects.TAPE) :].double().numpy())
    return [_row(knob, truth[:, k], np.array(guess)[:, k]) for k, knob in enumerate(effects.TAPE)], settings


def _row(knob: effects.Parameter, truth: np.ndarray, guess: np.ndarray) -> dict:
    span = knob.high - knob.low
    return {
        "knob": f"{knob.name} ({knob.low:g} to {knob.high:g})",
        "median error": span * float(np.median(np.abs(guess - truth))),
        "of the middle": span * float(np.median(np.abs(0.5 - truth))),
        "rank correlation": float(spearmanr(truth, guess).statistic),
    }


def _golden(rate_hz: int) -> list[np.ndarray]:
    if "REVOX_GOLDEN" not in os.environ:
        return []
    found = []
    for path in sorted(Path(os.environ["REVOX_GOLDEN"], "audio").glob("*.flac")):
        x = audio.resample(audio.read(path).mean(0, keepdim=True), audio.info(path).sample_rate_hz, rate_hz)[0]
        found.append(x[: round(SECONDS * rate_hz)].numpy())
    return found


if __name__ == "__main__":
    main()
