import json

import pytest

from iac_core.data.prepare import PARTS
from workers.stage_store import CHECKPOINT, StageStore


@pytest.fixture
def store(tmp_path):
    return StageStore(tmp_path)


def finish(attempt, value=1):
    return attempt.finish(settings={"a": 1}, outcome={"value": value}, provenance={"host": "h"})


def test_a_stage_never_happened_before_its_manifest(store):
    attempt = store.begin("search", "k", device="cpu")
    (attempt.folder / "weights.pt").write_bytes(b"x")
    assert store.record("search", "k") is None
    assert not store.folder("search", "k").exists()
    finish(attempt)
    assert store.record("search", "k").outcome == {"value": 1}
    assert (store.folder("search", "k") / "weights.pt").read_bytes() == b"x"


def test_the_slower_of_two_attempts_is_thrown_away(store):
    slow, fast = (store.begin("search", "k", device="cpu") for _ in range(2))
    finish(fast, value=1)
    record = (
        slow.finish(settings={}, outcome={"value": 2}, provenance={})
        if (slow.folder.exists())
        else store.record("search", "k")
    )
    assert record.outcome == {"value": 1}
    assert store.record("search", "k").outcome == {"value": 1}


def test_an_attempt_whose_folder_was_swept_away_cannot_harm_the_winner(store):
    slow, fast = (store.begin("search", "k", device="cpu") for _ in range(2))
    finish(fast, value=1)
    with pytest.raises(OSError, match="No such file"):
        finish(slow, value=2)
    assert store.record("search", "k").outcome == {"value": 1}


def test_a_new_attempt_goes_on_from_the_newest_checkpoint(store):
    first = store.begin("search", "k", device="cpu")
    (first.folder / CHECKPOINT).write_bytes(b"epoch 5")
    second = store.begin("search", "k", device="cpu")
    assert (second.folder / CHECKPOINT).read_bytes() == b"epoch 5"
    (second.folder / CHECKPOINT).write_bytes(b"epoch 9")
    third = store.begin("search", "k", device="cpu")
    assert (third.folder / CHECKPOINT).read_bytes() == b"epoch 9"


def test_a_finished_stage_keeps_no_checkpoint_and_tells_of_every_attempt(store):
    lost = store.begin("search", "k", device="cpu")
    (lost.folder / CHECKPOINT).write_bytes(b"x")
    stopped = store.begin("search", "k", device="cpu")
    stopped.give_up("stopped", reason="asked")
    record = finish(store.begin("search", "k", device="cpu"))
    assert [row["outcome"] for row in record.attempts] == ["lost", "stopped", "done"]
    assert [row["attempt"] for row in record.attempts] == [1, 2, 3]
    assert sorted(path.name for path in store.folder("search", "k").iterdir()) == ["manifest.json"]
    assert store.attempts("search", "k") == []


def test_progress_is_that_of_the_newest_attempt(store):
    store.begin("search", "k", device="cpu").report({"epoch": 3})
    store.begin("search", "k", device="cpu").report({"epoch": 4})
    assert store.progress("search", "k") == {"epoch": 4}
    assert store.progress("search", "unknown") is None


def test_a_half_written_manifest_cannot_be_seen(store, monkeypatch):
    attempt = store.begin("search", "k", device="cpu")

    def fails(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(json, "dump", fails)
    with pytest.raises(OSError, match="disk full"):
        finish(attempt)
    monkeypatch.undo()
    assert store.record("search", "k") is None
    assert finish(store.begin("search", "k", device="cpu")).outcome == {"value": 1}


@pytest.mark.parametrize("links", [True, False])
def test_a_new_attempt_takes_over_the_finished_parts_of_all_earlier_ones(
    store, monkeypatch, links
):
    if not links:
        monkeypatch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(OSError("no links")))
    for number in range(2):
        attempt = store.begin("prepare", "k", device="cpu")
        parts = attempt.folder / PARTS
        parts.mkdir(exist_ok=True)
        (parts / f"{number:06d}.npz").write_bytes(b"part %d" % number)
        (parts / f"{number + 5:06d}.npz.17.tmp").write_bytes(b"half")
    third = store.begin("prepare", "k", device="cpu")
    found = {path.name: path.read_bytes() for path in (third.folder / PARTS).iterdir()}
    assert found == {"000000.npz": b"part 0", "000001.npz": b"part 1"}
    finish(third)
    assert not (store.folder("prepare", "k") / PARTS).exists()


def test_an_orphan_that_goes_on_does_not_change_the_parts_of_another(store):
    orphan = store.begin("prepare", "k", device="cpu")
    parts = orphan.folder / PARTS
    parts.mkdir()
    (parts / "000000.npz").write_bytes(b"part 0")
    other = store.begin("prepare", "k", device="cpu")
    beside = parts / "000000.npz.1.tmp"
    beside.write_bytes(b"again")
    beside.replace(parts / "000000.npz")
    assert (other.folder / PARTS / "000000.npz").read_bytes() == b"part 0"
