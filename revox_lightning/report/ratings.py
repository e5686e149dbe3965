"""What listeners answered: their files, read with suspicion, and the statistics of both listening tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from revox_lightning import plain_files
from revox_lightning.errors import UserError

FORMAT = "revox listening test 1"
REFERENCE_RATING = 90  # a hidden reference rated lower was not recognised: ITU-R BS.1534-3, section 4.1.2
MISSED_SHARE = 0.15  # of the trials; who misses more is set apart
CONFIDENCE = 0.95
_MOST_BYTES = 20_000_000
_KINDS = ("reference", "low_anchor", "mid_anchor", "dry", "linear", "system")
_MODES = ("abx", "2afc")


class Rating(NamedTuple):
    """One slider of a MUSHRA test; ``trial`` numbers the trials of its session."""

    listener: str
    session: str
    trial: int
    excerpt: str
    repeated: bool
    name: str
    kind: str
    value: float


class Answer(NamedTuple):
    """One answer of an ABX test; mode abx, or 2afc: "which is the real tape?"."""

    listener: str
    system: str
    mode: str
    excerpt: str
    correct: bool


class Session(NamedTuple):
    """One listener's file: ``answers`` are ratings (kind mushra) or answers (kind abx)."""

    path: Path
    kind: str
    page: str
    listener: str
    session: str
    answers: tuple[Any, ...]


class Listener(NamedTuple):
    """``missed`` of ``trials`` hidden references rated under 90; ``inconsistency``: mean difference, in points, of a
    repeated trial's ratings from the first ones, None without repetitions."""

    name: str
    trials: int
    missed: int
    inconsistency: float | None

    @property
    def apart(self) -> bool:
        """Whether post-screening sets the listener apart."""
        return self.missed > MISSED_SHARE * self.trials + 1e-9


class Score(NamedTuple):
    """A condition over listeners: mean of each one's mean, half the width of its interval (None for one listener),
    median of the listeners' means, and all single values, one an excerpt and listener."""

    name: str
    kind: str
    listeners: int
    mean: float
    half_width: float | None
    median: float
    values: np.ndarray


class Count(NamedTuple):
    """Right answers about a system, of one listener or (``listener`` empty) of all."""

    system: str
    mode: str
    listener: str
    correct: int
    total: int
    p: float
    low: float
    high: float


def read(place: Path) -> tuple[list[Session], list[str]]:
    """The sessions in a file or folder, all of one page, and notes on files that were passed over.

    Raises UserError where there is none or where they are of several pages.
    """
    if not place.exists():
        raise UserError(f"results={place} does not exist: name the file that a listener saved, or a folder of them.")
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    sessions: list[Session] = []
    notes: list[str] = []
    for path in paths:
        try:
            found = _session(path)
        except (OSError, ValueError, RecursionError) as error:
            notes.append(f"{path} is passed over: {str(error).splitlines()[0][:200].rstrip('.')}.")
            continue
        twin = next((one for one in sessions if one.session == found.session), None)
        if twin is not None:
            notes.append(f"{path} is passed over: it holds the same session as {twin.path}.")
            continue
        sessions.append(found)
    if not sessions:
        why = f" ({notes[0].rstrip('.')})" if notes else ""
        raise UserError(f"results={place} holds no result of a listening test{why}.")
    if len({(one.kind, one.page) for one in sessions}) > 1:
        other = next(one for one in sessions if (one.kind, one.page) != (sessions[0].kind, sessions[0].page))
        raise UserError(
            f"{sessions[0].path} is of page {sessions[0].page} ({sessions[0].kind}) and {other.path} of page "
            f"{other.page} ({other.kind}): keep the results of each page in a folder of their own."
        )
    return sessions, notes


