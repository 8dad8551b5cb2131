"""Graphs of stages that grow: fan-out, parents of one kind, keys that depend on an outcome."""

import pytest
from branching_arm import BestOfTwo

from iac_core.backbones.unet import UNetSettings
from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    EvaluateSettings,
    PrepareSettings,
    PretrainSettings,
    RetrainSettings,
    SearchSettings,
    SplitSettings,
)
from workers.arms import ARMS
from workers.job import Job, JobSettings
from workers.task import DataSource
from workers.task_graph import JobGraph, stage_tasks

SOURCE = DataSource(layout="acdc", path="/data", fingerprint="f" * 16)
JOB = Job(
    dataset="acdc",
    backbone="unet",
    pruner="best_of_two",
    seed=0,
    control="best_of_two",
    settings=JobSettings(
        prepare=PrepareSettings(),
        split=SplitSettings(),
        augmentation=AugmentationSettings(),
        pretrain=PretrainSettings(),
        cell=CellSettings(),
        search=SearchSettings(),
        retrain=RetrainSettings(),
        evaluate=EvaluateSettings(),
        backbone=UNetSettings(),
        pruner=None,
    ),
)


@pytest.fixture(autouse=True)
def arm(monkeypatch):
    monkeypatch.setitem(ARMS, "best_of_two", BestOfTwo())


def outcomes(graph, **dice):
    """Kind and key → outcome, for roles whose Dice is given."""
    return {graph.tasks[role].id: {"best_validation_dice": value} for role, value in dice.items()}


def test_a_graph_forks_and_grows_once_what_it_waits_for_is_known():
    graph = JobGraph(JOB, SOURCE)
    assert list(graph.tasks) == ["prepare", "one", "other"]
    assert graph.tasks["one"].kind == graph.tasks["other"].kind == "pretrain"
    assert graph.tasks["one"].key != graph.tasks["other"].key
    assert [step.role for step in graph.steps] == [
        "prepare", "one", "other", "predict", "evaluate",
    ]  # fmt: skip
    known = outcomes(graph, one=0.5)
    graph.grow(lambda task: known.get(task.id))
    assert "predict" not in graph.tasks
    known |= outcomes(graph, other=0.6)
    graph.grow(lambda task: known.get(task.id))
    evaluate = graph.tasks["evaluate"]
    assert evaluate.parent("pretrain").key == graph.tasks["other"].key
    assert evaluate.parent("rival").key == graph.tasks["one"].key
    assert evaluate.job.pretrain_seed == 22
    assert evaluate.owner == JOB
    assert evaluate.settings["parents"] == {
        "prepare": graph.tasks["prepare"].key,
        "pretrain": graph.tasks["other"].key,
        "rival": graph.tasks["one"].key,
    }


def test_tasks_stay_the_same_objects_while_a_graph_grows():
    graph = JobGraph(JOB, SOURCE)
    before = dict(graph.tasks)
    known = outcomes(graph, one=0.5, other=0.4)
    graph.grow(lambda task: known.get(task.id))
    assert all(graph.tasks[role] is task for role, task in before.items())


def test_what_followed_from_a_lost_outcome_is_taken_back():
    graph = JobGraph(JOB, SOURCE)
    known = outcomes(graph, one=0.5, other=0.4)
    graph.grow(lambda task: known.get(task.id))
    first = graph.tasks["evaluate"].key
    known.pop(graph.tasks["one"].id)
    graph.grow(lambda task: known.get(task.id))
    assert list(graph.tasks) == ["prepare", "one", "other"]
    known |= outcomes(graph, one=0.1)
    graph.grow(lambda task: known.get(task.id))
    assert graph.tasks["evaluate"].key != first


def test_the_tasks_of_a_job_can_be_had_in_one_call():
    graph = JobGraph(JOB, SOURCE)
    assert [task.role for task in stage_tasks(JOB, SOURCE, {})] == ["prepare", "one", "other"]
    known = outcomes(graph, one=0.5, other=0.4)
    assert [task.role for task in stage_tasks(JOB, SOURCE, known)][-1] == "evaluate"
