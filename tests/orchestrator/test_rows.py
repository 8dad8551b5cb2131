"""Rows of a search's looks, a retraining's curve and its start, read from stages in a store."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.rows import job_tables, mean_scores
from orchestrator.session import open_sweep
from results.metrics import METRICS
from workers.stages.files import CURVE, EVENTS, TRAJECTORY
from workers.task_graph import stage_tasks

PROVENANCE = {"device": "cpu", "n_threads": 1, "host": "h", "versions": {}, "commit": ""}
GENOTYPE = '{"n_nodes":2,"levels":[[[0,2,"skip_connect"],[1,2,"none"]]]}'
SEARCH = {
    "genotype": GENOTYPE, "search_s": 1.0, "search_epochs": 6, "search_epochs_full": 6,
    "search_exclusive": True, "search_other_load": 0.0,
}  # fmt: skip
LOOKS = [
    {
        "look": number, "alpha_step": 8 * 2**number, "epoch": number + 1, "level": 0, "edge": edge,
        "evidence": 2.5 + number, "bound": 3.0, "is_alive": number == 1, "entropy_bits": 2.9,
    }
    for number in range(2)
    for edge in range(3)
]  # fmt: skip


@pytest.fixture
def session(write_sweep, tmp_path):
    return open_sweep(write_sweep("[none]"), {}, tmp_path / "runs", needs_data=True)


@pytest.fixture
def tables(session):
    """A function that puts a search and a retraining into the store and returns the rows."""
    state = session.plan().states[0]
    search = next(task for task in state.tasks if task.kind == "search")
    tasks = stage_tasks(state.job, search.source, {search.id: {"genotype": GENOTYPE}})
    retrain = next(task for task in tasks if task.kind == "retrain")

    def rows(search_outcome, search_files, retrain_outcome, curve=()):
        _finish(session.store, search, search_outcome, search_files | {EVENTS: b"[]"})
        _finish(session.store, retrain, retrain_outcome, {CURVE: json.dumps(curve).encode()})
        return job_tables(tasks, session.store, sweep="s")

    return rows


def _finish(store, task, outcome, files):
    attempt = store.begin(task.kind, task.key, device="cpu")
    for name, content in files.items():
        (attempt.folder / name).write_bytes(content)
    attempt.finish(settings={}, outcome=outcome, provenance=PROVENANCE)


def trajectory():
    shape = (6, 1, 3, 2)
    arrays = {name: np.zeros(shape) for name in ("alpha", "importance")}
    arrays |= {name: np.zeros(shape[:3]) for name in ("beta", "jsd", "beta_jsd")}
    arrays |= {
        name: np.zeros(6, dtype=np.int64)
        for name in ("n_weight_steps", "n_architecture_steps", "n_scored_slices")
    }
    content = io.BytesIO()
    np.savez(
        content,
        edges=np.array([[0, 2], [1, 2], [0, 3]]),
        operations=np.array(["none", "skip_connect"]),
        active=np.ones(shape, dtype=bool),
        **arrays,
    )
    return content.getvalue()


def test_a_search_leaves_a_row_per_look_and_edge(tables):
    outcome = SEARCH | {
        "search_is_alive": True, "live_edge_share": 1.0, "cell_contribution": 0.4,
    }  # fmt: skip
    liveness = json.dumps({"looks": LOOKS, "contribution": [0.4, 0.6]}).encode()
    found = tables(
        outcome,
        {TRAJECTORY: trajectory(), "liveness.json": liveness},
        {"best_epoch": -1, "start_validation_dice": 0.71},
    )
    rows, job = found["liveness"], found["jobs"].iloc[0]
    assert len(rows) == 6
    assert set(rows["search_key"]) == {job["search_key"]}
    assert rows["alpha_step"].tolist() == [8, 8, 8, 16, 16, 16]
    assert rows["is_alive"].tolist() == [False] * 3 + [True] * 3
    assert rows["entropy_bits"].tolist() == [2.9] * 6
    assert (job["search_is_alive"], job["live_edge_share"], job["cell_contribution"]) == (
        True, 1.0, 0.4,
    )  # fmt: skip
    assert (job["best_retrain_epoch"], job["start_val_dice"]) == (-1, 0.71)
    assert bool(job["retrain_kept_start"])
    assert len(found["trajectories"]) == 36


def test_a_later_epoch_is_not_the_start(tables):
    found = tables(
        SEARCH,
        {TRAJECTORY: trajectory()},
        {"best_epoch": 0, "start_validation_dice": 0.71},
    )
    assert found["jobs"]["retrain_kept_start"].tolist() == [False]


def test_a_search_without_alpha_has_no_trajectory_and_no_looks(tables):
    outcome = SEARCH | {
        "search_is_alive": False, "live_edge_share": None, "cell_contribution": 0.1,
    }  # fmt: skip
    found = tables(outcome, {}, {"best_epoch": 3, "start_validation_dice": 0.5})
    assert len(found["trajectories"]) == len(found["liveness"]) == 0
    job = found["jobs"].iloc[0]
    assert not bool(job["search_is_alive"])
    assert found["jobs"]["live_edge_share"].isna().all()


def test_stages_of_an_older_version_say_nothing(tables):
    found = tables(SEARCH, {TRAJECTORY: trajectory()}, {"best_epoch": 3})
    assert len(found["liveness"]) == 0
    names = ["search_is_alive", "live_edge_share", "cell_contribution"]
    assert found["jobs"][[*names, "start_val_dice", "retrain_kept_start"]].isna().all(axis=None)
    assert found["jobs"]["best_retrain_epoch"].tolist() == [3]


CURVE_ROWS = [
    {
        "epoch": epoch, "train_loss": 0.5 - 0.1 * epoch, "validation_dice": dice,
        "learning_rate": 1e-3 / (epoch + 1), "seconds": 2.0, "ended_at": 1.8e9 + epoch,
    }
    for epoch, dice in enumerate([float("nan"), 0.75, 0.7])
]  # fmt: skip


def test_a_retraining_leaves_a_row_per_epoch_after_one_of_its_start(tables):
    outcome = {"best_epoch": 1, "start_validation_dice": 0.71}
    found = tables(SEARCH, {TRAJECTORY: trajectory()}, outcome, CURVE_ROWS)
    rows = found["curves"]
    assert set(rows["job_id"]) == set(found["jobs"]["job_id"])
    assert set(rows["stage"]) == {"retrain"}
    assert rows["epoch"].tolist() == [-1, 0, 1, 2]
    assert rows["validation_dice"].isna().tolist() == [False, True, False, False]
    assert rows["validation_dice"].dropna().tolist() == [0.71, 0.75, 0.7]
    assert rows["train_loss"].tolist()[1:] == [0.5, 0.4, 0.3]
    assert rows["learning_rate"].tolist()[1:] == [1e-3, 5e-4, 1e-3 / 3]
    assert rows["seconds"].tolist()[1:] == [2.0] * 3
    assert rows.loc[0, ["train_loss", "learning_rate", "seconds"]].isna().all()


def test_a_retraining_that_did_not_score_its_start_has_no_row_of_it(tables):
    found = tables(SEARCH, {TRAJECTORY: trajectory()}, {"best_epoch": 1}, CURVE_ROWS)
    assert found["curves"]["epoch"].tolist() == [0, 1, 2]


def test_a_curve_of_an_older_version_leaves_null_what_it_lacks(tables):
    old = [{"epoch": 0, "train_loss": 0.5, "validation_dice": 0.7}]
    rows = tables(SEARCH, {TRAJECTORY: trajectory()}, {"best_epoch": 0}, old)["curves"]
    assert rows["validation_dice"].tolist() == [0.7]
    assert rows[["learning_rate", "seconds"]].isna().all(axis=None)


def test_a_job_has_the_mean_of_every_metric_for_the_subsets_that_were_scored(monkeypatch):
    error = replace(METRICS["dice"], column="volume_error_ml")
    monkeypatch.setitem(METRICS, "volume_error", error)
    values = {metric.column: 0.5 for metric in METRICS.values()}
    rows = [
        {
            "subset": "test", "patient_id": patient, "class_name": "LV", "state": "ok",
            **values, "volume_error_ml": value,
        }
        for patient, value in (("a", 1.0), ("b", 4.0))
    ]  # fmt: skip
    found = mean_scores(rows)
    assert found["test_volume_error_ml"] == 2.5
    assert found["test_surface_dice_2mm"] == 0.5
    assert found["n_test_patients"] == 2
    assert not [name for name in found if "val" in name]
