"""Several drivers on one sweep share its stages; a paused one that comes back harms nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from comparable_tables import comparable
from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
LONG = "epochs: 80, batch_size: 4, steps_per_epoch: 4"


def start(sweep, runs, *words):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", str(sweep), "--runs", str(runs), *words],
        env=kept | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(driver):
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    return output


def attempts(runs):
    """Kind and key of every whole stage → outcomes of its attempts."""
    found = {}
    for path in (runs / "store").glob("*/*/manifest.json"):
        record = json.loads(path.read_text())
        found[record["kind"], record["key"]] = [row["outcome"] for row in record["attempts"]]
    return found


def assert_each_job_has_one_run(runs, n_jobs):
    client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    kinds = sorted(entry.data.tags["iac.kind"] for entry in found)
    assert kinds == ["job"] * n_jobs + ["sweep"]
    assert {entry.info.status for entry in found} == {"FINISHED"}


@pytest.mark.ray
def test_two_drivers_share_a_sweep_and_no_stage_is_computed_twice(write_sweep, tmp_path):
    sweep = write_sweep("[no_cell, no_cell_longer, random, none, js_stability]", "[0, 1]")
    text = sweep.read_text().replace("cpus: 2", "cpus: 1")
    sweep.write_text(text.replace(SHORT, SHORT.replace("epochs: 6", "epochs: 20")))
    calm, shared = tmp_path / "calm", tmp_path / "shared"
    finish(start(sweep, calm, "--inline"))
    drivers = [start(sweep, shared) for _ in range(2)]
    for driver in drivers:
        finish(driver)
    ended = attempts(shared)
    assert set(ended) == set(attempts(calm))
    assert all(outcomes == ["done"] for outcomes in ended.values()), ended
    for name, frame in comparable(calm).items():
        pd.testing.assert_frame_equal(comparable(shared)[name], frame, obj=name)
    assert_each_job_has_one_run(shared, 10)
    assert not list((shared / "tiny").glob("stop*"))


def wait_for_search(runs, min_epoch):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for note in (runs / "store" / "attempts").glob("search-*/*/progress.json"):
            try:
                if json.loads(note.read_text())["epoch"] >= min_epoch:
                    return note.parent
            except (FileNotFoundError, json.JSONDecodeError):
                continue
        time.sleep(0.05)
    raise TimeoutError("no search came under way")


def test_a_driver_that_was_paused_past_its_lease_overwrites_nothing(write_sweep, tmp_path):
    sweep = write_sweep("[js_stability]")
    text = sweep.read_text().replace("threads: 1,", "threads: 1, lease_s: 4,")
    sweep.write_text(text.replace(SHORT, LONG))
    runs = tmp_path / "runs"
    first = start(sweep, runs, "--inline")
    folder = wait_for_search(runs, 8)
    first.send_signal(signal.SIGSTOP)
    try:
        output = finish(start(sweep, runs, "--inline"))
    finally:
        first.send_signal(signal.SIGCONT)
    assert "held" in output
    key = folder.parent.name.removeprefix("search-")
    manifest = runs / "store" / "search" / key / "manifest.json"
    written = manifest.stat().st_mtime_ns, manifest.read_bytes()
    output = finish(first)
    assert "held" in output
    assert (manifest.stat().st_mtime_ns, manifest.read_bytes()) == written
    assert attempts(runs)["search", key] == ["lost", "done"]
    assert not list((runs / "store" / "attempts").iterdir())
    assert_each_job_has_one_run(runs, 1)
