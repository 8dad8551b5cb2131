"""A folder of runs that was moved, copied or robbed of its artifacts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from addresses.sqlite import sqlite_url
from orchestrator.executors import InlineExecutor
from orchestrator.reporting import report_from_tracking, report_sweep, sync_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from results.errors import TrackingRefusedError
from results.tracking.artifacts import artifact_location, local_path, moved

pytestmark = pytest.mark.slow


@pytest.fixture
def open_in(write_sweep):
    """A function that opens the sweep with a folder of runs."""
    path = write_sweep("[no_cell, random]")
    return lambda runs: open_sweep(path, {}, runs, needs_data=True)


def computed(session, jobs=None):
    run_sweep(
        jobs or session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip


def artifacts_of(session):
    """Where MLflow says that the artifacts of the sweep's runs lie."""
    client = MlflowClient(tracking_uri=session.tracking_uri)
    experiment = client.get_experiment_by_name(session.experiment)
    found = client.search_runs([experiment.experiment_id])
    return [experiment.artifact_location, *(run.info.artifact_uri for run in found)]


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["there", "50%20 of a?b#c"])
def test_artifacts_follow_a_folder_that_was_moved(open_in, tmp_path, name):
    old = open_in(tmp_path / "here" / "runs")
    computed(old, old.expansion.jobs[:1])
    assert sync_sweep(old).n_written == 1
    (tmp_path / "here").rename(tmp_path / name)
    session = open_in(tmp_path / name / "runs")
    assert session.runs_dir.is_dir()
    computed(session)
    result = sync_sweep(session)
    assert (result.n_written, result.n_present, result.trouble) == (1, 1, "")
    root = session.runs_dir / "mlartifacts" / "tiny"
    assert all(local_path(address).is_relative_to(root) for address in artifacts_of(session))
    assert len(list(root.glob("*/artifacts/tables/jobs.parquet"))) == 2
    assert "2 jobs, 2 done" in report_sweep(session, None).html.read_text()
    assert not (tmp_path / "here").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "tiny.yaml"])


def test_a_copied_folder_leaves_the_first_alone(open_in, tmp_path):
    first = open_in(tmp_path / "runs")
    computed(first, first.expansion.jobs[:1])
    sync_sweep(first)
    shutil.copytree(first.runs_dir, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "tiny", ignore_errors=True)
    before = files_in(first.runs_dir)
    copy = open_in(tmp_path / "copy")
    computed(copy)
    assert sync_sweep(copy).n_written == 1
    assert files_in(first.runs_dir) == before
    assert sync_sweep(first).n_written == 0
    shutil.rmtree(first.runs_dir)
    paths = report_from_tracking(copy.tracking_uri, "tiny", tmp_path / "laptop")
    assert "2 jobs, 2 done" in paths.html.read_text()


def test_a_moved_database_is_read_where_it_is_without_being_written(open_in, tmp_path):
    old = open_in(tmp_path / "runs")
    computed(old)
    sync_sweep(old)
    old.runs_dir.rename(tmp_path / "archive")
    database = tmp_path / "archive" / "mlflow.db"
    before = database.read_bytes()
    paths = report_from_tracking(sqlite_url(database), "tiny", tmp_path / "laptop")
    assert "2 jobs, 2 done" in paths.html.read_text()
    assert database.read_bytes() == before


def test_runs_whose_artifacts_are_gone_are_written_again_from_the_stages(open_in, tmp_path):
    session = open_in(tmp_path / "runs")
    computed(session)
    assert sync_sweep(session).n_written == 2
    shutil.rmtree(session.runs_dir / "mlartifacts")
    with pytest.raises(TrackingRefusedError, match="the tables of every run must be among"):
        report_from_tracking(session.tracking_uri, "tiny", tmp_path / "laptop")
    assert sync_sweep(session).n_written == 2
    assert sync_sweep(session).n_written == 0
    one = next((session.runs_dir / "mlartifacts").rglob("patients.parquet"))
    one.unlink()
    assert sync_sweep(session).n_written == 1
    paths = report_from_tracking(session.tracking_uri, "tiny", tmp_path / "laptop")
    assert "2 jobs, 2 done" in paths.html.read_text()
    client = MlflowClient(tracking_uri=session.tracking_uri)
    experiment = client.get_experiment_by_name("tiny")
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_runs_whose_artifacts_are_damaged_are_written_again_from_the_stages(open_in, tmp_path):
    session = open_in(tmp_path / "runs")
    computed(session)
    sync_sweep(session)
    names = ("jobs", "patients")
    for damage in (lambda content: b"", lambda content: content[: len(content) // 2]):
        for name in names:
            path = next((session.runs_dir / "mlartifacts").rglob(f"{name}.parquet"))
            path.write_bytes(damage(path.read_bytes()))
            assert sync_sweep(session).n_written == 1
            assert sync_sweep(session).n_written == 0
    path = next((session.runs_dir / "mlartifacts").rglob("jobs.parquet"))
    content = path.read_bytes()
    path.write_bytes(b"PAR1" + bytes(len(content) - 8) + b"PAR1")
    with pytest.raises(TrackingRefusedError, match=r"`orchestrator sync` .* writes it again from"):
        report_from_tracking(session.tracking_uri, "tiny", tmp_path / "laptop")
    assert sync_sweep(session).n_written == 1
    paths = report_from_tracking(session.tracking_uri, "tiny", tmp_path / "laptop")
    assert "2 jobs, 2 done" in paths.html.read_text()


def test_a_damaged_database_that_is_moved_away_is_written_again(open_in, tmp_path):
    session = open_in(tmp_path / "runs")
    computed(session)
    sync_sweep(session)
    database = session.runs_dir / "mlflow.db"
    for content in (b"no database" * 1000, database.read_bytes()[:40_000]):
        database.write_bytes(content)
        with pytest.raises(TrackingRefusedError, match=r"must be whole, .*; move the file away"):
            sync_sweep(session)
        database.rename(tmp_path / "damaged.db")
        words = ("sync", session.spec.path, "--runs", session.runs_dir)
        command = [sys.executable, "-m", "orchestrator", *map(str, words)]  # has no open files
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "2 jobs sent" in done.stdout


def test_names_of_experiments_stay_inside_the_folder_of_artifacts():
    for name in ("../outside", "/absolute", "..", "x" * 256, "50% of a?b"):
        where = local_path(artifact_location("sqlite:////runs/mlflow.db", name))
        assert where.parent == Path("/runs/mlartifacts")
        assert ".." not in where.parts
        assert len(where.name) < 256


def test_artifacts_that_were_put_elsewhere_by_hand_stay_there(tmp_path):
    elsewhere = tmp_path / "disk" / "mlartifacts" / "tiny"
    elsewhere.mkdir(parents=True)
    uri = sqlite_url(tmp_path / "runs" / "mlflow.db")
    assert moved(uri, elsewhere.as_uri()) == elsewhere.as_uri()
    (tmp_path / "disk" / "mlflow.db").touch()  # a copied folder
    assert moved(uri, elsewhere.as_uri()) == (tmp_path / "runs/mlartifacts/tiny").as_uri()
