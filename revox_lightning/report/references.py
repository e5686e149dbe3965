"""The rows every result stands beside: the dry signal, the best linear filters, and the machine's own hiss."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from revox_lightning.callbacks.checkpoints import save_atomically
from revox_lightning.data.module import PairData
from revox_lightning.dsp.least_squares import Correlations, best_filter
from revox_lightning.errors import UserError
from revox_lightning.metrics import EffectMetrics
from revox_lightning.models.contract import Net
from revox_lightning.models.fir import FIR
from revox_lightning.runs import load_tensors
from revox_lightning.scorer import score

log = logging.getLogger(__name__)

_FITTED_SECONDS = 1200.0


@dataclasses.dataclass
class Reference:
    """A rival and what it reaches on the test split."""

    name: str
    label: str
    net: Net
    metrics: dict[str, float]


def correlations(data: PairData, split: str, taps: int = 0, lookahead: int = 0) -> list[Correlations]:
    """One ``Correlations`` a channel over a split, long enough for the references and for ``taps, lookahead``.

    Of more than 20 minutes so much is read, in passages from all over the split.
    """
    lead, tail = max(8192, taps), max(512, lookahead)
    found = [Correlations(lead, tail) for _ in range(data.audio_channels)]
    if data.seconds(split) > _FITTED_SECONDS:
        log.info("linear filters: %.0f s of %.0f s of the %s part", _FITTED_SECONDS, data.seconds(split), split)
    for dry, wet, piece in data.stretches(split, lead, tail, _FITTED_SECONDS):
        for channel, c in enumerate(found):
            c.update(dry[channel], wet[channel], lead=piece.start, tail=dry.shape[-1] - piece.stop)
    return found


def best_filters(train: list[Correlations], val: list[Correlations]) -> dict[str, FIR]:
    """The best linear filter, and the best causal one, each with its length chosen on validation.

    With several channels the first one chooses the length and each is solved for itself.
    """
    filters = {}
    for name, lookaheads in (("linear", (0, 64, 512)), ("linear_causal", (0,))):
        best = best_filter(train[0], val[0], lookaheads=lookaheads)
        fir = FIR(best.taps, best.lookahead, channels=len(train))
        fir.load(torch.stack([c.solve(best.taps, best.lookahead) for c in train]))
        filters[name] = fir.eval()
    return filters


def save_filters(filters: dict[str, FIR], path: Path) -> None:
    """Keeps the filters fitted on a run's training split, so that later tests stand beside them too."""
    save_atomically({name: {"h": fir.h, "lookahead": fir.lookahead} for name, fir in filters.items()}, path)


def load_filters(path: Path) -> dict[str, FIR]:
    """What ``save_filters`` kept; raises UserError where it is missing or damaged."""
    try:
        content = load_tensors(path)
        filters = {}
        for name, kept in content.items():
            fir = FIR(kept["h"].shape[-1], kept["lookahead"], channels=kept["h"].shape[0])
            fir.load(kept["h"])
            filters[str(name)] = fir.eval()
    except Exception as error:
        raise UserError(
            f"{path} holds no linear filters: the run's folder is damaged or its training did not start."
        ) from error
    return filters


def references(data: PairData, filters: dict[str, FIR], split: str = "test") -> list[Reference]:
    """Scores the dry signal and the filters on a split."""
    dry = FIR(1, channels=data.audio_channels)
    dry.load(torch.ones(data.audio_channels, 1))
    rows = [Reference("dry", "dry signal", dry, {})]
    for name, fir in filters.items():
        ahead = f" with {fir.latency_samples} of look-ahead" if fir.latency_samples else ", causal"
        rows.append(Reference(name, f"linear filter, {fir.h.shape[-1]} taps{ahead}", fir, {}))
    for row in rows:
        row.metrics = score(row.net.eval(), data.chunks(split, moved=True), EffectMetrics(data.sample_rate_hz))
    return rows


def esr_floor(data: PairData, split: str = "test") -> float | None:
    """The error-to-signal ratio that remains when all but the machine's hiss is modelled; None where unknown."""
    hiss_energy = data.source.floor_energy(split)
    if hiss_energy is None:
        return None
    signal = samples = 0.0
    for _, wet, piece in data.stretches(split, lead=0, tail=0):
        signal += float(wet[:, piece].double().square().sum())
        samples += wet[:, piece].numel()
    return hiss_energy / (signal / samples)
