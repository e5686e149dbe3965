"""The rows of a data sheet: what each figure is called, where it stands, and how two machines differ in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One row: its group, label, `path` in the sheet (dots), unit and digits."""

    group: str
    label: str
    path: str
    unit: str
    digits: int = 1

    def written(self, value: Any, bound: str = "-") -> str:
        """A value, or one for each channel, in text; where there is none a dash, or the `bound` that is known.

        >>> Figure("Noise", "hum", "noise.hum", "dB").written([-60.04, None])
        '-60.0 / -'
        """
        values = value if isinstance(value, list) else [value]
        # Adding 0.0 turns a rounded -0 into 0.
        texts = [f"{round(v, self.digits) + 0.0:.{self.digits}f}" if _is_number(v) else bound for v in values]
        return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


@dataclass(frozen=True)
class Meaning:
    """What a difference of a figure says of a machine.

    `tolerance` is the smallest difference worth a sentence: of the figures themselves, of their ratio in `dB` or in
    `octaves` (`scale`). `more` and `less` say what the machine with the larger or the smaller figure does. Beyond
    `low` and `high` nobody hears a difference, so that none is counted.
    """

    tolerance: float
    more: str
    less: str
    scale: str = "difference"
    low: float = -math.inf
    high: float = math.inf

    def distance(self, a: float, b: float) -> float:
        """How far `a` is above `b`, in tolerances."""
        a, b = (min(max(value, self.low), self.high) for value in (a, b))
        if self.scale == "difference":
            return (a - b) / self.tolerance
        ratio = math.log2(max(a, 1e-6) / max(b, 1e-6))
        return ratio * (1.0 if self.scale == "octaves" else 20 * math.log10(2)) / self.tolerance


