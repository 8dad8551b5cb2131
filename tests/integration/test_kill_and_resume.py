"""Ctrl-C and the same command again; kills are in test_chaos.py."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from results.store import read_tables

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LONG_SEARCH = (
    "epochs: 6, batch_size: 4, steps_per_epoch: 2",
    "epochs: 60, batch_size: 4, steps_per_epoch: 4",
)


def command(sweep, runs, *words):
    return [
        sys.executable,
        "-m",
        "orchestrator",
        words[0],
        str(sweep),
        "--runs",
        str(runs),
        *words[1:],
    ]


def environment():
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    root = str(Path(__file__).parents[2])
    return clean | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}


def run(sweep, runs, *words, code=0):
    done = subprocess.run(
        command(sweep, runs, *(words or ("run",))),
        env=environment(), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_for_search(runs, min_epoch, timeout_s=180):
    """The process of a search that is under way."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for note in sorted((runs / "store" / "attempts").glob("search-*/*/progress.json")):
            try:
                progress = json.loads(note.read_text())
                attempt = json.loads((note.parent / "attempt.json").read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            if progress["epoch"] >= min_epoch and is_alive(attempt["pid"]):
                return attempt["pid"], progress["epoch"]
        time.sleep(0.05)
    raise TimeoutError("no search came under way")


def is_alive(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def runs_in_mlflow(runs):
    client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    return client.search_runs([experiment.experiment_id])


@pytest.fixture
def sweep(write_sweep):
    path = write_sweep("[no_cell, random, none, js_stability]")
    text = path.read_text()
    assert LONG_SEARCH[0] in text
    path.write_text(text.replace(*LONG_SEARCH))
    return path


def test_ctrl_c_checkpoints_and_the_same_command_goes_on(sweep, tmp_path):
    runs = tmp_path / "runs"
    driver = subprocess.Popen(
        command(sweep, runs, "run"), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    _, epoch = wait_for_search(runs, min_epoch=5)
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, output
    assert "goes on from here" in output
    assert "Traceback" not in output
    assert list((runs / "store" / "attempts").glob("search-*/*/checkpoint.pt"))
    run(sweep, runs)
    stages = read_tables(runs / "tiny" / "tables")["stages"]
    assert "stopped" in set(stages["outcome"])
    workers = stages[(stages["outcome"] == "done") & (stages["kind"] != "prepare")]
    assert workers["pid"].nunique() < len(workers), "workers stay warm from stage to stage"
    assert epoch >= 5
    assert {entry.info.status for entry in runs_in_mlflow(runs)} == {"FINISHED"}

    output = run(sweep, runs)
    assert not re.search(r"^\d\d:\d\d:\d\d +start", output, re.MULTILINE)
    assert len(runs_in_mlflow(runs)) == 5
