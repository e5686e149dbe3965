"""The fault campaign: it finds what it is to find, and the package passes it.

The whole campaign is ``make faults``; docs/reliability.md tells what it came to.
"""

import json
import os
import sys
import time
from pathlib import Path

import fault_jobs
import faults
import numpy as np
import pytest
import torch
from fault_jobs import Job, names
from fault_readers import READERS, unreadable

from revox_lightning import audio
from revox_lightning.files import write_atomically

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the campaign uses Linux's process control"
)


def whole_files(place):
    place.mkdir()
    for name, text in {
        "a.json": '{"x": 1}', "a.jsonl": '{"x": 1}\n{"x": 2}\n', "a.csv": 'a,b\n1,"2"\n', "a.yaml": "a: {b: 1}\n",
        "a.html": "<html></html>\n",
    }.items():  # fmt: skip
        (place / name).write_text(text)
    torch.save({"x": torch.ones(300)}, place / "a.ckpt")
    audio.write(place / "a.wav", torch.zeros(1, 300), 8000)
    np.savez_compressed(place / "a.npz", x=np.arange(300))
    from matplotlib import image

    image.imsave(place / "a.png", np.zeros((9, 9)))
    assert {path.suffix for path in place.iterdir()} == set(READERS)


def test_a_file_that_was_cut_is_found_and_a_last_line_may_be_half(tmp_path):
    whole_files(tmp_path / "a")
    assert unreadable(tmp_path) == []
    for path in (tmp_path / "a").iterdir():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if path.suffix != ".jsonl" else b'{"x"\n')
        found = unreadable(tmp_path)
        assert len(found) == (path.suffix != ".csv"), (path, found)
        path.write_bytes(data)
    (tmp_path / "a" / "a.csv").write_text('a,b\n1,"')
    (tmp_path / "a" / "a.jsonl").write_text('{"x": 1}\n{"x"')
    (tmp_path / "a" / ".a.json.abcdefgh.part").write_text("{")
    assert unreadable(tmp_path) == []
    (tmp_path / "a" / "a.csv").write_text("a,b\n1\n")
    assert "differ in length" in unreadable(tmp_path)[0]


def counting(write):
    """A job that writes its count, again and again, and goes on from what it finds."""

    def main():
        path = Path("out/count.json")
        count = json.loads(path.read_text())["count"] if path.exists() else 0
        for n in range(count + 1, 41):
            write(path, json.dumps({"count": n, "more": "x" * 20_000}))
            time.sleep(0.003)

    return main


def atomically(path, text):
    write_atomically(path, lambda file: file.write(text.encode()))


def in_pieces(path, text):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w") as file:
        for start in range(0, len(text), 2000):
            file.write(text[start : start + 2000])
            file.flush()
            time.sleep(0.0003)


def anew(path, text):
    """One whose result tells how often it was started."""
    path.parent.mkdir(exist_ok=True)
    path.with_name(f"{os.getpid()}.txt").touch()
    atomically(path, text)


def killed(monkeypatch, tmp_path, write, kills=4):
    def finished(place):
        count = json.loads((place / "out" / "count.json").read_text())["count"] if (place / "out").exists() else 0
        return {f"count {n}": "" for n in range(1, count + 1)}

    def figures(place):
        return {
            "count": float(json.loads((place / "out" / "count.json").read_text())["count"]),
            "files": str(len(names(place, "out"))),
        }

    job = Job(counting(write), lambda inputs, place: [], finished, figures, 1)
    monkeypatch.setattr(faults, "JOBS", {"counting": job})
    (tmp_path / "whole").mkdir()
    whole = faults.reference("counting", tmp_path, tmp_path / "whole")
    return faults.case("counting", 0, kills, 0, tmp_path, tmp_path / "case", whole)


def test_a_job_that_writes_whole_files_passes(monkeypatch, tmp_path):
    tally = killed(monkeypatch, tmp_path, atomically)
    assert (tally.kills, tally.lost, tally.unreadable, tally.differ, tally.problems) == (4, 0, 0, 0.0, [])


def test_a_job_that_writes_in_place_is_caught(monkeypatch, tmp_path):
    tally = killed(monkeypatch, tmp_path, in_pieces)
    assert tally.unreadable and "count.json cannot be read" in tally.problems[0]


def test_a_job_that_ends_with_other_figures_is_caught(monkeypatch, tmp_path):
    tally = killed(monkeypatch, tmp_path, anew)
    assert tally.differ > 1e-6 and any("undisturbed" in problem for problem in tally.problems)


def test_distances_are_relative_where_figures_are_large_and_infinite_for_other_text():
    assert faults._distance(2000.0, 2000.002) == pytest.approx(1e-6) and faults._distance(0.5, "0.5") == 0
    assert faults._distance("a", "b") == float("inf") == faults._distance(0.5, None)


def test_a_campaign_has_as_many_kills_as_it_was_told():
    for kills in (8, 20, 200):
        told = faults.tasks(kills, 0, list(fault_jobs.JOBS))
        assert sum(n for *_, n in told) == kills and len({(kind, number) for kind, number, _ in told}) == len(told)
    assert {kind for kind, *_ in told} == set(fault_jobs.JOBS)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path, capfd):
    torch.set_num_threads(1)
    tallies = faults.campaign(20, 0, 1, tmp_path / "work", list(fault_jobs.JOBS))
    whole = sum(tallies.values(), faults.Tally())
    assert not whole.problems, whole.problems
    assert whole.kills >= 18 and whole.lost == whole.unreadable == 0 and whole.differ <= 1e-6
