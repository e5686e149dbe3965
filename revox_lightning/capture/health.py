"""What spoils a recording before any alignment: silence, clipping, hum, missing and exchanged channels."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.signal import butter, csd, sosfilt, welch

from revox_lightning.capture.findings import Finding, fatal, note, warning

SIDES = ("left", "right")
_BLOCK = 1 << 21
_SILENCE_DBFS, _NOTHING_DBFS, _MISSING_DB = -80.0, -110.0, -50.0
_OFFSET, _OFFSET_DB = 0.01, -20.0  # of full scale, and re the channel's level
_FULL_SCALE_WITHIN, _FLAT_SHARE, _FLAT_RUN = 1e-4, 0.98, 4
_CLIPPED_FATAL, _CLIPPED_RUNS_WARNED = 0.01, 5
_HUM_FATAL_DB, _HUM_WARNED_DB = -30.0, -50.0
_FRAME_SECONDS, _LINE_HZ, _LINES = 1.0, 1.5, 6


def level_dbfs(mean_square: float) -> float:
    """Level of a sine with that mean square; a full-scale sine is 0 dBFS, and nothing is -200 dBFS."""
    return 10 * float(np.log10(max(2 * mean_square, 1e-20)))


@dataclasses.dataclass(frozen=True)
class Clipping:
    """Runs of 4 and more equal samples at the top of one channel, and the share of all samples in them."""

    runs: int
    share: float


def clipping(x: np.ndarray) -> Clipping:
    """Looks for flat tops in one channel `(time,)`, also below full scale (clipped before the file was made)."""
    peak = max((float(np.abs(x[i : i + _BLOCK]).max()) for i in range(0, len(x), _BLOCK)), default=0.0)
    if peak < 1e-3:
        return Clipping(0, 0.0)
    runs = samples = 0
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK + 1]
        size = np.abs(part)
        flat = (np.diff(part) == 0) & (size[1:] >= _FLAT_SHARE * peak)
        full = np.abs(size - 1) <= _FULL_SCALE_WITHIN  # a float file may go beyond and is not clipped there
        flat |= full[1:] & full[:-1] & (np.sign(part[1:]) == np.sign(part[:-1]))
        edges = np.flatnonzero(np.diff(np.concatenate(([0], flat.view(np.int8), [0]))))
        lengths = edges[1::2] - edges[::2] + 1
        runs += int(np.sum(lengths >= _FLAT_RUN))
        samples += int(np.sum(lengths[lengths >= _FLAT_RUN]))
    return Clipping(runs, samples / len(x))


def mean_square(x: np.ndarray) -> float:
    """Of `x` (time,), block by block in float64."""
    return sum(float(np.sum(np.square(x[i : i + _BLOCK], dtype=np.float64))) for i in range(0, len(x), _BLOCK)) / len(x)


def first_look(recorded: np.ndarray, name: str, played: list[bool]) -> list[Finding]:
    """Silence, missing channels and clipping in `recorded` (channels, time); `played`: which channels had a signal."""
    found: list[Finding] = []
    levels = [level_dbfs(mean_square(channel)) for channel in recorded]
    if max(levels) < _SILENCE_DBFS:
        what = "is silent" if max(levels) < _NOTHING_DBFS else f"is nearly silent ({max(levels):.0f} dBFS)"
        sentence = f"{name} {what}: check the cables, the input's gain and the tape/source switch, then record again."
        return [fatal("silence", sentence)]
    for side, channel, level in zip(SIDES, recorded, levels, strict=False):
        offset = float(np.mean(channel, dtype=np.float64))
        if abs(offset) > _OFFSET and level_dbfs(offset**2) > level + _OFFSET_DB:
            sentence = (
                f"the {side} channel of {name} has a DC offset of {offset:+.3f}: mend the interface or filter it."
            )
            found.append(fatal("dc_offset", sentence))
    for side, level, wanted in zip(SIDES, levels, played, strict=False):
        if wanted and (level < _SILENCE_DBFS or level < max(levels) + _MISSING_DB):
            sentence = f"the {side} channel of {name} is missing ({level:.0f} dBFS): check its cable."
            found.append(fatal("missing_channel", sentence))
    clipped = [clipping(channel) for channel in recorded]
    worst = max(range(len(clipped)), key=lambda i: clipped[i].share)
    share, runs = clipped[worst].share, clipped[worst].runs
    where = f"{name}{f' ({SIDES[worst]})' if len(recorded) == 2 else ''}"
    if share >= _CLIPPED_FATAL:
        sentence = f"{where} is clipped for {100 * share:.0f} % of its length: record it again with less gain."
        found.append(fatal("clipping", sentence))
    elif runs >= _CLIPPED_RUNS_WARNED:
        sentence = f"{where} is clipped in {runs} places: a net would learn the converter's clipping there."
        found.append(warning("clipping", sentence))
    return found


@dataclasses.dataclass(frozen=True)
class Hum:
    """Mains hum: its fundamental and the level of its lines together."""

    mains_hz: float
    dbfs: float


def hum(quiet: np.ndarray, sample_rate_hz: float) -> Hum | None:
    """Lines at multiples of 50 or 60 Hz above what stands beside them, in `quiet` (time,) of at least 0.5 s."""
    if len(quiet) < 0.5 * sample_rate_hz:
        return None
    window = np.hanning(len(quiet))
    power = 2 * np.abs(np.fft.rfft(quiet * window)) ** 2 / (np.sum(window**2) * len(quiet))
    hz = np.fft.rfftfreq(len(quiet), 1 / sample_rate_hz)
    reach = max(_LINE_HZ, 2.5 * sample_rate_hz / len(quiet))
    best = Hum(50.0, -200.0)
    for mains in (50.0, 60.0):
        total = 0.0
        for line in mains * np.arange(1, _LINES + 1):
            inside, around = np.abs(hz - line) <= reach, np.abs(hz - line) <= 5 * reach
            beside = float(np.median(power[around & ~inside])) if (around & ~inside).any() else 0.0
            excess = float(power[inside].sum()) - 3 * beside * inside.sum()
            total += max(excess, 0.0)
        if level_dbfs(total) > best.dbfs:
            best = Hum(mains, level_dbfs(total))
    return best if best.dbfs > -150 else None


def judge_hum(found: Hum | None, programme_dbfs: float, name: str) -> list[Finding]:
    """Compares hum with the programme."""
    if found is None:
        return []
    below = found.dbfs - programme_dbfs
    what = f"{found.mains_hz:.0f} Hz hum in {name} at {found.dbfs:.0f} dBFS"
    side = f"{abs(below):.0f} dB {'above' if below > 0 else 'below'} the programme"
    cure = "break the ground loop (one mains outlet for all, balanced cables) and record again"
    if below > _HUM_FATAL_DB:
        return [fatal("hum", f"there is {what}, {side}: {cure}.")]
    if below > _HUM_WARNED_DB:
        return [warning("hum", f"there is {what}, {side}: a net may learn it as a part of the sound.")]
    return []


def quietest(x: np.ndarray, sample_rate_hz: float, seconds: float = _FRAME_SECONDS) -> tuple[int, int]:
    """Where the quietest stretch of `x` (time,) above 300 Hz begins and ends: there hum can be told from programme."""
    frame = min(round(seconds * sample_rate_hz), len(x))
    high = butter(2, 300.0, "highpass", fs=sample_rate_hz, output="sos")
    best, least = 0, np.inf
    for start in range(0, len(x) - frame + 1, max(frame // 2, 1)):
        energy = float(np.sum(np.square(sosfilt(high, x[start : start + frame].astype(np.float64)))))
        if energy < least:
            best, least = start, energy
    return best, best + frame


def overwhelming_hum(recorded: np.ndarray, sample_rate_hz: float, name: str) -> list[Finding]:
    """Hum that leaves too little of anything else to find markers in: everywhere, as no music is."""
    found: list[Finding] = []
    frame = round(2 * sample_rate_hz)
    for channel in recorded:
        starts = np.linspace(0, max(channel.size - frame, 0), 7).astype(int)
        parts = [channel[start : start + frame].astype(np.float64) for start in starts]
        hums = [hum(part, sample_rate_hz) for part in parts]
        here = hum(channel[slice(*quietest(channel, sample_rate_hz, 2.0))].astype(np.float64), sample_rate_hz)
        shares = [h is not None and h.dbfs > level_dbfs(mean_square(p)) - 6 for h, p in zip(hums, parts, strict=True)]
        if here is not None and all(shares):
            what = f"{name} is mostly hum of {here.mains_hz:.0f} Hz ({here.dbfs:.0f} dBFS)"
            found.append(fatal("hum", f"{what}: break the ground loop and record again."))
    return found[:1]


def coherent_db(source: np.ndarray, other: np.ndarray, segment: int) -> float | None:
    """Power in `other` (time,) that is a linear image of `source`, re the source's, in dB; None where hiss hides it."""
    _, source_power = welch(source, nperseg=segment)
    _, other_power = welch(other, nperseg=segment)
    _, cross = csd(source, other, nperseg=segment)
    averages = 36 / 19 * len(source) / segment  # independent ones, of Hann windows that overlap by half
    image = np.abs(cross) ** 2 / np.maximum(source_power, 1e-30)
    beyond_chance = float(np.sum(image - other_power / averages))
    doubt = float(np.sqrt(np.sum(np.square(other_power)))) / averages
    return 10 * float(np.log10(beyond_chance / source_power.sum())) if beyond_chance > 3 * doubt else None


def judge_leak(left_db: float, leak_db: float | None, name: str) -> list[Finding]:
    """What came back while pulses played in the right channel alone: level and leak of the left re the right."""
    if left_db > 10:
        what = f"the pulses of the right channel came back in the left channel of {name}"
        return [fatal("wrong_channel", f"{what}: its channels are exchanged; swap the cables or the file's channels.")]
    if leak_db is None:
        return [note("leak", "the pulses do not leak into the programme channel as far as its hiss lets one see.")]
    if leak_db > -10:
        what = f"the pulses came back in both channels of {name}, only {abs(leak_db):.0f} dB apart"
        return [fatal("wrong_channel", f"{what}: the channels are mixed together; record them apart.")]
    if leak_db > -25:
        return [warning("crosstalk", f"the pulses leak into the programme channel of {name}, {-leak_db:.0f} dB down.")]
    return [note("leak", f"the pulses leak into the programme channel {-leak_db:.0f} dB down.")]
