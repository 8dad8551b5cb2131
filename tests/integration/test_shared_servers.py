"""Servers that a cluster shares: MLflow and Optuna on PostgreSQL; killed, away, back."""

import shutil
import subprocess
import sys
import time

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from benchmarks.servers import MlflowServer, PostgresServer
from orchestrator.cli import app
from orchestrator.executors import InlineExecutor
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.tracking import FinishedJob, Tracker
from orchestrator.tracking_writer import BackgroundTracker
from results.store import read_tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database():
    try:
        server = PostgresServer()
    except FileNotFoundError as error:
        pytest.skip(f"{error}: install Debian's package postgresql")
    with server:
        yield server


@pytest.fixture
def server(database, tmp_path):
    """A tracking server that is not started yet."""
    found = MlflowServer(tmp_path, database.create(f"mlflow_{time.time_ns()}"))
    yield found
    found.kill()


def sweep_on(server, write_sweep):
    path = write_sweep("[no_cell, random]")
    text = path.read_text().replace(
        "    grid:", f'    tracking: {{uri: "{server.uri}"}}\n    grid:', 1
    )
    path.write_text(text)
    return path


@pytest.mark.ray
def test_a_server_away_for_a_whole_sweep_has_everything_after_sync(
    server, write_sweep, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    path, runs = sweep_on(server, write_sweep), ["--runs", str(tmp_path / "runs")]
    ended = CliRunner().invoke(app, ["run", str(path), *runs])
    assert ended.exit_code == 1, ended.output
    assert "MLflow is away" in ended.output
    assert "2 jobs are kept" in ended.output
    server.start()
    ended = CliRunner().invoke(app, ["sync", str(path), *runs])
    assert "2 jobs sent, 0 were there already" in ended.output
    shutil.rmtree(tmp_path / "runs" / "store")
    words = ["--tracking-uri", server.uri, "--experiment", "tiny"]
    ended = CliRunner().invoke(app, ["report", *words, "--runs", str(tmp_path / "laptop")])
    assert ended.exit_code == 0, ended.output
    tables = read_tables(tmp_path / "laptop" / "tiny" / "tables")
    assert tables["jobs"]["status"].tolist() == ["done"] * 2
    assert tables["jobs"]["test_dice"].notna().all()
    assert set(tables["patients"]["job_id"]) == set(tables["jobs"]["job_id"])
    assert set(tables["stages"]["kind"]) == {
        "prepare", "pretrain", "retrain", "predict", "evaluate",
    }  # fmt: skip
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"] * 3


def test_a_writer_goes_on_by_itself_when_database_and_server_are_back(
    server, database, write_sweep, tmp_path
):
    session = open_sweep(sweep_on(server, write_sweep), {}, tmp_path / "runs", needs_data=True)
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip
    server.start()
    tracker = Tracker(server.uri, session.experiment, "tiny", session.store)
    writer = BackgroundTracker(tracker, session.writer_place, pause_s=0.5)
    with writer:
        first, second = (
            FinishedJob(job=state.job, tasks=state.tasks) for state in session.plan().states
        )
        writer.put(first)
        until(lambda: writer.n_written == 1)
        database.kill()
        writer.put(second)
        until(lambda: writer.trouble)
        server.kill()
        database.start()
        server.start()
        until(lambda: writer.n_written == 2)
        assert not writer.trouble
        writer.close("FINISHED")
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"] * 3


CREATE = """
import sys, optuna
optuna.create_study(study_name="shared", storage=sys.argv[1])
"""
ASK_AND_TELL = """
import sys, optuna
study = optuna.load_study(study_name="shared", storage=sys.argv[1])
for _ in range(10):
    trial = study.ask()
    study.tell(trial, (trial.suggest_float("threshold", 0, 1) - 0.3) ** 2)
"""
READ = """
import sys, optuna
trials = optuna.load_study(study_name="shared", storage=sys.argv[1]).trials
print(sorted(trial.number for trial in trials if trial.state.is_finished()))
"""


def test_processes_share_one_optuna_study_which_outlives_its_database_being_killed(database):
    storage = database.create("optuna")

    def words(script):
        return [sys.executable, "-W", "ignore", "-c", script, storage]

    subprocess.run(words(CREATE), check=True, timeout=300)
    processes = [subprocess.Popen(words(ASK_AND_TELL)) for _ in range(3)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    database.kill()
    database.start()
    read = subprocess.run(words(READ), check=True, timeout=300, stdout=subprocess.PIPE, text=True)
    assert read.stdout.strip() == str(list(range(30)))


def until(is_true):
    deadline = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
