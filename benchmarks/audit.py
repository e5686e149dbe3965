"""Are the pinned dependencies free of the advisories we know of? Compares constraints.txt with advisories.csv, offline.

``python benchmarks/audit.py``: the versions of constraints.txt, and those that are installed. The list is kept by
hand; each line names the thread at github.com in which package, number and version were read (owner/repository#number,
looked up 2026-11-30), which is no advisory database. What the authors of a package do not take for a flaw is on it only
where scanners warn of it. Where there is a network, ``pip-audit --strict -r constraints.txt`` knows more, and without
one it finds nothing and says so only with --strict.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[1]


def advisories() -> list[dict[str, str]]:
    """The lines of advisories.csv: package, safe_from, advisory, what, confirmed_by."""
    with open(Path(__file__).with_name("advisories.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pinned() -> dict[str, str]:
    """The versions of constraints.txt, by names in small letters."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {name.lower(): found for name, found in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)}


def installed() -> dict[str, str]:
    """The versions of this environment, of the packages that advisories speak of."""
    found = {}
    for name in {line["package"] for line in advisories()}:
        try:
            found[name.lower()] = version(name)
        except PackageNotFoundError:
            continue
    return found


def problems(found: Mapping[str, str]) -> list[str]:
    """A sentence for each version that an advisory speaks of."""
    return [
        f"{line['package']} {old} is older than {line['safe_from']}: {line['what']} ({line['advisory']})."
        for line in advisories()
        if (old := found.get(line["package"].lower())) and Version(old) < Version(line["safe_from"])
    ]


def main() -> int:
    """Prints what was found; ends with 1 where that is anything."""
    count = 0
    for what, found in (("constraints.txt", pinned()), ("installed", installed())):
        sentences = problems(found)
        count += len(sentences)
        print(f"{what}: {len(advisories())} advisories, {len(found)} packages, {len(sentences)} problems")
        for sentence in sentences:
            print(f"  {sentence}")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
