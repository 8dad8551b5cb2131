"""MLflow on SQLite: each job once, whatever was written before; nothing lost while it is away."""

import errno
import json
import os
import time
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from orchestrator.executors import InlineExecutor
from orchestrator.reporting import open_tracking, report_from_tracking, sync_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.tracking import FinishedJob, Tracker
from results.collect import collect
from results.errors import TrackingAwayError, TrackingSettingError
from results.schema import SCHEMA_VERSION
from results.store import read_tables
from workers.lease import Lease

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parents[1] / "contracts" / "golden"


@pytest.fixture
def session(write_sweep, tmp_path):
    """A sweep of three jobs that has run; nothing of it is in MLflow yet."""
    opened = open_sweep(
        write_sweep("[no_cell, random, none]"), {}, tmp_path / "runs", needs_data=True
    )
    run_sweep(
        opened.expansion.jobs,
        opened.room(),
        InlineExecutor(),
        view=View(),
        on_job_end=lambda end: None,
    )
    return opened


def runs(session):
    client = MlflowClient(tracking_uri=session.tracking_uri)
    experiment = client.get_experiment_by_name(session.experiment)
    return client, client.search_runs([experiment.experiment_id])


def test_sync_sends_every_job_once_with_parent_parameters_curves_and_tables(session):
    assert sync_sweep(session).n_written == 3
    again = sync_sweep(session)
    assert (again.n_written, again.n_present) == (0, 3)
    client, found = runs(session)
    jobs = [run for run in found if run.data.tags["iac.kind"] == "job"]
    (parent,) = [run for run in found if run.data.tags["iac.kind"] == "sweep"]
    assert len(jobs) == 3
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs} == {parent.info.run_id}
    full = next(run for run in jobs if run.data.params["pruner"] == "none")
    assert full.data.params["search_epochs"] == "6"
    assert 0 <= full.data.metrics["test_dice"] <= 1
    history = client.get_metric_history(full.info.run_id, "search_train_loss")
    assert [point.step for point in history] == list(range(6))
    names = {entry.path for entry in client.list_artifacts(full.info.run_id, "tables")}
    assert "tables/patients.parquet" in names
    assert "iac.search_key" in full.data.tags
    assert full.data.tags["iac.device"]


def test_names_in_mlflow_are_what_they_were(session):
    """What users query MLflow by; a new name is a new line of the file."""
    sync_sweep(session)
    _, found = runs(session)
    (parent,) = [run for run in found if run.data.tags["iac.kind"] == "sweep"]
    (full,) = [run for run in found if run.data.params.get("pruner") == "none"]
    names = {
        "tags of the sweep": sorted(parent.data.tags),
        # Tests may run outside of a repository, where no commit is known.
        "tags of a job": sorted({*full.data.tags, "iac.commit", "mlflow.source.git.commit"}),
        "parameters of a job": sorted(full.data.params),
        "metrics of a job": sorted(full.data.metrics),
    }
    expected = json.loads((GOLDEN / "mlflow.json").read_text())
    assert names == expected


def test_a_run_left_half_written_is_taken_up_and_not_doubled(session):
    sync_sweep(session)
    client, found = runs(session)
    victim = next(run for run in found if run.data.tags["iac.kind"] == "job")
    before = len(client.get_metric_history(victim.info.run_id, "pretrain_train_loss"))
    client.delete_tag(victim.info.run_id, "iac.digest")
    client.update_run(victim.info.run_id, status="RUNNING")
    assert sync_sweep(session).n_written == 1
    client, found = runs(session)
    assert len(found) == 4
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len(client.get_metric_history(victim.info.run_id, "pretrain_train_loss")) == before


