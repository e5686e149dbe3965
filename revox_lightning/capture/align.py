"""From a recording of a test tape to what it is worth and where each of its samples came from."""

from __future__ import annotations

import dataclasses

import numpy as np

from revox_lightning.capture import floor as floors
from revox_lightning.capture import gain as gains
from revox_lightning.capture import health, timing
from revox_lightning.capture.findings import Finding, stop_at_fatal
from revox_lightning.capture.floor import Floor
from revox_lightning.capture.gain import Gain
from revox_lightning.capture.layout import Layout
from revox_lightning.capture.markers import Timeline, find_markers, fit_timeline
from revox_lightning.capture.stretch import Stretch, follow, lost
from revox_lightning.capture.verdicts import judge_gains, judge_trust
from revox_lightning.errors import UserError

_EDGE_SECONDS = 0.2  # of a silent section that is left out at both ends


@dataclasses.dataclass
class Alignment:
    """Everything found: `stretches` with a `Gain` per programme channel, the line through them, and the findings.

    Levels in dBFS of a sine, per channel; None where a recording cannot tell. `timeline` is the markers' (or the
    anchors').
    """

    sample_rate_hz: int
    timeline: Timeline
    stretches: list[Stretch]
    gains: list[list[Gain]]
    line: timing.Line
    polarity: int
    findings: list[Finding]
    noise_dbfs: list[float] | None = None
    hum: list[health.Hum | None] | None = None
    leak_db: float | None = None
    floor: Floor | None = None


def align_tape(layout: Layout, tape: np.ndarray, recorded: np.ndarray, name: str) -> Alignment:
    """Aligns `recorded` with `tape`, both (channels, time) float32 at the layout's rate; `name` is for sentences.

    Raises UserError with one sentence for a recording that nothing can be learned from.
    """
    rate_hz = layout.sample_rate_hz
    findings = health.first_look(recorded, name, [True] * len(recorded))
    stop_at_fatal(findings)
    peaks = max((find_markers(channel, rate_hz) for channel in recorded), key=lambda p: float(p.likeness.sum()))
    timeline = fit_timeline(peaks, [section.start for section in layout.of("marker")], rate_hz)
    judged = timing.judge_timeline(timeline, layout, recorded.shape[1], name)
    if any(finding.name == "another_recording" for finding in judged):
        stop_at_fatal(health.overwhelming_hum(recorded, rate_hz, name))
    stop_at_fatal(judged)
    assert timeline is not None
    findings += judged
    silent = _silence(layout, timeline, recorded)
    hums = [health.hum(channel, rate_hz) for channel in silent]
    programme_dbfs = _programme_dbfs(layout, timeline, recorded)
    for found in hums:
        findings += health.judge_hum(found, programme_dbfs, name)
    stop_at_fatal(findings)  # hum in both channels would look like a leak
    leak_db = _leak(layout, timeline, recorded, name, findings)
    stop_at_fatal(findings)
    stretches = _stretches(layout, timeline, tape, recorded)
    measured = measured_gains(stretches, recorded, rate_hz)
    findings += judge_gains(stretches, measured, programme_dbfs, name) + judge_trust(stretches, rate_hz)
    stop_at_fatal(findings)
    noise = [health.mean_square(channel) for channel in silent]
    plays = [stretch for stretch in stretches if stretch.kind == "floor"]
    return Alignment(
        rate_hz, timeline, stretches, measured, timing.line_through(stretches, rate_hz), polarity(measured),
        findings, [health.level_dbfs(ms) for ms in noise], hums, leak_db,
        floors.measure(plays, recorded, noise, rate_hz),
    )  # fmt: skip


def _part(timeline: Timeline, recorded: np.ndarray, start: int, stop: int, edge: int) -> np.ndarray:
    first, last = round(float(timeline.at(start))) + edge, round(float(timeline.at(stop))) - edge
    return recorded[:, max(first, 0) : max(last, first)].astype(np.float64)


def _silence(layout: Layout, timeline: Timeline, recorded: np.ndarray) -> np.ndarray:
    """What came back of the silence without pulses, `(channels, time)`."""
    section = next(s for s in layout.of("leak") if not s.parameters["pulses"])
    return _part(timeline, recorded, section.start, section.stop, round(_EDGE_SECONDS * layout.sample_rate_hz))


def _leak(
    layout: Layout, timeline: Timeline, recorded: np.ndarray, name: str, findings: list[Finding]
) -> float | None:  # fmt: skip
    """How far under the pulses their leak into the left channel is, in dB; judges the channels on the way."""
    section = next((s for s in layout.of("leak") if s.parameters["pulses"]), None)
    if section is None:
        return None
    rate_hz = layout.sample_rate_hz
    part = _part(timeline, recorded, section.start, section.stop, round(_EDGE_SECONDS * rate_hz))
    levels = [health.level_dbfs(health.mean_square(channel)) for channel in part]
    leak_db = health.coherent_db(part[1], part[0], round(2 * rate_hz / layout.pulses_hz))
    findings += health.judge_leak(levels[0] - levels[1], leak_db, name)
    return leak_db


def _programme_dbfs(layout: Layout, timeline: Timeline, recorded: np.ndarray) -> float:
    """Mean level of the programme as it came back, in its own channel."""
    parts = [_part(timeline, recorded, s.start, s.stop, 0)[0] for s in layout.of("programme", "floor")]
    return health.level_dbfs(sum(float(np.sum(x**2)) for x in parts) / max(sum(len(x) for x in parts), 1))


def _stretches(layout: Layout, timeline: Timeline, tape: np.ndarray, recorded: np.ndarray) -> list[Stretch]:
    stretches = []
    for section in layout.of("programme", "floor"):
        first, last = (float(timeline.at(n)) for n in (section.start, section.stop))
        try:
            stretch = follow(
                section.name, section.kind, tape[:, section.start : section.stop], recorded, layout.sample_rate_hz,
                tape_start=section.start, first=first, ratio=(last - first) / (section.stop - section.start),
                pulse_channel=section.parameters["pulses"], pulses_hz=layout.pulses_hz,
            )  # fmt: skip
        except UserError as error:
            raise UserError(lost(section.name, error).sentence) from error
        stretches.append(stretch)
    return stretches


def measured_gains(stretches: list[Stretch], recorded: np.ndarray, rate_hz: int) -> list[list[Gain]]:
    return [[gains.measure(one, recorded[c], rate_hz, c) for c in one.channels] for one in stretches]


def polarity(measured: list[list[Gain]]) -> int:
    """The sign most of the programme came back with."""
    votes = sum(np.sign(gain.gain) * gain.correlation for channels in measured for gain in channels)
    return 1 if votes >= 0 else -1
