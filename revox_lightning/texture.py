"""The texture of one recording on the content of another, by optimisation (Grinstein et al., ICASSP 2018).

The signal itself is what is optimised, from the content on, until its statistics are those of the style. Long audio
goes window by window; neighbouring windows overlap and are crossfaded.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from revox_lightning.dsp import texture as ear
from revox_lightning.dsp.windows import extended, joined, windows
from revox_lightning.errors import UserError
from revox_lightning.files import write_atomically
from revox_lightning.models import textures

log = logging.getLogger(__name__)

STYLE_SECONDS = 30.0  # of the style that are measured
SHORTEST_SECONDS = 1.0
_OVERLAP_SECONDS = 1.0
_CONTENT_WEIGHT = 4.0  # speech in hiss keeps a correlation of 0.9, by the style alone 0.6 (docs/texture.md)
_DITHER_DB = -70.0  # noise under the content, so that nothing is silent: silence has no gradient
_LBFGS = {"lr": 1.0, "history_size": 10, "line_search_fn": "strong_wolfe", "tolerance_grad": 0, "tolerance_change": 0}
_CHUNK = 10  # iterations between looks at the clock
_TOLD_SECONDS = 10.0


TEXTURES = {"mcdermott": textures.Ear, "shallow_random": textures.Network}


@dataclass(frozen=True)
class Options:
    """What is imposed and how long; ``seconds`` limits all windows together, ``iterations`` each of them.

    ``content_weight`` adds the squared distance to the content, relative to its energy, to the style's loss; published
    is 0. None is 4 where texture=mcdermott starts from the content, as the style alone lets go of it, and else 0.
    ``bands`` belong to texture=mcdermott, ``filters`` to texture=shallow_random.
    """

    texture: str = "mcdermott"
    iterations: int = 300
    seconds: float = 240.0
    content_weight: float | None = None
    start: str = "content"
    seed: int = 0
    window_seconds: float = 10.0
    bands: int = 32
    filters: int = 4096

    @property
    def weight(self) -> float:
        """The content's weight in the loss."""
        if self.content_weight is not None:
            return self.content_weight
        return _CONTENT_WEIGHT if (self.texture, self.start) == ("mcdermott", "content") else 0.0

    @property
    def rate_hz(self) -> int:
        """The rate at which it works."""
        return TEXTURES[self.texture].rate_hz


@dataclass(frozen=True)
class Outcome:
    """Audio (time,) at the level of the content; what it began from; iterations of each window; whether all is done."""

    audio: Tensor
    start: Tensor
    iterations: list[int]
    finished: bool
    loss: tuple[float, float]  # before and after, the mean of the windows


def _problem(style: Tensor, samples: int, options: Options) -> textures.Ear | textures.Network:
    if options.texture == "mcdermott":
        return textures.Ear(style, samples, options.bands, options.weight)
    return textures.Network(style, samples, options.filters, options.seed, options.weight)


def transfer(
    content: Tensor,
    style: Tensor,
    options: Options,
    state: Path | None = None,
    tell: Callable[[str], object] = log.info,
) -> Outcome:
    """Content and style (time,) at ``options.rate_hz`` to audio that keeps the one and has the statistics of the other.

    ``state`` names a file in which the windows stand as they are: after a stop or at the time limit the same call goes
    on from there (with a new memory of curvature); it is gone when all is done. Raises UserError for audio that is
    silent or shorter than a second.
    """
    problem_of = TEXTURES[options.texture]
    level = _checked(style, "style", options.rate_hz)
    if options.start == "content":  # from noise on it takes nothing but its length from the content
        level = _checked(content, "content", options.rate_hz)
    longest, overlap = (round(seconds * options.rate_hz) for seconds in (options.window_seconds, _OVERLAP_SECONDS))
    size, starts = windows(len(content), longest, overlap, ear.STEP_SAMPLES)
    style = style[: round(STYLE_SECONDS * options.rate_hz)]
    problem = _problem(style * (problem_of.rms / _rms(style)), size, options)
    gain = problem.rms / level
    x = extended(content * gain, size)
    begun = _begun(x, problem.rms, options)
    pieces = [(begun[at : at + size], x[at : at + size]) for at in starts]
    work = _Work.load(state, [problem.begin(piece) for piece, _ in pieces], _fingerprint(content, style, options))
    run = _Run(options, state, tell)
    losses = [_minimised(problem, *piece, i, work, run) for i, piece in enumerate(pieces)]
    finished = all(work.finished(i, options.iterations) for i in range(len(pieces)))
    if state is not None and finished:
        state.unlink(missing_ok=True)
    with torch.no_grad():
        made = [problem.audio(z, piece[1] if options.start == "content" else piece[0])
                for z, piece in zip(work.z, pieces, strict=True)]  # fmt: skip
    audio = joined(made, starts)[: len(content)] / gain
    before, after = (sum(part) / len(losses) for part in zip(*losses, strict=True))
    return Outcome(audio, begun[: len(content)] / gain, work.iterations, finished, (before, after))


def measured(x: Tensor, style: Tensor, bands: int, window_seconds: float) -> dict[str, float]:
    """Of every class of statistics of x (time,) at 20 kHz the squared error relative to the style's, over windows."""
    size, starts = windows(len(x), round(window_seconds * ear.RATE_HZ), ear.RATE_HZ, ear.STEP_SAMPLES)
    wanted = textures.style_statistics(style * (ear.RMS / _rms(style)), size, bands)
    long, of = extended(x * (ear.RMS / max(_rms(x), 1e-9)), size), ear.Statistics(size, bands)
    with torch.no_grad():
        found = [ear.errors(of(long[None, at : at + size]), wanted) for at in starts]
    return {name: sum(float(one[name]) for one in found) / len(found) for name in wanted}


