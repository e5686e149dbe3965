"""The summary of a listening test: a page of Markdown, tables as CSV, and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from revox_lightning.files import write_atomically
from revox_lightning.report import ratings
from revox_lightning.report.ratings import Listener, Rating, Score, Session

_COLOURS = {"reference": "#267a2b", "system": "#0b6bbf"}  # anchors are grey


def summarise(place: Path, out: Path) -> tuple[str, list[str], list[Path]]:
    """Reads results and writes their summary into a folder: the text, notes, and what was written.

    Raises UserError as ``ratings.read`` does.
    """
    sessions, notes = ratings.read(place)
    text, files = _mushra(sessions) if sessions[0].kind == "mushra" else _abx(sessions)
    if notes:
        text += "\nPassed over:\n\n" + "".join(f"- {_plain(note)}\n" for note in notes)
    files = {"summary.md": text.encode(errors="backslashreplace")} | files
    for name, content in files.items():
        write_atomically(out / name, lambda file, content=content: file.write(content))
    return text, notes, [out / name for name in files]


def _mushra(sessions: Sequence[Session]) -> tuple[str, dict[str, bytes]]:
    rated: list[Rating] = [rating for session in sessions for rating in session.answers]
    people = ratings.listeners(rated)
    apart = {person.name for person in people if person.apart}
    found = ratings.scores([rating for rating in rated if rating.listener not in apart])
    excerpts = len({rating.excerpt for rating in rated})
    lines = [
        f"# MUSHRA, page {sessions[0].page}",
        f"{_many(len(people) - len(apart), 'listener')} in the figures, {len(apart)} set apart; "
        f"{_many(excerpts, 'excerpt')}.",
    ]
    if found:
        header = ("condition", "kind", "mean", "95 % interval", "median", "listeners")
        rows = [(s.name, s.kind, f"{s.mean:.1f}", _interval(s), f"{s.median:.1f}", s.listeners) for s in found]
        lines += [
            _table(header, rows),
            "Each listener's ratings are averaged over excerpts (repetitions of an excerpt first); mean and median are "
            "of these averages, and the interval is Student's t over them: it speaks of other listeners, not of other "
            "excerpts. Overlapping intervals do not show that two systems are equal.",
        ]
    else:
        lines.append("No listener is left, so there are no figures.")
    lines += ["## Listeners", _table(*_people(people))]
    lines.append(
        "Set apart (ITU-R BS.1534-3, section 4.1.2): who rates the hidden reference under 90 in more than 15 % of the "
        "trials. Inconsistency: mean difference, in points, between the two ratings of a repeated trial."
    )
    files = {"summary.csv": _scores_csv(found), "ratings.csv": _ratings_csv(rated, apart)}
    if found:
        files["ratings.png"] = _picture(found)
        lines.append("![ratings](ratings.png)")
    return "\n\n".join(lines) + "\n", files


def _interval(score: Score) -> str:
    if score.half_width is None:
        return "-"
    # A mean near an end of the scale has an interval that would leave it.
    low, high = max(score.mean - score.half_width, 0), min(score.mean + score.half_width, 100)
    return f"{low:.1f} to {high:.1f}"


def _people(people: Sequence[Listener]) -> tuple[Sequence[str], list[Sequence[Any]]]:
    rows: list[Sequence[Any]] = [
        (
            one.name, one.trials, one.missed, "-" if one.inconsistency is None else f"{one.inconsistency:.1f}",
            "yes" if one.apart else "no",
        )
        for one in people
    ]  # fmt: skip
    return ("listener", "trials", "references under 90", "inconsistency", "set apart"), rows


def _scores_csv(found: Sequence[Score]) -> bytes:
    header = ("condition", "kind", "mean", "half_width_95", "median", "listeners")
    return _csv(header, [(s.name, s.kind, s.mean, s.half_width, s.median, s.listeners) for s in found])


def _ratings_csv(rated: Sequence[Rating], apart: set[str]) -> bytes:
    header = (*Rating._fields, "set_apart")
    return _csv(header, [(*rating, rating.listener in apart) for rating in rated])


def _abx(sessions: Sequence[Session]) -> tuple[str, dict[str, bytes]]:
    answers = [answer for session in sessions for answer in session.answers]
    found = ratings.counts(answers)
    shown = {"abx": "ABX", "2afc": "which is the tape?"}
    rows = [
        (
            one.system, shown[one.mode], one.listener or "**all**", f"{one.correct}/{one.total}", f"{one.p:.3g}",
            f"{100 * one.low:.0f} to {100 * one.high:.0f} %",
        )
        for one in found
    ]  # fmt: skip
    people = len({answer.listener for answer in answers})
    lines = [
        f"# ABX, page {sessions[0].page}",
        f"{_many(people, 'listener')}, {_many(len(answers), 'answer')}.",
        _table(("system", "question", "listener", "correct", "p", "95 % interval"), rows),
        "p: exact binomial test against guessing (1/2); one-sided for ABX (right more often than by chance), two-sided "
        'for "which is the real tape?" (taking the model for the tape is hearing a difference, too). The interval is '
        "Clopper and Pearson's. Answers of all listeners are counted together as if independent. A large p does not "
        "show that nobody can hear a difference; the upper end of the interval says how much could still be heard.",
    ]
    csv_rows = [one._replace(listener=one.listener or "all") for one in found]
    files = {
        "summary.csv": _csv(("system", "mode", "listener", "correct", "total", "p", "low_95", "high_95"), csv_rows),
        "answers.csv": _csv(ratings.Answer._fields, answers),
    }
    return "\n\n".join(lines) + "\n", files


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_plain(str(cell)) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text that stays one cell and no markup."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue().encode(errors="backslashreplace")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _picture(found: Sequence[Score]) -> bytes:
    """Boxes of single ratings, means with their intervals, on the scale with its five words."""
    figure = Figure(figsize=(max(6.0, 1.1 * len(found) + 2), 4.8), layout="constrained")
    ax = figure.subplots()
    for low in range(0, 100, 40):
        ax.axhspan(low, low + 20, color="#eef0f2", zorder=0)
    places = list(range(1, len(found) + 1))
    boxes = ax.boxplot(
        [score.values for score in found], positions=places, widths=0.55, patch_artist=True,
        medianprops={"color": "black"}, flierprops={"markersize": 3},
    )  # fmt: skip
    for box, score in zip(boxes["boxes"], found, strict=True):
        box.set(facecolor=_COLOURS.get(score.kind, "#8f99a2"), alpha=0.55)
    means, halves = [score.mean for score in found], [score.half_width or 0.0 for score in found]
    ax.errorbar(places, means, halves, fmt="D", color="#b4490f", capsize=4, label="mean, 95 % interval of listeners")
    names = [score.name.replace("$", r"\$") for score in found]
    ax.set_xticks(places, [name if len(name) < 25 else f"{name[:22]}..." for name in names], rotation=25, ha="right")
    ax.set(ylim=(-2, 102), xlim=(0.4, len(found) + 0.6), ylabel="rating")
    right = ax.secondary_yaxis("right")
    right.set_yticks([10, 30, 50, 70, 90], ["Bad", "Poor", "Fair", "Good", "Excellent"])
    right.tick_params(length=0)
    ax.legend(loc="lower left", frameon=False, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
