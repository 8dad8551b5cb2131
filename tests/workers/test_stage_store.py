import json
import os

import pytest

from iac_core.data.prepare import PARTS
from workers import stage_store
from workers.lease import Holder, LeaseLostError
from workers.stage_store import CHECKPOINT, Attempt, StageStore


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


def test_a_stage_never_happened_before_its_manifest(store):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    assert store.record("search", "k") is None
    assert not store.folder("search", "k").exists()
    finish(attempt)
    assert store.record("search", "k").outcome == {"value": 1}
    assert (store.folder("search", "k") / "weights.pt").read_bytes() == b"x"


def test_a_stage_that_is_computed_is_not_begun_again(store):
    first = store.begin("search", "k", device="cpu")
    second = store.begin("search", "k", device="cpu")
    assert isinstance(second, Holder)
    assert second.identity["pid"] == os.getpid()
    first.give_up("stopped")
    assert isinstance(store.begin("search", "k", device="cpu"), Attempt)


def test_an_attempt_that_was_superseded_publishes_nothing(store):
    slow, fast = begin(store), begin(store)
    with pytest.raises(LeaseLostError):
        finish(slow, value=2)
    assert store.record("search", "k") is None
    finish(fast, value=1)
    assert store.record("search", "k").outcome == {"value": 1}
    with pytest.raises(LeaseLostError):
        finish(slow, value=2)
    slow.give_up("failed", error="late")
    assert store.record("search", "k").outcome == {"value": 1}
    assert not slow.folder.parent.exists()


def test_a_rename_never_overwrites(store, monkeypatch):
    slow, fast = begin(store), begin(store)
    finish(fast, value=1)
    slow.folder.mkdir(parents=True)
    monkeypatch.setattr(slow.lease, "check", lambda: None)  # looked before, publishes after
    record = finish(slow, value=2)
    assert record.outcome == {"value": 1}
    assert store.record("search", "k").outcome == {"value": 1}


def test_an_attempt_that_ended_before_its_rename_is_put_into_place(store, monkeypatch):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    monkeypatch.setattr(stage_store, "_publish", lambda folder, target: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finish(attempt)
    monkeypatch.undo()
    assert store.record("search", "k") is None
    other = begin(store)
    assert store.publish_finished("search", "k").outcome == {"value": 1}
    other.clear()
    assert (store.folder("search", "k") / "weights.pt").read_bytes() == b"x"
    assert store.attempts("search", "k") == []


def test_a_new_attempt_goes_on_from_the_newest_checkpoint(store):
    first = store.begin("search", "k", device="cpu")
    (first.folder / CHECKPOINT).write_bytes(b"epoch 5")
    second = begin(store)
    assert (second.folder / CHECKPOINT).read_bytes() == b"epoch 5"
    (second.folder / CHECKPOINT).write_bytes(b"epoch 9")
    third = begin(store)
    assert (third.folder / CHECKPOINT).read_bytes() == b"epoch 9"


def test_a_finished_stage_keeps_no_checkpoint_and_tells_of_every_attempt(store):
    lost = begin(store)
    (lost.folder / CHECKPOINT).write_bytes(b"x")
    stopped = begin(store)
    stopped.give_up("stopped", reason="asked")
    record = finish(begin(store))
    assert [row["outcome"] for row in record.attempts] == ["lost", "stopped", "done"]
    assert [row["attempt"] for row in record.attempts] == [1, 2, 3]
    assert sorted(path.name for path in store.folder("search", "k").iterdir()) == ["manifest.json"]
    assert store.attempts("search", "k") == []


def test_progress_is_that_of_the_newest_attempt(store):
    begin(store).report({"epoch": 3})
    begin(store).report({"epoch": 4})
    assert store.progress("search", "k") == {"epoch": 4}
    assert store.progress("search", "unknown") is None


def test_a_half_written_manifest_cannot_be_seen(store, monkeypatch):
    attempt = begin(store)

    def fails(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", fails)
    with pytest.raises(OSError, match="disk full"):
        finish(attempt)
    monkeypatch.undo()
    assert store.record("search", "k") is None
    assert finish(begin(store)).outcome == {"value": 1}


@pytest.mark.parametrize("links", [True, False])
def test_a_new_attempt_takes_over_the_finished_parts_of_all_earlier_ones(
    store, monkeypatch, links
):
    if not links:
        monkeypatch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(OSError("no links")))
    for number in range(2):
        attempt = begin(store, "prepare")
        parts = attempt.folder / PARTS
        parts.mkdir(exist_ok=True)
        (parts / f"{number:06d}.npz").write_bytes(b"part %d" % number)
        (parts / f"{number + 5:06d}.npz.17.tmp").write_bytes(b"half")
        (parts / f"case{number}.tmp.nii").write_bytes(b"half")
    third = begin(store, "prepare")
    found = {path.name: path.read_bytes() for path in (third.folder / PARTS).iterdir()}
    assert found == {"000000.npz": b"part 0", "000001.npz": b"part 1"}
    finish(third)
    assert not (store.folder("prepare", "k") / PARTS).exists()


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
