from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pruner_states import drive, equal_gradients
from scipy.spatial.distance import jensenshannon

from iac_core.errors import ConfigError
from iac_core.pruners.js_absolute import JsAbsolute, JsAbsoluteSettings, resolved_threshold
from iac_core.pruners.ranking import jensen_shannon

STEPS = st.integers(3, 50)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.integers(0, 1000))
def test_divergence_is_the_square_of_scipys_distance_in_bits(weights, seed):
    p = np.array(weights) / sum(weights)
    q = np.random.default_rng(seed).dirichlet(np.ones(len(p)))
    assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)


@given(st.floats(1e-4, 1.0), st.integers(1, 10))
def test_threshold_grows_with_the_square_of_the_largest_drift(step_per_epoch, window):
    settings = JsAbsoluteSettings(window_epochs=window)
    one = resolved_threshold(settings, step_per_epoch)
    two = resolved_threshold(settings, 2 * step_per_epoch)
    assert two == pytest.approx(4 * one)


def drifting(n_epochs, rate, n_steps):
    """Half of the logits rise and half fall, as far as Adam can move them."""
    direction = np.where(np.arange(8) % 2, 1.0, -1.0) * np.ones((1, 5, 1))
    return [epoch * rate * n_steps * direction for epoch in range(n_epochs)]


def settled(n_epochs, rate, n_steps, seed=0):
    """A short drift, then noise of a tenth of an epoch's largest move."""
    generator = np.random.default_rng(seed)
    goal = generator.normal(size=(1, 5, 8))
    noise = 0.1 * rate * n_steps
    return [
        goal * min(1.0, epoch / 4) + noise * generator.normal(size=goal.shape)
        for epoch in range(n_epochs)
    ]


@pytest.mark.parametrize(("rate", "n_steps"), [(0.025, 6), (0.03, 3), (3e-3, 50), (6e-4, 100)])
def test_a_drifting_alpha_blocks_pruning_and_a_settled_one_allows_it(rate, n_steps):
    step = rate * n_steps
    decisions, active = drive(
        JsAbsolute(JsAbsoluteSettings()), drifting(18, rate, n_steps), step_per_epoch=step
    )
    assert active.all()
    measured = decisions[12].measures["jsd"]
    assert (measured > resolved_threshold(JsAbsoluteSettings(), step)).all()
    decisions, active = drive(
        JsAbsolute(JsAbsoluteSettings()), settled(60, rate, n_steps), step_per_epoch=step
    )
    assert active.sum() < 15
    first = next(decision for decision in decisions if decision.reasons)
    assert all(reason.value <= reason.threshold for reason in first.reasons if reason.operations)


def test_nothing_is_tested_before_both_windows_hold_trained_logits():
    settings = JsAbsoluteSettings(window_epochs=3, patience_epochs=1)
    still = [np.zeros((1, 5, 8)) + np.arange(8) * 0.2 for _ in range(30)]
    decisions, _ = drive(JsAbsolute(settings), still, first_alpha_epoch=5)
    pruned = [epoch for epoch, decision in enumerate(decisions) if decision.reasons]
    assert pruned[0] == 5 + 2 * 3 + 1


def test_patience_counts_settled_epochs_in_a_row():
    still = [np.zeros((1, 5, 8)) + np.arange(8) * 0.2 for _ in range(30)]
    first = {}
    for patience in (1, 4):
        settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=patience)
        decisions, _ = drive(JsAbsolute(settings), still)
        first[patience] = next(e for e, decision in enumerate(decisions) if decision.reasons)
    assert first[4] == first[1] + 3


def test_the_rank_guard_waits_while_the_kept_set_changes():
    steady = np.zeros((1, 5, 8)) + np.arange(8) * 1e-3
    swapped = steady[..., ::-1].copy()
    flicker = [steady if (epoch // 2) % 2 else swapped for epoch in range(30)]
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=3)
    decisions, active = drive(JsAbsolute(settings), flicker)
    assert active.all()
    assert max(float(d.measures["jsd"].max()) for d in decisions if d.measures) < 2e-3


def test_weak_operations_go_together_but_at_most_half_of_them():
    logits = np.zeros((1, 5, 8)) + np.array([-5, -5, -5, -5, -5, -5, 1, 2.0])
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=1)
    decisions, _ = drive(JsAbsolute(settings), [logits] * 20)
    first = next(decision for decision in decisions if decision.reasons)
    assert {len(reason.operations) for reason in first.reasons} == {4}


def test_the_search_stops_when_every_edge_is_decided_and_says_so():
    still = [np.zeros((1, 5, 8)) + np.arange(8) * 0.2 for _ in range(60)]
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=1, stop_patience_epochs=99)
    decisions, active = drive(JsAbsolute(settings), still)
    assert decisions[-1].stop
    assert active.sum(axis=-1).max() == 1
    assert decisions[-1].reasons[-1].rule == "every_edge_decided"


