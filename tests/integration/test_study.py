"""A study with real searches, killed in the middle, driver or database; it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from benchmarks.servers import PostgresServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
STUDY = """
    study:
      space:
        js_stability:
          threshold: {low: 1e-2, high: 1.0, log: true}
          window_epochs: {low: 1, high: 3}
          rank_guard: [true, false]
      judged_on: {seed: [0]}
      max_dice_loss: 0.5
      replayed: 30
      confirmed: 6
      concurrent: 2
      STORAGE
"""


@pytest.fixture
def database():
    """A PostgreSQL of the study, or None where it is not installed: then it has a journal file."""
    try:
        server = PostgresServer()
    except FileNotFoundError:
        yield None
        return
    with server:
        yield server


def start(sweep, runs, folder=None):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", str(sweep), "--runs", str(runs)],
        env=kept | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        cwd=folder,
    )  # fmt: skip


def wait_for_searches(runs, n, driver):
    """Until so many searches are whole."""
    deadline = time.monotonic() + 400
    while len(list((runs / "store" / "search").glob("*/manifest.json"))) < n:
        assert driver.poll() is None, driver.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def mlflow_of(runs):
    return MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")


def forget_a_trial(runs):
    """Leave MLflow as a kill does between the end of a trial and its run there."""
    client = mlflow_of(runs)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    of_trials = {}
    for run in client.search_runs([experiment]):
        of_trials.setdefault(run.data.tags.get("iac.trial"), []).append(run)
    of_trials.pop(None)
    for run in of_trials[min(of_trials)]:
        client.delete_run(run.info.run_id)


def assert_mlflow_has_every_trial(runs):
    client = mlflow_of(runs)
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    by_kind = {}
    for run in found:
        by_kind.setdefault(run.data.tags["iac.kind"], []).append(run)
    assert {kind: len(some) for kind, some in by_kind.items()} == {
        "sweep": 1, "trial": 6, "job": 1 + 6,
    }  # fmt: skip
    tagged = [run for run in by_kind["job"] if "iac.trial" in run.data.tags]
    assert len(tagged) == 6
    trials = {run.info.run_id for run in by_kind["trial"]}
    parents = Counter(run.data.tags["mlflow.parentRunId"] for run in by_kind["job"])
    assert {parent for parent in parents if parent in trials} == trials
    assert {run.info.status for run in found} == {"FINISHED"}


def test_a_killed_study_goes_on_and_runs_no_settings_twice(write_sweep, tmp_path, database):
    sweep = write_sweep("[none]", "[0]")
    url = "" if database is None else f"storage: {json.dumps(database.create('study'))}"
    text = sweep.read_text().replace("epochs: 6, batch_size: 4", "epochs: 14, batch_size: 4")
    sweep.write_text(text + STUDY.replace("STORAGE", url))
    runs = tmp_path / "runs"
    driver = start(sweep, runs)
    wait_for_searches(runs, 2, driver)  # the full one and that of a trial
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    if database is not None:
        driver = start(sweep, runs)
        wait_for_searches(runs, 4, driver)
        database.kill()
        output, _ = driver.communicate(timeout=400)
        assert driver.returncode == 1, output
        assert "the study's storage is away" in output, output
        assert "Traceback" not in output, output
        forget_a_trial(runs)
        database.start()
    driver = start(sweep, runs)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert "6 trials confirmed" in output

    opened = (
        optuna.storages.JournalStorage(JournalFileBackend(str(runs / "tiny" / "study.journal")))
        if database is None
        else optuna.storages.RDBStorage(database.uri("study"))
    )
    replayed = optuna.load_study(study_name="tiny-replayed", storage=opened)
    confirmed = optuna.load_study(study_name="tiny", storage=opened)
    states = Counter(trial.state for trial in confirmed.trials)
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    assert states[TrialState.COMPLETE] == 6
    done = confirmed.get_trials(states=(TrialState.COMPLETE,))
    assert len({trial.user_attrs["iac:settings"] for trial in done}) == 6
    assert len(replayed.get_trials(states=(TrialState.COMPLETE,))) == 30
    assert all(len(trial.values) == 2 for trial in done)
    assert confirmed.best_trials
    if database is not None:
        opened.remove_session()
        opened.engine.dispose()
    for path in (runs / "store").glob("*/*/manifest.json"):
        outcomes = [row["outcome"] for row in json.loads(path.read_text())["attempts"]]
        assert outcomes.count("done") == 1

    assert_mlflow_has_every_trial(runs)


def run_to_its_end(write_sweep, tmp_path, study, **changes):
    """Run a sweep with a study on a journal file; its output and its study."""
    sweep = write_sweep("[none]", "[0]")
    text = sweep.read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    sweep.write_text(text + study)
    driver = start(sweep, "runs", tmp_path)  # as a user gives it: relative
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    journal = JournalFileBackend(str(tmp_path / "runs" / "tiny" / "study.journal"))
    storage = optuna.storages.JournalStorage(journal)
    return output, optuna.load_study(study_name="tiny", storage=storage)


def test_sixteen_trials_at_a_time_run_no_settings_twice(write_sweep, tmp_path):
    output, study = run_to_its_end(
        write_sweep,
        tmp_path,
        """
    study:
      space:
        js_stability:
          threshold: [0.01, 0.03, 0.1, 0.3, 1.0]
          window_epochs: [1, 2, 3]
          rank_guard: [true, false]
      sampler: {name: RandomSampler}
      replayed: 0
      confirmed: 24
      concurrent: 16
