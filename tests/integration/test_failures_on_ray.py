"""Failures of stages on Ray: preempted, hanging, out of memory, dying."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import pytest
from comparable_tables import comparable

from orchestrator.ray_executor import RayExecutor
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from workers.preemption import PREEMPTION_FILE

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SHORT = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
LONG = "epochs: 60, batch_size: 4, steps_per_epoch: 4"
FAULTY = """    backbones:
      unet:
        type: external
        target: faulty_networks:Faulty
        arguments: ARGUMENTS
        classes_argument: out_channels
"""


def start(sweep, runs, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    kept |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "run", str(sweep), "--runs", str(runs)],
        env=kept | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(driver):
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    return output


def searching(runs, min_epoch, timeout_s=240):
    """The process of a search that has come so far."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for note in (runs / "store" / "attempts").glob("search-*/*/progress.json"):
            try:
                epoch = json.loads(note.read_text())["epoch"]
                attempt = json.loads((note.parent / "attempt.json").read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            if epoch >= min_epoch and not (note.parent / "outcome.json").exists():
                return attempt["pid"]
        time.sleep(0.05)
    raise TimeoutError("no search came under way")


def search_of(runs):
    (path,) = (runs / "store" / "search").glob("*/manifest.json")
    curve = json.loads((path.parent / "curve.json").read_text())
    return json.loads(path.read_text())["attempts"], curve


def n_computed_again(attempts, curve):
    """Epochs that an attempt had ended and that a later one computed once more."""
    first = attempts[0]
    kept = sum(entry["ended_at"] <= first["end"] for entry in curve)
    return first["epoch"] - kept


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Where the undisturbed sweep lies; made by the first test that compares."""
    return tmp_path_factory.mktemp("calm")


@pytest.mark.parametrize("source", ["sigterm", "file"])
def test_a_preempted_search_goes_on_from_its_checkpoint(write_sweep, tmp_path, calm, source):
    sweep = write_sweep("[js_stability]")
    text = sweep.read_text().replace(SHORT, LONG)
    # Checkpoints come from the warning alone.
    text = text.replace("checkpoint_every_epochs: 1}", "checkpoint_every_epochs: 1000}")
    sweep.write_text(text)
    if not (calm / "tiny").exists():
        finish(start(sweep, calm))
    runs, note = tmp_path / "runs", tmp_path / "preempted"
    driver = start(sweep, runs, **{PREEMPTION_FILE: str(note)})
    pid = searching(runs, min_epoch=3)
    if source == "sigterm":
        os.kill(pid, signal.SIGTERM)
    else:
        note.touch()
        deadline = time.monotonic() + 240
        while not list((runs / "store/attempts").glob("search-*/*/outcome.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        note.unlink()
    output = finish(driver)
    assert "preempted search" in output
    assert "failed" not in output
    attempts, curve = search_of(runs)
    assert [row["outcome"] for row in attempts] == ["preempted", "done"]
    assert attempts[0]["epoch"] >= 3
    assert n_computed_again(attempts, curve) == 0
    for name, frame in comparable(calm).items():
        pd.testing.assert_frame_equal(comparable(runs)[name], frame, obj=name)


@pytest.fixture
def run_faulty(write_sweep, tmp_path, monkeypatch):
    """A function that runs a sweep with a faulty network on Ray, and returns what came of it."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}")

    def run(arguments, resources, executor=RayExecutor):
        path = write_sweep("[no_cell]")
        plain = "    backbones: {unet: {widths: [8, 16]}}\n"
        text = path.read_text().replace(plain, FAULTY.replace("ARGUMENTS", json.dumps(arguments)))
        text = text.replace("exclusive_search: false", f"exclusive_search: false, {resources}")
        path.write_text(text)
        session = open_sweep(path, {}, tmp_path / "runs", needs_data=True)
        ends = []
        with executor(n_cpus=2) as on_ray:
            run_sweep(
                session.expansion.jobs, session.room(), on_ray, view=View(),
                on_job_end=ends.append,
            )  # fmt: skip
        return session, ends[0]

    return run


def test_a_stage_that_hangs_is_killed_after_its_time(run_faulty, monkeypatch):
    monkeypatch.setattr("orchestrator.watch.HANG_GRACE_S", 1.0)
    arguments = {"fault": "hang", "after": 4}
    session, end = run_faulty(arguments, "pretrain: {timeout_min: 0.2}")
    assert end.failure.kind == "timeout"
    assert "it hung and was killed; the same command goes on" in end.failure.error
    assert "(process " in end.failure.error
    assert end.failure.epoch == 1
    (attempt,) = session.store.attempts("pretrain", end.failure.key)
    assert (attempt["outcome"], attempt["kind"], attempt["epoch"]) == ("lost", "timeout", 1)


