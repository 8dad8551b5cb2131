"""A cluster of three hosts loses two of them in the middle of a sweep; the sweep ends whole."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from comparable_tables import comparable
from hosts import Network, NodesOfThisMachine, why_not

from results.store import read_tables

ROOT = Path(__file__).parents[2]
WHY_NOT = why_not()
SHORT = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
LONG = "epochs: 120, batch_size: 4, steps_per_epoch: 4"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT), "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}  # fmt: skip


def command(sweep, runs, *words):
    return [
        sys.executable, "-m", "orchestrator", "run", str(sweep), "--runs", str(runs), *words,
    ]  # fmt: skip


def epochs_under_way(runs):
    """Epochs of the searches that are under way."""
    found = []
    for note in (runs / "store" / "attempts").glob("search-*/*/progress.json"):
        try:
            found.append(json.loads(note.read_text())["epoch"])
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return found


def wait(condition, what, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param(Network, marks=pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)),
        pytest.param(
            NodesOfThisMachine,
            marks=pytest.mark.skipif(
                not WHY_NOT, reason="this machine makes network namespaces, which run instead"
            ),
        ),
    ],
)
def test_a_host_is_cut_off_and_another_killed_and_the_sweep_ends_whole(
    cluster, write_sweep, tmp_path
):
    sweep = write_sweep("[none]", "[0, 1, 2]")
    text = sweep.read_text().replace("threads: 1, cpus: 2,", "threads: 1, lease_s: 6,")
    sweep.write_text(text.replace(SHORT, LONG))
    calm, hard = tmp_path / "calm", tmp_path / "hard"
    subprocess.run(command(sweep, calm, "--inline"), env=ENVIRONMENT, check=True, timeout=600)
    with cluster(3, environment=ENVIRONMENT) as hosts:
        head, cut, killed = hosts
        for host in hosts:
            host.start_ray(head)
        driver = subprocess.Popen(
            head.words(*command(sweep, hard, "--address", head.address)),
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        wait(lambda: len(epochs_under_way(hard)) == 3, "three searches at a time")
        wait(lambda: min(epochs_under_way(hard)) >= 10, "every search under way")
        cut.cut_off()
        killed.kill()
        output, _ = driver.communicate(timeout=1800)
        assert driver.returncode == 0, output
    for name, frame in comparable(calm).items():
        pd.testing.assert_frame_equal(comparable(hard)[name], frame, obj=name)
    stages = read_tables(hard / "tiny" / "tables")["stages"]
    assert (stages[stages["outcome"] == "done"].groupby("key").size() == 1).all()
    assert "lost" in set(stages["outcome"])
