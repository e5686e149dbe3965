"""What the markers say about a recording as a whole, and the straight line through everything that was found."""

from __future__ import annotations

import dataclasses

import numpy as np

from revox_lightning.capture.findings import Finding, fatal, warning
from revox_lightning.capture.layout import Layout
from revox_lightning.capture.markers import Timeline
from revox_lightning.capture.stretch import Stretch

_SPEEDS = {2.0: "half", 0.5: "double", 4.0: "a quarter of the", 0.25: "four times the"}
_RATES_HZ = (22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
_SPEED_FATAL, _SPEED_WARNED = 0.03, 0.003
_STEP_SECONDS = 0.05
_JUMP_SECONDS, _JUMP_SHARE = 0.1, 0.005  # the delay of no transport wanders so far between two markers
_SIGNIFICANT = 3.0  # a trend counts when it moves the delay by more than so many standard deviations of the rest


def judge_speed(ratio: float, sample_rate_hz: int, name: str) -> list[Finding]:
    """A recording that lasts `ratio` times as long as it should."""
    if abs(ratio - 1) <= _SPEED_WARNED:
        return []
    for usual, words in _SPEEDS.items():
        if abs(ratio / usual - 1) < 0.06:
            return [
                fatal(
                    "speed",
                    f"{name} plays at {words} speed (it lasts {ratio:.2f} times as long as it should): record and "
                    "replay at one speed, 7.5 ips or 15 ips, not one at each.",
                )
            ]
    for rate_hz in _RATES_HZ:
        if rate_hz != sample_rate_hz and abs(ratio * sample_rate_hz / rate_hz - 1) < 0.002:
            return [
                fatal(
                    "sample_rate",
                    f"{name} was recorded at about {rate_hz} Hz and says {sample_rate_hz} Hz: record it again with "
                    f"interface and program at {sample_rate_hz} Hz.",
                )
            ]
    change = 100 * (1 / ratio - 1)
    if abs(ratio - 1) > _SPEED_FATAL:
        return [fatal("speed", f"{name} plays {change:+.1f} % off speed: mend the machine's speed and record again.")]
    return [warning("speed", f"{name} plays {change:+.2f} % off speed, which is taken out.")]


def judge_timeline(timeline: Timeline | None, layout: Layout, frames: int, name: str) -> list[Finding]:
    """Another recording, another speed, or a part missing at its beginning or end."""
    if timeline is None:
        return [
            fatal(
                "another_recording",
                f"{name} holds none of the test tape's markers: it is another recording, or of another test tape.",
            )
        ]
    found = judge_speed(timeline.ratio, layout.sample_rate_hz, name)
    if any(finding.severity == "fatal" for finding in found):
        return found
    starts = np.array([section.start for section in layout.of("marker")])
    places = timeline.at(starts)
    inside = (places >= 0) & (places + 0.5 * layout.sample_rate_hz <= frames)
    end = float(timeline.at(layout.sections[-1].stop))
    if len(timeline.tape) < max(2, 0.5 * inside.sum()):
        found.append(
            fatal(
                "another_recording",
                f"{name} holds {len(timeline.tape)} of the test tape's {timeline.wanted} markers where they should be: "
                "it is another recording, or was cut after it was made.",
            )
        )
    elif end > frames + 0.05 * layout.sample_rate_hz:
        reached = [section.name for section in layout.sections if timeline.at(section.start) < frames][-1]
        found.append(
            fatal(
                "shorter",
                f"{name} is shorter than the test tape: it ends in section {reached}, "
                f"{(end - frames) / layout.sample_rate_hz:.1f} s early; record the tape to its end in one go.",
            )
        )
    elif float(timeline.at(layout.sections[0].start)) < -0.05 * layout.sample_rate_hz:
        missing = -float(timeline.at(layout.sections[0].start)) / layout.sample_rate_hz
        found.append(
            fatal("shorter", f"{name} starts {missing:.1f} s after the test tape did: record the tape from its start.")
        )
    elif (jump := _jump(timeline, layout, name)) is not None:
        found = [jump]
    elif len(timeline.tape) < timeline.wanted:
        lost = timeline.wanted - len(timeline.tape)
        found.append(warning("markers", f"{lost} of {timeline.wanted} markers are spoilt: {name} has dropouts."))
    return found


def _jump(timeline: Timeline, layout: Layout, name: str) -> Finding | None:
    """A stretch between two markers that is too long or too short for any transport."""
    tape, came = np.diff(timeline.tape), np.diff(timeline.recorded)
    usual = float(np.median(came / tape))
    excess = (came - usual * tape) / layout.sample_rate_hz
    at = int(np.argmax(np.abs(excess)))
    if abs(excess[at]) < max(_JUMP_SECONDS, _JUMP_SHARE * tape[at] / layout.sample_rate_hz):
        return None
    first, last = (timeline.tape[n] / layout.sample_rate_hz for n in (at, at + 1))
    return fatal(
        "jump",
        f"{abs(excess[at]):.2f} s {'are missing from' if excess[at] < 0 else 'were put into'} {name} between "
        f"{first:.0f} and {last:.0f} s of the tape (a cut, or a buffer that ran empty): record it again in one go.",
    )


@dataclasses.dataclass(frozen=True)
class Line:
    """`recorded = start + ratio * tape` in samples, as far as a straight line explains it.

    `ratio_ppm` is how much longer the recording is, `ratio_error_ppm` its standard error from the wander's size;
    where the trend drowns in the wander (`trend` false) the ratio is 1.
    """

    start: float
    ratio: float
    ratio_ppm: float
    ratio_error_ppm: float
    trend: bool
    wander_std_samples: float


def line_through(stretches: list[Stretch], sample_rate_hz: float) -> Line:
    """The straight line through the positions of all stretches."""
    tape, recorded = [], []
    for stretch in stretches:
        k = np.arange(0, stretch.samples, round(_STEP_SECONDS * sample_rate_hz))
        tape.append(k + stretch.tape_start)
        recorded.append(stretch.positions(k))
    t, p = np.concatenate(tape).astype(np.float64), np.concatenate(recorded)
    centre = t.mean()
    slope, _ = np.polyfit(t - centre, p - t, 1)
    rest = p - t - slope * (t - centre)
    wander = float(np.std(rest))
    span = t.max() - t.min()
    # neighbouring points wander together: one in half a second counts
    independent = max(len(t) * _STEP_SECONDS / 0.5, 3)
    error = wander / (np.std(t) * np.sqrt(independent)) if span else 0.0
    trend = abs(slope) * span > _SIGNIFICANT * max(wander, 0.02)
    ratio = 1 + float(slope) if trend else 1.0
    start = float(np.mean(p - ratio * t))
    return Line(start, ratio, 1e6 * float(slope), 1e6 * float(error), bool(trend), wander)
