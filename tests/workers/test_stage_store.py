"""What only a store in a folder does; what every store promises is in contracts."""

import errno
import os
import time

import pytest

from files.leftovers import LONGEST_WRITE_S
from iac_core.data.prepare import PARTS
from workers.stage_store import Attempt, StageStore


@pytest.fixture
def store(tmp_path):
    return StageStore(tmp_path)


def begin(store, kind="search"):
    """A new attempt; those before it count as dead."""
    attempt = store.begin(kind, "k", device="cpu", dead_number=99)
    assert isinstance(attempt, Attempt)
    return attempt


def finish(attempt, value=1):
    return attempt.finish(settings={"a": 1}, outcome={"value": value}, provenance={"host": "h"})


def no_space(path):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_an_attempt_is_renamed_into_its_place(store, tmp_path):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    assert not store.folder("search", "k").exists()
    inode = (attempt.folder / "weights.pt").stat().st_ino
    finish(attempt)
    assert store.folder("search", "k") == tmp_path / "search" / "k"
    assert (tmp_path / "search" / "k" / "weights.pt").stat().st_ino == inode
    assert os.listdir(tmp_path / "attempts") == []


def test_a_half_written_manifest_cannot_be_seen(store):
    attempt = begin(store)
    with pytest.MonkeyPatch.context() as full:
        full.setattr("files.writing.sync_file", no_space)
        with pytest.raises(OSError, match="No space left"):
            finish(attempt)
    assert store.record("search", "k") is None
    assert not (attempt.folder / "manifest.json").exists()
    assert finish(begin(store)).outcome == {"value": 1}


def test_a_lease_is_given_back_if_its_attempt_cannot_be_opened(store, tmp_path):
    first = begin(store)
    first.give_up("stopped")
    (first.folder / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(OSError, match="No space left"):
        store.begin("search", "k", device="cpu", is_whole=no_space)
    assert isinstance(store.begin("search", "k", device="cpu"), Attempt)


@pytest.mark.parametrize("links", [True, False])
def test_finished_parts_are_taken_over_with_and_without_links(store, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(OSError("no links")))
    for number in range(2):
        attempt = begin(store, "prepare")
        parts = attempt.folder / PARTS
        parts.mkdir(exist_ok=True)
        (parts / f"{number:06d}.npz").write_bytes(b"part %d" % number)
        (parts / f"{number + 5:06d}.npz.17.tmp").write_bytes(b"half")
    third = begin(store, "prepare")
    found = {path.name: path.read_bytes() for path in (third.folder / PARTS).iterdir()}
    assert found == {"000000.npz": b"part 0", "000001.npz": b"part 1"}


def test_an_orphan_that_goes_on_does_not_change_the_parts_of_another(store):
    orphan = begin(store, "prepare")
    parts = orphan.folder / PARTS
    parts.mkdir()
    (parts / "000000.npz").write_bytes(b"part 0")
    other = begin(store, "prepare")
    beside = parts / "000000.npz.1.tmp"
    beside.write_bytes(b"again")
    beside.replace(parts / "000000.npz")
    assert (other.folder / PARTS / "000000.npz").read_bytes() == b"part 0"


def test_the_remains_of_a_stage_without_a_manifest_are_moved_aside(store, tmp_path, caplog):
    remains = tmp_path / "search" / "k"
    (remains / "below").mkdir(parents=True)
    (remains / "weights.pt").write_bytes(b"left by an interrupted rm -r")
    assert finish(begin(store)).outcome == {"value": 1}
    (aside,) = (tmp_path / "damaged").iterdir()
    assert (aside / "weights.pt").read_bytes() == b"left by an interrupted rm -r"
    assert any(aside.name in message for message in caplog.messages)


def test_what_appears_in_the_place_of_a_stage_while_it_is_computed_is_moved_aside(store, tmp_path):
    attempt = begin(store)
    (tmp_path / "search" / "k" / "below").mkdir(parents=True)
    assert finish(attempt).outcome == {"value": 1}
    assert store.record("search", "k").outcome == {"value": 1}


def test_stray_files_and_folders_are_passed_over(store, tmp_path):
    begin(store).give_up("failed", error="x")
    for name in (".DS_Store", "search/.DS_Store", "attempts/search-k/.DS_Store", "attempts/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\x00\x01")
    (tmp_path / "search" / "odd" / "manifest.json").mkdir(parents=True)
    (tmp_path / "attempts" / "search-k" / "stray").write_bytes(b"x")
    (tmp_path / "retrain").write_bytes(b"a file where a folder is expected")
    assert store.record("search", "odd") is None
    assert store.record("search", ".DS_Store") is None
    assert store.records("search", store.keys("search")) == []
    assert store.keys("retrain") == frozenset()
    assert store.record("retrain", "k") is None
    assert [row["outcome"] for row in store.attempts("search", "k")] == ["failed"]
    assert store.clean() == 0
    assert finish(begin(store)).outcome == {"value": 1}


def test_attempts_that_a_kill_left_of_a_whole_stage_are_removed(store, tmp_path):
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(store.place, "tidy", lambda stage: None)
        other = begin(store)
        (other.folder / "checkpoint.pt").write_bytes(b"x")
        attempt = begin(store)
        finish(attempt)
    left = tmp_path / "attempts" / "search-k"
    assert left.is_dir()
    assert store.clean() == 0  # its holder, this process, lives
    attempt.lease.give_back()
    assert store.clean() == 1
    assert not left.exists()
    assert store.record("search", "k").outcome == {"value": 1}


def test_attempts_of_another_machine_are_removed_once_nobody_has_touched_them(store, tmp_path):
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr("files.processes.machine", lambda: "another machine")
        elsewhere.setattr(store.place, "tidy", lambda stage: None)
        finish(begin(store))
    left = tmp_path / "attempts" / "search-k"
    assert store.clean() == 0
    old = time.time() - 2 * LONGEST_WRITE_S
    for path in (*left.rglob("*"), left):
        os.utime(path, (old, old))
    assert store.clean() == 1
    assert not left.exists()


def test_a_checked_outcome_is_not_read_again_in_a_process(store, monkeypatch):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    finish(attempt)
    store.folder("search", "k")
    monkeypatch.setattr("workers.stage_store.damage_of", lambda folder, files: "read again")
    assert StageStore(store.root).folder("search", "k").is_dir()
