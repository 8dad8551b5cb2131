"""The cost model on observations whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.costs import (
    SHARE,
    CostModel,
    Observation,
    Question,
    keep_probe,
    known_costs,
    observations_of_store,
    observations_of_tables,
)
from workers.stage_store import StageStore
from workers.stages.table import STAGES
from workers.work import DataSize, Work

ROOT = Path(__file__).parents[2]
WORK = Work(rounds=100, per_round=64, pixels=48.0**2)
QUESTION = Question(
    kind="search", arm="none", backbone="unet", dataset="acdc", device="A", work=WORK
)


def observed(seconds, *, of=QUESTION, **changes):
    return Observation(of=replace(of, **changes), seconds=seconds)


def drawn(n, middle, sd, seed, **changes):
    generator = np.random.default_rng(seed)
    return [observed(float(s), **changes) for s in middle * np.exp(sd * generator.normal(size=n))]


def test_seconds_follow_the_work():
    model = CostModel([observed(10.0)])
    for factor, work in (
        (2, replace(WORK, rounds=200)),
        (4, replace(WORK, pixels=96.0**2)),
        (0.5, replace(WORK, per_round=32)),
    ):
        answer = model.answer(replace(QUESTION, work=work))
        assert answer.seconds == pytest.approx(10.0 * factor)
        assert answer.group == "the same"


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_holds_the_share_of_stages_that_it_says(n):
    hits = []
    for seed in range(200):
        truth = drawn(n + 1, 100.0, 0.3, seed)
        low, high = CostModel(truth[:-1]).answer(QUESTION).interval()
        hits.append(low <= truth[-1].seconds <= high)
    assert np.mean(hits) >= SHARE - 0.07
    assert n < 40 or np.mean(hits) <= SHARE + 0.07


def test_the_interval_of_a_total_holds_the_truth():
    hits = []
    for seed in range(200):
        truth = drawn(36, 100.0, 0.3, seed)
        total = CostModel(truth[:6]).total_seconds({QUESTION: 30})
        hits.append(total.low <= sum(one.seconds for one in truth[6:]) <= total.high)
    assert np.mean(hits) >= SHARE - 0.05


def test_the_nearest_group_answers_and_coarser_ones_are_wider():
    far = [
        observed(10.0, dataset="kits"),
        observed(20.0, dataset="kits", backbone="resnet"),
        observed(40.0, dataset="kits", backbone="resnet", arm="shapley"),
        observed(80.0, dataset="kits", backbone="resnet", arm="shapley", device="B"),
    ]
    groups = []
    for kept in range(5):
        near = [observed(5.0)] if kept == 4 else []
        answer = CostModel([*far[max(0, 3 - kept) :], *near]).answer(QUESTION)
        groups.append(answer)
    assert [one.group for one in groups] == [
        "another device", "another arm", "another backbone", "another data set", "the same",
    ]  # fmt: skip
    widths = [np.log(high / low) for low, high in (one.interval() for one in groups)]
    assert widths == sorted(widths, reverse=True)
    assert groups[-1].seconds == pytest.approx(5.0)
    assert CostModel(far).answer(replace(QUESTION, kind="retrain")) is None


def test_seconds_of_a_cpu_are_no_seconds_of_a_gpu():
    on_cpu = [observed(100.0 + index, device="Xeon (8 logical CPUs)") for index in range(9)]
    unknown_gpu = replace(QUESTION, device="", on_gpu=True)
    answer = CostModel(on_cpu).answer(unknown_gpu)
    assert answer.group == "another device"
    on_gpu = Observation(of=replace(unknown_gpu, device="H200"), seconds=2.0)
    answer = CostModel([*on_cpu, on_gpu]).answer(unknown_gpu)
    assert (answer.group, answer.n) == ("the same", 1)
    assert answer.seconds == pytest.approx(2.0)


def test_a_device_that_is_not_known_is_answered_from_all_of_them():
    model = CostModel([observed(10.0, device="A"), observed(1000.0, device="B")])
    assert model.answer(QUESTION).seconds == pytest.approx(10.0)
    unknown = model.answer(replace(QUESTION, device=""))
    assert unknown.n == 2
    assert unknown.seconds == pytest.approx(100.0, rel=0.01) or unknown.seconds == 505.0


def test_stages_of_which_nothing_is_known_are_counted_apart():
    other = replace(QUESTION, kind="retrain")
    total = CostModel([observed(10.0)]).total_seconds({QUESTION: 2, other: 3})
    assert (total.n, total.n_unknown) == (5, 3)
    assert 15 < total.value < 25


def test_a_stage_counts_once_wherever_it_is_known_from():
    model = CostModel([observed(10.0)])
    for _ in range(2):
        model.add(Observation(of=QUESTION, seconds=1000.0, key="k"))
    assert model.n == 2


def test_work_follows_from_the_settings_and_the_size_of_the_data():
    data = DataSize(n_volumes=12, n_slices=120, n_training_slices=80)
    sections = {
        "pretrain": {"epochs": 3, "batch_size": 4, "steps_per_epoch": 5},
        "search": {"epochs": 10, "batch_size": 4, "steps_per_epoch": 5},
        "retrain": {"epochs": 7, "batch_size": 4, "steps_per_epoch": None},
    }
    assert STAGES["prepare"].work(sections, 32, data) == Work(per_round=12)
    assert STAGES["pretrain"].work(sections, 32, data) == Work(rounds=3, per_round=20, pixels=1024)
    assert STAGES["search"].work(sections, 32, data) == Work(rounds=10, per_round=40, pixels=1024)
    assert STAGES["retrain"].work(sections, 32, data) == Work(rounds=7, per_round=80, pixels=1024)
    assert STAGES["retrain"].work(sections, 32, DataSize()).per_round is None
    assert STAGES["evaluate"].work(sections, 32, data) == Work(per_round=120, pixels=1024)
    nnunet = STAGES["pretrain"].work({"pretrain": None, "backbone": {"epochs": 50}}, 0, data)
    assert nnunet == Work(rounds=50, per_round=1.0)


def test_tables_of_an_earlier_sweep_are_observations():
    found = list(observations_of_tables(ROOT / "benchmarks" / "records" / "acdc_claims_withdrawn"))
    searches = [one for one in found if one.of.kind == "search"]
    assert len(searches) == 50
    assert {one.of.backbone for one in searches} == {"unet", "resnet18_unet"}
    assert {one.of.device for one in found} == {"AMD EPYC (2 logical CPUs)"}
    assert searches[0].of.work == Work(rounds=200, per_round=2 * 4 * 16, pixels=48.0**2)
    model = CostModel(found)
    question = replace(searches[0].of, arm="js_stability_fast", backbone="unet")
    fast, full = (model.answer(replace(question, arm=arm)) for arm in (question.arm, "none"))
    assert fast.seconds < full.seconds / 5
    assert list(observations_of_tables(ROOT / "absent")) == []


def test_a_probe_is_kept_beside_the_store_and_read_again(tmp_path):
    store = StageStore(tmp_path / "store")
    keep_probe(store, "search-unet", observed(3.0))
    keep_probe(store, "search-unet", observed(4.0))
    (found,) = observations_of_store(store)
    assert found == observed(4.0)
    assert known_costs(store, tmp_path).answer(QUESTION).n == 1
