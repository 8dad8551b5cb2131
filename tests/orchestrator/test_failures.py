"""Sweeps of seconds whose stages run out of GPU memory, take too long, or fail again and again."""

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from changed_stages import change_run
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.executors import InlineExecutor
from orchestrator.plan import failure_groups
from orchestrator.rows import job_tables
from orchestrator.run_sweep import View, request_stop, run_sweep
from orchestrator.session import open_sweep
from workers.failures import vain_attempts
from workers.lease import LeaseLostError
from workers.preemption import PREEMPTION_FILE, Preemption
from workers.run_stage import COMPLETIONS, run_stage
from workers.stage_store import Attempt
from workers.stages.table import STAGES

FAULTY = """    backbones:
      unet:
        type: external
        target: faulty_networks:Faulty
        arguments: ARGUMENTS
        classes_argument: out_channels
        skips: [{module: upcat_2, argument: 1}, {module: upcat_3, argument: 1}]
"""


def run(session, *, again=False, view=None):
    ends = []
    room = session.room(tries_quarantined=again)
    run_sweep(
        session.expansion.jobs, room, InlineExecutor(), view=view or View(), on_job_end=ends.append
    )
    return ends


def record_of(session, end, kind):
    key = next(task.key for task in end.state.tasks if task.kind == kind)
    return session.store.record(kind, key)


@pytest.fixture
def open_with(write_sweep, tmp_path):
    """A function that opens a sweep whose network has a fault, or resources of their own."""

    def open_it(pruners="[no_cell]", arguments=None, resources=""):
        path = write_sweep(pruners)
        text = path.read_text().replace("exclusive_search: false", "exclusive_search: false, RES")
        text = text.replace(", RES", f", {resources}" if resources else "")
        if arguments is not None:
            plain = "    backbones: {unet: {widths: [8, 16]}}\n"
            assert plain in text
            text = text.replace(plain, FAULTY.replace("ARGUMENTS", json.dumps(arguments)))
        path.write_text(text)
        return open_sweep(path, {}, tmp_path / "runs", needs_data=True)

    return open_it


def test_a_full_gpu_halves_the_batch_and_the_stage_goes_on_from_its_checkpoint(open_with):
    # Batches of 4; the second half of the pre-training does not fit any more.
    session = open_with(arguments={"fault": "gpu_memory", "above": 2, "after": 4})
    (end,) = run(session)
    assert end.failure is None
    record = record_of(session, end, "pretrain")
    failed, done = record.attempts
    assert (failed["outcome"], failed["kind"], failed["n_micro_batches"]) == (
        "failed", "gpu_memory", 1,
    )  # fmt: skip
    assert (failed["epoch"], done["n_micro_batches"]) == (1, 2)
    assert record.provenance["n_micro_batches"] == 2
    curve = json.loads((session.store.folder("pretrain", record.key) / "curve.json").read_text())
    assert curve[0]["ended_at"] < done["start"] < curve[1]["ended_at"], "one epoch was kept"
    found = job_tables(end.state.tasks, session.store, sweep="tiny")
    assert found["jobs"]["n_micro_batches"].tolist() == [2]
    assert found["jobs"]["search_n_micro_batches"].isna().all()
    rows = found["stages"][found["stages"]["kind"] == "pretrain"]
    assert rows["n_micro_batches"].tolist() == [1, 2]


def test_a_quarter_of_the_batch_fits_in_every_stage_of_a_search(open_with):
    session = open_with("[none]", arguments={"fault": "gpu_memory", "above": 1})
    (end,) = run(session)
    assert end.failure is None
    for kind in ("pretrain", "search", "retrain"):
        record = record_of(session, end, kind)
        assert [row["n_micro_batches"] for row in record.attempts] == [1, 2, 4]
    assert record_of(session, end, "evaluate").provenance["n_micro_batches"] == 1
    found = job_tables(end.state.tasks, session.store, sweep="tiny")["jobs"]
    assert found["search_n_micro_batches"].tolist() == [4]


