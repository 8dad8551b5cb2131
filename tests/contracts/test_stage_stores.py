"""What every store of stages promises: a folder, and a prefix of a bucket."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lease_takers import taken_numbers

from files.encoding import to_json
from iac_core.data.prepare import PARTS
from iac_core.errors import ConfigError
from workers.lease import Holder, Lease, LeaseLostError, LeaseWatch, holder
from workers.places import LocalPlace, open_place
from workers.stage_record import DamagedStageError
from workers.stage_store import CHECKPOINT, Attempt, StageStore
from workers.store_version import STAMP, VERSION

ROOT = Path(__file__).parents[2]
STAGE = "search/k"


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    return request.getfixturevalue("s3_root") if request.param == "bucket" else tmp_path / "store"


@pytest.fixture
def store(root):
    return StageStore(root)


@pytest.fixture
def change_host(monkeypatch, tmp_path):
    """A function after which this process has an empty cache, as on a host that is new."""
    hosts = iter(range(99))
    return lambda: monkeypatch.setenv("IAC_CACHE", str(tmp_path / f"cache of host {next(hosts)}"))


def begin(store, kind="search"):
    """A new attempt; those before it count as dead."""
    attempt = store.begin(kind, "k", device="cpu", dead_number=99)
    assert isinstance(attempt, Attempt)
    return attempt


def finish(attempt, value=1):
    return attempt.finish(settings={"a": 1}, outcome={"value": value}, provenance={"host": "h"})


def everything(store):
    """Every name in a store."""
    if isinstance(store.place, LocalPlace):
        paths = [path for path in Path(store.root).rglob("*") if path.is_file()]
        return sorted(path.relative_to(store.root).as_posix() for path in paths)
    return sorted(store.place._tree(""))


def test_a_stage_never_happened_before_its_manifest(store, root):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    attempt.report({"epoch": 1})
    assert store.record("search", "k") is None
    assert store.keys("search") == frozenset()
    assert store.read("search", "k", "weights.pt") is None
    finish(attempt)
    for seen in (store, StageStore(root)):
        assert seen.record("search", "k").outcome == {"value": 1}
        assert seen.keys("search") == {"k"}
        assert [record.key for record in seen.records("search", ["absent", "k"])] == ["k"]
        assert seen.read("search", "k", "weights.pt") == b"x"
        assert seen.read("search", "k", "absent") is None
        assert (seen.folder("search", "k") / "weights.pt").read_bytes() == b"x"


def test_another_host_reads_all_files_of_an_outcome_and_nothing_else(store, root, change_host):
    attempt = begin(store)
    (attempt.folder / "below" / "deeper").mkdir(parents=True)
    (attempt.folder / "below" / "deeper" / "a.npy").write_bytes(b"a" * 100_000)
    (attempt.folder / "empty").write_bytes(b"")
    large = os.urandom(40 * 2**20)
    (attempt.folder / "large.npy").write_bytes(large)
    (attempt.folder / CHECKPOINT).write_bytes(b"not for others")
    attempt.report({"epoch": 1})
    finish(attempt)
    change_host()
    folder = StageStore(root).folder("search", "k")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == ["below/deeper/a.npy", "large.npy", "manifest.json"]
    assert (folder / "large.npy").read_bytes() == large
    assert (folder / "below" / "deeper" / "a.npy").read_bytes() == b"a" * 100_000
    assert (folder / "empty").read_bytes() == b""
    assert json.loads((folder / "manifest.json").read_text())["key"] == "k"


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
    assert store.place.names("attempts/search-k") <= {
        row["attempt_id"] for row in store.record("search", "k").attempts
    }


def test_of_two_that_publish_at_the_same_time_one_counts(store, root, monkeypatch, tmp_path):
    slow = begin(store)
    (slow.folder / "weights.pt").write_bytes(b"slow")
    kept = slow.folder.rename(tmp_path / "aside")
    fast = begin(StageStore(root))
    (fast.folder / "weights.pt").write_bytes(b"fast")
    finish(fast, value=1)
    before = everything(store)
    slow.folder.parent.mkdir(parents=True, exist_ok=True)
    kept.rename(slow.folder)
    monkeypatch.setattr(slow.lease, "check", lambda: None)  # looked before, publishes after
    assert finish(slow, value=2).outcome == {"value": 1}
    assert StageStore(root).record("search", "k").outcome == {"value": 1}
    assert StageStore(root).read("search", "k", "weights.pt") == b"fast"
    assert everything(store) == before


def test_a_superseded_attempt_that_comes_back_late_leaves_nothing(store, root, change_host):
    slow = begin(store)
    change_host()
    finish(begin(StageStore(root)))
    before = everything(store)
    slow.folder.mkdir(parents=True, exist_ok=True)
    (slow.folder / "weights.pt").write_bytes(b"late")
    store.place.send(slow.name)
    with pytest.raises(LeaseLostError):
        finish(slow)
    slow.abandon()
    assert everything(store) == before


def test_an_attempt_that_ended_before_its_publication_is_published(store, root, change_host):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(b"x")
    with pytest.MonkeyPatch.context() as dying:
        dying.setattr(type(store.place), "publish", lambda place, attempt, stage: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finish(attempt)
    assert store.record("search", "k") is None
    change_host()
    later = StageStore(root)
    other = begin(later)
    assert later.publish_finished("search", "k").outcome == {"value": 1}
    other.clear()
    assert later.read("search", "k", "weights.pt") == b"x"
    assert (later.folder("search", "k") / "weights.pt").read_bytes() == b"x"
    assert later.attempts("search", "k") == []
    assert not later.is_under_way("search", "k")


def test_a_new_attempt_on_another_host_goes_on_from_the_newest_checkpoint(root, change_host):
    for epoch in (5, 9):
        change_host()
        attempt = begin(StageStore(root))
        (attempt.folder / CHECKPOINT).write_bytes(b"epoch %d" % epoch)
        attempt.report({"epoch": epoch})
    change_host()
    third = begin(StageStore(root))
    assert (third.folder / CHECKPOINT).read_bytes() == b"epoch 9"


def test_the_checkpoint_of_a_stopped_attempt_is_not_lost(root, change_host):
    attempt = begin(StageStore(root))
    (attempt.folder / CHECKPOINT).write_bytes(b"epoch 3")
    attempt.give_up("stopped")
    change_host()
    second = begin(StageStore(root))
    assert (second.folder / CHECKPOINT).read_bytes() == b"epoch 3"


def test_a_new_attempt_takes_over_the_finished_parts_of_all_earlier_ones(root, change_host):
    for number in range(2):
        change_host()
        attempt = begin(StageStore(root), "prepare")
        parts = attempt.folder / PARTS
        parts.mkdir(exist_ok=True)
        (parts / f"{number:06d}.npz").write_bytes(b"part %d" % number)
        (parts / f"{number + 5:06d}.npz.17.tmp").write_bytes(b"half")
        (parts / f"case{number}.tmp.nii").write_bytes(b"half")
        attempt.report({"epoch": number})
    change_host()
    store = StageStore(root)
    third = begin(store, "prepare")
    found = {path.name: path.read_bytes() for path in (third.folder / PARTS).iterdir()}
    assert found == {"000000.npz": b"part 0", "000001.npz": b"part 1"}
    finish(third)
    assert not (store.folder("prepare", "k") / PARTS).exists()


def test_a_finished_stage_keeps_no_checkpoint_and_tells_of_every_attempt(store):
    lost = begin(store)
    (lost.folder / CHECKPOINT).write_bytes(b"x")
    lost.report({"epoch": 1})
    stopped = begin(store)
    stopped.give_up("stopped", reason="asked")
    assert [row["outcome"] for row in store.attempts("search", "k")] == ["lost", "stopped"]
    record = finish(begin(store))
    assert [row["outcome"] for row in record.attempts] == ["lost", "stopped", "done"]
    assert [row["attempt"] for row in record.attempts] == [1, 2, 3]
    assert [path.name for path in store.folder("search", "k").iterdir()] == ["manifest.json"]
    assert store.attempts("search", "k") == []
    assert {Path(name).name for name in everything(store)} == {"manifest.json"}


def test_progress_is_that_of_the_newest_attempt(store):
    begin(store).report({"epoch": 3})
    begin(store).report({"epoch": 4})
    assert store.progress("search", "k") == {"epoch": 4}
    assert store.progress("search", "unknown") is None
    assert store.is_under_way("search", "k")
    begin(store).give_up("failed", error="x")
    assert [row["outcome"] for row in store.attempts("search", "k")] == ["lost", "lost", "failed"]


KILLED = """
import os, signal, sys
from workers.places import open_place
from workers.stage_store import CHECKPOINT, StageStore
store = StageStore(sys.argv[1])
attempt = store.begin("search", "k", device="cpu")
for number in range(4):
    (attempt.folder / f"{number}.bin").write_bytes(bytes(1000))
