"""Files are whole or absent."""

import ctypes
import subprocess
import sys

import pytest
import torch

from revox_lightning import audio, files
from revox_lightning.files import whole_folder, write_atomically


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old" and [p.name for p in path.parent.iterdir()] == ["file.txt"]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_a_finished_file_can_be_read_by_others_as_the_umask_says(tmp_path):
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


_WRITES = """
import os, sys
from pathlib import Path
from revox_lightning import files
path = Path(sys.argv[1])
def half(file):
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    sys.stdin.read()
if path.suffix == ".wav":
    import torch
    from revox_lightning import audio
    with audio.writer(path, 8000, 1) as out:
        out.write(torch.zeros(1, 100))
        print("writing", flush=True)
        sys.stdin.read()
elif path.suffix:
    files.write_atomically(path, half)
else:
    with files.whole_folder(path) as place:
        (place / "part").write_text("half")
        print("writing", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def writing():
    """A function that starts a process which writes half of a file or folder and waits."""
    begun = []

    def start(path):
        how = [sys.executable, "-c", _WRITES, str(path)]
        begun.append(subprocess.Popen(how, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert begun[-1].stdout.readline() == "writing\n"
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def again(path):
    if path.suffix == ".wav":
        audio.write(path, torch.zeros(1, 10), 8000)
    elif path.suffix:
        write_atomically(path, lambda file: file.write(b"whole"))
    else:
        with whole_folder(path) as place:
            (place / "file").write_text("whole")


@pytest.mark.parametrize("name", ["metrics.json", "take.wav", "pairs"])
def test_what_a_killed_process_left_goes_with_the_next_writing_and_a_living_ones_stays(name, tmp_path, writing):
    others = [tmp_path / f".{name}.swp", tmp_path / f".{name}.mine.part"]
    for other in others:
        other.touch()
    killed = writing(tmp_path / name)
    killed.kill()
    killed.wait()
    (left,) = set(tmp_path.iterdir()) - set(others)
    writing(tmp_path / name)
    (living,) = set(tmp_path.iterdir()) - {*others}
    assert living != left and not (tmp_path / name).exists()
    again(tmp_path / name)
    assert set(tmp_path.iterdir()) == {tmp_path / name, living, *others}


def test_a_folder_is_replaced_whole_also_where_the_system_cannot_exchange(tmp_path, monkeypatch):
    def no_library(*_, **__):
        raise OSError

    for n, library in enumerate((ctypes.CDLL, no_library)):
        monkeypatch.setattr(files.ctypes, "CDLL", library)
        with whole_folder(tmp_path / "out") as place:
            (place / str(n)).touch()
        assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["out", f"out/{n}"]
    with pytest.raises(ValueError), whole_folder(tmp_path / "out"):
        raise ValueError
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "1").exists()


def test_a_folder_that_was_set_aside_when_the_process_was_killed_comes_back(tmp_path):
    aside = tmp_path / ".out.abcdefgh.part.old"
    aside.mkdir()
    (aside / "earlier").touch()
    with pytest.raises(ValueError), whole_folder(tmp_path / "out"):
        raise ValueError
    assert (tmp_path / "out" / "earlier").exists() and not aside.exists()


@pytest.mark.parametrize("name", ["metrics.json", "pairs"])
def test_what_another_took_for_left_over_before_it_was_locked_is_made_anew(name, tmp_path, monkeypatch):
    """Between the making of a temporary file and its lock another writer may look for what was left."""
    lock, taken = files._lock, []

    def late(handle, waiting=False):
        if waiting and not taken:
            taken.append(1)
            files.clear_leftovers(tmp_path / name)
        return lock(handle, waiting)

    monkeypatch.setattr(files, "_lock", late)
    again(tmp_path / name)
    assert taken and [path.name for path in tmp_path.iterdir()] == [name]
