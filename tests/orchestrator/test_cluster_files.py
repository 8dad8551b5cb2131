"""Cluster files are what Ray, Kubernetes and Slurm take, and carry sweeps that we take."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import load_sweep

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
    # 7 hosts with 7 arms and 3 rivals with 2, on 4 data sets, 5 seeds, both settings.
    assert len(found.jobs) == 4 * (7 * 7 + 3 * 2) * 5 * 2
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
    import ray

    assert cluster["rayVersion"] == ray.__version__


SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.mark.ray
@pytest.mark.slow
def test_the_script_of_slurm_runs_a_sweep(write_sweep, tmp_path, own_processes):
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho 127.0.0.1\n")):
        (shims / name).write_text(text)
        (shims / name).chmod((shims / name).stat().st_mode | stat.S_IXUSR)
    sweep = write_sweep("[no_cell]")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".venv").symlink_to(Path(sys.executable).parents[1])
    for package in ("iac_core", "workers", "results", "orchestrator"):
        (home / package).symlink_to(ROOT / package)
    environment = {
        **os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled",
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node[1]",
        "SLURM_CPUS_ON_NODE": "2", "SLURM_SUBMIT_DIR": str(home),
    }  # fmt: skip
    command = [*own_processes, shutil.which("bash"), CLUSTERS / "slurm.sh", sweep]
    for folder, code in ((tmp_path / "runs", 0), (tmp_path / "others", 2)):
        words = ["--runs", folder] if code == 0 else ["--data", "phantom=/nowhere"]
        done = subprocess.run(
            [*map(str, command), *map(str, words)], env=environment, timeout=400, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert (done.returncode != 0) == (code != 0), done.stdout
    record = next((tmp_path / "runs").glob("store/evaluate/*/manifest.json"))
    assert json.loads(record.read_text())["attempts"][-1]["outcome"] == "done"
