"""The data sheet of a machine: all instruments read the measuring tape and what the machine made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from revox_lightning.errors import UserError
from revox_lightning.measure import aliasing, distortion, noise, speed, stereo, sweeps, transfer
from revox_lightning.measure.bench import TRIM_SECONDS, Bench, plain
from revox_lightning.measure.tape import Section, aliasing_samples

MODES = ("second_pass", "monitor")
_LOOPS = {
    "loop_100hz_0": "100 Hz at 0 VU",
    "loop_100hz_6": "100 Hz at +6 VU",
    "loop_1k_0": "1 kHz at 0 VU",
    "loop_1k_6": "1 kHz at +6 VU",
}
STEADY_PERCENT = 1e-4  # speed deviation up to which a lone period of a tone tells aliasing from sidebands
_STEPS = ("steps_1k", "steps_10k", "steps_16k")


def data_sheet(
    sections: Sequence[Section],
    dry: np.ndarray,
    wet: np.ndarray,
    sample_rate_hz: float,
    zero_vu_dbfs: float,
    mode: str | None = None,
    progress: Callable[[str], None] = lambda what: None,
    known: bool = False,
) -> dict[str, Any]:
    """Every figure and curve of a machine that was given `dry` and returned `wet`, both (channels, time).

    `sections` as in `measure.tape`; `wet` is aligned with `dry` within 0.4 s at its start. `mode` says how it was
    heard: "second_pass", "monitor", or None where that has no meaning (a digital model) or is not known. Figures are
    lists with one entry a channel; None where something could not be measured, `missing` then says why. Levels in VU
    are re the level at which a sine of 0 VU would come back at the gain measured at -20 VU. `progress` is told what
    is being measured. Raises UserError where the recording does not hold the tape, unless it is `known` to.
    """
    if mode not in (None, *MODES):
        raise UserError(f"mode={mode}: choose one of {', '.join(MODES)}.")
    if dry.shape != wet.shape or dry.ndim != 2:
        raise ValueError(f"expected dry and wet as (channels, time), got {dry.shape} and {wet.shape}")
    progress("places")
    bench = Bench(sections, dry, wet, sample_rate_hz, zero_vu_dbfs, known)
    sheet: dict[str, Any] = {
        "kind": "data_sheet", "mode": mode, "sample_rate_hz": sample_rate_hz, "zero_vu_dbfs": zero_vu_dbfs,
        "channels": ["left", "right"] if len(dry) == 2 else ["mono"], "seconds": dry.shape[1] / sample_rate_hz,
    }  # fmt: skip
    sheet["level"] = _levels(bench)
    zeros = [zero_vu_dbfs + (gain or 0.0) for gain in sheet["level"]["gain_1k_db"] or [0.0] * len(dry)]
    parts: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("response", lambda: sweeps.responses(bench)),
        ("harmonics", lambda: sweeps.harmonics(bench)),
        ("distortion", lambda: _distortion(bench, zeros)),
        ("intermodulation", lambda: _intermodulation(bench)),
        ("noise", lambda: _noise(bench, zeros, sheet["distortion"]["mol_3_percent_vu"])),
        ("speed", lambda: _speed(bench)),
        ("stereo", lambda: _stereo(bench)),
        ("loops", lambda: _loops(bench)),
    )
    for name, part in parts:
        progress(name)
        sheet[name] = part()
    sheet["latency"] = sheet["response"].pop("latency")
    sheet["aliasing"] = aliasing_of(bench)
    return plain(sheet | {"missing": bench.missing})


def _levels(bench: Bench) -> dict[str, Any]:
    def gain(x: np.ndarray) -> float:
        parameters = bench.sections["alignment"].parameters
        found = distortion.harmonics(x, parameters["frequency_hz"], bench.rate_hz, count=3)
        return found.level_dbfs - bench.zero_vu_dbfs - parameters["level_vu"]

    return {"gain_1k_db": bench.each("alignment", gain)}


def _steps(bench: Bench, name: str, zeros: list[float]) -> dict[str, Any] | None:
    """Output and third harmonic of every step, a list for each channel."""
    if name not in bench.sections:
        return None
    section = bench.sections[name]
    size, hz = section.parameters["step_samples"], section.parameters["frequency_hz"]
    result: dict[str, Any] = {"input_vu": section.parameters["levels_vu"], "output_vu": [], "third_percent": []}
    for i, channel in enumerate(section.channels):
        found = []
        for k in range(len(section.parameters["levels_vu"])):
            start = section.start + k * size
            x = bench.cut(channel, start, start + size, -TRIM_SECONDS, -TRIM_SECONDS)
            found.append(bench.attempt(name, lambda x=x: distortion.harmonics(x, hz, bench.rate_hz, count=3)))
        result["output_vu"].append([math.nan if h is None else h.level_dbfs - zeros[i] for h in found])
        result["third_percent"].append([math.nan if h is None else h.third_percent for h in found])
    return result


def _distortion(bench: Bench, zeros: list[float]) -> dict[str, Any]:
    found = bench.each("modulation_noise", lambda x: distortion.harmonics(x, 1000.0, bench.rate_hz))
    result: dict[str, Any] = {
        "thd_percent": found and [h and h.thd_percent for h in found],
        "thd_noise_percent": found and [h and h.thd_noise_percent for h in found],
        "third_percent": found and [h and h.third_percent for h in found],
        "second_percent": found and [h and 100 * h.relative[1] for h in found],
    }
    steps = {name: _steps(bench, name, zeros) for name in _STEPS}
    for name, found in steps.items():
        key = "mol_3_percent_vu" if name == "steps_1k" else f"sol_{name[6:]}_vu"
        instrument = _maximum if name == "steps_1k" else _saturated
        result[key] = found and [instrument(found, i) for i in range(len(found["output_vu"]))]
    return result | steps


def _maximum(steps: dict[str, Any], channel: int) -> float | None:
    outputs, thirds = np.array(steps["output_vu"][channel]), np.array(steps["third_percent"][channel])
    heard = np.isfinite(outputs) & np.isfinite(thirds)
    return distortion.maximum_output_level(outputs[heard], thirds[heard]) if heard.any() else None


def _saturated(steps: dict[str, Any], channel: int) -> float | None:
    outputs, inputs = np.array(steps["output_vu"][channel]), np.array(steps["input_vu"])
    heard = np.isfinite(outputs)
    return distortion.saturated_output_level(inputs[heard], outputs[heard]) if heard.any() else None


def _intermodulation(bench: Bench) -> dict[str, Any]:
    rate_hz = bench.rate_hz

    def difference(x: np.ndarray) -> float:
        low, high = bench.sections["intermodulation_difference"].parameters["frequencies_hz"]
        tones = distortion.intermodulation_difference(x, rate_hz, (low, high))
        return math.hypot(tones.second_percent, tones.third_percent)

    return {
        "smpte_percent": bench.each("intermodulation_smpte", lambda x: distortion.intermodulation_smpte(x, rate_hz)),
        "difference_percent": bench.each("intermodulation_difference", difference),
    }


def _noise(bench: Bench, zeros: list[float], mol_vu: list[float | None] | None) -> dict[str, Any]:
    rate_hz = bench.rate_hz
    result: dict[str, Any] = {"re_0_vu_db": {}, "re_mol_db": {}}
    for weighting, detector in (("unweighted", "rms"), ("a", "rms"), ("itu_r_468", "quasi_peak")):
        heard = bench.each("silence", lambda x, w=weighting, d=detector: noise.noise_level_dbfs(x, rate_hz, w, d))
        distances = heard and [None if n is None else zeros[i] - n for i, n in enumerate(heard)]
        result["re_0_vu_db"][weighting] = distances
        result["re_mol_db"][weighting] = distances and [
            None if d is None or m is None else d + m
            for d, m in zip(distances, mol_vu or [None] * len(distances), strict=True)
        ]
    spectra = bench.each("silence", lambda x: noise.noise_spectrum(x, rate_hz))
    if spectra and None not in spectra:
        curves = [s.band_dbfs - zeros[i] for i, s in enumerate(spectra)]
        result["third_octaves"] = {"frequency_hz": spectra[0].band_hz, "level_vu": curves}

    def beside(x: np.ndarray, channel: int) -> float:
        hiss = bench.read("silence", channel)
        return distortion.modulation_noise(x, 1000.0, rate_hz, hiss if hiss.any() else None)

    if "modulation_noise" in bench.sections and "silence" in bench.sections:
        channels = bench.sections["modulation_noise"].channels
        result["modulation_db"] = [
            bench.attempt("modulation_noise", lambda c=c: beside(bench.read("modulation_noise", c), c))
            for c in channels
        ]
    return result


def _speed(bench: Bench) -> dict[str, Any]:
    """By the first channel: both run at one speed."""
    names = [(w, d) for w in speed.WEIGHTINGS for d in ("two_sigma", "quasi_peak")]
    result: dict[str, Any] = {"error_percent": None, "seconds": None, "spectrum": None}
    result |= {f"{w}_{d}_percent": None for w, d in names}
    heard = bench.heard_speed
    if heard is None:
        return result
    result |= {"error_percent": speed.speed_error_percent(heard), "seconds": heard.seconds}
    for w, d in names:
        figure = bench.attempt(f"wow and flutter, {w} {d}", lambda w=w, d=d: speed.wow_and_flutter(heard, w, d))
        result[f"{w}_{d}_percent"] = figure
    result["spectrum"] = _highest_lines(*speed.flutter_spectrum(heard))
    return result


def _highest_lines(hz: np.ndarray, percent: np.ndarray) -> dict[str, Any]:
    """The highest line in each 24th of an octave, 0.2 to 200 Hz: some 200 numbers for thousands, and no peak lost."""
    inside = (hz >= 0.2) & (hz <= 200)
    hz, percent = hz[inside], percent[inside]
    starts = np.unique(np.floor(24 * np.log2(hz)), return_index=True)[1]
    highest = [
        int(start + np.argmax(lines)) for start, lines in zip(starts, np.split(percent, starts[1:]), strict=False)
    ]
    return {"frequency_hz": hz[highest], "percent_rms": percent[highest]}


def _stereo(bench: Bench) -> dict[str, Any]:
    """Balance, crosstalk (left to right, right to left), azimuth; nothing of a mono machine."""
    result: dict[str, Any] = {"balance_db": None, "crosstalk_1k_db": None, "crosstalk_10k_db": None, "azimuth_us": None}
    if "crosstalk_1k_left" not in bench.sections:
        return result
    rate_hz = bench.rate_hz

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return bench.read(name, 0), bench.read(name, 1)

    def spill(name: str, driven: int, hz: float) -> float:
        return stereo.crosstalk_db(bench.read(name, driven), bench.read(name, 1 - driven), hz, rate_hz)

    result["balance_db"] = bench.attempt(
        "balance", lambda: stereo.channel_balance_db(*both("alignment"), rate_hz, 1000.0)
    )
    result["azimuth_us"] = bench.attempt("azimuth", lambda: 1e6 * stereo.azimuth(*both("noise"), rate_hz))
    for written, hz in (("1k", 1000.0), ("10k", 10_000.0)):
        sides = [(f"crosstalk_{written}_left", 0), (f"crosstalk_{written}_right", 1)]
        if all(name in bench.sections for name, _ in sides):
            result[f"crosstalk_{written}_db"] = [
                bench.attempt(name, lambda n=name, c=channel, hz=hz: spill(n, c, hz)) for name, channel in sides
            ]
    return result


def _loops(bench: Bench) -> list[dict[str, Any]]:
    """Dynamic transfer of the first channel, in units of the peak at 0 VU."""
    peak, loops = 10 ** (bench.zero_vu_dbfs / 20), []
    for name, title in _LOOPS.items():
        if name not in bench.sections:
            continue
        section = bench.sections[name]
        hz, channel = section.parameters["frequency_hz"], section.channels[0]
        dry, wet = bench.original(name, channel), bench.read(name, channel)
        loop = bench.attempt(name, lambda d=dry, w=wet, hz=hz: transfer.dynamic_transfer(d, w, hz, bench.rate_hz, 128))
        if loop is not None:
            loops.append({"name": title, "x": loop[0] / peak, "y": loop[1] / peak})
    return loops


def aliasing_of(bench: Bench) -> dict[str, Any]:
    """What is not harmonic in the answer to a steady tone; only a machine without wow and noise can be asked."""
    result: dict[str, Any] = {}
    if max(bench.wavers_percent, 100 * abs(bench.speed_error)) > STEADY_PERCENT:
        bench.missing["aliasing"] = "the speed wavers, or noise hides it: only a steady digital machine shows it"
        return result
    for name in ("aliasing_0", "aliasing_6"):
        if name not in bench.sections:
            continue
        hz = bench.sections[name].parameters["frequency_hz"]
        samples = aliasing_samples(bench.rate_hz)
        result[f"at_{name[-1]}_vu_db"] = bench.each(
            name, lambda x, hz=hz, n=samples: aliasing.aliasing_db(x[:n], hz, bench.rate_hz)
        )
    return result
