"""Cluster files are what Ray, Kubernetes and Slurm take, and carry sweeps that we take."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import load_sweep
from workers.preemption import PREEMPTION_FILE

ROOT = Path(__file__).parents[2]
CLUSTERS = ROOT / "sweeps" / "clusters"
RAY_FILES = [ROOT / "sweeps" / "full_grid.yaml", CLUSTERS / "aws.yaml"]


@pytest.mark.parametrize("path", RAY_FILES, ids=lambda path: path.name)
def test_ray_takes_the_file_and_leaves_the_sweep_alone(path):
    from ray.autoscaler._private.util import prepare_config, validate_config

    raw = yaml.safe_load(path.read_text())
    prepared = prepare_config(raw)
    validate_config(prepared)
    assert prepared["metadata"]["sweep"] == raw["metadata"]["sweep"]
    assert expand(load_sweep(path, tables=tables())).jobs


@pytest.mark.parametrize("path", RAY_FILES, ids=lambda path: path.name)
def test_the_setup_gives_submit_its_environment(path):
    raw = yaml.safe_load(path.read_text())
    assert raw["file_mounts"] == {"~/iac": "."}
    assert any("make install" in words for words in raw["setup_commands"])
    starts = [*raw["head_start_ray_commands"], *raw["worker_start_ray_commands"]]
    assert all("iac/.venv" in words or ".venv/bin/ray" in words for words in starts)


def test_the_grid_is_that_of_the_papers_and_is_planned_without_the_data():
    spec = load_sweep(ROOT / "sweeps" / "full_grid.yaml", tables=tables())
    axes = {axis.name: axis.values for axis in spec.axes}
    assert axes["dataset"] == ("acdc", "brats", "kits", "amos")
    assert axes["seed"] == (0, 1, 2, 3, 4)
    assert axes["augmentation"] == (False, True)
    found = expand(spec)
    # 7 hosts with 12 arms and 3 rivals with 2, on 4 data sets, 5 seeds, both settings.
    assert len(found.jobs) == 4 * (7 * 12 + 3 * 2) * 5 * 2
    assert {cell["backbone"] for cell in found.dropped} == {
        "attention_unet", "unet_plus_plus", "unet_3_plus",
    }  # fmt: skip


def test_the_job_of_kubernetes_has_what_kuberay_asks_for():
    raw = yaml.safe_load((CLUSTERS / "rayjob.yaml").read_text())
    assert (raw["apiVersion"], raw["kind"]) == ("ray.io/v1", "RayJob")
    spec = raw["spec"]
    assert spec["backoffLimit"] > 0
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    cluster = spec["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    for group in (cluster["headGroupSpec"], worker):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["image"]
            assert container["resources"]["requests"]
    (container,) = worker["template"]["spec"]["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    hook = container["lifecycle"]["preStop"]["exec"]["command"]
    assert f"touch {variables[PREEMPTION_FILE]};" in hook[-1]
    import ray

    assert cluster["rayVersion"] == ray.__version__


SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path, own_processes):
    """Words and environment that run the script as Slurm would; what it asks of Slurm is noted."""
    shims, home = tmp_path / "shims", tmp_path / "home"
    shims.mkdir()
    home.mkdir()
    scontrol = f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\necho 127.0.0.1\n'
    for name, text in (("srun", SRUN), ("scontrol", scontrol)):
        (shims / name).write_text(text)
        (shims / name).chmod((shims / name).stat().st_mode | stat.S_IXUSR)
    (home / ".venv").symlink_to(Path(sys.executable).parents[1])
    for package in ("addresses", "files", "iac_core", "workers", "results", "orchestrator"):
        (home / package).symlink_to(ROOT / package)
    environment = {
        **os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_CPUS_ON_NODE": "2", "SLURM_SUBMIT_DIR": str(home), "IAC_CHECKPOINT_SECONDS": "30",
    }  # fmt: skip
    return [*own_processes, shutil.which("bash"), str(CLUSTERS / "slurm.sh")], environment


@pytest.mark.ray
@pytest.mark.slow
def test_the_script_of_slurm_runs_a_sweep(write_sweep, tmp_path, slurm):
    sweep = write_sweep("[no_cell]")
    command, environment = slurm
    command = [*command, sweep]
    for folder, code in ((tmp_path / "runs", 0), (tmp_path / "others", 2)):
        words = ["--runs", folder] if code == 0 else ["--data", "phantom=/nowhere"]
        done = subprocess.run(
            [*map(str, command), *map(str, words)], env=environment, timeout=400, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert (done.returncode != 0) == (code != 0), done.stdout
    record = next((tmp_path / "runs").glob("store/evaluate/*/manifest.json"))
    assert json.loads(record.read_text())["attempts"][-1]["outcome"] == "done"
    assert "requeue" not in (tmp_path / "asked").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_the_warning_of_slurm_makes_stages_checkpoint_and_queues_the_job_again(
    write_sweep, tmp_path, slurm
):
    sweep = write_sweep("[none]")
    text = sweep.read_text()
    short = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
    assert short in text
    text = text.replace(short, "epochs: 5000, batch_size: 4, steps_per_epoch: 4")
    sweep.write_text(text.replace("checkpoint_every_epochs: 1}", "checkpoint_every_epochs: 9999}"))
    command, environment = slurm
    script = subprocess.Popen(
        [*command, str(sweep), "--runs", str(tmp_path / "runs")], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    attempts = tmp_path / "runs" / "store" / "attempts"
    deadline = time.monotonic() + 300
    while not list(attempts.glob("search-*/*/progress.json")):
        assert time.monotonic() < deadline
        assert script.poll() is None
        time.sleep(0.2)
    (inner,) = psutil.Process(script.pid).children()
    inner.send_signal(signal.SIGUSR1)
    assert script.wait(timeout=300) != 0
    (outcome,) = attempts.glob("search-*/*/outcome.json")
    assert json.loads(outcome.read_text())["outcome"] == "preempted"
    assert (outcome.parent / "checkpoint.pt").exists()
    assert "requeue 7" in (tmp_path / "asked").read_text()
    assert not list((tmp_path / "home").glob("preempted-*"))
