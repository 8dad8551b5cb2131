"""A job whose stages fork and join, run for real; what is computed on demand alone."""

import shutil
from collections import Counter

import numpy as np
import pytest
from branching_arm import BestOfTwo
from changed_stages import change_run

from iac_core.data.slices import PreparedData
from iac_core.data.splits import Split
from iac_core.errors import DataError
from iac_core.evaluation.masks import Masks
from orchestrator.executors import InlineExecutor
from orchestrator.plan import make_plan
from orchestrator.rows import job_tables
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from workers.arms import ARMS


class Recorder(View):
    def __init__(self):
        self.submitted_together, self.ran = 0, Counter()
        self.open = set()

    def submitted(self, task):
        self.open.add(task.id)
        self.submitted_together = max(self.submitted_together, len(self.open))

    def ended(self, task, end):
        self.open.discard(task.id)
        self.ran[task.kind] += end.was_computed


def run(session):
    ends, view = [], Recorder()
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=view,
        on_job_end=ends.append,
    )  # fmt: skip
    return ends, view


@pytest.fixture
def open_tiny(write_sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "best_of_two", BestOfTwo())

    def open_it(pruners="[best_of_two]"):
        return open_sweep(write_sweep(pruners), {}, tmp_path / "runs", needs_data=True)

    return open_it


def counts(session):
    return {row["kind"]: (row["distinct"], row["to_run"]) for row in session.plan().counts()}


def test_a_job_forks_and_joins_by_what_its_stages_found(open_tiny):
    session = open_tiny()
    assert counts(session) == {
        "prepare": (1, 1), "pretrain": (2, 2), "search": (0, 0), "retrain": (0, 0),
        "predict": (1, 1), "evaluate": (1, 1),
    }  # fmt: skip
    (end,), view = run(session)
    assert end.failure is None
    assert view.submitted_together == 2, "both trainings wait for a machine at the same time"
    assert view.ran == Counter(prepare=1, pretrain=2, predict=1, evaluate=1)
    dice = {
        role: session.store.record("pretrain", end.state.graph.tasks[role].key).outcome
        for role in ("one", "other")
    }
    better = max(dice, key=lambda role: dice[role]["best_validation_dice"])
    evaluate = end.state.graph.tasks["evaluate"]
    assert evaluate.parent("pretrain").key == end.state.graph.tasks[better].key
    row = job_tables(end.state.tasks, session.store, sweep="tiny")["jobs"].iloc[0]
    assert row["status"] == "done"
    assert row["test_dice"] >= 0
    (again,), view = run(open_tiny())
    assert again.state.is_done
    assert sum(view.ran.values()) == 0


def test_a_failed_branch_ends_its_job_once(open_tiny, monkeypatch):
    def fails(context):
        raise ZeroDivisionError("x")

    change_run(monkeypatch, "pretrain", fails)
    ends, _ = run(open_tiny())
    assert [end.failure.kind for end in ends] == ["code"]


def test_masks_are_predicted_for_a_missing_evaluation_alone(open_tiny):
    session = open_tiny("[no_cell]")
    (end,), view = run(session)
    assert view.ran["predict"] == 1
    store, graph = session.store, end.state.graph
    rows = (store.folder("evaluate", graph.tasks["evaluate"].key) / "patients.json").read_bytes()

    shutil.rmtree(store.folder("predict", graph.tasks["predict"].key))
    plan = make_plan(session.expansion.jobs, session.sources, store)
    assert plan.states[0].is_done, "nothing is missing that anybody needs"
    assert {row["kind"]: row["to_run"] for row in plan.counts()}["predict"] == 0
    _, view = run(open_tiny("[no_cell]"))
    assert sum(view.ran.values()) == 0

    shutil.rmtree(store.folder("evaluate", graph.tasks["evaluate"].key))
    _, view = run(open_tiny("[no_cell]"))
    assert view.ran == Counter(predict=1, evaluate=1)
    folder = store.folder("evaluate", graph.tasks["evaluate"].key)
    assert (folder / "patients.json").read_bytes() == rows


def test_masks_lie_on_the_grid_of_their_volumes(open_tiny):
    session = open_tiny("[no_cell]")
    (end,), _ = run(session)
    tasks = end.state.graph.tasks
    data = PreparedData.open(session.store.folder("prepare", tasks["prepare"].key))
    split = Split.load(session.store.folder("pretrain", tasks["pretrain"].key) / "split.json")
    masks = Masks(session.store.folder("predict", tasks["predict"].key))
    scored = data.volumes_of([*split.validation, *split.test])
    assert len(scored) >= 4
    for volume in scored:
        mask = masks.of(volume.volume_id)
        assert mask.shape == data.reference_labels(volume).shape
        assert set(np.unique(mask)) <= set(data.label_values)
    with pytest.raises(DataError, match="no mask of"):
        masks.of(data.volumes_of(split.train)[0].volume_id)