def test_a_gpu_that_is_too_small_for_one_slice_is_given_up_after_some_tries(open_with):
    session = open_with(arguments={"fault": "gpu_memory"})
    (end,) = run(session)
    assert end.failure.kind == "gpu_memory"
    key = next(task.key for task in end.state.tasks if task.kind == "pretrain")
    attempts = session.store.attempts("pretrain", key)
    assert [row["n_micro_batches"] for row in attempts] == [1, 2, 4, 8]
    (group,) = failure_groups(session.plan(), session.store, quarantine_after=5)
    assert (group.kind, group.stage, group.is_quarantined) == ("gpu_memory", "pretrain", False)


def test_a_stage_that_was_cut_stays_cut_in_the_next_run(open_with):
    session = open_with(arguments={"fault": "gpu_memory", "above": 2})

    class StopsTheSecondTry(View):
        n = 0

        def submitted(self, task):
            self.n += task.kind == "pretrain"
            if self.n == 2:
                request_stop(session.stop_file)

    assert run(session, view=StopsTheSecondTry()) == []
    session.stop_file.unlink()
    (end,) = run(session)
    attempts = record_of(session, end, "pretrain").attempts
    assert [row["outcome"] for row in attempts] == ["failed", "stopped", "done"]
    assert [row["n_micro_batches"] for row in attempts] == [1, 2, 2]


def test_a_stage_whose_time_is_up_checkpoints_and_the_next_run_goes_on(open_with):
    slow = {"fault": "slow", "seconds": 0.3}
    session = open_with(arguments=slow, resources="pretrain: {timeout_min: 0.015}")
    (end,) = run(session)
    assert end.failure.kind == "timeout"
    assert "within resources.pretrain.timeout_min = 0.015, got no end" in end.failure.error
    assert "the same command goes on from there" in end.failure.error
    (attempt,) = session.store.attempts("pretrain", end.failure.key)
    assert (attempt["outcome"], attempt["kind"]) == ("failed", "timeout")
    folder = session.store.root / "attempts" / f"pretrain-{end.failure.key}"
    assert list(folder.glob("*/checkpoint.pt"))
    patient = open_with(arguments=slow)
    (end,) = run(patient)
    assert end.failure is None
    attempts = record_of(patient, end, "pretrain").attempts
    assert [row["outcome"] for row in attempts] == ["failed", "done"]


def test_the_file_of_a_host_that_goes_away_makes_a_stage_checkpoint_and_go_on(
    open_with, tmp_path, monkeypatch
):
    monkeypatch.setattr("orchestrator.tries.PREEMPTION_PAUSE_S", 0.1)
    note = tmp_path / "preempted"
    monkeypatch.setenv(PREEMPTION_FILE, str(note))
    session = open_with("[none]")
    stage = Interrupted(STAGES["search"].run, note.touch, at_epoch=3)
    change_run(monkeypatch, "search", stage)

    class TheHostComesBack(View):
        def __init__(self):
            self.ends = Counter()

        def ended(self, task, end):
            self.ends[task.kind, end.ending] += 1
            if self.ends["search", "preempted"] == 3:
                note.unlink(missing_ok=True)

    view = TheHostComesBack()
    (end,) = run(session, view=view)
    assert end.failure is None
    assert view.ends["search", "preempted"] == 3
    attempts = record_of(session, end, "search").attempts
    # While the file is there no further attempt begins.
    assert [row["outcome"] for row in attempts] == ["preempted", "done"]
    assert attempts[0]["epoch"] == 3
    assert_computed_once(session, end)


class Interrupted:
    """A stage during whose epoch something happens, once."""

    def __init__(self, stage, happens, at_epoch):
        self.stage, self.happens, self.at_epoch = stage, happens, at_epoch

    def __call__(self, room):
        progress = room.reporter.progress

        def report(*, epoch, n_epochs, **values):
            progress(epoch=epoch, n_epochs=n_epochs, **values)
            if epoch == self.at_epoch and self.happens is not None:
                self.happens()
                self.happens = None

        room.reporter.progress = report
        return self.stage(room)


