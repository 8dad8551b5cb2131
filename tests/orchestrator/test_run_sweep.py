"""Sweeps of seconds in this process: sharing, resuming, failing, the pruner that drops in."""

import errno
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from changed_stages import change_run

from iac_core.config import SearchPace
from iac_core.errors import ConfigError, NotFiniteError
from iac_core.pruners import OPERATION_PRUNERS
from iac_core.types import Decision, Reason
from orchestrator.executors import InlineExecutor
from orchestrator.plan import failure_groups
from orchestrator.run_sweep import View, request_stop, run_sweep
from orchestrator.session import open_sweep
from orchestrator.spec import SweepError
from results.store import write_table
from workers.stages.table import STAGES


class Recorder(View):
    """Remembers which stages ran."""

    def __init__(self):
        self.ran = Counter()

    def ended(self, task, end):
        self.ran[task.kind] += end.was_computed


def run(session, view=None, jobs=None):
    ends = []
    view = view or Recorder()
    progress = run_sweep(
        jobs or session.expansion.jobs,
        session.room(),
        InlineExecutor(),
        view=view,
        on_job_end=ends.append,
    )
    return progress, ends, view


@pytest.fixture
def open_tiny(write_sweep, tmp_path):
    def open_it(*arguments, **options):
        path = write_sweep(*arguments, **options)
        return open_sweep(path, {}, tmp_path / "runs", needs_data=True)

    return open_it


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "leave_out: [patient999]",
            "leave_out must name patients of the data set, got patient999",
        ),
        ("patient_pattern: 'case(\\d+)'", "must find the patient in every case's name"),
        ("patient_pattern: 'case'", "must be a regular expression with one group"),
    ],
)
def test_options_that_do_not_fit_the_folder_are_refused(write_sweep, tmp_path, option, said):
    path = write_sweep()
    path.write_text(path.read_text().replace("layout: acdc,", f"layout: acdc, {option},"))
    with pytest.raises(SweepError, match=said):
        open_sweep(path, {}, tmp_path / "runs", needs_data=True)


def test_patients_that_are_left_out_are_in_no_part(write_sweep, tmp_path):
    path = write_sweep("[no_cell]")
    text = path.read_text().replace("layout: acdc,", "layout: acdc, leave_out: [patient003],")
    path.write_text(text)
    run(open_sweep(path, {}, tmp_path / "runs", needs_data=True))
    split = json.loads(next((tmp_path / "runs/store/pretrain").glob("*/split.json")).read_text())
    named = {*split["train"], *split["validation"], *split["test"]}
    assert len(named) == 7
    assert "patient003" not in named


ALL_ARMS = "[no_cell, no_cell_longer, random, none, js_stability]"


def test_every_distinct_stage_runs_once_and_pre_trainings_equal_dataset_backbone_seed(open_tiny):
    session = open_tiny(ALL_ARMS, "[0, 1]")
    wanted = {row["kind"]: row["distinct"] for row in session.plan().counts()}
    progress, ends, view = run(session)
    assert view.ran["pretrain"] == 2
    assert view.ran["prepare"] == 1
    assert all(view.ran[kind] <= number for kind, number in wanted.items())
    assert len(ends) == progress.n_jobs == 10
    assert all(end.failure is None for end in ends)
    assert session.plan().missing == frozenset()


def test_a_second_run_runs_nothing_and_a_new_seed_only_what_is_new(open_tiny):
    run(open_tiny("[no_cell, random]", "[0]"))
    _, ends, view = run(open_tiny("[no_cell, random]", "[0]"))
    assert sum(view.ran.values()) == 0
    assert len(ends) == 2
    _, _, view = run(open_tiny("[no_cell, random]", "[0, 1]"))
    assert view.ran == Counter(pretrain=1, retrain=1, predict=2, evaluate=2)


def test_a_stopped_sweep_goes_on_where_it_stopped(open_tiny):
    session = open_tiny("[none]")

    class StopsInSearch(Recorder):
        def submitted(self, task):
            if task.kind == "search":
                request_stop(session.stop_file)

    _, ends, view = run(session, StopsInSearch())
    assert ends == []
    assert view.ran["search"] == 1
    assert session.plan().missing
    session.stop_file.unlink()
    _, ends, view = run(session)
    assert len(ends) == 1
    assert view.ran == Counter(search=1, retrain=1, predict=1, evaluate=1)
    record = session.store.record(
        "search", next(t.key for t in ends[0].state.tasks if t.kind == "search")
    )
    assert [attempt["outcome"] for attempt in record.attempts] == ["stopped", "done"]