def test_the_search_stops_when_few_operations_are_left_and_the_genotype_stands():
    still = [np.zeros((1, 5, 8)) + np.arange(8) * 0.2 for _ in range(60)]
    settings = JsAbsoluteSettings(
        window_epochs=2,
        patience_epochs=1,
        stop_operations=3,
        stop_patience_epochs=5,
        min_operations=2,
    )
    decisions, active = drive(JsAbsolute(settings), still)
    assert active.sum(axis=-1).min() >= 2
    assert decisions[-1].stop
    assert decisions[-1].reasons[-1].rule in ("every_edge_decided", "genotype_unchanged")


def test_without_the_rank_guard_a_small_divergence_is_enough():
    steady = np.zeros((1, 5, 8)) + np.arange(8) * 1e-3
    swapped = steady[..., ::-1].copy()
    flicker = [steady if (epoch // 2) % 2 else swapped for epoch in range(30)]
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=3, rank_guard=False)
    _, active = drive(JsAbsolute(settings), flicker)
    assert not active.all()


STILL = [np.zeros((1, 5, 8)) + np.arange(8) * 0.2 for _ in range(40)]
EDGES = JsAbsoluteSettings(window_epochs=2, patience_epochs=2, prune_edges=True)


def rising_betas(still_from):
    """Edge 2 (from input 0 into the last node) falls behind, then all stand still."""
    return [np.array([[0.0, 0.0, -0.4 * min(epoch, still_from), 0.0, 0.0]]) for epoch in range(60)]


def test_betas_divergence_is_watched_node_by_node():
    from iac_core.pruners.js_absolute import beta_divergence

    history = np.array(rising_betas(10))[:6]
    live = np.ones((1, 5), dtype=bool)
    targets = np.array([2, 2, 3, 3, 3])
    found = beta_divergence(history, live, targets, 3)
    assert (found[0, :2] == 0).all()
    assert len(set(found[0, 2:])) == 1
    weights = np.exp(history[:, 0, 2:])
    weights /= weights.sum(axis=1, keepdims=True)
    p, q = weights[:3].mean(axis=0), weights[3:].mean(axis=0)
    assert found[0, 2] == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    decisions, _ = drive(JsAbsolute(JsAbsoluteSettings(window_epochs=3)), STILL[:6])
    assert decisions[-1].measures["beta_jsd"].shape == (1, 5)


def test_a_settled_node_loses_its_weakest_edge_which_keeps_none_alone():
    betas = rising_betas(0)
    betas = [beta + np.array([[0.0, 0.0, -1.0, 0.0, 0.5]]) for beta in betas]
    decisions, active = drive(JsAbsolute(EDGES), STILL, beta_history=betas)
    reasons = [r for d in decisions for r in d.reasons if r.rule == "edge_stability"]
    assert [reason.edge for reason in reasons] == [2]
    assert reasons[0].value <= reasons[0].threshold
    assert "none" not in reasons[0].operations
    assert active[0, 2].tolist() == [True] + [False] * 7
    assert active[0, [0, 1, 3, 4], 1:].any(axis=-1).all()


def test_a_moving_beta_keeps_its_edges():
    swinging = [np.array([[0.0, 0.0, (-1.0) ** (epoch // 2), 0.0, 0.0]]) for epoch in range(40)]
    decisions, active = drive(JsAbsolute(EDGES), STILL, beta_history=swinging)
    assert not [r for d in decisions for r in d.reasons if r.rule == "edge_stability"]
    assert active[0, 2, 1:].any()


def test_faithful_settings_never_prune_an_edge():
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=1)
    decisions, _ = drive(JsAbsolute(settings), STILL)
    assert {r.rule for d in decisions for r in d.reasons} <= {
        "js_absolute",
        "every_edge_decided",
        "genotype_unchanged",
    }


ALIVE = np.array([[8, 16, -1, 8, 8]])


def test_a_dead_edge_is_left_alone_unless_the_settings_say_otherwise():
    settings = JsAbsoluteSettings(window_epochs=2, patience_epochs=1)
    dead = replace(equal_gradients(np.ones((1, 5, 8)), np.ones((1, 5))), alive_since=ALIVE)
    decisions, active = drive(JsAbsolute(settings), STILL, evidence=dead)
    assert {reason.edge for d in decisions for reason in d.reasons} == {0, 1, 3, 4}
    assert active[0, 2].all()
    assert not active[0, [0, 1, 3, 4]].all(axis=-1).any()
    before = replace(settings, living_edges_only=False)
    _, active = drive(JsAbsolute(before), STILL, evidence=dead)
    assert not active[0, 2].all()
    assert JsAbsolute(settings).needs_evidence
    assert not JsAbsolute(before).needs_evidence


def test_a_node_with_a_dead_edge_keeps_all_its_edges():
    betas = [beta + np.array([[0.0, 0.0, -1.0, 0.0, 0.5]]) for beta in rising_betas(0)]
    dead = replace(equal_gradients(np.ones((1, 5, 8)), np.ones((1, 5))), alive_since=ALIVE)
    decisions, _ = drive(JsAbsolute(EDGES), STILL, beta_history=betas, evidence=dead)
    assert not [r for d in decisions for r in d.reasons if r.rule == "edge_stability"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("window_epochs", 0), ("threshold", 0.0), ("max_share", 1.0), ("weak_share", -0.1)],
)
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        JsAbsoluteSettings(**{name: value})
