"""A process is known by the kernel's ticks: clock steps and reused numbers do not deceive."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from files import processes
from files.processes import ProcessIdentity, machine, own_identity, start_of

ROOT = Path(__file__).parents[2]
SAY = (
    "from files.processes import *; i = own_identity(); print(i.machine, i.pid, i.start, sep='|')"
)


def started(words=()):
    """A process that waits, and what it says of itself."""
    code = f"{SAY}; import sys; sys.stdout.flush(); sys.stdin.read()"
    process = subprocess.Popen(
        [*words, sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    where, pid, start = process.stdout.readline().strip().split("|")
    return process, ProcessIdentity(machine=where, pid=int(pid), start=int(start))


def ended(process):
    process.communicate("")


def test_a_process_is_gone_once_it_has_ended():
    process, identity = started()
    assert not identity.is_gone
    ended(process)
    assert identity.is_gone
    assert not own_identity().is_gone


def test_a_process_that_nobody_has_waited_for_is_gone():
    process, identity = started()
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert identity.is_gone
    process.stdout.close()
    process.wait()


def test_a_step_of_the_wall_clock_takes_no_identity(monkeypatch):
    """The kernel tells its boot by the wall clock of now: after a step, another time.

    psutil adds a process's ticks to that time; the step is made there, since a test must not set
    the machine's clock.
    """
    process, identity = started()
    seen = psutil.Process(process.pid).create_time()
    boot_time = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time + 3600.0)
    assert psutil.Process(process.pid).create_time() == pytest.approx(seen + 3600.0, abs=1.0)
    assert not identity.is_gone
    assert start_of(process.pid) == identity.start
    ended(process)
    assert identity.is_gone


def test_a_number_that_is_used_again_is_another_process():
    process, identity = started()
    earlier = replace(identity, start=identity.start - 1)
    assert earlier.is_gone
    assert not identity.is_gone
    ended(process)


def test_a_name_with_brackets_and_blanks_does_not_confuse(tmp_path):
    program = tmp_path / "odd) S 1 (name"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "600"])
    try:
        here = own_identity()
        start = start_of(process.pid)
        assert start >= here.start
        assert not replace(here, pid=process.pid, start=start).is_gone
    finally:
        process.kill()
        process.wait()


def test_a_process_of_another_boot_is_not_looked_up():
    process, identity = started()
    ended(process)
    assert not replace(identity, machine="another boot pid:[1]").is_gone
    assert not replace(identity, machine="").is_gone


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="a namespace takes root and unshare"
)
def test_a_container_does_not_take_the_processes_of_another_for_gone():
    words = ["unshare", "--pid", "--fork", "--mount-proc"]
    process, inside = started(words)
    try:
        assert inside.pid == 1 or inside.pid < 10
        assert inside.machine != machine()
        assert inside.machine.split()[0] == machine().split()[0]
        # The same number is another process here, or none.
        assert not inside.is_gone
        of_here = own_identity()
        code = (
            "from files.processes import *; import sys;"
            f"print(ProcessIdentity(machine={of_here.machine!r}, pid={of_here.pid}, "
            f"start={of_here.start}).is_gone)"
        )
        done = subprocess.run(
            [*words, sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "False"
    finally:
        ended(process)


@pytest.mark.parametrize(
    "raw",
    [{}, {"machine": "m", "pid": 1, "started": 1.5}, {"machine": "m", "pid": True, "start": 1},
     {"machine": 1, "pid": 1, "start": 1}, {"machine": "m", "pid": -1, "start": 1}],
)  # fmt: skip
def test_a_note_of_another_form_names_no_process(raw):
    assert ProcessIdentity.from_json(raw) is None


def test_elsewhere_than_on_linux_psutil_tells(monkeypatch):
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    process, _ = started()
    assert machine()
    identity = ProcessIdentity(machine=machine(), pid=process.pid, start=start_of(process.pid))
    assert not identity.is_gone
    ended(process)
    assert identity.is_gone
