"""Where an ensemble disagrees most, over the knobs (Grötschla et al., "PANAMA", ISMIR 2025)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from revox_lightning.active.knobs import Knob, combinations
from revox_lightning.errors import UserError
from revox_lightning.models.contract import Net

log = logging.getLogger(__name__)

ACQUISITIONS = ("variance", "relative")
_LR = 0.02  # as published
_AT_ONCE_SAMPLES = 1 << 19  # of all candidates together: the nets' gradients need memory for each
_NEAR = 0.1  # of the range of a knob: what is nearer than this is one place


@dataclass(frozen=True)
class Candidate:
    """A place of the knobs, controls from 0 to 1, and how much the ensemble disagrees there."""

    controls: tuple[float, ...]
    score: float


def disagreement(nets: Sequence[Net], x: Tensor, controls: Tensor, acquisition: str = "variance") -> Tensor:
    """How much nets disagree at each of some settings.

    x (pieces, 1, time), controls (settings, knobs) -> (settings,): the unbiased variance over the nets, mean over time
    and pieces; "relative" divides it by the energy of their mean, which does not favour loud settings. Raises UserError
    for another acquisition.
    """
    if acquisition not in ACQUISITIONS:
        raise UserError(f"acquisition={acquisition}: choose one of {', '.join(ACQUISITIONS)}.")
    settings, pieces = len(controls), len(x)
    everywhere = controls.repeat_interleave(pieces, 0)
    y = torch.stack([net(x.repeat(settings, 1, 1), everywhere)[0] for net in nets])
    y = y.reshape(len(nets), settings, -1)
    variance = y.var(0).mean(-1)
    return variance if acquisition == "variance" else variance / (y.mean(0).square().mean(-1) + 1e-8)


def climb(
    nets: Sequence[Net],
    x: Tensor,
    knobs: Sequence[Knob],
    restarts: int = 10,
    steps: int = 250,
    acquisition: str = "variance",
    seed: int = 0,
) -> list[Candidate]:
    """Settings to which the gradient of the disagreement leads, ``restarts`` for each combination of the switches.

    x (pieces, 1, time). Continuous knobs are the sigmoid of what climbs (Adam), from a normal distribution; without
    any, each combination is scored as it is. The nets' weights need no gradient afterwards.
    """
    turning = [n for n, knob in enumerate(knobs) if not knob.positions]
    switched = [n for n, knob in enumerate(knobs) if knob.positions]
    random = torch.Generator().manual_seed(seed)
    starts, stands = [], []
    for combination in combinations(knobs):
        starts.append(torch.randn(restarts if turning else 1, len(turning), generator=random))
        stands.append(torch.tensor(combination).float().expand(len(starts[-1]), -1))
    at_once = max(_AT_ONCE_SAMPLES // x[:, 0].numel(), 1)
    found = []
    jobs = list(zip(torch.cat(starts).split(at_once), torch.cat(stands).split(at_once), strict=True))
    for parameter in (p for net in nets for p in net.parameters()):
        parameter.requires_grad_(False)
    for number, (start, stand) in enumerate(jobs, 1):

        def placed(latent: Tensor, stand: Tensor = stand) -> Tensor:
            controls = torch.cat([stand, torch.sigmoid(latent)], 1)
            return controls[:, np.argsort(switched + turning).tolist()]

        latent = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([latent], _LR)
        for step in range(steps if turning else 0):
            optimizer.zero_grad()
            score = disagreement(nets, x, placed(latent), acquisition)
            (-score.sum()).backward()
            optimizer.step()
            if step % 50 == 0:
                log.info("climbing %d of %d: step %d of %d, up to %.3g", number, len(jobs), step, steps, score.max())
        with torch.no_grad():
            controls = placed(latent)
            score = disagreement(nets, x, controls, acquisition)
        found += [Candidate(tuple(c), float(s)) for c, s in zip(controls.tolist(), score, strict=True)]
    return found


def choose(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best of each cluster of candidates, at most ``count`` of them, the best first.

    Published is HDBSCAN, which keeps what belongs to no cluster; single linkage at a distance does the same.
    """
    if len(candidates) < 2:
        return list(candidates)[:count]
    places = np.array([candidate.controls for candidate in candidates])
    clusters = fcluster(linkage(places, "single"), _NEAR, "distance")
    best: dict[int, Candidate] = {}
    for cluster, candidate in zip(clusters.tolist(), candidates, strict=True):
        if cluster not in best or candidate.score > best[cluster].score:
            best[cluster] = candidate
    return sorted(best.values(), key=lambda candidate: -candidate.score)[:count]