def test_a_failed_stage_fails_its_jobs_and_the_others_go_on(open_tiny):
    session = open_tiny("[no_cell, random, none]")
    jobs = session.expansion.jobs

    class Breaks(Recorder):
        def submitted(self, task):
            if task.kind == "search":
                place = session.store.folder("pretrain", task.parent("pretrain").key)
                (place / "weights.pt").rename(place / "weights.gone")

        def ended(self, task, end):
            super().ended(task, end)
            for path in session.store.root.rglob("weights.gone"):
                path.rename(path.with_name("weights.pt"))

    _, ends, _ = run(session, Breaks(), [jobs[2]])
    (end,) = ends
    assert end.failure.stage == "search"
    assert "weights.pt" in end.failure.error
    assert "Traceback" in end.failure.trace
    _, ends, _ = run(session)
    assert [end.failure for end in ends] == [None, None, None]


def test_sweeps_share_stages_through_the_store(open_tiny):
    run(open_tiny("[no_cell]"))
    _, _, view = run(open_tiny("[random]"))
    assert view.ran == Counter(retrain=1, predict=1, evaluate=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakestEverySettings:
    __pydantic_config__: ClassVar = {"extra": "forbid"}
    every_epochs: int = 2


class WeakestEvery:
    """Removes the weakest operation of every edge that may lose one, every n epochs."""

    Settings: ClassVar = WeakestEverySettings
    pace = SearchPace()
    needs_evidence = False

    def __init__(self, settings):
        self.settings = settings

    def decide(self, state):
        keep, reasons = state.active.copy(), []
        if (state.epoch + 1) % self.settings.every_epochs == 0:
            for level, edge in np.ndindex(keep.shape[:2]):
                live = np.flatnonzero(keep[level, edge])
                if len(live) > 2:
                    gone = live[state.importance[level, edge, live].argmin()]
                    keep[level, edge, gone] = False
                    name = (state.operations[gone],)
                    reasons.append(
                        Reason(rule="weakest_every", level=level, edge=edge, operations=name)
                    )
        return Decision(keep=keep, reasons=tuple(reasons))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_a_pruner_dropped_into_the_table_appears_in_plan_run_and_report(open_tiny, monkeypatch):
    from orchestrator.reporting import open_tracking, report_sweep
    from orchestrator.tracking import FinishedJob

    monkeypatch.setitem(OPERATION_PRUNERS, "weakest_every", WeakestEvery)
    session = open_tiny("[none, weakest_every]", extra="")
    assert "weakest_every" in {state.job.pruner for state in session.plan().states}
    _, ends, _ = run(session)
    with open_tracking(session) as tracking:
        for end in ends:
            job = end.state.job
            tracking.put(FinishedJob(job=job, tasks=end.state.tasks, failure=end.failure))
        tracking.close("FINISHED")
    assert tracking.trouble == ""
    paths = report_sweep(session, None)
    assert "| weakest_every" in paths.markdown.read_text()
    from results.store import read_tables

    events = read_tables(session.run_dir / "tables")["events"]
    own = events[events["pruner"] == "weakest_every"]
    assert set(own["rule"]) == {"weakest_every"}
    assert sorted(own["epoch"].unique()) == [1, 3, 5]


def test_a_report_says_how_many_jobs_were_done_when_the_claims_were_declared(
    write_sweep, open_tiny, tmp_path
):
    from orchestrator.reporting import note_declaration, report_sweep

    def declared(kind):
        claims = f"    compare: [{{arm: random, reference: no_cell, kind: {kind}}}]\n"
        path = write_sweep("[no_cell, random]")
        path.write_text(path.read_text().replace("    grid:", claims + "    grid:"))
        return open_sweep(path, {}, tmp_path / "runs", needs_data=False)

    jobs = [
        {"job_id": job.job_id, "status": "done", "pruner": job.pruner, "seed": job.seed,
         "dataset": "tiny", "backbone": "unet", "genotype": "", "test_dice": 0.5}
        for job in declared("better").expansion.jobs
    ]  # fmt: skip
    patients = [
        {"job_id": job["job_id"], "subset": "test", "patient_id": f"p{place}", "volume_id": "v",
         "class_name": "lv", "state": "ok", "dice": 0.5 + 0.01 * place}
        for job in jobs for place in range(7)
    ]  # fmt: skip
    write_table(tmp_path / "record" / "jobs.parquet", "jobs", pd.DataFrame(jobs))
    write_table(tmp_path / "record" / "patients.parquet", "patients", pd.DataFrame(patients))

    def said(session):
        paths = report_sweep(session, None, tables_in=tmp_path / "record")
        return paths.markdown.read_text()

    first, changed = declared("better"), declared("different")
    assert "is not on record" in said(first)
    for session, n_done in ((first, 0), (first, 2), (changed, 2)):
        note_declaration(session, n_done)
        noted = session.run_dir / "declared.json"
        (tmp_path / "record" / "declared.json").write_bytes(noted.read_bytes())
        words = said(session)
        if session is first:
            assert "They were declared before any job was done." in words
        else:
            assert "declared or changed when 2 jobs were done" in words
    assert "is not on record" in said(first)


class FailsAtFirst:
    """A stage that raises some times, then works."""

    def __init__(self, monkeypatch, kind, errors):
        self.stage, self.errors, self.n = STAGES[kind].run, list(errors), 0
        change_run(monkeypatch, kind, self)

    def __call__(self, room):
        self.n += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.stage(room)


@pytest.mark.parametrize(
    ("errors", "n", "kind"),
    [
        ([OSError(errno.ENOSPC, "No space left on device")] * 2, 3, None),
        ([OSError(errno.ENOSPC, "No space left on device")] * 9, 4, "disk_full"),
        ([MemoryError()], 2, None),
        ([ZeroDivisionError("x")], 1, "code"),
        ([NotFiniteError("the mean loss of an epoch must be finite, got nan")], 1, "not_finite"),
        ([ConfigError("a setting must fit, got 3")], 1, "setting"),
    ],
)
def test_a_failure_that_another_try_can_mend_gets_one(open_tiny, monkeypatch, errors, n, kind):
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {"disk_full": 0.1})
    stage = FailsAtFirst(monkeypatch, "pretrain", errors)
    session = open_tiny("[no_cell]")
    _, (end,), _ = run(session)
    assert stage.n == n
    assert (end.failure.kind if end.failure else None) == kind
    if kind is None:
        record = session.store.record("pretrain", end.state.tasks[1].key)
        assert [row["outcome"] for row in record.attempts] == ["failed"] * (n - 1) + ["done"]