def _session(path: Path) -> Session:
    """Raises ValueError, saying what is wrong, for anything but a whole result."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError("it is far too large for a result")
    try:
        content = plain_files.read_json(path, _MOST_BYTES)
    except ValueError as error:
        raise ValueError("it is not JSON, or was cut off") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("it is not the result of a listening test")
    kind, trials = content.get("kind"), content.get("trials")
    page, listener, session = (_text(content, name) for name in ("page", "listener", "session"))
    if kind not in ("mushra", "abx") or not isinstance(trials, list) or not trials:
        raise ValueError("it holds no trials")
    answers: list[Any] = []
    for i, trial in enumerate(trials):
        if not isinstance(trial, dict):
            raise ValueError(f"its trial {i + 1} is damaged")
        if kind == "mushra":
            answers += _ratings(trial, i, listener, session)
        else:
            answers.append(_answer(trial, i, listener))
    return Session(path, kind, page, listener, session, tuple(answers))


def _text(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    plain = " ".join(value.split()) if isinstance(value, str) else ""
    if not plain or len(plain) > 500 or not plain.isprintable():
        raise ValueError(f"its {name} is missing or damaged")
    return plain


def _ratings(trial: dict[str, Any], i: int, listener: str, session: str) -> list[Rating]:
    stimuli, repeated = trial.get("stimuli"), trial.get("repeated")
    if not isinstance(stimuli, list) or not isinstance(repeated, bool):
        raise ValueError(f"its trial {i + 1} is damaged")
    found = []
    for stimulus in stimuli:
        value = stimulus.get("rating") if isinstance(stimulus, dict) else None
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 100:
            raise ValueError(f"a rating of its trial {i + 1} is no number from 0 to 100")
        if stimulus.get("kind") not in _KINDS:
            raise ValueError(f"its trial {i + 1} is damaged")
        found.append(
            Rating(
                listener, session, i, _text(trial, "excerpt"), repeated, _text(stimulus, "name"), stimulus["kind"],
                float(value),
            )
        )  # fmt: skip
    if [rating.kind for rating in found].count("reference") != 1 or len({r[5:7] for r in found}) < len(found):
        raise ValueError(f"its trial {i + 1} has not one hidden reference, or a stimulus twice")
    return found


def _answer(trial: dict[str, Any], i: int, listener: str) -> Answer:
    if trial.get("mode") not in _MODES or not isinstance(trial.get("correct"), bool):
        raise ValueError(f"its trial {i + 1} is damaged")
    return Answer(listener, _text(trial, "system"), trial["mode"], _text(trial, "excerpt"), trial["correct"])


def listeners(ratings: Sequence[Rating]) -> list[Listener]:
    """Each listener with what post-screening looks at (ITU-R BS.1534-3, section 4.1.2), over all trials."""
    found = []
    for name in dict.fromkeys(rating.listener for rating in ratings):
        own = [rating for rating in ratings if rating.listener == name]
        hidden = [rating.value for rating in own if rating.kind == "reference"]
        first = {(r.session, r.excerpt, r.name, r.kind): r.value for r in own if not r.repeated}
        again = [(r.value, first.get((r.session, r.excerpt, r.name, r.kind))) for r in own if r.repeated]
        differences = [abs(value - before) for value, before in again if before is not None]
        inconsistency = float(np.mean(differences)) if differences else None
        found.append(Listener(name, len(hidden), sum(v < REFERENCE_RATING for v in hidden), inconsistency))
    return found


def scores(ratings: Sequence[Rating]) -> list[Score]:
    """Each condition over the listeners, best first.

    A listener's repeated ratings of an excerpt are averaged, then the excerpts: one mean a listener. The interval is
    Student's t over those means, mean +- t(0.975, n - 1) s / sqrt(n): listeners are drawn, excerpts are as they are.
    """
    found = []
    for kind, name in dict.fromkeys((rating.kind, rating.name) for rating in ratings):
        by_excerpt: dict[str, dict[str, list[float]]] = {}
        for r in ratings:
            if (r.kind, r.name) == (kind, name):
                by_excerpt.setdefault(r.listener, {}).setdefault(r.excerpt, []).append(r.value)
        single = [[float(np.mean(values)) for values in one.values()] for one in by_excerpt.values()]
        means = np.array([np.mean(values) for values in single])
        half = t_half_width(means) if len(means) > 1 else None
        values = np.array([value for one in single for value in one])
        found.append(Score(name, kind, len(means), float(means.mean()), half, float(np.median(means)), values))
    return sorted(found, key=lambda score: -score.mean)


def t_half_width(means: np.ndarray) -> float:
    """Half the 95 % interval of a mean from n > 1 independent values.

    >>> round(t_half_width(np.array([60.0, 70.0, 80.0])), 3)
    24.841
    """
    quantile = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(means) - 1))
    return quantile * float(means.std(ddof=1)) / math.sqrt(len(means))


def counts(answers: Sequence[Answer]) -> list[Count]:
    """Right answers about each system, all listeners together and then each, with exact binomial tests of 1/2.

    abx: one-sided, for who hears a difference is right more often. 2afc: two-sided, for who takes the model for the
    tape hears a difference too. ``low`` and ``high``: 95 % interval of Clopper and Pearson (Biometrika 26, 1934).
    """
    found = []
    for system, mode in dict.fromkeys((answer.system, answer.mode) for answer in answers):
        own = [answer for answer in answers if (answer.system, answer.mode) == (system, mode)]
        for listener in ("", *dict.fromkeys(answer.listener for answer in own)):
            right = [answer.correct for answer in own if listener in ("", answer.listener)]
            test = scipy.stats.binomtest(sum(right), len(right), 0.5, "greater" if mode == "abx" else "two-sided")
            both = scipy.stats.binomtest(sum(right), len(right), 0.5).proportion_ci(CONFIDENCE, "exact")
            low, high = float(both.low), float(both.high)
            found.append(Count(system, mode, listener, sum(right), len(right), float(test.pvalue), low, high))
    return found