def _checked(x: Tensor, what: str, rate_hz: int) -> float:
    """Its RMS."""
    if len(x) < SHORTEST_SECONDS * rate_hz:
        raise UserError(f"the {what} is {len(x) / rate_hz:.2f} s long: give at least {SHORTEST_SECONDS:.0f} s.")
    level = _rms(x)
    if level < 1e-6:
        raise UserError(f"the {what} is silent: there is nothing in it to transfer.")
    return level


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def _begun(x: Tensor, rms: float, options: Options) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(options.seed)) * rms
    return noise if options.start == "noise" else x + noise * 10 ** (_DITHER_DB / 20)


def _fingerprint(content: Tensor, style: Tensor, options: Options) -> str:
    """Of all that decides what is optimised, apart from how long."""
    told = asdict(options) | {"content_weight": options.weight}
    told = {name: value for name, value in told.items() if name not in ("iterations", "seconds")}
    digest = hashlib.sha256(repr(sorted(told.items())).encode())
    for signal in (content, style):
        digest.update(signal.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass
class _Work:
    """The windows as they stand; ``settled`` are those that no longer get better."""

    fingerprint: str
    z: list[Tensor]
    iterations: list[int]
    settled: list[bool]

    @classmethod
    def load(cls, state: Path | None, begun: list[Tensor], fingerprint: str) -> _Work:
        """What a file holds, or the beginning where there is none or it belongs to another transfer."""
        fresh = cls(fingerprint, begun, [0] * len(begun), [False] * len(begun))
        if state is None or not state.is_file():
            return fresh
        try:
            kept = cls(**torch.load(state, weights_only=True))
        except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s): it starts anew", state, str(error).splitlines()[0])
            return fresh
        if kept.fingerprint != fingerprint:
            log.warning("%s belongs to a transfer of other audio or options: it starts anew", state)
            return fresh
        log.info("going on from %s, after %s iterations", state, ", ".join(map(str, kept.iterations)))
        return kept

    def save(self, state: Path | None) -> None:
        if state is not None:
            write_atomically(state, lambda file: torch.save(vars(self), file))

    def finished(self, window: int, iterations: int) -> bool:
        return self.settled[window] or self.iterations[window] >= iterations


class _Run:
    """One call: its clock, its file and whom it tells."""

    def __init__(self, options: Options, state: Path | None, tell: Callable[[str], object]) -> None:
        self.options, self.state, self.tell = options, state, tell
        self._end = time.monotonic() + options.seconds
        self._told = time.monotonic()

    def share(self, windows_left: int) -> float:
        """When the next of so many windows has to end: all get the same part of what is left."""
        now = time.monotonic()
        return now + max(self._end - now, 0.0) / windows_left

    def due(self) -> bool:
        """Whether it is time to save and to say something."""
        if time.monotonic() - self._told < _TOLD_SECONDS:
            return False
        self._told = time.monotonic()
        return True


def _minimised(
    problem: textures.Problem, begun: Tensor, content: Tensor, window: int, work: _Work, run: _Run
) -> tuple[float, float]:
    """Moves one window by L-BFGS (Liu & Nocedal, 1989) with a strong Wolfe line search; its loss before and after."""
    aim, count = problem.aim(content), len(work.z)
    began = time.monotonic()
    with torch.no_grad():
        before = float(problem.loss(problem.begin(begun), aim))
        after = float(problem.loss(work.z[window], aim))
    end = run.share(sum(not work.finished(i, run.options.iterations) for i in range(window, count)) or 1)
    pace = max(2 * (time.monotonic() - began), 1e-6)  # seconds an iteration: two losses, and both with gradients
    z = work.z[window].clone().requires_grad_()
    optimiser: Any = None
    while not work.finished(window, run.options.iterations) and time.monotonic() < end:
        in_time = int((end - time.monotonic()) / pace)
        steps = max(min(_CHUNK, run.options.iterations - work.iterations[window], in_time), 1)
        began = time.monotonic()
        optimiser = optimiser or torch.optim.LBFGS([z], **_LBFGS)
        optimiser.param_groups[0].update(max_iter=steps, max_eval=2 * steps)
        done = optimiser.state[z].get("n_iter", 0)
        optimiser.step(_closure(problem, z, aim, optimiser))
        done = optimiser.state[z]["n_iter"] - done
        pace = (time.monotonic() - began) / max(done, 1)
        with torch.no_grad():
            loss = float(problem.loss(z, aim))
        if loss < after:
            after, work.z[window] = loss, z.detach().clone()
        else:  # where single precision ends the line search; a new memory of curvature may help once
            work.settled[window] = optimiser.state[z]["n_iter"] == done
            optimiser, z = None, work.z[window].clone().requires_grad_()
        work.iterations[window] += max(done, 1)
        if run.due():
            run.tell(
                f"window {window + 1} of {count}, iteration {work.iterations[window]}: loss {before:.3g} to {after:.3g}"
            )
            work.save(run.state)
    work.save(run.state)
    return before, after


def _closure(problem: textures.Problem, z: Tensor, aim: Any, optimiser: Any) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = problem.loss(z, aim)
        loss.backward()
        return loss

    return closure