""",
    )
    done = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(done) == len({trial.user_attrs["iac:settings"] for trial in done}) == 24, output
    # Drawn from 30 settings at random: some were drawn again, and not run again.
    again = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert again
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}
    under_way, most = 0, 0
    moments = [(trial.datetime_start, 1) for trial in done]
    moments += [(trial.datetime_complete, -1) for trial in done]
    for _, change in sorted(moments):
        under_way += change
        most = max(most, under_way)
    assert most == 16
    searches = list((tmp_path / "runs" / "store" / "search").glob("*/manifest.json"))
    assert len(searches) == 1 + 24
    for path in (tmp_path / "runs" / "store").glob("*/*/manifest.json"):
        assert [row["outcome"] for row in json.loads(path.read_text())["attempts"]] == ["done"]


def test_trials_that_fall_behind_end_early(write_sweep, tmp_path):
    output, study = run_to_its_end(
        write_sweep,
        tmp_path,
        """
    study:
      space: {js_stability: {rank_guard: [true, false]}}
      trial_pruner: {name: ThresholdPruner, options: {lower: 2.0}}
      replayed: 0
      confirmed: 1
""",
        **{"retrain: {epochs: 2,": "retrain: {epochs: 150,"},
    )
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED], output
    assert "trial 0: fell behind at epoch" in output
    assert "0 trials confirmed, 1 ended early" in output
    retrained = list((tmp_path / "runs" / "store" / "retrain").glob("*/manifest.json"))
    assert len(retrained) == 1  # of the full search
    stopped = [
        path.parent.name
        for path in (tmp_path / "runs" / "store" / "attempts").glob("retrain*/*/outcome.json")
        if json.loads(path.read_text())["outcome"] == "stopped"
    ]
    assert len(stopped) == 1
    client = mlflow_of(tmp_path / "runs")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (trial,) = [run for run in runs if run.data.tags["iac.kind"] == "trial"]
    assert int(trial.data.tags["iac.pruned_at"]) == study.trials[0].user_attrs["iac:pruned_at"]
    assert not list((tmp_path / "runs" / "tiny").glob("stop*"))


def test_an_interrupted_study_checkpoints_and_goes_on(write_sweep, tmp_path):
    sweep = write_sweep("[none]", "[0]")
    text = sweep.read_text().replace("search: {epochs: 6,", "search: {epochs: 150,")
    sweep.write_text(
        text
        + """
    study:
      space: {js_stability: {threshold: [1.0e-9, 2.0e-9]}}  # never fires
      replayed: 0
      confirmed: 2
      concurrent: 1
"""
    )
    runs = tmp_path / "runs"
    driver = start(sweep, runs)
    wait_for_searches(runs, 1, driver)
    attempts = runs / "store" / "attempts"
    while len(list(attempts.glob("search-*/*/progress.json"))) < 1:
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert "Stopped; the same command goes on from here." in output
    assert "Traceback" not in output, output
    outcomes = [json.loads(path.read_text()) for path in attempts.glob("*/*/outcome.json")]
    assert [outcome["outcome"] for outcome in outcomes] == ["stopped"]
    driver = start(sweep, runs)
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert "2 trials confirmed" in output
