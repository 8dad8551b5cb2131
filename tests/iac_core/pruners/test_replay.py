"""Replays of recorded searches: exact until the first removal, refused where nothing is known."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iac_core.cells.genotype import Genotype, cell_edges, masked_softmax
from iac_core.config import OPERATION_NAMES, SearchPace, SearchSettings
from iac_core.errors import ConfigError
from iac_core.pruners import OPERATION_PRUNERS, build_pruner
from iac_core.pruners.epoch_cost import MeasuredEpochs, fit_epoch_cost
from iac_core.pruners.fixed_schedule import FixedScheduleSettings
from iac_core.pruners.genotype_stability import GenotypeStabilitySettings
from iac_core.pruners.js_absolute import JsAbsoluteSettings
from iac_core.pruners.js_stability import JsStabilitySettings
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.pruners.replay import (
    NotReplayableError,
    RecordedEvidence,
    Trajectory,
    agreement,
    replay,
)
from results.trajectory_arrays import arrays_of

RECORDS = Path(__file__).parents[3] / "benchmarks" / "records" / "acdc_claims_withdrawn"


def trajectory(n_epochs=40, seed=0, n_nodes=2, **search):
    """An imagined full search whose logits drift less and less."""
    edges = cell_edges(n_nodes)
    generator = np.random.default_rng(seed)
    steps = generator.normal(size=(n_epochs, 1, len(edges), 8))
    alpha = np.cumsum(steps / (1 + np.arange(n_epochs))[:, None, None, None], axis=0)
    return Trajectory(
        alpha=alpha,
        beta=np.zeros(alpha.shape[:3]),
        importance=masked_softmax(alpha, np.ones(alpha.shape, dtype=bool)),
        operations=OPERATION_NAMES,
        edges=edges,
        search=SearchSettings(**{"epochs": n_epochs, "alpha_warmup_epochs": 0} | search),
        n_weight_steps=np.full(n_epochs, 4),
        n_architecture_steps=np.full(n_epochs, 4),
        seed=0,
    )


def job_of(jobs, backbone, pruner, seed):
    of = (jobs["backbone"] == backbone) & (jobs["pruner"] == pruner) & (jobs["seed"] == seed)
    return jobs[of].iloc[0]


@pytest.fixture(scope="module")
def tables():
    return {
        name: pd.read_parquet(RECORDS / f"{name}.parquet")
        for name in ("jobs", "trajectories", "events")
    }


@pytest.mark.parametrize("backbone", ["unet", "resnet18_unet"])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_removal_is_that_of_the_search_that_was_run(tables, backbone, seed):
    job = job_of(tables["jobs"], backbone, "none", seed)
    arrays = arrays_of(tables["trajectories"], job["job_id"])
    assert arrays.active.all()
    full = Trajectory(
        search=SearchSettings(
            epochs=int(job["search_epochs_full"]),
            batch_size=int(job["config_search_batch_size"]),
            alpha_warmup_epochs=int(job["config_search_alpha_warmup_epochs"]),
        ),
        seed=seed,
        **{
            field.name: getattr(arrays, field.name)
            for field in fields(arrays)
            if field.name != "active"
        },
    )
    assert full.genotype().to_json() == job["genotype"]
    found = replay(full, build_pruner(JsAbsoluteSettings(living_edges_only=False)))
    live = job_of(tables["jobs"], backbone, "js_stability", seed)
    events = tables["events"][tables["events"]["job_id"] == live["job_id"]]
    first = events[events["epoch"] == events["epoch"].min()]
    ours = [reason for epoch, reason in found.events if epoch == found.first_removal_epoch]
    assert found.first_removal_epoch == first["epoch"].iloc[0]
    assert {(r.level, r.edge): ",".join(r.operations) for r in ours} == {
        (row.level, row.edge): row.operations for row in first.itertuples()
    }
    values = {(row.level, row.edge): row.value for row in first.itertuples()}
    assert {(r.level, r.edge): r.value for r in ours} == pytest.approx(values, rel=1e-9)
    assert found.n_exact_epochs == found.first_removal_epoch + 1 < found.n_epochs
    assert not found.is_exact
    assert found.is_whole


def test_without_a_removal_everything_is_exact_and_the_genotype_is_the_full_one():
    full = trajectory()
    found = replay(full, build_pruner(NoPruningSettings()))
    assert found.is_exact
    assert found.n_epochs == 40
    assert found.epoch_equivalents == 40
    assert found.genotype == full.genotype()
    stopped = replay(
        full, build_pruner(GenotypeStabilitySettings(patience_epochs=3, min_live_edge_share=0.0))
    )
    assert stopped.is_exact
    assert stopped.is_whole
    assert stopped.n_epochs < 40


def test_what_is_removed_has_no_alpha_and_no_share_any_more():
    seen = []

    class Watching(OPERATION_PRUNERS["fixed_schedule"]):
        def decide(self, state):
            seen.append(state)
            return super().decide(state)

    found = replay(trajectory(), Watching(FixedScheduleSettings(every_epochs=5)))
    assert found.first_removal_epoch == 4
    for state in seen:
        assert (np.isnan(state.alpha) == ~state.active).all()
        assert (state.importance[~state.active] == 0).all()
        np.testing.assert_allclose(state.importance.sum(axis=-1), 1.0)
        assert (state.active == found.active[state.epoch]).all()
    assert seen[-1].active.sum() < seen[0].active.sum()


def test_a_record_shorter_than_the_search_says_so():
    full = trajectory(n_epochs=20, epochs=50)
    assert not replay(full, build_pruner(NoPruningSettings())).is_whole


@pytest.mark.parametrize(
    "pace",
    [
        SearchPace(alpha_warmup_epochs=3),
        SearchPace(alpha_rate_factor=2.0),
        SearchPace(start_share=0.5),
    ],
)
def test_what_changes_the_training_from_its_first_epoch_is_refused(pace):
    settings = JsAbsoluteSettings(living_edges_only=False, pace=pace)
    with pytest.raises(NotReplayableError, match=r"pace\.\w+ must be that of the recorded search"):
        replay(trajectory(), build_pruner(settings))


def test_the_recorded_warm_up_by_its_number_is_no_change():
    same = JsAbsoluteSettings(living_edges_only=False, pace=SearchPace(alpha_warmup_epochs=0))
    found = replay(trajectory(), build_pruner(same))
    assert (
        found.events
        == replay(trajectory(), build_pruner(JsAbsoluteSettings(living_edges_only=False))).events
    )


def recorded_evidence(n_epochs=40, n_edges=5):
    """Four steps an epoch that all speak for operation 3, and an edge that is never alive."""
    steps = np.zeros((n_edges, 8))
    steps[:, 3] = -1.0
    n = 4.0 * np.arange(1, n_epochs + 1)
    products = steps[:, :, None] * steps[:, None, :]
    alive_since = np.full((1, n_edges), 32)
    alive_since[0, 2] = -1
    return RecordedEvidence(
        gradient_sum=(n[:, None, None, None] * steps).astype(np.float32),
        gradient_products=(n[:, None, None, None, None] * products).astype(np.float32),
        edge_gradient_sum=np.zeros((n_epochs, 1, n_edges), dtype=np.float32),
        edge_gradient_products=np.zeros((n_epochs, 1, n_edges, n_edges), dtype=np.float32),
        n_alpha_steps=n.astype(np.int64),
        alive_since=alive_since,
        bound=4.6,
    )


RULES = JsStabilitySettings(window_epochs=1, patience_epochs=1, noise_factor=1e6)


def test_evidence_is_replayed_with_the_life_that_it_had_then():
    found = replay(replace(trajectory(), evidence=recorded_evidence()), build_pruner(RULES))
    # Alive from step 32 on, which is the end of epoch 7.
    assert found.first_removal_epoch == 7
    assert found.active[-1, 0, 2].all()
    assert found.active[-1, 0, [0, 1, 3, 4], 3].all()
    assert not found.active[-1, 0, [0, 1, 3, 4]].all(axis=-1).any()


@pytest.mark.parametrize(
    "settings", [RULES, JsAbsoluteSettings(), GenotypeStabilitySettings(patience_epochs=3)]
)
def test_a_record_from_before_evidence_is_refused_to_those_that_ask_for_it(settings):
    with pytest.raises(NotReplayableError, match="needs a record with sums of alpha's gradients"):
        replay(trajectory(), build_pruner(settings))
    assert replay(replace(trajectory(), evidence=recorded_evidence()), build_pruner(settings))


@pytest.mark.parametrize("name", ["shapley", "hessian_stop"])
def test_a_pruner_that_asks_the_network_is_refused(name):
    settings = OPERATION_PRUNERS[name].Settings()
    with pytest.raises(NotReplayableError, match="the recorded search has no network left"):
        replay(trajectory(), build_pruner(settings))


def test_a_search_that_pruned_is_no_record_to_replay():
    full = trajectory()
    alpha = full.alpha.copy()
    alpha[7:, 0, 0, 1] = np.nan
    with pytest.raises(ConfigError, match=r"pruned nothing.*from epoch 7"):
        replace(full, alpha=alpha)


def test_agreement_counts_edges_with_their_operations():
    one = trajectory(seed=1).genotype()
    assert agreement(one, one) == 1
    first, *rest = one.levels[0]
    other = Genotype(one.n_nodes, ((replace(first, operation="none"), *rest),))
    assert agreement(one, other) == 1 - 1 / len(one.levels[0])


def test_the_cost_of_epochs_is_found_again_and_slow_ones_count_little():
    generator = np.random.default_rng(0)
    worth = np.array([0.0, 1, 1, 0.5, 4, 6, 3, 5]) * 1e-3
    parts = []
    for _ in range(4):
        active = generator.random((60, 1, 14, 8)) < np.linspace(1, 0.2, 60)[:, None, None, None]
        steps = np.full(60, 4)
        alpha_steps = np.where(np.arange(60) < 10, 0, 4)
        counts = active.sum(axis=(1, 2))
        seconds = 0.05 * steps + 0.04 * alpha_steps + (counts @ worth) * (steps + alpha_steps)
        seconds = seconds * np.exp(0.02 * generator.normal(size=60))
        seconds[generator.random(60) < 0.05] *= 3  # another program had the machine
        seconds[0] += 2.0
        parts.append((active, seconds, steps, alpha_steps))
    cost = fit_epoch_cost(MeasuredEpochs.joined([MeasuredEpochs.of(*part) for part in parts]))
    assert cost.first_epoch_s == pytest.approx(2.0, rel=0.1)
    assert cost.relative_error < 0.05
    active, _, steps, alpha_steps = parts[0]
    half = active & (np.arange(8) < 5)
    truth = 0.05 * steps + 0.04 * alpha_steps
    truth = truth + (half.sum(axis=(1, 2)) @ worth) * (steps + alpha_steps)
    predicted = cost.seconds(half, steps, alpha_steps)[1:].sum()
    assert predicted == pytest.approx(truth[1:].sum(), rel=0.05)


def measured_epochs(n):
    every = np.ones((n, 1, 2, 8), dtype=bool)
    return MeasuredEpochs.of(every, np.full(n, 2.0), np.full(n, 4), np.full(n, 4))


def test_few_epochs_give_one_cost_for_all_operations():
    cost = fit_epoch_cost(measured_epochs(8))
    assert len(set(cost.per_operation)) == 1
    every = np.ones((3, 1, 2, 8), dtype=bool)
    assert cost.seconds(every, np.full(3, 4), np.full(3, 4)) == pytest.approx(2.0, rel=0.01)


def test_a_cost_of_too_few_epochs_is_refused():
    with pytest.raises(ConfigError, match="at least 6"):
        fit_epoch_cost(measured_epochs(5))