def assert_computed_once(session, end):
    """Every epoch of the search was computed by one attempt alone."""
    record = record_of(session, end, "search")
    curve = json.loads((session.store.folder("search", record.key) / "curve.json").read_text())
    first, last = record.attempts[0], record.attempts[-1]
    early = [entry for entry in curve if entry["ended_at"] <= first["end"]]
    assert len(early) == first["epoch"] > 0
    assert all(entry["ended_at"] >= last["start"] for entry in curve[len(early) :])


def order(session, kind):
    room = session.room()
    return room.order(kind, room.needs(kind))


def test_sigterm_is_a_warning_once_and_leaves_the_process_as_it_was(open_with, monkeypatch):
    session = open_with("[none]")
    for kind in ("prepare", "pretrain"):
        task = session.plan().states[0].ready[0]
        assert run_stage(task, order(session, kind)).ending == "done"
    task = session.plan().states[0].ready[0]
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(signal.getsignal(signal.SIGTERM))

    stage = Interrupted(STAGES["search"].run, terminate, at_epoch=2)
    change_run(monkeypatch, "search", stage)
    preemption = Preemption()
    with preemption.heeding_sigterm():
        end = run_stage(task, order(session, "search"), preemption)
    assert end.ending == "preempted"
    assert seen == [before], "a second one does what it did before"
    assert signal.getsignal(signal.SIGTERM) == before
    (attempt,) = session.store.attempts("search", task.key)
    assert (attempt["outcome"], attempt["epoch"]) == ("preempted", 2)


def fail_always(monkeypatch, kind, error):
    calls = []

    def stage(room):
        calls.append(room)
        raise error

    change_run(monkeypatch, kind, stage)
    return calls


def test_a_stage_that_fails_in_every_run_is_quarantined_until_told_otherwise(
    open_with, monkeypatch
):
    session = open_with("[no_cell, random]", resources="quarantine_after: 2")
    with monkeypatch.context() as broken:
        calls = fail_always(broken, "pretrain", ZeroDivisionError("in the code"))
        for _ in range(2):
            ends = run(session)
            assert [end.failure.kind for end in ends] == ["code", "code"]
        ends = run(session)
        assert len(calls) == 2, "the third run tried it no more"
    assert [end.failure.kind for end in ends] == ["quarantined"] * 2
    assert (
        "pretrain must get further within resources.quarantine_after = 2 attempts, got 2 in a "
        "row in vain (2 × code: ZeroDivisionError: in the code); mend the cause, then "
        "`run --again`" in ends[0].failure.error
    )
    (group,) = failure_groups(session.plan(), session.store, quarantine_after=2)
    assert (group.kind, group.is_quarantined) == ("code", True)
    assert [end.failure for end in run(session, again=True)] == [None, None]


def test_a_full_disk_and_stops_quarantine_nothing(open_with, monkeypatch):
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {"disk_full": 0.01})
    session = open_with(resources="quarantine_after: 2")
    with monkeypatch.context() as broken:
        calls = fail_always(broken, "pretrain", OSError(28, "No space left on device"))
        for _ in range(2):
            (end,) = run(session)
            assert end.failure.kind == "disk_full"
        assert len(calls) == 8
    (end,) = run(session)
    assert end.failure is None


def test_what_dies_but_advances_is_healthy():
    def attempt(epoch, outcome="lost", **more):
        return {"outcome": outcome, "epoch": epoch} | more

    assert vain_attempts([attempt(epoch) for epoch in range(1, 9)]) == []
    assert len(vain_attempts([attempt(0)] * 3)) == 3
    assert len(vain_attempts([attempt(0)] * 3 + [attempt(2)])) == 0
    mixed = [attempt(2), attempt(2), attempt(1, "preempted"), attempt(0, "stopped"), attempt(2)]
    assert len(vain_attempts(mixed)) == 2
    assert len(vain_attempts([attempt(0, "failed", kind="disk_full")] * 9)) == 0
    assert len(vain_attempts([attempt(0, "failed", kind="not_finite")] * 9)) == 9


