"""Leases between processes: one holder; a dead one is followed and does not come back."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from lease_takers import taken_numbers
from small_disks import fill, small_disk

from workers.lease import Holder, Lease, LeaseLostError, LeaseWatch, holder

ROOT = Path(__file__).parents[2]


def take(folder, **changes):
    return Lease.take(folder, **({"time_to_live_s": 60.0} | changes))


def test_one_process_holds_a_lease_and_the_next_one_follows(tmp_path):
    with take(tmp_path) as first:
        assert first.number == 1
        found = take(tmp_path)
        assert isinstance(found, Holder)
        assert found.number == 1
        assert found.identity["pid"] == os.getpid()
    with take(tmp_path) as second:
        assert second.number == 2
        second.check()


def test_a_lease_is_given_back_where_the_disk_takes_no_new_file(tmp_path):
    with small_disk(tmp_path / "small", "64k,nr_inodes=6") as folder:
        first = take(folder)
        fill(folder)
        others = [folder / f"file_{number}" for number in range(6)]
        with suppress(OSError):
            for file in others:
                file.touch()
        first.give_back()
        found = holder(folder)
        assert (found.number, found.is_over, found.is_known_dead) == (1, True, True)
        for file in (folder / "filler", *others):
            file.unlink(missing_ok=True)
        with take(folder) as second:
            assert second.number == 2
            second.check()


def test_a_holder_that_was_superseded_finds_out(tmp_path):
    first = take(tmp_path)
    second = take(tmp_path, dead_number=1)
    assert second.number == 2
    with pytest.raises(LeaseLostError):
        first.check()
    assert first.is_lost
    second.check()
    assert isinstance(take(tmp_path, dead_number=1), Holder)
    first.give_back()
    second.check()
    second.give_back()


def test_the_thread_notices_by_itself(tmp_path):
    first = take(tmp_path, time_to_live_s=0.3)
    take(tmp_path, dead_number=1).give_back()
    deadline = time.monotonic() + 10
    while not first.is_lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert first.is_lost


def test_a_folder_that_is_gone_is_a_lost_lease(tmp_path):
    folder = tmp_path / "work"
    lease = take(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.give_back()
    assert not folder.exists()


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_watch_believes_its_own_clock_and_the_beats_alone(tmp_path):
    lease, clock = take(tmp_path), Clock()
    watch = LeaseWatch(tmp_path, 10.0, clock)
    assert watch.dead_number() is None
    clock.now = 9.0
    assert watch.dead_number() is None
    lease._write_beat()
    clock.now = 18.0
    assert watch.dead_number() is None
    clock.now = 28.5
    assert watch.dead_number() == 1
    lease.give_back()
    assert LeaseWatch(tmp_path, 10.0, clock).dead_number() == 1


def test_of_many_that_take_over_one_wins(tmp_path):
    take(tmp_path)
    for round_ in range(1, 6):
        assert taken_numbers(tmp_path, 8, dead_number=round_) == [0] * 7 + [round_ + 1]


HOLD = """
import sys, time
from pathlib import Path
from workers.lease import Lease
lease = Lease.take(Path(sys.argv[1]), time_to_live_s=float(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


def other_holder(folder, time_to_live_s):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, str(time_to_live_s)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


def test_a_killed_process_of_this_machine_is_followed_at_once(tmp_path):
    process = other_holder(tmp_path, 600)
    assert isinstance(take(tmp_path), Holder)
    process.kill()
    process.wait()
    assert holder(tmp_path).is_known_dead
    with take(tmp_path) as lease:
        assert lease.number == 2


def test_a_stopped_process_beats_no_more_and_a_running_one_does(tmp_path):
    process = other_holder(tmp_path, 3.0)
    try:
        watch = LeaseWatch(tmp_path, 3.0)
        for _ in range(40):
            assert watch.dead_number() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while watch.dead_number() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watch.dead_number() == 1
    finally:
        process.kill()
        process.wait()


def test_a_step_of_the_wall_clock_takes_no_lease(tmp_path, monkeypatch):
    process = other_holder(tmp_path, 600)
    boot_time = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time + 60.0)
    assert not holder(tmp_path).is_known_dead
    assert isinstance(take(tmp_path), Holder)
    process.kill()
    process.wait()
    assert holder(tmp_path).is_known_dead


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 1}', b"\xff"])
def test_a_damaged_lease_is_left_to_run_out(content, tmp_path):
    take(tmp_path).stop()
    (tmp_path / "lease.000001.json").write_bytes(content)
    (tmp_path / "lease.000001.beat").write_bytes(b"\x00")
    clock = Clock()
    watch = LeaseWatch(tmp_path, 10.0, clock)
    assert watch.dead_number() is None
    assert isinstance(take(tmp_path), Holder)
    clock.now = 11.0
    assert watch.dead_number() == 1
    with take(tmp_path, dead_number=1) as lease:
        assert lease.number == 2


def test_a_folder_in_the_place_of_a_lease_is_left_to_run_out(tmp_path):
    (tmp_path / "lease.000001.json").mkdir()
    assert holder(tmp_path).number == 1
    with take(tmp_path, dead_number=1) as lease:
        assert lease.number == 2


def test_a_process_of_another_machine_is_not_looked_up(tmp_path, monkeypatch):
    process = other_holder(tmp_path, 600)
    process.kill()
    process.wait()
    monkeypatch.setattr("files.processes.machine", lambda: "another boot")
    assert not holder(tmp_path).is_known_dead
    assert isinstance(take(tmp_path), Holder)
