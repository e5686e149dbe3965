"""How near one recording is to the production style of another: the figures of DeepAFx-ST, and a linear probe.

C. J. Steinmetz, N. J. Bryan, J. D. Reiss, "Style transfer of audio effects with differentiable signal processing",
JAES 70(9), 2022, sections 4.2 and 4.5. Audio is (channels, time); what cannot be told is None and enters no mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from revox_lightning.dsp.loudness import Loudness
from revox_lightning.dsp.resampling import resample
from revox_lightning.errors import UserError
from revox_lightning.measure import style_spectra

PESQ_RATE_HZ = 16_000
_LEAST_LEVEL = 1e-8  # of a root mean square that is heard
_NATURAL = math.log(10)  # a published "dB" was 20 natural logs


def style_metrics(
    y_hat: Tensor,
    y: Tensor,
    sample_rate_hz: int,
    pesq: bool = False,
    limit_hz: float | None = None,
    paper_exact: bool = False,
) -> dict[str, float | None]:
    """Distances of an estimate from its target, both (channels, time); all but PESQ are 0 where they are equal.

    `pesq`, `stft_distance`, `mel_distance`, `spectral_centroid_error_hz`, `crest_factor_error_db`, `rms_error_db` and
    `lufs_error_db`, the last four without sign. PESQ (1 to 4.64, more is better) is for speech and needs the extra
    `style`. Spectra count up to `limit_hz`, for material that ends there. `paper_exact` adds the published level
    errors, 20 natural logs: 2.303 times the true dB. None where silence or too short a signal leaves nothing to say.
    Raises ValueError for signals of different shapes, UserError where PESQ is wanted but not installed.

    >>> found = style_metrics(0.5 * torch.ones(1, 9000), torch.ones(1, 9000), 8000)
    >>> round(found["rms_error_db"], 2), found["mel_distance"]
    (6.02, None)
    """
    if y_hat.shape != y.shape or y.ndim != 2:
        raise ValueError(
            f"expected estimate and target of one shape (channels, time), got {tuple(y_hat.shape)} and {tuple(y.shape)}"
        )
    y_hat, y = y_hat.detach().float().cpu(), y.detach().float().cpu()
    found: dict[str, float | None] = {"pesq": pesq_score(y_hat, y, sample_rate_hz)} if pesq else {}
    found["stft_distance"] = _where_it_fits(style_spectra.stft_distance, y_hat, y, sample_rate_hz, limit_hz)
    found["mel_distance"] = _where_it_fits(style_spectra.mel_distance, y_hat, y, sample_rate_hz, limit_hz)
    centroid_hz = partial(style_spectra.spectral_centroid_hz, sample_rate_hz=sample_rate_hz, limit_hz=limit_hz)
    crest, level = _apart(crest_factor_db, y_hat, y), _apart(rms_db, y_hat, y)
    found |= {
        "spectral_centroid_error_hz": _apart(centroid_hz, y_hat, y),
        "crest_factor_error_db": crest,
        "rms_error_db": level,
        "lufs_error_db": _apart(partial(lufs, sample_rate_hz=sample_rate_hz), y_hat, y),
    }
    if paper_exact:
        found["crest_factor_error_published"] = None if crest is None else crest * _NATURAL
        found["rms_error_published"] = None if level is None else level * _NATURAL
    return found


def mean_scores(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every figure over the rows that have it; None where none has.

    >>> mean_scores([{"pesq": 4.0}, {"pesq": None}])
    {'pesq': 4.0}
    """
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        told = [value for row in rows if (value := row.get(name)) is not None]
        means[name] = sum(told) / len(told) if told else None
    return means


def crest_factor_db(x: Tensor) -> float | None:
    """Peak over root mean square of x (channels, time), all channels together; None for silence."""
    level = _rms(x)
    return 20 * math.log10(x.abs().max().item() / level) if level > _LEAST_LEVEL else None


