"""The page beside a test tape: how to play it to a machine and record what comes back."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path

from revox_lightning.capture.layout import Layout
from revox_lightning.tape.losses import METRES_PER_INCH

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "li{margin:.5rem 0}code{background:#f2f2f2;padding:0 .25rem}td,th{padding:.15rem .8rem .15rem 0;text-align:left}"
    "@media print{body{margin:0}}"
)


def page(layout: Layout, tape: Path, loopback: Path) -> str:
    """The page as HTML."""
    steps = (
        _before(layout) + _loopback(loopback) + _levels(layout, tape) + _recording(layout, tape) + _after(tape, layout)
    )
    items = "\n".join(f"<li>{step}</li>" for step in steps)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{escape(tape.name)}</title>"
        f"<style>{_STYLE}</style>\n<h1>Recording {escape(tape.name)}</h1>\n"
        f"<p>{_minutes(layout.samples, layout)} of tape, {layout.sample_rate_hz:,} Hz, "
        f"{'two channels' if layout.channels == 2 else 'one channel'}; 0 VU is a sine of {layout.zero_vu_dbfs:g} dBFS. "
        f"At 7.5 ips that is {_metres(layout, 7.5)} of tape, at 15 ips {_metres(layout, 15)}.</p>\n"
        f"<ol>\n{items}\n</ol>\n<h2>What is on it</h2>\n<table><tr><th>at</th><th>section</th><th>lasts</th></tr>\n"
        f"{_contents(layout)}</table></html>\n"
    )


def _before(layout: Layout) -> list[str]:
    both = "both channels" if layout.channels == 2 else "the channel"
    return [
        "Clean heads and guides, demagnetise them, and let the machine warm up for half an hour.",
        "Set bias and record equalisation for your tape as the service manual says, and leave them alone from here on; "
        "write down speed, equalisation (NAB or IEC), tape and bias. Switch noise reduction off.",
        f"Connect the interface's line outputs to the machine's line inputs and its line outputs to the interface's "
        f"inputs: {both}, left to left. Use <b>one interface for playing and recording</b>, so that one clock drives "
        "both.",
        f"Set interface and program to <b>{layout.sample_rate_hz:,} Hz</b>. Switch off everything that changes the "
        "sound: effects, equalisers, normalising, dither, system volume, and any conversion of the sample rate.",
    ]


def _loopback(loopback: Path) -> list[str]:
    name = escape(loopback.name)
    return [
        f"The cable first: connect the interface's outputs to its inputs with the cables in the machine's place, play "
        f"<code>{name}</code> and record it, starting both together if your program can. Keep the interface's knobs "
        "where they are from here on. This recording shows what the converters do, and it is taken out of the "
        "machine's recording later. (You may leave this step out.)"
    ]


def _levels(layout: Layout, tape: Path) -> list[str]:
    tones = {section.name: section for section in layout.of("level")}
    steps = []
    if "level_1k" in tones:
        steps.append(
            f"Play the beginning of <code>{escape(tape.name)}</code> over and over: the 1 kHz tone at "
            f"{_clock(tones['level_1k'].start, layout)} is 0 VU. Turn the machine's <b>record level until its meters "
            "show 0 VU</b> (on a machine without them: until it distorts no more than you want at that level)."
        )
        steps.append(
            "Record a bit of that tone and replay it: set the replay level so that it comes into the interface about "
            f"as loud as it left ({layout.zero_vu_dbfs:g} dBFS), in any case with 10 dB of room below full scale."
        )
    if "level_10k" in tones:
        steps.append(
            f"The 10 kHz tone at {_clock(tones['level_10k'].start, layout)} is for the azimuth: replay it with both "
            "channels summed to mono and turn the head's azimuth screw for the loudest sum, if you mean to set it."
        )
    return steps


def _recording(layout: Layout, tape: Path) -> list[str]:
    return [
        "Either watch the tape: set the machine to <b>monitor from tape</b>, play the file and record the output at "
        "the same time. Or do it in two passes: play the file while the machine records, rewind, then replay the tape "
        "while the program records. The first way has steadier timing, the second shows the machine as it is used; "
        "note which one it was.",
        f"Start the recording a few seconds <b>before</b> the file and stop it a few seconds after its end: "
        f"<b>one continuous recording</b> of at least {_minutes(layout.samples, layout)}, without cuts and without "
        "touching a knob.",
        f"Save it as a WAV file of {layout.sample_rate_hz:,} Hz, 24 bit or float, "
        f"{'stereo with left and right as they are' if layout.channels == 2 else 'mono'}; do not normalise, trim, "
        "fade or resample it.",
    ]


def _after(tape: Path, layout: Layout) -> list[str]:
    name, loop = (escape(shlex.quote(text)) for text in (tape.name, f"loopback={tape.stem}_loopback_recorded.wav"))
    return [
        f"Run <code>revox align {name} recorded.wav {loop} out=my_machine</code> (without "
        "<code>loopback=</code> if you left it out). It says in plain words what it found, before anything is trained.",
        "Then train: <code>python train.py data=recordings data.root=my_machine/demodulated "
        f"data.sample_rate_hz={layout.sample_rate_hz}</code>. Keep <code>{escape(tape.stem)}.json</code> beside the "
        "tape: align needs it.",
    ]


def _contents(layout: Layout) -> str:
    rows = []
    for section in layout.sections:
        if section.kind != "marker":
            rows.append(
                f"<tr><td>{_clock(section.start, layout)}</td><td>{escape(section.name.replace('_', ' '))}</td>"
                f"<td>{(section.stop - section.start) / layout.sample_rate_hz:.1f} s</td></tr>\n"
            )
    return "".join(rows)


def _clock(samples: int, layout: Layout) -> str:
    seconds = samples / layout.sample_rate_hz
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _minutes(samples: int, layout: Layout) -> str:
    seconds = samples / layout.sample_rate_hz
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _metres(layout: Layout, speed_ips: float) -> str:
    return f"{layout.samples / layout.sample_rate_hz * speed_ips * METRES_PER_INCH:.0f} m"
