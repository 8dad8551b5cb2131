"""Temporary files go when their writer is certainly gone, and never before."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from files.leftovers import LONGEST_WRITE_S, clock_of, is_left_alone, remove, remove_leftovers
from files.names import is_temporary, temporary_path, writer_of
from files.processes import own_identity
from files.writing import whole_file, write_text

ROOT = Path(__file__).parents[2]
WRITE = """
import sys, time
from pathlib import Path
from files.writing import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writes", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path / "below" / "note.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process.stdout:
        assert process.stdout.readline() == "writes\n"
    yield process
    process.kill()
    process.wait()


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(writer, tmp_path):
    write_text(tmp_path / "below" / "whole.json", "1")
    assert remove_leftovers(tmp_path) == 0
    (left,) = [name for name in os.listdir(tmp_path / "below") if is_temporary(name)]
    os.utime(tmp_path / "below" / left, (0, 0))  # however long it has been writing
    assert remove_leftovers(tmp_path) == 0
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert remove_leftovers(tmp_path, is_recursive=False) == 0
    assert remove_leftovers(tmp_path) == 1
    assert os.listdir(tmp_path / "below") == ["whole.json"]


@pytest.mark.parametrize(
    "name", ["note.json.4711.tmp", "case.tmp.nii", "a.00000000-1-1-00000000.tmp"]
)
def test_a_writer_that_cannot_be_looked_up_is_gone_after_a_day(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"half")
    assert writer_of(name) is None
    assert remove_leftovers(tmp_path) == 0
    old = clock_of(tmp_path) - LONGEST_WRITE_S - 60
    os.utime(path, (old, old))
    assert remove_leftovers(tmp_path) == 1
    assert not os.listdir(tmp_path)


def test_the_clock_is_that_of_the_files_and_not_of_this_machine(tmp_path, monkeypatch):
    (tmp_path / "note.json.4711.tmp").write_bytes(b"half")
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert remove_leftovers(tmp_path) == 0


def test_the_name_of_a_temporary_file_says_who_writes(tmp_path):
    path = tmp_path / ("ü" * 120)
    found = temporary_path(path, suffix=".nii")
    assert writer_of(found.name) == own_identity()
    assert found.suffix == ".nii"
    assert is_temporary(found.name)
    with whole_file(path) as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_is_left_alone_once_nothing_in_it_was_touched_for_a_day(tmp_path):
    folder = tmp_path / "attempt"
    write_text(folder / "below" / "note", "1")
    assert not is_left_alone(folder)
    old = time.time() - LONGEST_WRITE_S - 60
    for path in (folder / "below" / "note", folder / "below", folder):
        assert not is_left_alone(folder)
        os.utime(path, (old, old))
    assert is_left_alone(folder)
    assert not is_left_alone(tmp_path / "none")


def test_a_file_or_a_folder_is_removed(tmp_path):
    write_text(tmp_path / "a" / "b", "1")
    write_text(tmp_path / "c", "1")
    for name in ("a", "c", "none"):
        remove(tmp_path / name)
    assert not os.listdir(tmp_path)