def test_failures_are_grouped_with_a_job_that_reproduces_them(open_tiny, monkeypatch):
    session = open_tiny("[no_cell, random, none]", "[0, 1]")
    with monkeypatch.context() as broken:
        FailsAtFirst(broken, "retrain", [ZeroDivisionError("in the code")] * 9)
        FailsAtFirst(broken, "search", [ConfigError("a setting must fit, got 3")] * 9)
        run(session)
    code, setting = failure_groups(session.plan(), session.store, quarantine_after=5)
    assert (code.kind, code.stage, code.n) == ("code", "retrain", 2)
    assert (setting.kind, setting.stage, setting.n) == ("setting", "search", 2)
    assert code.error == "ZeroDivisionError: in the code"
    only = session.only([code.job_id])
    assert [job.pruner for job in only.expansion.jobs] == ["random"]
    _, ends, _ = run(session, jobs=only.expansion.jobs)
    assert [end.failure for end in ends] == [None]
    (setting,) = [
        g
        for g in failure_groups(session.plan(), session.store, quarantine_after=5)
        if g.stage == "search"
    ]
    with pytest.raises(ConfigError, match="a job's id must start so, got xyz"):
        session.only(["xyz"])


def test_whatever_later_work_rests_on_survives_a_loss_of_power(open_tiny, monkeypatch):
    """Files of outcomes and their manifest are synced, and the folder after its renaming."""
    synced = set()
    sync = os.fsync

    def noted(descriptor):
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    session = open_tiny("[none]")
    monkeypatch.setattr(os, "fsync", noted)
    run(session)
    root = Path(session.store.root)
    outcomes = [path for path in root.glob("*/*/*") if path.parts[-3] in STAGES]
    assert {"manifest.json", "genotype.json", "trajectory.npz", "index.json", "weights.pt"} <= {
        path.name for path in outcomes
    }
    for path in outcomes:
        attempts = root / "attempts" / f"{path.parts[-3]}-{path.parts[-2]}"
        found = [name for name in synced if Path(name).is_relative_to(attempts)]
        assert any(Path(name).name.startswith(path.name) for name in found), path
        assert str(path.parents[1]) in synced, path
