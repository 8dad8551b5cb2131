"""A sweep with a one-shot search in its grid, from its file to its report."""

import json

import pytest
from tiny_sweep import TINY_SWEEP
from typer.testing import CliRunner

from iac_core.cells.genotype import Genotype
from iac_core.searches.settings import OneShotSettings
from orchestrator.cli import app
from orchestrator.confirmed import outcome_of
from orchestrator.costs import (
    observations_of_store,
    observations_of_tables,
    question_of,
)
from orchestrator.executors import InlineExecutor
from orchestrator.recorded import grid_cells, read_search
from orchestrator.replays import replay_rooms, replayable
from orchestrator.reporting import open_tracking, report_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep, tables
from orchestrator.study_export import _type_of
from orchestrator.tracking import FinishedJob
from results.store import read_tables
from workers.stages.files import TRAJECTORY
from workers.stages.table import STAGES
from workers.work import DataSize

SETTINGS = (
    "{n_steps: 9, n_evaluations: 6, population: 4, tournament: 2, n_finalists: 2, "
    "finalist_steps: 3}"
)


def finish(session):
    """Run a sweep in this process."""
    ends = []
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=ends.append,
    )  # fmt: skip
    return ends


@pytest.fixture(scope="module")
def swept(phantom_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_shot")
    text = TINY_SWEEP.replace("PHANTOM", str(phantom_folder)).replace("SEEDS", "[0]")
    text = text.replace("PRUNERS", "[none, one_shot, fair]")
    fair = "{type: one_shot, sampling: fair, n_steps: 9, n_evaluations: 4, population: 4, "
    arms = f"      one_shot: {SETTINGS}\n      fair: {fair}n_finalists: 0}}\n"
    text = text.replace("    pruners:\n", f"    pruners:\n{arms}")
    path = folder / "tiny.yaml"
    evaluate = "      evaluate: {subsets: [validation]}\n      retrain:"
    path.write_text(text.replace("      retrain:", evaluate))
    session = open_sweep(path, {}, folder / "runs", needs_data=True)
    return session, finish(session)


def search_of(swept, pruner):
    session, ends = swept
    (end,) = [end for end in ends if end.state.job.pruner == pruner]
    (task,) = [task for task in end.state.tasks if task.kind == "search"]
    return session, end, task, session.store.record("search", task.key)


def test_the_jobs_are_done_and_their_cells_are_those_that_were_found(swept):
    for pruner in ("one_shot", "fair"):
        _, end, _, record = search_of(swept, pruner)
        assert end.failure is None
        assert end.state.is_done
        retrained = [task.genotype for task in end.state.tasks if task.kind == "retrain"]
        assert retrained == [record.outcome["genotype"]]


def test_the_stage_keeps_its_candidates_and_has_no_trajectory(swept):
    session, _, task, record = search_of(swept, "one_shot")
    folder = session.store.folder("search", task.key)
    assert not (folder / TRAJECTORY).exists()
    assert read_search(session.store, task) is None
    candidates = json.loads((folder / "candidates.json").read_text())
    assert [one["order"] for one in candidates] == list(range(6))
    assert {type(Genotype.from_json(one["genotype"])) for one in candidates} == {Genotype}
    finalists = [one for one in candidates if one["finalist"]]
    best = max(finalists, key=lambda one: one["finalist"]["negative_loss"])
    assert (folder / "genotype.json").read_text() == best["genotype"]
    assert json.loads((folder / "events.json").read_text()) == []
    assert record.outcome["search_epochs"] == record.outcome["search_epochs_full"] == 5 + 2 + 1
    assert isinstance(record.outcome["search_is_alive"], bool)
    assert record.outcome["cell_contribution"] == pytest.approx(1)
    assert record.outcome["live_edge_share"] is None


def test_a_second_run_computes_nothing(swept):
    session, _ = swept
    assert not session.plan().missing


def test_tables_and_report_show_the_search(swept):
    session, ends = swept
    with open_tracking(session) as tracking:
        for end in ends:
            tracking.put(FinishedJob(job=end.state.job, tasks=end.state.tasks, failure=None))
        tracking.close("FINISHED")
    assert tracking.trouble == ""
    paths = report_sweep(session, None)
    assert "| one_shot |" in paths.markdown.read_text()
    found = read_tables(session.run_dir / "tables")
    assert set(found["trajectories"]["pruner"]) == {"none"}
    (row,) = found["jobs"][found["jobs"]["pruner"] == "one_shot"].to_dict("records")
    assert row["search_s"] > 0
    assert row["search_epochs"] == 8
    arms = {one.of.arm for one in observations_of_tables(session.run_dir / "tables")}
    assert arms == {"", "none", "cells"}  # how many slices were scored is in no table


def test_it_is_left_out_of_replays_with_the_reason(swept):
    session, _ = swept
    rooms = replay_rooms(grid_cells(session))
    can, cannot = replayable({"one_shot": session.spec.pruners["one_shot"]}, rooms)
    assert can == {}
    assert "a replay must be of an operation pruner" in cannot["one_shot"]
    result = CliRunner().invoke(
        app, ["replay", str(session.spec.path), "--runs", str(session.runs_dir)]
    )
    assert result.exit_code == 2
    assert "not replayed: one_shot" in result.output


def test_a_trial_of_a_study_is_judged_by_its_seconds(swept):
    session, end, _, record = search_of(swept, "one_shot")
    (cell,) = grid_cells(session)
    assert set(cell.others) == set()
    outcome = outcome_of(session.store, cell, end.state, reference_dice=0.5)
    full_epoch_s = cell.full.search_s / cell.full.n_epochs
    assert outcome.epoch_equivalents == pytest.approx(record.outcome["search_s"] / full_epoch_s)
    assert outcome.genotype == record.outcome["genotype"]


def test_an_exported_arm_is_written_with_its_type(swept):
    session, _ = swept
    assert _type_of(session, "fair") == "one_shot"
    assert tables().pruners["one_shot"] is OneShotSettings


def test_the_forecast_counts_paths_and_scores(swept):
    session, end, _, record = search_of(swept, "one_shot")
    data = DataSize(n_training_slices=60)
    work = STAGES["search"].work(record.settings, 32, data)
    assert work.per_round == pytest.approx((9 + 2 * 3) * 4 + (6 + 2) * 30 / 3)
    assert work.rounds == 1
    assert STAGES["search"].work(record.settings, 32, DataSize()).per_round is None
    asked = question_of(
        "search", end.state.job, device="", on_gpu=False, is_exclusive=False, data=data
    )
    assert asked.work == work
    full = next(job for job in session.expansion.jobs if job.pruner == "none")
    asked = question_of("search", full, device="", on_gpu=False, is_exclusive=False, data=data)
    assert asked.work.rounds == 6
    observed = observations_of_store(session.store)
    arms = {one.of.arm for one in observed if one.of.kind == "search"}
    assert arms == {"none", "one_shot", "fair"}