def rms_db(x: Tensor) -> float | None:
    """Root mean square of x (channels, time) re full scale, all channels together; None for silence."""
    level = _rms(x)
    return 20 * math.log10(level) if level > _LEAST_LEVEL else None


def lufs(x: Tensor, sample_rate_hz: int) -> float | None:
    """Integrated loudness of x (channels, time); None under 400 ms and for silence (ITU-R BS.1770-4)."""
    meter = Loudness(sample_rate_hz, x.shape[0])
    meter.update(x.numpy())
    return None if math.isnan(meter.lufs) else meter.lufs


def pesq_score(y_hat: Tensor, y: Tensor, sample_rate_hz: int) -> float | None:
    """Wide-band PESQ of speech, mixed to mono, at 16 kHz (ITU-T P.862.2); None where it finds no utterance.

    Raises UserError where the package is missing.
    """
    try:
        import pesq  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("PESQ needs a package: pip install 'revox_lightning[style]', or leave PESQ out") from error
    mono_hat, mono = (x.mean(0, keepdim=True) for x in (y_hat, y))
    if mono.numel() == 0 or min(_rms(mono_hat), _rms(mono)) <= _LEAST_LEVEL:
        return None
    spoken = [resample(x, sample_rate_hz, PESQ_RATE_HZ)[0].numpy() for x in (mono, mono_hat)]
    if spoken[0].size < PESQ_RATE_HZ // 4:  # less than it can be asked of: it would read past the end
        return None
    score = float(pesq.pesq(PESQ_RATE_HZ, spoken[0], spoken[1], "wb", on_error=pesq.PesqError.RETURN_VALUES))
    return score if score > 0 else None  # a failure is -1


def probe_accuracy(
    features: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor, weight_decay: float = 1e-3
) -> float:
    """Share of held-out features (n, d) whose label (n,) a linear classifier of the others names (section 4.5).

    Multinomial logistic regression on features of zero mean and unit variance, to its one optimum by L-BFGS in double
    precision. Raises ValueError for features and labels that do not fit together, UserError for fewer than two styles.
    """
    for part, names in ((features, labels), (held_out, held_out_labels)):
        if part.ndim != 2 or len(part) == 0 or names.shape != part.shape[:1] or part.shape[1] != features.shape[1]:
            raise ValueError(f"expected features (n, d) and labels (n,), got {tuple(part.shape)}, {tuple(names.shape)}")
    styles = labels.unique()
    if len(styles) < 2:
        raise UserError(f"a style probe needs examples of two styles or more, got {len(styles)}: add another style")
    mean, spread = features.double().mean(0), features.double().std(0).clamp(min=1e-12)
    x, asked = ((part.double() - mean) / spread for part in (features, held_out))
    weights = _classifier(x, torch.searchsorted(styles, labels), len(styles), weight_decay)
    chosen = styles[(asked @ weights[:-1] + weights[-1]).argmax(1)]
    return (chosen == held_out_labels).double().mean().item()


def _classifier(x: Tensor, classes: Tensor, number: int, weight_decay: float) -> Tensor:
    """Weights (d + 1, number), the bias last."""
    weights = torch.zeros(x.shape[1] + 1, number, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(x @ weights[:-1] + weights[-1], classes)
        loss = loss + weight_decay * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return weights.detach()


def _rms(x: Tensor) -> float:
    return math.sqrt(x.double().square().mean().item()) if x.numel() else 0.0


def _where_it_fits(
    distance: Any, y_hat: Tensor, y: Tensor, sample_rate_hz: int, limit_hz: float | None
) -> float | None:
    """A distance; None for a signal too short for its windows."""
    try:
        return distance(y_hat, y, sample_rate_hz, limit_hz).item()
    except UserError:
        return None


def _apart(measure: Any, y_hat: Tensor, y: Tensor) -> float | None:
    """Distance of one figure of two signals; None where either has none."""
    found = [measure(x) for x in (y_hat, y)]
    return None if None in found else abs(found[0] - found[1])