_ROWS: tuple[tuple[str, str, str, str, int], ...] = (
    ("Level and delay", "gain at 1 kHz, -20 VU", "level.gain_1k_db", "dB", 2),
    ("Level and delay", "gain of the programme", "level.gain_db", "dB", 2),
    ("Level and delay", "channel balance (left re right)", "stereo.balance_db", "dB", 2),
    ("Level and delay", "latency", "latency.milliseconds", "ms", 2),
    ("Level and delay", "polarity", "latency.polarity", "", 0),
    ("Speed", "speed error", "speed.error_percent", "%", 3),
    ("Speed", "wow and flutter, weighted (AES6 two-sigma)", "speed.weighted_two_sigma_percent", "%", 3),
    ("Speed", "wow and flutter, unweighted (two-sigma)", "speed.unweighted_two_sigma_percent", "%", 3),
    ("Speed", "wow and flutter, weighted (IEC 60386 quasi-peak)", "speed.weighted_quasi_peak_percent", "%", 3),
    ("Response", "lower limit, -3 dB re 1 kHz, at -20 VU", "response.lower_minus_3db_hz", "Hz", 0),
    ("Response", "upper limit, -3 dB re 1 kHz, at -20 VU", "response.upper_minus_3db_hz", "Hz", 0),
    ("Distortion", "THD, 1 kHz at 0 VU", "distortion.thd_percent", "%", 2),
    ("Distortion", "THD and noise, 1 kHz at 0 VU", "distortion.thd_noise_percent", "%", 2),
    ("Distortion", "third harmonic, 1 kHz at 0 VU", "distortion.third_percent", "%", 2),
    ("Distortion", "MOL, 3 % third harmonic at 1 kHz", "distortion.mol_3_percent_vu", "VU", 1),
    ("Distortion", "SOL at 10 kHz", "distortion.sol_10k_vu", "VU", 1),
    ("Distortion", "SOL at 16 kHz", "distortion.sol_16k_vu", "VU", 1),
    ("Distortion", "intermodulation, 60 Hz + 7 kHz 4:1 at 0 VU", "intermodulation.smpte_percent", "%", 2),
    ("Distortion", "difference tones, 10 + 11 kHz at -10 VU", "intermodulation.difference_percent", "%", 2),
    ("Noise", "S/N unweighted, re 0 VU", "noise.re_0_vu_db.unweighted", "dB", 1),
    ("Noise", "S/N A-weighted, re 0 VU", "noise.re_0_vu_db.a", "dB", 1),
    ("Noise", "S/N ITU-R 468 quasi-peak, re 0 VU", "noise.re_0_vu_db.itu_r_468", "dB", 1),
    ("Noise", "S/N unweighted, re MOL", "noise.re_mol_db.unweighted", "dB", 1),
    ("Noise", "S/N A-weighted, re MOL", "noise.re_mol_db.a", "dB", 1),
    ("Noise", "S/N ITU-R 468 quasi-peak, re MOL", "noise.re_mol_db.itu_r_468", "dB", 1),
    ("Noise", "modulation noise beside 1 kHz at 0 VU", "noise.modulation_db", "dB", 1),
    ("Stereo", "crosstalk at 1 kHz (left to right / right to left)", "stereo.crosstalk_1k_db", "dB", 1),
    ("Stereo", "crosstalk at 10 kHz", "stereo.crosstalk_10k_db", "dB", 1),
    ("Stereo", "azimuth (right after left)", "stereo.azimuth_us", "us", 1),
    ("Digital", "aliasing, 5 kHz at 0 VU", "aliasing.at_0_vu_db", "dB", 1),
    ("Digital", "aliasing, 5 kHz at +6 VU", "aliasing.at_6_vu_db", "dB", 1),
)
FIGURES = tuple(Figure(*row) for row in _ROWS)
_MEANINGS = {
    "level.gain_1k_db": Meaning(0.2, "is louder", "is softer"),
    "stereo.balance_db": Meaning(0.2, "leans to the left", "leans to the right"),
    "latency.polarity": Meaning(0.5, "is not inverted", "is inverted"),
    "speed.error_percent": Meaning(0.02, "runs faster", "runs slower"),
    "speed.weighted_two_sigma_percent": Meaning(1.0, "wavers more", "wavers less", "dB", low=0.01),
    "response.lower_minus_3db_hz": Meaning(
        0.15, "starts higher in the bass", "reaches deeper into the bass", "octaves"
    ),
    "response.upper_minus_3db_hz": Meaning(0.1, "reaches higher in the treble", "loses treble earlier", "octaves"),
    "distortion.thd_percent": Meaning(1.0, "distorts more", "distorts less", "dB", low=0.05),
    "distortion.mol_3_percent_vu": Meaning(0.5, "has more headroom", "has less headroom"),
    "distortion.sol_10k_vu": Meaning(0.5, "takes more treble", "saturates earlier in the treble"),
    "distortion.sol_16k_vu": Meaning(0.7, "takes more high treble", "saturates earlier in the high treble"),
    "intermodulation.smpte_percent": Meaning(1.5, "intermodulates more", "intermodulates less", "dB", low=0.1),
    "intermodulation.difference_percent": Meaning(
        2.0, "makes stronger difference tones", "makes weaker difference tones", "dB", low=0.05
    ),
    "noise.re_0_vu_db.a": Meaning(1.0, "is quieter between the notes", "is noisier between the notes", high=90.0),
    "noise.modulation_db": Meaning(
        2.0, "roughens tones more (modulation noise)", "roughens tones less (modulation noise)", low=-75.0
    ),
    "stereo.crosstalk_1k_db": Meaning(3.0, "separates the channels less", "separates the channels better", low=-70.0),
    "stereo.azimuth_us": Meaning(3.0, "has its right channel later", "has its right channel earlier"),
    "aliasing.at_6_vu_db": Meaning(
        6.0, "adds more that is not harmonic (aliasing)", "adds less that is not harmonic", low=-90.0
    ),
}
# What it means where one machine has the figure and the other has not.
_ONE_SIDED = {
    "distortion.mol_3_percent_vu": (
        "never reaches 3 % third harmonic",
        "reaches 3 % third harmonic, its target never does",
    ),
    "noise.re_0_vu_db.a": ("has no hiss at all", "has hiss, and its target none"),
}
# The level steps that a figure is read from.
_STEPS_OF = {
    "distortion.mol_3_percent_vu": "steps_1k",
    "distortion.sol_10k_vu": "steps_10k",
    "distortion.sol_16k_vu": "steps_16k",
}


