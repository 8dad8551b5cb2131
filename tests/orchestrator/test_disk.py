"""Disks that are full and folders that cannot be written or read: one line, and the way out."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from changed_stages import change_run
from command_line import CommandLine
from comparable_tables import comparable
from small_disks import fill, read_only, small_disk

from orchestrator.disk import free_gib, full_folder, is_full, problem_of, write_trouble
from workers.stages.table import STAGES

KINDS = tuple(STAGES)


@pytest.fixture
def call(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


def one_line(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line and "nothing was started" not in line]
    return line


def test_what_cannot_be_written_is_known_before(tmp_path):
    assert write_trouble(tmp_path / "new" / "folder") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    found = write_trouble(tmp_path / "file" / "runs")
    assert str(found) == f"{tmp_path / 'file'}: must be a folder, got a file; name another folder"
    assert write_trouble(Path("/proc/runs")) is not None
    with small_disk(tmp_path / "small", "64k") as folder:
        assert "the disk must have room" in str(write_trouble(folder / "runs"))
        assert full_folder([tmp_path, folder]) == folder
        assert free_gib(folder / "x") < 1
    with read_only(tmp_path / "ro") as folder:
        assert str(write_trouble(folder)).startswith(
            f"{folder}: must be open to this user, got Read"
        )


def test_a_fault_of_the_code_is_no_full_disk():
    error = NameError("name 'logger' is not defined")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(error.__context__)
    assert not is_full(error)


def test_a_full_disk_is_known_by_whatever_it_caused():
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("a database")
    wrapped.__cause__ = full
    assert is_full(full)
    assert is_full(wrapped)
    assert is_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/r/x"), "/r/x: the disk must have room"),
        (OSError(errno.EROFS, "Read-only file system", "/r/x"), "/r/x: must be open to this user"),
        (OSError(errno.EISDIR, "Is a directory", "/r"), "/r: must be a file, got Is a directory"),
        (
            OSError(errno.EIO, "Input/output error"),
            "/runs: must be usable, got Input/output error",
        ),
        (OSError("no number"), "/runs: must be usable, got no number"),
    ],
)
def test_an_error_becomes_a_path_a_rule_and_a_way_out(error, said):
    text = str(problem_of(error, [Path("/runs")]))
    assert text.startswith(said)
    assert "; " in text


@pytest.mark.parametrize("place", ["full", "read_only", "file", "proc"])
def test_run_refuses_a_runs_folder_that_cannot_be_written(place, write_sweep, tmp_path, call):
    sweep, where = write_sweep("[no_cell]"), tmp_path / "there"
    if place == "full":
        with small_disk(where, "64k"):
            done = call("run", sweep, "--inline", "--runs", where, cwd=tmp_path)
    elif place == "read_only":
        with read_only(where):
            done = call("run", sweep, "--inline", "--runs", where / "runs", cwd=tmp_path)
    else:
        (tmp_path / "file").touch()
        where = Path("/proc/runs") if place == "proc" else tmp_path / "file"
        done = call("run", sweep, "--inline", "--runs", where, cwd=tmp_path)
    assert done.code == 2, done
    line = one_line(done.err)
    assert line.startswith(str(where.parent if place == "proc" else where))
    assert "away" not in line


def test_a_read_only_or_full_store_is_refused_and_doctor_says_so(write_sweep, tmp_path, call):
    sweep = write_sweep("[no_cell]", extra="    store: stages\n")
    for disk in (read_only, lambda folder: small_disk(folder, "64k")):
        with disk(tmp_path / "stages"):
            done = call("run", sweep, "--inline", cwd=tmp_path)
            assert done.code == 2
            assert one_line(done.err).startswith(str(tmp_path / "stages"))
            done = call("doctor", sweep, cwd=tmp_path)
            (line,) = [line for line in done.out.splitlines() if line.startswith("store")]
            assert (done.code, "NO" in line) == (1, True)


@pytest.mark.parametrize("what", ["a folder", "another user", "too long"])
def test_a_sweep_file_that_cannot_be_read_is_one_line(what, tmp_path):
    sweep, words = tmp_path / "sweep.yaml", []
    if what == "a folder":
        sweep.mkdir()
    elif what == "too long":
        sweep = tmp_path / ("x" * 300)
    else:
        sweep.write_text("metadata: {}")
    if what == "another user":
        if os.getuid() != 0 or not shutil.which("setpriv"):
            pytest.skip("another user takes root and setpriv")
        sweep.chmod(0o600)
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
    done = subprocess.run(
        [*words, sys.executable, "-m", "orchestrator", "plan", str(sweep)],
        cwd="/", env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2]),
                      "HOME": "/nonexistent", "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(sweep)[:80] in done.stderr


@pytest.fixture
def finished_on(write_sweep, call, tmp_path):
    """A sweep that ran to its end, in a folder of runs."""
    sweep = write_sweep("[no_cell, none]")
    done = call("run", sweep, "--inline", cwd=tmp_path)
    assert done.code == 0, done
    return sweep


def test_results_that_cannot_be_written_are_one_line(finished_on, call, tmp_path, phantom_folder):
    (tmp_path / "file").touch()
    with read_only(tmp_path / "closed") as closed:
        for words in (
            ("export", finished_on, "--into", closed / "x"),
            ("export", finished_on, "--into", tmp_path / "file" / "x"),
            (
                "data",
                "show",
                f"acdc={phantom_folder}",
                "--volumes",
                "1",
                "--out",
                closed / "p.html",
            ),
            ("phantom", closed / "phantom", "--patients", "2"),
        ):
            done = call(*words, cwd=tmp_path)
            assert done.code == 2, done
            assert one_line(done.err).startswith(
                str(words[-1] if words[0] == "data" else tmp_path)
            )
    with small_disk(tmp_path / "small", "16k") as small:
        for words in (
            ("export", finished_on, "--into", small / "x"),
            ("phantom", small / "phantom", "--patients", "2"),
        ):
            done = call(*words, cwd=tmp_path)
            assert done.code == 1, done
            assert "the disk must have room" in one_line(done.err)


def test_a_runs_folder_that_is_read_only_after_a_run_is_one_line(finished_on, call, tmp_path):
    with read_only(tmp_path / "runs"):
        status = call("status", finished_on, cwd=tmp_path)
        assert (status.code, "2 of 2 jobs done" in status.out) == (0, True)
        for command in ("run", "sync", "report"):
            done = call(command, finished_on, *(["--inline"] * (command == "run")), cwd=tmp_path)
            assert done.code in (1, 2), done
            assert str(tmp_path / "runs") in done.err
            assert "is away" not in done.err, done.err


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_in_words_and_the_same_command_goes_on(
    write_sweep, call, tmp_path
):
    # Stages wait for room on their own disk; this is about what the driver writes itself.
    sweep = write_sweep("[no_cell]", extra="    store: stages\n")
    with small_disk(tmp_path / "runs", "1200k") as runs:
        done = call("run", sweep, "--inline", cwd=tmp_path)
        assert done.code == 1, done
        assert "room" in done.err or "No space left" in done.err
        assert "is away" not in done.err
        subprocess.run(["mount", "-o", "remount,size=200m", str(runs)], check=True)
        again = call("run", sweep, "--inline", "--again", cwd=tmp_path)
        assert again.code == 0, again
        assert (runs / "tiny" / "report" / "report.html").exists()


@pytest.mark.slow
def test_a_stage_that_meets_a_full_disk_says_so_and_the_same_command_goes_on(
    finished_on, call, tmp_path, monkeypatch
):
    """Something else fills the disk while a stage of each kind begins, on a disk of its own."""
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {"disk_full": 0.01})
    monkeypatch.setattr("workers.run_stage._PAUSES_OF_A_FINISH_S", (0.01,))
    undisturbed = comparable(tmp_path / "runs")
    for kind in KINDS:
        with small_disk(tmp_path / kind, "64m") as small:
            words = ("run", finished_on, "--inline", "--runs", small / "runs")
            with monkeypatch.context() as filled:
                change_run(filled, kind, _fills_the_disk(STAGES[kind].run, small))
                done = call(*words, cwd=tmp_path)
            assert done.code == 1, (kind, done)
            said = re.search(rf"{small}/runs\S*: the disk must have room, got .*; (.*)", done.err)
            assert said[1].startswith("make room there and the same command goes on")
            assert "is away" not in done.err
            assert "Traceback" not in done.out + done.err
            assert not list((small / "runs" / "store" / kind).glob("*/manifest.json"))
            (small / "filler").unlink()
            again = call(*words, cwd=tmp_path)
            assert again.code == 0, (kind, again)
            for name, frame in comparable(small / "runs").items():
                pd.testing.assert_frame_equal(frame, undisturbed[name], obj=f"{kind}: {name}")


def _fills_the_disk(stage, disk):
    """A stage before which something else takes all room, once."""

    def run(room):
        if not (disk / "filler").exists():
            fill(disk)
        return stage(room)

    return run