(attempt.folder / CHECKPOINT).write_bytes(b"epoch 7")
attempt.report({"epoch": 7})
place = type(store.place)
whole = getattr(place, sys.argv[2])
def dies(place, *arguments):
    if sys.argv[2] == "_upload":
        paths, bench, attempt = arguments
        whole(place, list(paths)[:2], bench, attempt)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(place, sys.argv[2], dies)
attempt.finish(settings={}, outcome={}, provenance={})
"""


@pytest.mark.parametrize("step", ["_upload", "send", "publish"])
def test_an_attempt_killed_at_its_end_leaves_nothing_half(root, step, change_host):
    if step == "_upload" and isinstance(root, Path):
        pytest.skip("nothing is uploaded to a folder")
    words = [sys.executable, "-c", KILLED, str(root), step]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    change_host()
    store = StageStore(root)
    assert store.record("search", "k") is None
    assert store.read("search", "k", "0.bin") is None
    second = store.begin("search", "k", device="cpu")  # its process is known to be gone
    assert (second.folder / CHECKPOINT).read_bytes() == b"epoch 7"
    assert (store.publish_finished("search", "k") is not None) == (step == "publish")
    if step == "publish":
        second.clear()
    else:
        finish(second)
    assert len(store.record("search", "k").attempts) == (1 if step == "publish" else 2)
    assert len(list(store.folder("search", "k").glob("*.bin"))) == (4 if step == "publish" else 0)
    assert len([name for name in everything(store) if name.endswith(".bin")]) == (
        4 if step == "publish" else 0
    )


def test_of_many_threads_that_take_a_lease_one_wins(root):
    place = open_place(root)
    for round_ in range(4):
        with ThreadPoolExecutor(12) as pool:
            taken = list(
                pool.map(
                    lambda _: Lease.take(place.at("a"), time_to_live_s=60.0, dead_number=round_),  # noqa: B023
                    range(12),
                )
            )
        leases = [lease for lease in taken if isinstance(lease, Lease)]
        assert [lease.number for lease in leases] == [round_ + 1]
        leases[0].stop()


def test_of_many_processes_that_take_a_lease_one_wins(root):
    for round_ in range(2):
        assert taken_numbers(root, 4, dead_number=round_) == [0] * 3 + [round_ + 1]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_watch_believes_its_own_clock_and_the_beats_alone(root):
    place, clock = open_place(root).at("a"), Clock()
    lease = Lease.take(place, time_to_live_s=60.0)
    watch = LeaseWatch(place, 10.0, clock)
    assert watch.dead_number() is None
    clock.now = 9.0
    lease._write_beat()
    assert watch.dead_number() is None
    clock.now = 18.0
    assert watch.dead_number() is None
    clock.now = 28.5
    assert watch.dead_number() == 1
    lease.give_back()
    assert LeaseWatch(place, 10.0, clock).dead_number() == 1
    assert holder(place).is_over


def test_a_holder_that_was_superseded_finds_out_by_itself(root):
    place = open_place(root).at("a")
    first = Lease.take(place, time_to_live_s=0.6)
    second = Lease.take(place, time_to_live_s=60.0, dead_number=1)
    assert second.number == 2
    deadline = time.monotonic() + 60
    while not first.is_lost and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(LeaseLostError):
        first.check()
    first.give_back()
    second.check()
    second.give_back()


def test_the_small_files_of_a_place(root):
    place = open_place(root)
    assert place.read("a/b") is None
    assert place.names("a") == frozenset()
    assert place.create("a/b", b"one")
    assert not place.create("a/b", b"two")
    assert place.read("a/b") == b"one"
    place.write("a/b", b"three")
    place.at("a").write("c", b"")
    assert place.create("a/d/e", b"x")
    assert place.names("a") == {"b", "c", "d"}
    assert place.at("a").names() == {"b", "c", "d"}
    assert place.names("nothing") == frozenset()
    assert place.read_all(["a/b", "a/c", "a/none"]) == {"a/b": b"three", "a/c": b""}
    assert place.read_all([]) == {}
    place.remove("a")
    assert place.names() == frozenset()
    shutil.rmtree(root, ignore_errors=True)


def change(store, name, change_bytes):
    """Change the bytes of a file where the store keeps it."""
    place = store.place
    if isinstance(place, LocalPlace):
        path = Path(place.root) / name
        path.write_bytes(change_bytes(path.read_bytes()))
    else:
        place.write(name, change_bytes(place.read(name)))


def flipped(content):
    place = len(content) // 5
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES = {
    "flipped": flipped,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


def published(store):
    attempt = begin(store)
    (attempt.folder / "weights.pt").write_bytes(bytes(range(256)))
    return finish(attempt)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_stage_is_told_and_computed_again(root, damage, change_host, caplog):
    record = published(StageStore(root))
    assert record.files == {"weights.pt": [256, "29058c73"]}
    change_host()
    store = StageStore(root)
    assert store.damage("search", "k") is None
    folder = store.place.outcome("search/k")
    change(store, f"{folder}/weights.pt", DAMAGES[damage])
    change_host()
    store = StageStore(root)
    with pytest.raises(DamagedStageError, match=r"weights\.pt must have") as error:
        store.read("search", "k", "weights.pt")
    assert "weights.pt must have" in store.damage("search", "k")
    with pytest.raises(DamagedStageError):
        store.folder("search", "k")
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.kind, again.key, str(again)) == ("search", "k", str(error.value))
    assert store.set_aside(again)
    assert any(f"{root}/search/k" in message for message in caplog.messages)
    assert store.record("search", "k") is None
    attempt = begin(store)
    assert store.publish_finished("search", "k") is None
    (attempt.folder / "weights.pt").write_bytes(b"again")
    finish(attempt, value=2)
    assert store.set_aside(again)  # of what is whole by now nothing is taken away
    assert StageStore(root).read("search", "k", "weights.pt") == b"again"
    assert StageStore(root).damage("search", "k") is None


def test_a_missing_file_of_a_stage_is_told(root, change_host):
    published(StageStore(root))
    change_host()
    store = StageStore(root)
    if isinstance(store.place, LocalPlace):
        (root / "search" / "k" / "weights.pt").unlink()
    else:
        store.place._delete([f"{store.place.outcome('search/k')}/weights.pt"])
    with pytest.raises(DamagedStageError, match=r"weights\.pt is missing"):
        store.read("search", "k", "weights.pt")
    with pytest.raises(DamagedStageError, match=r"weights\.pt is missing"):
        store.folder("search", "k")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_never_happened(root, damage, change_host, caplog):
    published(StageStore(root))
    store = StageStore(root)
    change(store, "search/k/manifest.json", DAMAGES[damage])
    change_host()
    store = StageStore(root)
    for _ in range(2):
        assert store.record("search", "k") is None
        assert store.records("search", ["k"]) == []
    (message,) = [one for one in caplog.messages if "search/k/manifest.json" in one]
    assert "counts as absent" in message
    attempt = begin(store)
    if store.publish_finished("search", "k") is None:  # of a bucket the attempt's manifest is left
        finish(attempt, value=1)
    else:
        attempt.clear()
    assert StageStore(root).record("search", "k").outcome == {"value": 1}
    assert StageStore(root).damage("search", "k") is None


def test_a_stage_whose_files_have_no_checksums_is_whole(root):
    """As versions before wrote them."""
    attempt = begin(StageStore(root))
    (attempt.folder / "weights.pt").write_bytes(b"x")
    finish(attempt)
    store = StageStore(root)
    raw = json.loads(store.place.read("search/k/manifest.json"))
    del raw["files"], raw["checksum"]
    store.place.write("search/k/manifest.json", json.dumps(raw, indent=1).encode())
    store = StageStore(root)
    assert store.record("search", "k").files is None
    assert store.damage("search", "k") is None
    assert store.read("search", "k", "weights.pt") == b"x"
    assert (store.folder("search", "k") / "weights.pt").read_bytes() == b"x"


def test_what_is_damaged_is_not_taken_from_a_process_that_works_on_it(root):
    store = StageStore(root)
    published(store)
    change(store, f"{store.place.outcome('search/k')}/weights.pt", flipped)
    error = store.damaged("search", "k", "weights.pt")
    with Lease.take(store.lease_place("search", "k"), time_to_live_s=60.0):
        assert not store.set_aside(error)
        assert store.record("search", "k") is not None
    assert store.set_aside(error)
    assert store.record("search", "k") is None


@pytest.mark.parametrize("name", ["attempt.json", "progress.json", "outcome.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_note_of_an_attempt_counts_as_absent(root, name, damage, caplog):
    store = StageStore(root)
    attempt = begin(store)
    attempt.report({"epoch": 3})
    attempt.give_up("failed", error="x", kind="code")
    change(store, f"{attempt.name}/{name}", DAMAGES[damage])
    store = StageStore(root)
    rows = store.attempts("search", "k")
    assert store.attempts("search", "k") == rows
    assert len([one for one in caplog.messages if name in one]) == 1
    if name == "attempt.json":
        assert rows == []
    else:
        assert rows[0]["outcome"] == ("lost" if name == "outcome.json" else "failed")
        assert rows[0]["epoch"] == (0 if name == "progress.json" else 3)
    assert store.progress("search", "k") == (None if name == "progress.json" else {"epoch": 3})
    assert finish(begin(store)).outcome == {"value": 1}


def test_of_damaged_checkpoints_the_newest_that_is_whole_is_taken_over(root, change_host, caplog):
    for content in (b"whole 1", b"whole 2", b"torn"):
        change_host()
        attempt = begin(StageStore(root))
        (attempt.folder / CHECKPOINT).write_bytes(content)
        attempt.report({"epoch": 1})
        time.sleep(1.1 if isinstance(root, str) else 0.01)  # a bucket's clock counts seconds
    change_host()
    store = StageStore(root)
    is_whole = lambda path: path.read_bytes().startswith(b"whole")  # noqa: E731
    taken = store.begin("search", "k", device="cpu", dead_number=99, is_whole=is_whole)
    assert (taken.folder / CHECKPOINT).read_bytes() == b"whole 2"
    (message,) = [one for one in caplog.messages if CHECKPOINT in one]
    assert attempt.name in message
    taken.give_up("stopped")
    none = store.begin("search", "k", device="cpu", dead_number=99, is_whole=lambda path: False)
    assert not (none.folder / CHECKPOINT).exists()


def test_a_store_is_stamped_once_and_one_of_a_later_version_is_refused(root, caplog):
    store = StageStore(root)
    store.check(writes=False)
    assert store.place.read(STAMP) is None  # looking writes nothing
    published(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: StageStore(root).check(writes=True), range(4)))
    stamp = store.place.read(STAMP)
    assert json.loads(stamp)["version"] == VERSION
    assert store.record("search", "k") is not None
    store.place.write(STAMP, stamp[:9])
    StageStore(root).check(writes=True)
    assert store.place.read(STAMP) == stamp
    assert any(STAMP in message for message in caplog.messages)
    store.place.write(STAMP, to_json({"version": VERSION + 1}))
    for writes in (True, False):
        with pytest.raises(ConfigError, match=f"got version {VERSION + 1}"):
            StageStore(root).check(writes=writes)