def lookup(sheet: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; None where there is none.

    >>> lookup({"noise": {"a": 3}}, "noise.a"), lookup({}, "noise.a")
    (3, None)
    """
    node: Any = sheet
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def bounds(sheet: dict[str, Any], path: str) -> str:
    """What is known of a figure that was not reached: how far the measurement went; a dash where nothing is."""
    measured = lookup(sheet, "response.measured_hz")
    if path in ("response.lower_minus_3db_hz", "response.upper_minus_3db_hz") and measured:
        return f"< {measured[0]:.0f}" if "lower" in path else f"> {measured[1]:.0f}"
    outputs, thirds = (
        _numbers(sheet, f"distortion.{_STEPS_OF.get(path)}.{key}") for key in ("output_vu", "third_percent")
    )
    if path.startswith("distortion.mol") and thirds and min(thirds) > 3:
        return f"< {min(outputs):.1f}"
    return f"> {max(outputs):.1f}" if outputs else "-"


def _numbers(sheet: dict[str, Any], path: str) -> list[float]:
    return [v for channel in lookup(sheet, path) or [] for v in channel if _is_number(v)]


def differences(sheet: dict[str, Any], target: dict[str, Any], most: int = 6) -> list[str]:
    """How a machine differs from its target, largest first (in tolerances), a sentence each.

    A wow and flutter figure of a machine heard while it records (`monitor`), or of another mode than the target's, is
    never compared.
    """
    found = sorted(_differences(sheet, target), key=lambda pair: -abs(pair[0]))
    return [sentence for size, sentence in found if abs(size) >= 1][:most]


def _differences(sheet: dict[str, Any], target: dict[str, Any]) -> Iterator[tuple[float, str]]:
    for figure in FIGURES:
        meaning = _MEANINGS.get(figure.path)
        if meaning is None or (figure.group == "Speed" and not comparable_speed(sheet, target)):
            continue
        a, b = lookup(sheet, figure.path), lookup(target, figure.path)
        pairs = [(x, y) for x, y in zip(_each(a), _each(b), strict=False) if _is_number(x) and _is_number(y)]
        size = max((meaning.distance(x, y) for x, y in pairs), key=abs, default=0.0)
        unit = f" {figure.unit}".rstrip()
        facts = f"{figure.label} is {figure.written(a)}{unit} against {figure.written(b)}{unit}."
        yield size, f"It {meaning.more if size > 0 else meaning.less}: {facts}"
        one_sided = _ONE_SIDED.get(figure.path)
        if one_sided and a is not None and b is not None and _none(a) != _none(b):
            one, other = ("not found" if _none(v) else f"{figure.written(v)}{unit}" for v in (a, b))
            facts = f"{figure.label} is {one} against {other}."
            yield math.inf, f"It {one_sided[0] if _none(a) else one_sided[1]}: {facts}"
    yield from _curve_differences(sheet, target)


def _curve_differences(sheet: dict[str, Any], target: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """The largest gap between the responses at each level, 40 Hz to 16 kHz."""
    for level_vu, curves in (lookup(target, "response.gain_db") or {}).items():
        own = lookup(sheet, f"response.gain_db.{level_vu}") or []
        hz, own_hz = (np.array(lookup(s, "response.frequency_hz") or [], dtype=float) for s in (target, sheet))
        for channel, (a, b) in enumerate(zip(own, curves, strict=False) if hz.size and own_hz.size else ()):
            a, b = (np.array([np.nan if v is None else v for v in curve], dtype=float) for curve in (a, b))
            gap = np.interp(hz, own_hz, a) - b
            gap[(hz < 40) | (hz > 16_000) | ~np.isfinite(gap)] = 0
            if channel or not len(gap):
                continue
            at = int(np.argmax(np.abs(gap)))
            more = "more" if gap[at] > 0 else "less"
            where = f"{hz[at] / 1000:.1f} kHz" if hz[at] >= 1000 else f"{hz[at]:.0f} Hz"
            yield gap[at] / 0.7, f"It has {abs(gap[at]):.1f} dB {more} at {where} in the response at {level_vu} VU."


def comparable_speed(sheet: dict[str, Any], target: dict[str, Any]) -> bool:
    """Whether the two wow and flutter figures mean the same: neither heard while recording."""
    return sheet.get("mode") != "monitor" and target.get("mode") != "monitor"


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _none(value: Any) -> bool:
    return not any(_is_number(v) for v in _each(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
