"""Judgements on programme whose timing is known: polarity, level, gain drift, dropouts, bandwidth, trust."""

from __future__ import annotations

import numpy as np

from revox_lightning.capture.findings import Finding, fatal, note, warning
from revox_lightning.capture.gain import Gain
from revox_lightning.capture.stretch import Stretch
from revox_lightning.dsp.tracking import CONFIDENCE_THRESHOLD

_LOW_DBFS = -45.0
_DRIFT_DB, _APART_DB = 1.5, 1.0
_BANDWIDTH_DB = -10.0
_TRUSTED = 0.8
_CORRELATION = 0.5


def judge_gains(stretches: list[Stretch], measured: list[list[Gain]], level_dbfs: float, name: str) -> list[Finding]:
    """What is bearable in level, polarity, drift, dropouts and bandwidth."""
    found: list[Finding] = []
    every = [gain for channels in measured for gain in channels]
    if sum(np.sign(gain.gain) * gain.correlation for gain in every) < 0:
        found.append(warning("polarity", f"{name} has the polarity turned over; the aligned pairs have it right."))
    if level_dbfs < _LOW_DBFS:
        sentence = f"the programme in {name} is only {level_dbfs:.0f} dBFS: more gain means less noise."
        found.append(warning("low_level", sentence))
    levels = [20 * np.log10(abs(channels[0].gain) + 1e-9) for channels in measured]
    drift = max(gain.drift_db for gain in every)
    if drift > _DRIFT_DB or max(levels) - min(levels) > _APART_DB:
        found.append(
            warning(
                "gain_drift",
                f"the gain moves by {drift:.1f} dB within a take and {max(levels) - min(levels):.1f} dB between takes.",
            )
        )
    dropouts = sum(gain.dropouts for gain in every)
    if dropouts:
        found.append(warning("dropouts", f"{name} drops out {dropouts} times: clean the heads, or use another tape."))
    top = _bandwidth_hz(every)
    if top is not None:
        found.append(warning("bandwidth", f"little is left above {top} Hz: check heads, azimuth, bias and speed."))
    worst = min(every, key=lambda gain: gain.correlation)
    if worst.correlation < _CORRELATION:
        where = stretches[next(i for i, channels in enumerate(measured) if any(g is worst for g in channels))].name
        sentence = (
            f"{where} came back unlike what was played (correlation {worst.correlation:.2f}): samples are missing or "
            "were put in (a cut, or a buffer that ran empty); record the tape again in one go."
        )
        found.append(fatal("unlike", sentence))
    return found


def _bandwidth_hz(every: list[Gain]) -> int | None:
    """The octave from which on the response stays 10 dB under 1 kHz, if that is under 8 kHz."""
    responses = [gain.response_db for gain in every if 1000 in gain.response_db]
    if not responses:
        return None
    for centre in (2000, 4000):
        below = [r[centre] - r[1000] < _BANDWIDTH_DB for r in responses if centre in r]
        if below and all(below):
            return centre
    return None


def judge_trust(stretches: list[Stretch], sample_rate_hz: int) -> list[Finding]:
    """How well the delay could be followed."""
    found: list[Finding] = []
    for stretch in stretches:
        trusted = trusted_share(stretch)
        if stretch.method == "tracking" and trusted < _TRUSTED:
            found.append(
                warning(
                    "trust", f"the delay of {stretch.name} is uncertain for {100 * (1 - trusted):.0f} % of its length: "
                    "its demodulated form may wander; pulses in the other channel would tell."
                )
            )  # fmt: skip
    if not any(stretch.method == "pulses" for stretch in stretches):
        found.append(note("tracking", "no pulses were found: the delay was followed through the programme itself."))
    return found


def trusted_share(stretch: Stretch) -> float:
    """Share of the trajectory above the tracker's threshold."""
    return float(np.mean(stretch.wander.confidence >= CONFIDENCE_THRESHOLD))
