"""`doctor --store` names what is damaged; `--repair` lets the next run compute it again."""

import os
import shutil
import sys

import pytest

from files.reading import _warned
from orchestrator import cli
from orchestrator.executors import InlineExecutor
from orchestrator.packing import Packing
from orchestrator.resources import ResourceSettings
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.store_care import clean_up
from workers.stage_store import StageStore
from workers.store_version import STAMP


@pytest.fixture
def copied(finished, tmp_path):
    """A finished store of its own, with its sweep."""
    runs = tmp_path / "runs"
    shutil.copytree(finished.runs_dir, runs)
    return finished.spec.path, runs


def command(monkeypatch, capsys, *words):
    """Exit status and output of a command."""
    monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    shown = capsys.readouterr()
    return end.value.code or 0, shown.out + shown.err


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_doctor_names_damaged_stages_and_sets_them_aside(copied, monkeypatch, capsys):
    sweep, runs = copied
    words = ["doctor", sweep, "--runs", runs, "--store"]
    status, output = command(monkeypatch, capsys, *words)
    assert "stages whole" in output
    assert " damaged: " not in output
    fine = status
    weights = next(runs.glob("store/pretrain/*/weights.pt"))
    flip(weights)
    manifest = next(runs.glob("store/evaluate/*/manifest.json"))
    manifest.write_bytes(b"")
    before = sorted(path for path in runs.rglob("*") if "mlflow" not in path.name)
    status, output = command(monkeypatch, capsys, *words)
    assert status == 1
    assert f"{weights.parent}: weights.pt must have the CRC-32" in output
    assert f"{manifest.parent}: manifest.json is damaged or missing" in output
    assert "2 damaged: --repair sets them aside" in output
    assert before == sorted(path for path in runs.rglob("*") if "mlflow" not in path.name)
    status, output = command(monkeypatch, capsys, *words, "--repair")
    assert status == 1
    assert output.count("set aside, the next run computes it again") == 2
    assert not weights.parent.exists()
    assert not manifest.parent.exists()
    status, output = command(monkeypatch, capsys, *words)
    assert status == fine
    assert "2 set aside before in damaged/, which may be deleted" in output


def test_damaged_manifests_of_another_sweep_stop_neither_plan_nor_status(
    copied, monkeypatch, capsys
):
    sweep, runs = copied
    store = runs / "store"
    damaged = {"prepare": b"", "search": b"{", "retrain": b"\xff", "evaluate": b"[]"}
    for kind, content in damaged.items():
        other = store / kind / ("ab" * 8)
        other.mkdir()
        (other / "manifest.json").write_bytes(content)
        (store / kind / ".DS_Store").write_bytes(b"\x00")
    for name in ("peaks", "costs", "checks"):
        (store / name).mkdir(exist_ok=True)
        (store / name / ".DS_Store").write_bytes(b"\x00")
    (store / "peaks" / f"{'0' * 16}.{'1' * 16}.json").write_bytes(b"{}")
    (store / "costs" / "other").mkdir()
    (store / "costs" / "other" / "probe.json").write_bytes(b'{"of": 1}')
    _warned.clear()
    for name in ("plan", "status"):
        status, output = command(monkeypatch, capsys, name, sweep, "--runs", runs)
        assert status == 0, output
    Packing(StageStore(store).place, ResourceSettings())


def test_a_warning_reaches_the_user_once(copied, tmp_path):
    from command_processes import run_command

    sweep, runs = copied
    manifest = next(runs.glob("store/retrain/*/manifest.json"))
    manifest.write_bytes(manifest.read_bytes()[:100])
    for words in (["plan"], ["status"]):
        status, output = run_command([*words, sweep, "--runs", runs], tmp_path / "log")
        assert status == 0, output
        assert output.count(f"{manifest} is damaged and counts as absent") == 1, output
        assert "Traceback" not in output


def test_a_store_of_a_later_version_is_refused(copied, monkeypatch, capsys):
    sweep, runs = copied
    (runs / "store" / STAMP).write_bytes(b'{"version": 99}')
    for words in (["plan"], ["run", "--inline"], ["status"]):
        status, output = command(monkeypatch, capsys, *words, sweep, "--runs", runs)
        assert status == 2, output
        assert "got version 99" in output
        assert "later version of this project" in output


def test_a_damaged_parent_without_checksums_is_computed_again(copied, caplog):
    """As versions before left it: only reading shows the damage."""
    import json

    sweep, runs = copied
    store = runs / "store"
    for manifest in store.glob("*/*/manifest.json"):
        raw = json.loads(manifest.read_bytes())
        del raw["files"], raw["checksum"]
        manifest.write_text(json.dumps(raw))
    for weights in store.glob("pretrain/*/weights.pt"):
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
    for kind in ("predict", "evaluate"):  # nobody reads weights for masks that are there
        shutil.rmtree(store / kind)
    session = open_sweep(sweep, {}, runs, needs_data=True)
    ends = []
    jobs = [job for job in session.expansion.jobs if (job.pruner, job.seed) == ("none", 0)]
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=ends.append)
    assert [end.failure for end in ends] == [None]
    assert any("moved to" in message for message in caplog.messages)
    assert len({len(path.read_bytes()) for path in store.glob("pretrain/*/weights.pt")}) == 2


def test_a_stage_that_is_damaged_again_and_again_ends_its_job(copied, monkeypatch):
    sweep, runs = copied
    shutil.rmtree(runs / "store" / "evaluate")
    monkeypatch.setattr("workers.stage_store.damage_of", lambda folder, files: "x is missing")
    session = open_sweep(sweep, {}, runs, needs_data=True)
    ends = []
    jobs = [job for job in session.expansion.jobs if (job.pruner, job.seed) == ("none", 0)]
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=ends.append)
    assert [end.failure.kind for end in ends] == ["damaged"]
    assert "doctor --store --repair" in ends[0].failure.error


def test_leftovers_of_kills_go_when_a_sweep_runs(copied):
    sweep, runs = copied
    session = open_sweep(sweep, {}, runs, needs_data=False)
    session.run_dir.mkdir(exist_ok=True)
    left = [
        session.run_dir / "reported.json.4711.tmp", runs / "mlflow.db.0123abcd.tmp",
        runs / "store" / "peaks" / "a.json.12.tmp", runs / "store" / "store.json.12.tmp",
    ]  # fmt: skip
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    clean_up(session)
    assert all(path.exists() for path in left)  # nobody knows their writers
    for path in left:
        os.utime(path, (0, 0))
    clean_up(session)
    assert not any(path.exists() for path in left)
