"""Machines that lack what libraries take for granted: a home, short paths, time to import."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iac_core.errors import ConfigError
from orchestrator.environment import LONGEST_SOCKET_PATH, ray_folder, replace_home

ROOT = Path(__file__).parents[2]
BEGUN = "tiny: 1 jobs"


def started(*words, **environment):
    return subprocess.Popen(
        # A shell lets what it runs in the background ignore the signal, and that is inherited.
        ["env", "--default-signal=INT", sys.executable, "-u", "-m", "orchestrator",
         *map(str, words)],
        cwd=ROOT, env=os.environ | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def interrupted(process):
    """What a command says after Ctrl-C, which the whole group of processes gets."""
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def test_a_home_that_can_be_written_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {}
    replace_home(environment)
    assert environment == {}
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_caches_and_tokens_lie_elsewhere_unless_the_user_says_where(monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    environment = {"MPLCONFIGDIR": "/mine"}
    replace_home(environment)
    assert environment["MPLCONFIGDIR"] == "/mine"
    assert not environment["NUMBA_CACHE_DIR"].startswith("/proc")
    assert len(environment["RAY_AUTH_TOKEN"]) >= 32
    environment = {"RAY_AUTH_TOKEN_PATH": "/mine"}
    replace_home(environment)
    assert "RAY_AUTH_TOKEN" not in environment


def test_ray_gets_a_folder_with_a_short_path_where_the_temporary_one_is_long(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert ray_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 60}")
    folder = ray_folder()
    assert len(f"{folder}/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") < (
        LONGEST_SOCKET_PATH
    )
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(ConfigError, match="set RAY_TMPDIR or TMPDIR to a shorter one"):
        ray_folder()


@pytest.mark.slow
def test_ctrl_c_during_the_imports_ends_in_one_line(write_sweep, tmp_path):
    process = started("run", write_sweep("[no_cell]"), "--runs", tmp_path / "runs")
    time.sleep(1.0)
    code, said = interrupted(process)
    assert code == 130
    assert said == "Stopped before anything began.\n"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("delay_s", [0.0, 3.0])
def test_ctrl_c_while_tracking_is_opened_or_ray_starts_ends_in_one_line(
    write_sweep, tmp_path, delay_s
):
    process = started("run", write_sweep("[no_cell]"), "--runs", tmp_path / "runs")
    assert process.stdout.readline().strip() == BEGUN
    time.sleep(delay_s)
    code, said = interrupted(process)
    assert code == 130
    assert any(line.startswith("Stopped") for line in said.splitlines())
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_runs_on_ray_without_a_home_and_with_a_long_temporary_folder(
    write_sweep, tmp_path
):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    process = started(
        "run", write_sweep("[no_cell]"), "--runs", tmp_path / "a%20b ?#c",
        HOME="/proc", TMPDIR=str(long), RAY_AUTH_MODE="token",
    )  # fmt: skip
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert (tmp_path / "a%20b ?#c" / "mlflow.db").exists()
    assert "1 jobs, 1 done" in (tmp_path / "a%20b ?#c/tiny/report/report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".orchestrator",
        "a%20b ?#c",
        long.name,
        "tiny.yaml",
    ]
