"""Sweeps whose stages lie in a bucket: another host goes on, and the tables are the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from comparable_tables import comparable
from s3_server import SECRET, objects

from results.store import read_tables
from workers.stage_store import StageStore

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SHORT = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
LONG = "epochs: 40, batch_size: 4, steps_per_epoch: 4"


def start(sweep, runs, *words, **variables):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    own = {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words, str(sweep), "--runs", str(runs)],
        env=kept | own | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(driver, code=0):
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == code, output
    assert "Traceback" not in output
    assert SECRET not in output
    return output


def started(output):
    return re.findall(r"^\d\d:\d\d:\d\d +start +(\w+)", output, re.MULTILINE)


def wait_for_checkpoint(root, min_epoch):
    """The epoch that a search has reported, with a checkpoint in the bucket."""
    files, prefix = objects(), root.removeprefix("s3://")
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        for name in files.glob(f"{prefix}/attempts/search-*/*/progress.json"):
            epoch = json.loads(files.cat_file(name))["epoch"]
            if epoch >= min_epoch and files.exists(name.replace("progress.json", "checkpoint.pt")):
                return epoch
        time.sleep(0.05)
    raise TimeoutError("no search wrote a checkpoint")


def test_a_sweep_in_a_bucket_killed_and_gone_on_with_on_another_host(
    write_sweep, tmp_path, s3_root
):
    local = write_sweep("[no_cell, none, js_stability]")
    text = local.read_text().replace(SHORT, LONG)
    local.write_text(text)
    remote = tmp_path / "remote.yaml"
    remote.write_text(f"{text}    store: {s3_root}\n")
    finish(start(local, tmp_path / "calm", "run", "--inline"))

    hard = tmp_path / "hard"
    driver = start(remote, hard, "run", "--inline")
    epoch = wait_for_checkpoint(s3_root, min_epoch=6)
    killed_at = time.time()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    second = {"IAC_CACHE": str(tmp_path / "second host")}
    output = finish(start(remote, hard, "run", "--inline", **second))
    assert "prepare" not in started(output)
    assert "pretrain" not in started(output)
    for name, frame in comparable(tmp_path / "calm").items():
        pd.testing.assert_frame_equal(comparable(hard)[name], frame, obj=name)

    store = StageStore(s3_root)
    records = [store.record("search", key) for key in store.keys("search")]
    ends = sorted([row["outcome"] for row in record.attempts] for record in records)
    assert ends == [["done"], ["lost", "done"]]
    (resumed,) = [record for record in records if len(record.attempts) == 2]
    curve = json.loads(store.read("search", resumed.key, "curve.json"))
    before = [entry["epoch"] for entry in curve if entry["ended_at"] < killed_at]
    assert len(before) >= epoch - 1, "epochs before the kill were computed again"
    left = {name.rpartition("/")[2] for name in store.place._tree("attempts")}
    assert left.isdisjoint({"checkpoint.pt", "progress.json", "attempt.json"})
    assert not [name for name in left if name.startswith("lease.")]

    third = {"IAC_CACHE": str(tmp_path / "third host")}
    output = finish(start(remote, tmp_path / "again", "run", "--inline", **third))
    assert started(output) == []
    for name, frame in comparable(tmp_path / "calm").items():
        pd.testing.assert_frame_equal(comparable(tmp_path / "again")[name], frame, obj=name)
    cached = {path.name for path in (tmp_path / "third host").rglob("*") if path.is_file()}
    assert not cached, "tables need no copies of weights or slices"


@pytest.mark.ray
def test_workers_on_ray_share_a_bucket_and_stop_by_a_note(write_sweep, tmp_path, s3_root):
    sweep = write_sweep("[no_cell, none, js_stability]", extra=f"    store: {s3_root}\n")
    sweep.write_text(sweep.read_text().replace(SHORT, LONG))
    runs = tmp_path / "runs"
    driver = start(sweep, runs, "run")
    wait_for_checkpoint(s3_root, min_epoch=3)
    os.killpg(driver.pid, signal.SIGINT)
    output = finish(driver, code=130)
    assert "goes on from here" in output
    output = finish(start(sweep, runs, "run", IAC_CACHE=str(tmp_path / "other")))
    assert "pretrain" not in started(output)
    stages = read_tables(runs / "tiny" / "tables")["stages"]
    assert "stopped" in set(stages["outcome"])
    assert StageStore(s3_root).place.names("stops") == frozenset()