def test_a_worker_that_runs_out_of_memory_gets_the_machine_to_itself(run_faulty, tmp_path):
    seen = []

    class Watched(RayExecutor):
        def submit(self, task, order, resources, priority=0.0):
            seen.append((task.kind, order.is_alone, resources.memory_gib))
            super().submit(task, order, resources, priority)

    arguments = {"fault": "host_memory", "marker": str(tmp_path / "marker")}
    session, end = run_faulty(arguments, "pretrain: {memory_gib: 0.5}", Watched)
    assert end.failure is None
    record = session.store.record("pretrain", end.state.tasks[1].key)
    assert [row.get("kind") for row in record.attempts] == ["host_memory", None]
    assert "MemoryError" in record.attempts[0]["error"]
    assert [entry for entry in seen if entry[0] == "pretrain"] == [
        ("pretrain", False, 0.5), ("pretrain", True, 1.0),
    ]  # fmt: skip


def test_what_ray_kills_for_want_of_memory_is_tried_once_more_and_not_for_ever(
    run_faulty, monkeypatch
):
    # The machine counts as full, so that Ray kills whatever computes.
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_min_memory_free_bytes", "-1")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    session, end = run_faulty({"fault": "none"}, "lease_s: 10")
    assert end.failure.kind == "host_memory"
    assert end.failure.stage == "prepare"
    assert "OutOfMemoryError" in end.failure.error
    attempts = session.store.attempts("prepare", end.failure.key)
    assert len(attempts) <= 2
    assert {row["outcome"] for row in attempts} <= {"lost"}


def test_a_worker_that_dies_in_vain_again_and_again_is_named_and_then_left_alone(run_faulty):
    arguments = {"fault": "dies"}
    session, end = run_faulty(arguments, "quarantine_after: 4")
    assert end.failure.kind == "lost"
    host = os.uname().nodename
    assert f" on {host})" in end.failure.error
    attempts = session.store.attempts("pretrain", end.failure.key)
    assert [row["outcome"] for row in attempts] == ["lost"] * 4
    assert {row["kind"] for row in attempts} == {"lost"}
    session, end = run_faulty(arguments, "quarantine_after: 4")
    assert end.failure.kind == "quarantined"
    assert "4 in a row in vain (" in end.failure.error
    assert "WorkerCrashedError: The worker died unexpectedly" in end.failure.error
    assert len(session.store.attempts("pretrain", end.failure.key)) == 4


@pytest.mark.parametrize("end_of_node", ["drained", "killed"])
def test_a_stage_goes_on_on_another_node(write_sweep, tmp_path, monkeypatch, end_of_node):
    from ray._raylet import GcsClient
    from ray.cluster_utils import Cluster
    from ray.core.generated import autoscaler_pb2

    monkeypatch.setattr("orchestrator.tries.PREEMPTION_PAUSE_S", 0.1)
    sweep = write_sweep("[none]")
    text = sweep.read_text().replace(SHORT, LONG)
    if end_of_node == "drained":  # checkpoints come from the warning alone, which takes seconds
        text = text.replace("checkpoint_every_epochs: 1}", "checkpoint_every_epochs: 1000}")
        text = text.replace("search: {epochs: 60", "search: {epochs: 300")
    sweep.write_text(text)
    session = open_sweep(sweep, {}, tmp_path / "runs", needs_data=True)
    before = signal.getsignal(signal.SIGTERM)  # a node of Ray puts its own in this process
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    raylets = {
        node.all_processes["raylet"][0].process.pid: node.node_id
        for node in (cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1))
    }

    def take_away():
        pid = searching(tmp_path / "runs", min_epoch=3)
        raylet = psutil.Process(pid).parent()
        if end_of_node == "killed":
            raylet.kill()
            psutil.Process(pid).kill()  # as an orphan it would end the stage
            return
        accepted, _ = GcsClient(address=cluster.address).drain_node(
            raylets[raylet.pid],
            autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            "the test takes it away", int(1000 * (time.time() + 600)),
        )  # fmt: skip
        assert accepted

    ends, drainer = [], ThreadPoolExecutor(1)
    try:
        with RayExecutor(address=cluster.address) as on_ray:
            drained = drainer.submit(take_away)
            run_sweep(
                session.expansion.jobs, session.room(), on_ray, view=View(),
                on_job_end=ends.append,
            )  # fmt: skip
            drained.result()
    finally:
        drainer.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)
    assert [end.failure for end in ends] == [None]
    attempts, curve = search_of(tmp_path / "runs")
    assert attempts[-1]["outcome"] == "done"
    assert [row["outcome"] for row in attempts[:-1]] == (
        ["preempted"] if end_of_node == "drained" else ["lost"]
    )
    assert attempts[0]["pid"] != attempts[1]["pid"]
    if end_of_node == "drained":
        assert n_computed_again(attempts, curve) == 0
    assert not list(session.run_dir.glob("stop.*")), "the note about the node is gone"
