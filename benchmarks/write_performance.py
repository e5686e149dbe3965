"""Runs the benchmarks and writes docs/performance.md from what they measured: no figure there is typed by hand.

Each benchmark leaves `outputs/bench/NAME.json`; one that fails or is left out keeps its last figures, with their date.
`--only a,b` runs some, `--only ""` none: then only the page is written. The peers are measured where their virtual
environment is there, or with `--peers`, which makes it. `--quick` runs the tiny sizes: to try it, not to publish.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pairs
import peers

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
OUTPUTS = ROOT / "outputs" / "bench"
PAGE = ROOT / "docs" / "performance.md"


@dataclass(frozen=True)
class Question:
    """A section: heading, the script that answers, its options, what its outcome is called."""

    heading: str
    script: str
    name: str
    words: list[str] = field(default_factory=list)
    after: str = ""


QUESTIONS = [
    Question("How much faster is training than with stock torch?", "train_speed", "train_speed", after=(
        "GFLOP/s counts multiplications and additions of forward and backward for every sample that the net is "
        "computed on, the receptive field before a segment included. Where other work shares the cores, stock torch's "
        "threads wait for each other at every time step: its times and the ratios rise, and \"least\" tells more."
    )),
    Question("And on a processor with AVX2 only?", "train_speed", "train_speed_avx2",
             ["--isa", "avx2", "--jobs", "lstm-64,nam-standard"]),
    Question("How fast does a trained net play?", "render_speed", "render_speed"),
    Question("What does everything around the loop cost?", "overhead", "overhead"),
    Question("What does the multi-resolution STFT loss cost?", "spectral_loss", "spectral_loss"),
    Question("How long does it take to start?", "startup", "startup"),
    Question("How long does the default training take?", "default_training", "default_training"),
    Question("How exact is it?", "accuracy", "accuracy"),
    Question("How does the cost grow?", "scaling", "scaling"),
    Question("How does it compare with other projects?", "peers", "peers"),
    Question("And on a GPU?", "gpu", "gpu"),
]  # fmt: skip


def run(question: Question, given: argparse.Namespace) -> None:
    """One benchmark, its table on stdout."""
    words = [*question.words, *(["--quick"] if given.quick else [])]
    if question.script == "peers" and given.peers:
        words.append("--install")
    pairs.say(f"\n== {question.name} {' '.join(words)}")
    others = busy_cores()
    start = time.perf_counter()
    target = given.outputs / f"{question.name}.json"
    command = [sys.executable, str(HERE / f"{question.script}.py"), "--json", str(target), *words]
    status = subprocess.run(command, check=False, cwd=ROOT).returncode
    pairs.say(f"== {question.name}: {'failed, ' if status else ''}{time.perf_counter() - start:.0f} s")
    if not status:
        now = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
        when = f"Measured {now}" + (
            "." if others is None else f"; other work kept {others:.1f} cores busy just before."
        )
        target.with_suffix(".txt").write_text(when)


def busy_cores(seconds: float = 2.0) -> float | None:
    """How many cores other programs keep busy; None where the system does not tell."""

    def ticks() -> tuple[int, int]:
        figures = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(figures), figures[3] + figures[4]  # all, idle

    try:
        before = ticks()
        time.sleep(seconds)
        total, idle = (b - a for a, b in zip(before, ticks(), strict=True))
    except OSError:
        return None
    return (os.cpu_count() or 1) * (1 - idle / max(total, 1))


def section(question: Question, outputs: Path) -> str:
    """Heading, how it is measured (once for each script), the table."""
    module: Any = importlib.import_module(question.script)
    command = " ".join(["python", f"benchmarks/{question.script}.py", *question.words])
    first = next(other for other in QUESTIONS if other.script == question.script)
    how = (module.__doc__ or "").strip() if question is first else f'As under "{first.heading}".'
    lines = [f"## {question.heading}", "", f"`{command}`", "", how, ""]
    path = outputs / f"{question.name}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    if rows:
        note = path.with_suffix(".txt")
        when = note.read_text() if note.exists() else ""
        lines += [*table(rows, module.COLUMNS), "", f"{when} {question.after}".strip()]
    else:
        lines.append("Not measured on this machine.")
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """A Markdown table; columns that no row fills are left out, and repeated headings keep their order.

    >>> table([{"job": "a", "ours": 1.5, "x": None}], {"job": "job", "ours": "ours", "x": "x"})
    ['| job | ours |', '|---|---:|', '| a | 1.5 |']
    """
    shown = {heading: key for heading, key in columns.items() if any(row.get(key) is not None for row in rows)}
    head = f"| {' | '.join(heading.strip() for heading in shown)} |"
    rule = "|" + "|".join("---" if i == 0 else "---:" for i in range(len(shown))) + "|"
    return [head, rule, *(f"| {' | '.join(pairs.short(row.get(key)) for key in shown.values())} |" for row in rows)]


def machine() -> list[str]:
    """What it was measured on, a line each."""
    import torch

    from revox_lightning import __version__
    from revox_lightning.kernels import build

    try:
        compiler = subprocess.run([*build.compiler(), "--version"], capture_output=True, text=True, check=False).stdout
    except build.NoCompiler:
        compiler = "none"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    return [
        f"- processor: {processor()}, {os.cpu_count()} cores" + (f", {memory:.0f} GiB of memory" if memory else ""),
        f"- system: {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        f"- torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), compiler {compiler.splitlines()[0]}",
        f"- revox_lightning {__version__}, page written {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
    ]


def processor() -> str:
    """Its name and the widest vectors it knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "no AVX2")
    kind = f" (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else ""
    return f"{fields.get('model name', platform.machine())}{kind}, {vectors}"


def page(outputs: Path) -> str:
    """The whole page."""
    head = [
        "# Performance", "",
        "`make bench` measures all of this and writes the page; no figure in it is typed by hand.", "",
        "Figures depend on the machine and on what else it does; ratios are what to look at. Whatever is compared took",
        "turns in one run, and a ratio is the median over the rounds of the ratios within a round; least and greatest",
        "stand beside it. A ratio above 1 means that this package is better. Stock torch is torch as its users get it;",
        "\"tuned\" is stock torch with this package's settings of the C library's allocator.", "",
        *machine(),
    ]  # fmt: skip
    return "\n\n".join(["\n".join(head), *(section(question, outputs) for question in QUESTIONS)]) + "\n"


def main() -> None:
    known = [question.name for question in QUESTIONS]
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", default=None, help=f"some of {','.join(known)}")
    words.add_argument("--peers", action="store_true")
    words.add_argument("--quick", action="store_true")
    words.add_argument("--outputs", type=Path, default=OUTPUTS)
    words.add_argument("--page", type=Path, default=PAGE)
    given = words.parse_args()
    given.outputs.mkdir(parents=True, exist_ok=True)
    there = given.peers or (peers.VENV / "bin" / "python").exists()
    chosen = [name for name in known if name != "peers" or there] if given.only is None else given.only.split(",")
    for question in QUESTIONS:
        if question.name in chosen:
            run(question, given)
    given.page.write_text(page(given.outputs))
    print(f"written: {given.page}")


if __name__ == "__main__":
    main()
