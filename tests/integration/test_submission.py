"""Sweeps submitted to a real Ray head through its Jobs API."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iac_core.errors import ConfigError
from orchestrator.session import tables
from orchestrator.spec import load_sweep
from orchestrator.submission import Cluster, bundle

ROOT = Path(__file__).parents[2]
ray = pytest.mark.ray
slow = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address():
    """The dashboard of a Ray head with two CPUs; it ends with the tests."""
    port = free_port()
    head = subprocess.Popen(
        [
            Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus=2",
            f"--port={free_port()}", "--include-dashboard=true", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={port}", "--disable-usage-stats",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--dashboard-agent-grpc-port={free_port()}",
        ],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            Cluster(url).submissions()
            break
        except (ConfigError, RuntimeError):
            assert time.monotonic() < deadline, "no Ray head came up"
            time.sleep(1)
    yield url
    head.terminate()
    try:
        head.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def orchestrator(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


@ray
@slow
def test_a_sweep_runs_on_a_cluster_and_its_exit_code_comes_back(address, write_sweep, tmp_path):
    sweep, runs = write_sweep("[no_cell, random]"), tmp_path / "runs"
    there = ("--address", address, "--runs", runs, "--python", sys.executable)
    output = orchestrator("submit", sweep, *there)
    assert "report.html" in output
    assert (runs / "tiny" / "report" / "report.md").exists()
    output = orchestrator("cluster", "status", "--address", address)
    assert re.search(r"tiny-\w+ +tiny +SUCCEEDED +0", output)

    output = orchestrator("submit", sweep, *there, "--detach", "--data", "phantom=/nowhere")
    identity = re.search(r"submitted (\S+)", output)[1]
    output = orchestrator("cluster", "logs", identity, "--address", address, "--follow", code=2)
    assert "its folder must be at hand" in output
    assert f"{identity}  tiny   FAILED" in orchestrator(
        "cluster", "status", identity, "--address", address
    )


@ray
@slow
def test_a_local_run_joins_no_cluster_that_runs_here(address, write_sweep, tmp_path):
    before = Cluster(address).submissions()
    output = orchestrator("run", write_sweep("[no_cell]"), "--runs", tmp_path / "runs")
    assert "report.html" in output
    assert Cluster(address).submissions() == before


@ray
@slow
def test_a_cancelled_sweep_keeps_its_checkpoints_and_goes_on(address, write_sweep, tmp_path):
    sweep, runs = write_sweep("[none]"), tmp_path / "runs"
    text = sweep.read_text()
    sweep.write_text(text.replace("epochs: 6, batch_size: 4", "epochs: 250, batch_size: 4"))
    there = ("--address", address, "--runs", runs, "--python", sys.executable)
    output = orchestrator("submit", sweep, *there, "--detach")
    identity = re.search(r"submitted (\S+)", output)[1]
    deadline = time.monotonic() + 180
    while not list(runs.glob("store/attempts/search-*/*/checkpoint.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    orchestrator("cluster", "cancel", identity, "--address", address)
    orchestrator("cluster", "logs", identity, "--address", address, "--follow", code=130)
    assert list(runs.glob("store/attempts/search-*/*/checkpoint.pt"))
    assert "report.html" in orchestrator("submit", sweep, *there)


def test_an_address_where_nothing_answers_is_named():
    with pytest.raises(ConfigError, match="a Ray dashboard must answer at the address"):
        Cluster(f"http://127.0.0.1:{free_port()}")


def test_an_upload_is_small_and_whole(write_sweep, tmp_path):
    spec = load_sweep(write_sweep(), tables=tables())
    bundle(spec, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2**21
    assert not any("__pycache__" in path.parts for path in files)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "plan", "sweep.yaml"],
        cwd=tmp_path / "out", capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tiny: 2 jobs" in done.stdout


def test_a_split_file_travels_if_it_lies_below_the_sweep(write_sweep, tmp_path):
    path = write_sweep()
    patients = [f"patient{number:03d}" for number in range(1, 9)]
    content = f'{{"train": {patients[:5]}, "validation": {patients[5:7]}, "test": {patients[7:]}}}'
    for name, fits in (("splits/a.json", True), ("../b.json", False)):
        file = (path.parent / name).resolve()
        file.parent.mkdir(exist_ok=True)
        file.write_text(content.replace("'", '"'))
        text = path.read_text()
        path.write_text(
            text.replace("split: {n_folds: 4, validation_share: 0.2}", f"split: {{file: {name}}}")
        )
        spec = load_sweep(path, tables=tables())
        path.write_text(text)
        into = tmp_path / f"out{fits}"
        if fits:
            bundle(spec, into)
            assert (into / name).read_text() == file.read_text()
        else:
            with pytest.raises(ConfigError, match="must lie below the sweep file"):
                bundle(spec, into)