def test_a_failed_job_is_a_failed_run_and_a_later_success_replaces_it(session):
    from workers.run_stage import Failure

    state = session.plan().states[0]
    tracker = Tracker(session.tracking_uri, session.experiment, "tiny", session.store)
    failure = Failure(stage="evaluate", key="k", epoch=2, error="ValueError: x", trace="T")
    assert tracker.write(FinishedJob(job=state.job, tasks=state.tasks, failure=failure))
    _, found = runs(session)
    assert "FAILED" in {run.info.status for run in found}
    tables = collect(session.tracking_uri, session.experiment, session.run_dir / "tables")
    assert tables["jobs"]["failed_stage"].tolist() == ["evaluate"]
    sync_sweep(session)
    tables = collect(session.tracking_uri, session.experiment, session.run_dir / "tables")
    assert tables["jobs"]["status"].tolist() == ["done"] * 3


def test_collecting_twice_gives_the_same_tables_and_a_removed_run_is_gone(session, tmp_path):
    sync_sweep(session)
    into = tmp_path / "tables"
    first = collect(session.tracking_uri, session.experiment, into)
    second = collect(session.tracking_uri, session.experiment, into)
    for name, frame in first.items():
        pd.testing.assert_frame_equal(second[name], frame)
    assert len(first["patients"]) == 3 * 3 * sum(
        len(volumes) for volumes in [first["patients"]["volume_id"].unique()]
    )
    assert first["stages"]["key"].is_unique
    client, found = runs(session)
    victim = next(run for run in found if run.data.tags["iac.kind"] == "job")
    client.delete_run(victim.info.run_id)
    left = collect(session.tracking_uri, session.experiment, into)
    assert len(left["jobs"]) == 2
    only = set(left["jobs"]["job_id"][:1])
    assert len(collect(session.tracking_uri, session.experiment, into, job_ids=only)["jobs"]) == 1


def test_a_report_needs_the_tracking_server_alone(session, tmp_path):
    sync_sweep(session)
    (session.store.root).rename(tmp_path / "gone")
    paths = report_from_tracking(session.tracking_uri, session.experiment, tmp_path / "laptop")
    assert "3 jobs, 3 done" in paths.html.read_text()


def test_a_run_of_an_older_version_that_lacks_a_table_has_no_rows_of_it(session, tmp_path):
    sync_sweep(session)
    _, found = runs(session)
    old = next(run for run in found if run.data.tags["iac.kind"] == "job")
    root = Path(urlparse(old.info.artifact_uri).path)
    (root / "tables" / "liveness.parquet").unlink()
    (root / "tables" / "events.parquet").unlink()
    (root / "tables" / "curves.parquet").unlink()
    tables = collect(session.tracking_uri, session.experiment, tmp_path / "tables")
    assert len(tables["jobs"]) == 3
    assert old.data.tags["iac.job_id"] not in set(tables["curves"]["job_id"])
    assert old.data.tags["iac.job_id"] not in set(tables["events"]["job_id"])
    assert old.data.tags["iac.job_id"] not in set(tables["liveness"]["job_id"])
    (tmp_path / "tables" / "events.parquet").unlink()
    assert len(read_tables(tmp_path / "tables")["events"]) == 0
    assert len(read_tables(tmp_path / "tables")["jobs"]) == 3


def test_a_run_that_an_older_version_wrote_gets_its_new_tables_from_the_stages(
    session, tmp_path, monkeypatch
):
    monkeypatch.setattr("orchestrator.tracking.SCHEMA_VERSION", SCHEMA_VERSION - 1)
    sync_sweep(session)
    monkeypatch.undo()
    _, found = runs(session)
    for run in found:
        if run.data.tags["iac.kind"] == "job":
            root = Path(urlparse(run.info.artifact_uri).path)
            (root / "tables" / "curves.parquet").unlink()
    assert sync_sweep(session).n_written == 3
    assert sync_sweep(session).n_written == 0
    curves = collect(session.tracking_uri, session.experiment, tmp_path / "tables")["curves"]
    assert set(curves["pruner"]) == {"random", "none"}  # no_cell is not trained again
    assert set(curves["stage"]) == {"retrain"}
    by_job = curves.groupby("job_id")["epoch"].apply(list)
    assert by_job.tolist() == [[-1, 0, 1]] * 2
    assert curves["validation_dice"].notna().all()


