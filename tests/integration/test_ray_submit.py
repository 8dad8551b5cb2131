"""`ray up`, `ray submit`, `ray down` over a real sshd, with the sweep from the head's copy."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
MISSING = [
    name
    for name, found in (
        ("openssh-server", SSHD),
        ("rsync", shutil.which("rsync")),
        ("openssh-client", shutil.which("ssh-keygen")),
    )
    if not found
]
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"Debian packages: {' '.join(MISSING)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="sshd takes logins for root alone here"),
]
FULL_GRID = ROOT / "sweeps" / "full_grid.yaml"
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture
def home(tmp_path):
    """A home folder for both sides of the connection, and a key."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".bashrc").touch()
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"""HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
SetEnv HOME={folder} RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
"""
    )
    return folder


@pytest.fixture
def cluster_file(home, write_sweep):
    """The tiny sweep in a cluster file whose head is this machine, behind sshd."""
    sweep = yaml.safe_load(write_sweep("[no_cell, random]").read_text())
    raw = {
        "cluster_name": "iac-test",
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {
            "ssh_user": "root",
            "ssh_private_key": str(home / "user"),
            "ssh_proxy_command": f"{SSHD} -i -f {home}/sshd_config",
        },
        "file_mounts": {"~/iac": str(ROOT)},
        "rsync_exclude": [".git", ".venv", "runs", "benchmarks", "tests", "__pycache__"],
        "setup_commands": [
            f"ln -sfn {Path(sys.executable).parents[1]} ~/iac/.venv",
            yaml.safe_load(FULL_GRID.read_text())["setup_commands"][-1],
        ],
        "head_start_ray_commands": [
            "cd ~/iac && .venv/bin/ray start --head --port=6399 --num-cpus=2 "
            "--include-dashboard=false --autoscaling-config=~/ray_bootstrap_config.yaml"
        ],
        "worker_start_ray_commands": [],
        "metadata": sweep["metadata"],
    }
    path = home / "cluster.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def ray_of(home, own_processes, *words, code=0):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [*own_processes, RAY, *map(str, words)],
        env=clean | {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def test_a_sweep_is_submitted_over_ssh_and_its_exit_code_comes_back(
    cluster_file, home, own_processes
):
    ray = functools.partial(ray_of, home, own_processes)
    script = ROOT / "sweeps" / "submit.py"
    ray("up", "-y", "--no-config-cache", cluster_file)
    try:
        output = ray("submit", "--no-config-cache", cluster_file, script)
        assert "2 of 2 jobs" in output or "report.html" in output, output
        runs = home / "iac" / "runs"
        assert (runs / "tiny" / "report" / "report.md").exists()
        records = [json.loads(p.read_text()) for p in runs.glob("store/evaluate/*/manifest.json")]
        assert len(records) == 2
        assert all(len(record["attempts"]) == 1 for record in records)
        before = {path: path.stat().st_mtime_ns for path in runs.glob("store/*/*/manifest.json")}
        ray("submit", "--no-config-cache", cluster_file, script)
        after = {path: path.stat().st_mtime_ns for path in runs.glob("store/*/*/manifest.json")}
        assert after == before
        output = ray(
            "submit", "--no-config-cache", cluster_file, script,
            "--", "--data", "phantom=/nowhere", code=1,
        )  # fmt: skip
        assert "its folder must be at hand" in output
    finally:
        ray("down", "-y", cluster_file)


def test_without_an_environment_the_script_names_the_way_out(tmp_path):
    (tmp_path / "ray_bootstrap_config.yaml").write_text("{}")
    done = subprocess.run(
        ["/usr/bin/env", "python3", ROOT / "sweeps" / "submit.py"],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "its setup_commands must make the environment" in done.stderr
