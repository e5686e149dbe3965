"""Aligns any two recordings of one programme: no markers, no layout, pulses or none."""

from __future__ import annotations

import numpy as np

from revox_lightning.capture import health, timing
from revox_lightning.capture.align import Alignment, measured_gains, polarity
from revox_lightning.capture.anchors import find_timeline, sharper
from revox_lightning.capture.findings import Finding, fatal, stop_at_fatal, warning
from revox_lightning.capture.markers import Timeline
from revox_lightning.capture.stretch import Stretch, follow
from revox_lightning.capture.verdicts import judge_gains, judge_trust
from revox_lightning.dsp.pulses import find_pulses
from revox_lightning.errors import UserError

_CREST = 6.0  # least peak over rms of a pulse train
_PAUSE_SECONDS = 0.05  # in which a machine's noise shows
_HUM_OWN_DB = 10.0  # hum stands out by so much
_RATIO_SECONDS = 60.0  # shorter files tell their ratio badly: what there is of it counts as wander


def pulse_channel(dry: np.ndarray, sample_rate_hz: float, pulses_hz: float = 100.0) -> int | None:
    """Which channel of `dry` (channels, time) is a pulse train; None where none is."""
    if len(dry) != 2:
        return None
    for channel in (1, 0):
        x = dry[channel, : round(30 * sample_rate_hz)].astype(np.float64)
        if np.abs(x).max() < _CREST * np.sqrt(np.mean(x**2)) or not x.any():
            continue
        try:
            places = find_pulses(x, sample_rate_hz, pulses_hz)
        except UserError:
            continue
        steady = np.std(np.diff(places)) < 0.002 * sample_rate_hz / pulses_hz
        if steady and len(places) > 0.9 * len(x) / sample_rate_hz * pulses_hz - 5:
            return channel
    return None


def align_pair(
    dry: np.ndarray, recorded: np.ndarray, sample_rate_hz: int, pulses: int | None, names: tuple[str, str]
) -> Alignment:
    """Aligns any two recordings of one programme, `(channels, time)` float32, of whatever lengths.

    `pulses` is the channel of a pulse train, if there is one. Raises UserError as `align_tape` does.
    """
    programme = next(c for c in range(len(dry)) if c != pulses)
    findings = health.first_look(recorded, names[1], [bool(np.abs(channel).max() > 1e-4) for channel in dry])
    stop_at_fatal(findings)
    timeline, speed = find_timeline(dry[programme], recorded[programme], sample_rate_hz)
    if timeline is None:
        findings += _not_the_same(dry, recorded, sample_rate_hz, pulses, names)
    else:
        findings += timing.judge_speed(1 / speed, sample_rate_hz, names[1])
        findings += _order(dry[programme], recorded[programme], timeline, sample_rate_hz, names)
    stop_at_fatal(findings)
    assert timeline is not None
    timeline = sharper(timeline, dry[programme], recorded[programme], sample_rate_hz)
    start, stop = _overlap(timeline, dry.shape[1], recorded.shape[1])
    first, last = (float(timeline.at(n)) for n in (start, stop))
    ratio = (last - first) / (stop - start) if stop - start > _RATIO_SECONDS * sample_rate_hz else 1.0
    try:
        stretch = follow(
            "programme", "programme", dry[:, start:stop], recorded, sample_rate_hz, tape_start=start, first=first,
            ratio=ratio, pulse_channel=pulses, pulses_hz=100.0, resolve=True,
        )  # fmt: skip
    except UserError as error:
        stop_at_fatal(_not_the_same(dry, recorded, sample_rate_hz, pulses, names))
        raise UserError(f"{names[1]} cannot be followed along {names[0]}: {error}.") from error
    measured = measured_gains([stretch], recorded, sample_rate_hz)
    hum = _hum(stretch, recorded[programme], measured[0][0].gain, sample_rate_hz)
    level = health.level_dbfs(measured[0][0].wet_mean_square)
    findings += health.judge_hum(hum, level, names[1])
    findings += judge_gains([stretch], measured, level, names[1]) + judge_trust([stretch], sample_rate_hz)
    stop_at_fatal(findings)
    line = timing.line_through([stretch], sample_rate_hz)
    return Alignment(
        sample_rate_hz, timeline, [stretch], measured, line, polarity(measured), findings, hum=[hum]
    )  # fmt: skip


def _hum(stretch: Stretch, recorded: np.ndarray, gain: float, sample_rate_hz: int) -> health.Hum | None:
    """Mains lines in the quietest second that the programme itself does not have there."""
    dry = stretch.dry[stretch.channels[0]]
    start, stop = health.quietest(dry, sample_rate_hz)
    found = health.hum(stretch.demodulated(recorded, start, stop), sample_rate_hz)
    own = health.hum(gain * dry[start:stop].astype(np.float64), sample_rate_hz)
    return None if found is None or (own is not None and own.dbfs > found.dbfs - _HUM_OWN_DB) else found


def _overlap(timeline: Timeline, dry_frames: int, wet_frames: int) -> tuple[int, int]:
    """Samples of dry that came back in the file."""
    lead = float(timeline.at(0))
    end = timeline.tape[-1] + (wet_frames - timeline.recorded[-1]) / timeline.ratio
    return max(0, int(np.ceil(-lead / timeline.ratio))), int(min(dry_frames, end))


def _not_the_same(
    dry: np.ndarray, recorded: np.ndarray, sample_rate_hz: int, pulses: int | None, names: tuple[str, str]
) -> list[Finding]:
    """Why nothing of dry is in the recording: exchanged channels, hum, or simply something else."""
    if len(recorded) == 2 and pulses is not None and pulse_channel(recorded, sample_rate_hz) == 1 - pulses:
        other = health.SIDES[1 - pulses]
        sentence = f"the pulses came back in the {other} channel of {names[1]}: exchange its channels."
        return [fatal("wrong_channel", sentence)]
    hum = health.overwhelming_hum(recorded, sample_rate_hz, names[1])
    sentence = f"{names[1]} does not hold the programme of {names[0]}: it is another recording."
    return hum or [fatal("another_recording", sentence)]


def _order(
    dry: np.ndarray, wet: np.ndarray, timeline: Timeline, sample_rate_hz: int, names: tuple[str, str]
) -> list[Finding]:
    """Whether dry and wet look exchanged: a machine is late and adds noise."""
    delay_ms = 1000 * float(timeline.at(timeline.tape[0]) - timeline.tape[0]) / sample_rate_hz
    if delay_ms > -10:
        return []
    quiet = [x[slice(*health.quietest(x, sample_rate_hz, _PAUSE_SECONDS))] for x in (dry, wet)]
    noise = [health.level_dbfs(health.mean_square(x)) for x in quiet]
    early = f"{names[1]} comes {-delay_ms:.0f} ms before {names[0]}"
    if noise[0] > noise[1] + 6:
        return [fatal("swapped", f"{early} and has less noise: the files look swapped; exchange dry= and wet=.")]
    return [warning("early", f"{early}: what it lacks of the beginning is left out.")]