def test_rows_of_a_run_that_was_written_anew_replace_those_of_before(session, tmp_path):
    sync_sweep(session)
    into = tmp_path / "tables"
    collect(session.tracking_uri, session.experiment, into)
    client, found = runs(session)
    old = next(run for run in found if run.data.tags["iac.kind"] == "job")
    (Path(urlparse(old.info.artifact_uri).path) / "tables" / "patients.parquet").unlink()
    client.set_tag(old.info.run_id, "iac.digest", "another")
    tables = collect(session.tracking_uri, session.experiment, into)
    assert old.data.tags["iac.job_id"] not in set(tables["patients"]["job_id"])


def test_a_server_that_is_away_delays_and_loses_nothing(session):
    away = Tracker("http://127.0.0.1:9", "tiny", "tiny", session.store)
    state = session.plan().states[0]
    with pytest.raises(TrackingAwayError, match="no tracking server"):
        away.write(FinishedJob(job=state.job, tasks=state.tasks))
    with pytest.raises(TrackingAwayError, match="start it"):
        collect("http://127.0.0.1:9", "tiny", session.run_dir / "tables")
    assert sync_sweep(session).n_written == 3


def test_an_unknown_experiment_is_named_with_those_that_exist(session):
    sync_sweep(session)
    with pytest.raises(TrackingSettingError, match=r"got 'tyni'; known: .*tiny"):
        collect(session.tracking_uri, "tyni", session.run_dir / "tables")


def test_while_another_process_writes_jobs_are_kept(session):
    other = Lease.take(session.writer_place, time_to_live_s=60.0)
    result = sync_sweep(session)
    assert result.n_written == 0
    assert f"process {os.getpid()} on " in result.trouble
    assert "writes to it now" in result.trouble
    other.give_back()
    assert sync_sweep(session).n_written == 3


def test_a_writer_that_was_superseded_stops_writing(session):
    plan = session.plan()
    with open_tracking(session) as tracking:
        jobs = [FinishedJob(job=state.job, tasks=state.tasks) for state in plan.states]
        tracking.put(jobs[0])
        deadline = time.monotonic() + 60
        while tracking.n_written == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other = Lease.take(session.writer_place, time_to_live_s=60.0, dead_number=99)
        for job in jobs[1:]:
            tracking.put(job)
        tracking.close("FINISHED")
        assert "writes to it now" in tracking.trouble
        assert len(tracking.unsent) == 2
    other.give_back()
    assert sync_sweep(session).n_written == 2


def test_a_full_disk_delays_and_does_not_crash(session, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Lease, "take", full)
    assert "No space left on device" in sync_sweep(session).trouble
    monkeypatch.undo()
    assert sync_sweep(session).n_written == 3


def test_of_two_runs_for_one_job_the_whole_one_stays(session):
    sync_sweep(session)
    client, found = runs(session)
    for run in found:
        client.create_run(run.info.experiment_id, start_time=run.info.start_time + 1, tags={
            name: value for name, value in run.data.tags.items()
            if name.startswith("iac.") and name != "iac.digest"
        })  # fmt: skip
    whole = {run.info.run_id for run in found}
    assert sync_sweep(session).n_present == 3
    assert {run.info.run_id for run in runs(session)[1]} == whole


def test_a_driver_killed_while_it_makes_the_database_leaves_none(session, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("results.tracking.database.os.link", killed)
    tracker = Tracker(session.tracking_uri, session.experiment, "tiny", session.store)
    with pytest.raises(KeyboardInterrupt):
        tracker.open()
    monkeypatch.undo()
    assert not list(session.runs_dir.glob("mlflow.db*"))
    assert sync_sweep(session).n_written == 3
