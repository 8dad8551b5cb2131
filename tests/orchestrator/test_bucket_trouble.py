"""A bucket that is missing, refuses, or is away for a while; a cache that is emptied."""

import io
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from changed_stages import change_run
from rich.console import Console
from s3_server import SECRET, Door, S3Server, new_bucket

from iac_core.data.prepare import PARTS
from orchestrator.cluster import Node
from orchestrator.executors import InlineExecutor
from orchestrator.live_view import LiveView
from orchestrator.price import forecast_of
from orchestrator.run_sweep import SweepProgress, View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.spec import SweepError
from workers import failures
from workers.lease import Lease
from workers.places import StoreAwayError, cache_folder, open_place
from workers.preemption import Preemption
from workers.reporting import FileReporter
from workers.stage_store import CHECKPOINT, StageStore
from workers.stages.table import STAGES


@pytest.fixture
def door(s3_server, s3_root, monkeypatch):
    """Between this process and the server of buckets."""
    door = Door(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{door.port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield door
    door.close()


@pytest.fixture
def open_in(write_sweep, tmp_path):
    """A function that opens a sweep with a store."""

    def open_it(store, pruners="[no_cell]", *, needs_data=True):
        path = write_sweep(pruners, extra=f"    store: {store}\n")
        return open_sweep(path, {}, tmp_path / "runs", needs_data=needs_data)

    return open_it


def refusal(open_in, store, *, needs_data=True):
    with pytest.raises(SweepError) as caught:
        open_in(store, needs_data=needs_data)
    (problem,) = caught.value.problems
    assert SECRET not in str(problem)
    return str(problem)


@pytest.mark.parametrize("store", ["gs://bucket/a", "s3://", "s3:///a", "'s3://b/a b'", "[1]"])
def test_a_store_is_a_folder_or_a_prefix_of_a_bucket(open_in, store):
    text = refusal(open_in, store)
    assert "store must be a folder or s3://BUCKET/PREFIX, got" in text
    assert "tiny.yaml:" in text


@pytest.mark.parametrize("needs_data", [True, False])
def test_a_bucket_that_is_missing_is_said_before_anything_starts(open_in, s3_root, needs_data):
    text = refusal(open_in, "s3://no-such-bucket/a", needs_data=needs_data)
    assert "store must be a bucket that answers, got s3://no-such-bucket/a" in text
    assert "NoSuchBucket" in text
    assert "check its name, AWS_ENDPOINT_URL" in text


def test_a_server_that_does_not_answer_is_said_before_anything_starts(open_in, s3_root, door):
    door.shut()
    assert "store must be a bucket that answers" in refusal(open_in, s3_root)


def test_missing_credentials_are_said_before_anything_starts(open_in, s3_root, door, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "Unable to locate credentials" in refusal(open_in, s3_root)


def test_a_server_without_conditional_writes_is_refused(open_in, s3_root, monkeypatch):
    server = S3Server(is_careless=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
    text = refusal(open_in, f"s3://{new_bucket()}/a")
    server.stop()
    assert "store must honour conditional writes (If-None-Match), got s3://stages-" in text


def test_a_missing_s3fs_is_said_with_the_way_out(open_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules, "workers.object_place", raising=False)
    text = refusal(open_in, "s3://bucket/a")
    assert "a store in a bucket must have s3fs" in text
    assert "pip install 'iac-orchestrator[s3]'" in text


class Recorder(View):
    """Remembers how stages ended, and does something then."""

    def __init__(self, on_end=lambda task, end: None, on_refresh=lambda: None):
        self.ends, self.on_end, self.on_refresh = [], on_end, on_refresh

    def ended(self, task, end):
        kind = end.failure.kind if end.failure else end.ending
        self.ends.append((task.kind, kind))
        self.on_end(task, end)

    def refresh(self, progress):
        self.on_refresh()


def run(session, view):
    ends = []
    progress = run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=view,
        on_job_end=ends.append,
    )  # fmt: skip
    assert [end.failure for end in ends] == [None]
    return progress


@pytest.mark.slow
def test_a_stage_whose_bucket_is_away_is_tried_again(open_in, s3_root, door, monkeypatch):
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {"store_away": 0.1})

    class Changing(Recorder):
        def submitted(self, task):
            if task.kind == "pretrain" and ("pretrain", "store_away") not in self.ends:
                door.shut()

    view = Changing(lambda task, end: door.open())
    run(open_in(s3_root), view)
    assert Counter(view.ends) == Counter(
        [("prepare", "done"), ("pretrain", "store_away"), ("pretrain", "done"),
         ("predict", "done"), ("evaluate", "done")]
    )  # fmt: skip


@pytest.mark.slow
def test_a_driver_that_waits_for_others_outlives_an_outage(open_in, s3_root, door, caplog):
    session = open_in(s3_root)
    (state,) = session.plan().states
    prepare = state.tasks[0]
    other = Lease.take(
        StageStore(s3_root).lease_place(prepare.kind, prepare.key), time_to_live_s=600.0
    )

    def shut(task, end):
        if end.ending == "held":
            door.shut()

    def mend():
        if "the store of stages is away" in caplog.text and not door.is_open:
            door.open()
            other.give_back()

    view = Recorder(shut, mend)
    run(session, view)
    assert "the store of stages is away" in caplog.text
    assert view.ends[:2] == [("prepare", "held"), ("prepare", "done")]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_the_screen_shows_what_running_stages_report(open_in, s3_root, tmp_path, where):
    session = open_in(s3_root if where == "bucket" else tmp_path / "store")
    found = session.plan()
    running = [found.states[0].tasks[0], found.states[0].tasks[1]]
    attempt = session.store.begin(running[1].kind, running[1].key, device="cpu")
    FileReporter(attempt, tmp_path / "stop", Preemption()).progress(epoch=3, n_epochs=97)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    forecast = forecast_of(session, found, [Node(cpus=2)])
    with LiveView(console, found, session.store, forecast) as view:
        view.refresh(SweepProgress(n_jobs=1, running=running))
    assert "3/97" in console.file.getvalue()
    assert "starting" not in console.file.getvalue()
    attempt.give_up("stopped")


def test_progress_that_could_not_be_reported_comes_later(s3_root, door, tmp_path):
    store = StageStore(s3_root)
    attempt = store.begin("search", "k", device="cpu")
    reporter = FileReporter(attempt, tmp_path / "stop", Preemption())
    (attempt.folder / CHECKPOINT).write_bytes(b"epoch 1")
    (attempt.folder / PARTS).mkdir()
    (attempt.folder / PARTS / "0.npz").write_bytes(b"part")
    door.shut()
    reporter.progress(epoch=1, n_epochs=3)
    with pytest.raises(StoreAwayError):
        attempt.report({"epoch": 1})
    door.open()
    assert store.progress("search", "k") is None
    reporter.progress(epoch=2, n_epochs=3)
    assert store.progress("search", "k")["epoch"] == 2
    assert store.place.read(f"{attempt.name}/{CHECKPOINT}") == b"epoch 1"
    assert store.place.read(f"{attempt.name}/{PARTS}/0.npz") == b"part"
    attempt.give_up("stopped")


def test_a_stage_on_another_host_hears_that_its_driver_stops(s3_root, tmp_path, monkeypatch):
    monkeypatch.setattr(type(open_place(s3_root)), "seconds_between_looks", 0.0)
    driver, worker = StageStore(s3_root), StageStore(s3_root)
    attempt = worker.begin("search", "k", device="cpu")
    reporter = FileReporter(attempt, tmp_path / "sweep" / "stop.host.1", Preemption())
    other = FileReporter(attempt, tmp_path / "sweep" / "stop.host.2", Preemption())
    assert not reporter.should_stop()
    driver.request_stop(tmp_path / "sweep" / "stop.host.1")
    assert reporter.should_stop()
    assert not other.should_stop()
    driver.withdraw_stop(tmp_path / "sweep" / "stop.host.1")
    later = FileReporter(attempt, tmp_path / "sweep" / "stop.host.1", Preemption())
    assert not later.should_stop()
    attempt.give_up("stopped")


@pytest.mark.slow
def test_a_cache_that_is_emptied_under_a_stage_is_filled_again(open_in, s3_root, monkeypatch):
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {})
    stage, emptied = STAGES["evaluate"].run, []

    def empties(room):
        if not emptied:
            emptied.append(room.data())
            shutil.rmtree(cache_folder())
        return stage(room)

    change_run(monkeypatch, "evaluate", empties)
    view = Recorder()
    run(open_in(s3_root), view)
    assert emptied
    assert view.ends[-1] == ("evaluate", "done")
    assert {outcome for _, outcome in view.ends} == {"done"}


def test_what_is_missing_outside_the_cache_is_no_matter_of_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("IAC_CACHE", str(tmp_path / "cache"))
    for folder, kind in ((tmp_path, "code"), (tmp_path / "cache" / "a", "store_away")):
        with pytest.raises(FileNotFoundError) as caught:
            (folder / "weights.pt").read_bytes()
        assert failures.kind_of(caught.value) == kind


def test_workers_of_a_host_download_once_and_leave_nothing_half(s3_root, monkeypatch, tmp_path):
    attempt = StageStore(s3_root).begin("prepare", "k", device="cpu")
    for number in range(5):
        (attempt.folder / f"{number}.npy").write_bytes(b"x" * 50_000)
    attempt.finish(settings={}, outcome={}, provenance={})
    monkeypatch.setenv("IAC_CACHE", str(tmp_path / "other host"))
    folders, errors = [], []

    def fetch():
        try:
            folders.append(StageStore(s3_root).folder("prepare", "k"))
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    (folder,) = set(folders)
    assert len(list(folder.glob("*.npy"))) == 5
    assert all(path.stat().st_mode & 0o222 == 0 for path in folder.iterdir())
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
    assert Path(open_place(s3_root).fetch("prepare/k")) == folder