def test_an_attempt_that_is_running_does_not_count(open_with):
    session = open_with()
    (task,) = [task for state in session.plan().states for task in state.ready]
    attempt = session.store.begin(task.kind, task.key, device="cpu")
    assert len(session.store.attempts(task.kind, task.key)) == 1
    assert session.store.ended_attempts(task.kind, task.key) == []
    attempt.lease.give_back()
    assert len(session.store.ended_attempts(task.kind, task.key)) == 1


def test_status_and_run_say_the_kind_and_the_command(open_with, monkeypatch, tmp_path):
    session = open_with(resources="quarantine_after: 1")
    runs = ["--runs", str(tmp_path / "runs")]
    with monkeypatch.context() as broken:
        fail_always(broken, "pretrain", torch.cuda.OutOfMemoryError("CUDA out of memory"))
        done = CliRunner().invoke(app, ["run", str(session.spec.path), "--inline", *runs])
    assert done.exit_code == 1, done.output
    assert "after epoch 0, gpu_memory: OutOfMemoryError: CUDA out of memory" in done.output
    done = CliRunner().invoke(app, ["run", str(session.spec.path), "--inline", *runs])
    assert done.exit_code == 1, done.output
    assert "after epoch 0, quarantined: pretrain must get further" in done.output
    said = CliRunner().invoke(app, ["status", str(session.spec.path), *runs]).output
    assert "quarantined, gpu_memory  1 × pretrain: OutOfMemoryError: CUDA out of memory" in said
    job_id = session.expansion.jobs[0].job_id
    assert f"run {session.spec.path} --inline --again --job {job_id}" in said


def test_a_try_after_the_host_ran_out_of_memory_gets_the_machine_and_twice_the_memory(
    open_with, monkeypatch
):
    session = open_with(resources="pretrain: {memory_gib: 3}")
    seen = []

    class Watched(InlineExecutor):
        def submit(self, task, order, resources, priority=0.0):
            if task.kind == "pretrain":
                seen.append((order.is_alone, resources.memory_gib))
            super().submit(task, order, resources, priority)

    with monkeypatch.context() as broken:
        fail_always(broken, "pretrain", MemoryError())
        ends = []
        room = replace(session.room())
        run_sweep(session.expansion.jobs, room, Watched(), view=View(), on_job_end=ends.append)
    assert seen == [(False, 3), (True, 6)]
    assert ends[0].failure.kind == "host_memory"


class KilledHere(BaseException):
    """What nothing in a worker handles, as a kill."""


@pytest.mark.parametrize(
    ("at_the_end", "n_counted"), [(None, 1), (LeaseLostError("taken over"), 1), (KilledHere(), 0)]
)
def test_an_execution_counts_once_it_was_published_or_refused(
    open_with, tmp_path, monkeypatch, at_the_end, n_counted
):
    notes = tmp_path / "completions"
    notes.touch()
    monkeypatch.setenv(COMPLETIONS, str(notes))
    session = open_with(arguments={"fault": "none"})
    task = session.plan().states[0].ready[0]
    room = session.room()
    if isinstance(at_the_end, KilledHere):

        def killed(room):
            raise at_the_end

        change_run(monkeypatch, task.kind, killed)
    elif at_the_end is not None:

        def refused(attempt, **what):
            raise at_the_end

        monkeypatch.setattr(Attempt, "finish", refused)
    with suppress(KilledHere):
        run_stage(task, room.order(task.kind, room.needs(task.kind)))
    assert notes.read_text().splitlines() == [f"{task.kind} {task.key}"] * n_counted
