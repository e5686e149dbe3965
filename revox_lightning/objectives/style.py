"""Learning a production style from two versions of any recording (Steinmetz et al. 2022, section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from revox_lightning.dsp import dynamics, effects, style_bands
from revox_lightning.losses import mrstft_magnitudes
from revox_lightning.models.effect_tcn import EndToEnd

_HEARD_DB = 55.0  # below the loudest band: what lies lower hardly counts
_LEVELS_DBFS = (-70.0, -6.0, 2.0)
_EQUALISER, _STUDIO = len(effects.EQUALISER), len(effects.PARAMETERS)
_TIMES_COUNT_DB = 6.0  # of a mean reduction, from which on attack and release count in full


class StyleTransferObjective:
    """One half of the corrupted recording is to become like itself before; the other half of that is the reference.

    ``objective(net, batch, state) -> (terms, None)``, where ``batch`` has ``dry`` and ``wet`` (batch, channel, time):
    which half is which is drawn anew. The terms are the spectral distance over six resolutions, and 100 times the mean
    absolute error. In validation the first half is heard, with the second as reference.

    The paper has no more, and a million steps. Here a small controller has practised equalisers for
    ``practice_steps`` (models.style_controller), and the first ``told_share`` of the epochs plays nothing: the
    corruption tells in ``controls`` (batch, knobs) what it did (data.corruption), and the knobs learn from that, as
    far as they have a meaning: the response in dB in the bands that are heard, the gain in dB at the levels that
    occur, attack and release in nepers. Where a tape's knobs are told, the square of their distance is a term
    throughout: wow and hiss of another seed are not nearer for being alike.
    """

    def __init__(
        self,
        mae_weight: float = 100.0,
        tape_weight: float = 30.0,
        told_share: float = 0.25,
        practice_steps: int = 1600,
    ) -> None:
        self.mae_weight, self.tape_weight = mae_weight, tape_weight
        self.told_share, self.practice_steps = told_share, practice_steps
        self._telling = False

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Says whether this is an epoch of telling."""
        self._telling = epoch < round(self.told_share * epochs)

    def __call__(self, net: Any, batch: dict[str, Any], state: Any) -> tuple[dict[str, Tensor], None]:
        if self._telling and batch["controls"].numel() and not isinstance(net.processor, EndToEnd):
            return self._told(net, batch), None
        return self._terms(net, batch, bool(torch.rand(()) < 0.5)), None

    def validate(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of the audio for one batch."""
        return self._terms(net, batch, False)

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        weights = {"mae": self.mae_weight, "tape": self.tape_weight, "times": 0.5}
        return torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()

    def _terms(self, net: Any, batch: dict[str, Any], swapped: bool) -> dict[str, Tensor]:
        first, second = _halves(batch)
        (x, y, reference) = second if swapped else first
        y_hat, p = net(x, reference)
        terms = {"mrstft": mrstft_magnitudes(y_hat, y), "mae": (y_hat - y).abs().mean()}
        return terms | _of_tape(p, batch.get("controls"))

    def _told(self, net: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        x, y, reference = (torch.cat(parts) for parts in zip(*_halves(batch), strict=True))
        truth = batch["controls"].repeat(2, 1)
        p = net.guess(x, reference)
        response, knobs = truth[:, : style_bands.BANDS], truth[:, style_bands.BANDS :]
        hz = style_bands.centres_hz(net.sample_rate_hz)
        apart = (effects.response_db(p, hz, net.sample_rate_hz) - response).abs()
        weight = _heard(y)
        guessed = torch.stack(list(effects.denormalised(p[:, _EQUALISER:_STUDIO], effects.COMPRESSOR).values()), 1)
        gain, times = _gains_apart(guessed, knobs[:, : _STUDIO - _EQUALISER], x)
        terms = {"response": ((weight * apart).sum(1) / weight.sum(1)).mean(), "gain": gain, "times": times}
        return terms | _of_tape(p, truth)


def _halves(batch: dict[str, Any]) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Input, target and reference, with the first half heard and with the second."""
    half = batch["wet"].shape[-1] // 2
    (dry, dry_later), (wet, wet_later) = (
        (batch[name][..., :half], batch[name][..., half : 2 * half]) for name in ("dry", "wet")
    )
    return (dry, wet, wet_later), (dry_later, wet_later, wet)


def _of_tape(p: Tensor, truth: Tensor | None) -> dict[str, Tensor]:
    """The distance of a tape's knobs (batch, 28) from those told."""
    tape = p.shape[1] - _STUDIO
    if not tape or truth is None or not truth.numel():
        return {}
    return {"tape": (p[:, -tape:] - truth[:, -tape:]).square().mean()}


def _heard(y: Tensor) -> Tensor:
    """How much every band of y (batch, channels, time) counts (batch, bands): 1 where it is loudest, little below."""
    power = style_bands.spectrogram(y.mean(1)).pow(2 / style_bands.EXPONENT).mean(1) @ style_bands.bands().to(y)
    level_db = 10 * torch.log10(power + 1e-12)
    return (1 + (level_db - level_db.amax(1, keepdim=True)) / _HEARD_DB).clamp(0.02, 1)


def _gains_apart(knobs: Tensor, truth: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far two compressors' gains are apart, in dB, at the levels of x; and their times, in nepers."""
    levels = torch.arange(*_LEVELS_DBFS, device=x.device)
    shares = _levels(x, levels)  # (batch, levels)
    (gain, _), (wanted, reduced) = (_gain_db(part, levels) for part in (knobs, truth))
    names = [knob.name for knob in effects.COMPRESSOR]
    times = [(knobs[:, n] / truth[:, n]).log().abs() for n in map(names.index, ("attack_seconds", "release_seconds"))]
    counts = ((shares * reduced).sum(1) / _TIMES_COUNT_DB).clamp(max=1)
    return (shares * (gain - wanted).abs()).sum(1).mean(), (counts * (times[0] + times[1])).mean()


def _gain_db(knobs: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """What compressors (batch, 6) do to levels (levels,), make-up included; and their reduction alone."""
    told = {knob.name: knobs[:, n, None] for n, knob in enumerate(effects.COMPRESSOR)}
    reduced = levels - dynamics.compressed_db(levels, told["threshold_db"], told["ratio"], told["knee_db"])
    return told["makeup_db"] - reduced, reduced


def _levels(x: Tensor, levels: Tensor) -> Tensor:
    """Shares (batch, levels) of the samples of x (batch, channels, time) at evenly spaced levels."""
    found = dynamics.level_db(x.abs().amax(1)[:, ::64])
    places = ((found - levels[0]) / (levels[1] - levels[0])).round().clamp(0, len(levels) - 1).long()
    counts = torch.zeros(len(x), len(levels), device=x.device).scatter_add(1, places, (found > levels[0]).to(x))
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
