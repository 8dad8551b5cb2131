"""Pruning on evidence once an edge has settled."""

from dataclasses import replace

import numpy as np
import pytest
from pruner_states import drive, equal_gradients

from iac_core.config import SearchPace
from iac_core.errors import ConfigError
from iac_core.pruners.js_stability import (
    JsStability,
    JsStabilityFastSettings,
    JsStabilitySettings,
)

EAGER = JsStabilitySettings(window_epochs=2, patience_epochs=1, stop_patience_epochs=99)
STILL = [np.zeros((1, 5, 8))] * 20
NONE, BEST = 0, 3


def sums(**worst):
    """Σ g of alpha: operation 3 is best everywhere, the others alike unless they are named."""
    found = np.zeros((1, 5, 8))
    found[..., BEST] = -1.0
    for operation, value in worst.items():
        found[..., int(operation[1:])] = value
    return found


def evidence(alpha_sum, beta_sum=None, **changes):
    betas = np.zeros((1, 5)) if beta_sum is None else np.array([beta_sum])
    return replace(equal_gradients(alpha_sum, betas), **changes)


def removed(decisions, rule="evidence"):
    return [r for d in decisions for r in d.reasons if r.rule == rule]


def test_what_evidence_speaks_against_goes_and_the_best_operation_stays():
    decisions, active = drive(JsStability(EAGER), STILL, evidence=evidence(sums()))
    assert (active.sum(axis=-1) == 1).all()
    assert active[..., BEST].all()
    assert decisions[-1].stop
    assert decisions[-1].reasons[-1].rule == "every_edge_decided"
    assert all(reason.value > reason.threshold == 4.6 for reason in removed(decisions))


def test_nothing_goes_without_evidence_however_still_the_edge():
    weak = evidence(sums(), n_steps=16)
    products = weak.gradient_products * 100 / 16  # 16 equal steps: evidence 4 of 4.6
    decisions, active = drive(
        JsStability(EAGER), STILL, evidence=replace(weak, gradient_products=products)
    )
    assert active.all()
    assert not removed(decisions)


def test_a_dead_edge_is_never_pruned_and_holds_up_no_search_that_is_alive():
    one = evidence(sums(), alive_since=np.array([[8, 8, -1, 8, 8]]))
    decisions, active = drive(JsStability(EAGER), STILL, evidence=one)
    assert active[0, 2].all()
    assert (active[0, [0, 1, 3, 4]].sum(axis=-1) == 1).all()
    assert not decisions[-1].stop  # 80 % of the edges are alive
    shape = (1, 14, 8)
    alive = np.full((1, 14), 8)
    alive[0, 5] = -1
    alpha_sum = np.zeros(shape)
    alpha_sum[..., BEST] = -1.0
    most = replace(equal_gradients(alpha_sum, np.zeros((1, 14))), alive_since=alive)
    decisions, active = drive(JsStability(EAGER), [np.zeros(shape)] * 20, evidence=most)
    assert decisions[-1].stop
    assert active[0, 5].all()


def test_one_open_edge_of_fourteen_does_not_hold_up_a_search_whose_genotype_stands():
    """Operation 5 of edge 5 rises for good against the other weak ones, so it never settles."""
    generator = np.random.default_rng(0)
    shape = (1, 14, 8)
    moving = []
    for epoch in range(40):
        logits = 0.001 * generator.normal(size=shape)
        logits[..., BEST] += 0.1
        logits[0, 5, 5] += 0.1 * epoch
        moving.append(logits)
    alpha_sum = np.zeros(shape)
    alpha_sum[..., BEST] = -1.0
    against = equal_gradients(alpha_sum, np.zeros((1, 14)))
    waits = replace(EAGER, stop_patience_epochs=2)
    decisions, active = drive(JsStability(waits), moving, evidence=against)
    assert active[0, 5].all()
    assert len(decisions) < 20
    assert decisions[-1].reasons[-1].rule == "genotype_unchanged"
    decisions, _ = drive(
        JsStability(replace(waits, stop_edge_share=1.0)), moving, evidence=against
    )
    assert not any(decision.stop for decision in decisions)


def test_an_edge_that_moves_waits_whatever_the_evidence():
    """Operation 5 rises against the other weak ones: their order is not settled."""
    generator = np.random.default_rng(0)
    moving = []
    for epoch in range(20):
        logits = 0.001 * generator.normal(size=(1, 5, 8))
        logits[0, 2, 5] += 0.1 * epoch
        moving.append(logits)
    decisions, active = drive(JsStability(EAGER), moving, evidence=evidence(sums()))
    assert active[0, 2].all()
    assert {reason.edge for reason in removed(decisions)} == {0, 1, 3, 4}
    blind = replace(EAGER, noise_factor=1e6)
    _, active = drive(JsStability(blind), moving, evidence=evidence(sums()))
    assert active[0, 2].sum() == 1


def test_a_best_operation_that_gains_is_no_reason_to_wait_and_one_that_loses_is():
    for slope, n_left in ((0.1, 1), (-0.1, 8)):
        moving = []
        for epoch in range(20):
            logits = 0.001 * np.random.default_rng(epoch).normal(size=(1, 5, 8))
            logits[..., BEST] += slope * epoch
            moving.append(logits)
        _, active = drive(JsStability(EAGER), moving, evidence=evidence(sums()))
        assert (active.sum(axis=-1) == n_left).all()


def test_no_check_before_two_windows_of_trained_epochs_and_the_first_patience():
    settings = replace(EAGER, window_epochs=3, patience_epochs=4)
    decisions, _ = drive(
        JsStability(settings), STILL, first_alpha_epoch=5, evidence=evidence(sums())
    )
    first = next(epoch for epoch, decision in enumerate(decisions) if decision.reasons)
    assert first == 5 + 2 * 3 + 4 - 1


def test_the_worst_go_first_and_at_most_the_share():
    worst = evidence(sums(o5=3.0, o6=2.0))
    # Equal steps give equal evidence; with noise on every operation it grows with the distance.
    products = worst.gradient_products + np.diag(np.full(8, 0.02))
    settings = replace(EAGER, max_share=0.3)
    decisions, _ = drive(
        JsStability(settings), STILL, evidence=replace(worst, gradient_products=products)
    )
    first = removed(decisions)[0]
    assert first.operations == ("sep_conv_5x5", "dil_conv_3x3")


def test_none_is_no_leader():
    best_is_none = np.zeros((1, 5, 8))
    best_is_none[..., NONE] = -2.0
    best_is_none[..., BEST] = -1.0
    _, active = drive(JsStability(EAGER), STILL, evidence=evidence(best_is_none))
    assert active[..., BEST].all()
    assert active[..., NONE].all()  # evidence speaks for it
    assert (active.sum(axis=-1) == 2).all()


def test_a_node_loses_the_edges_that_evidence_speaks_against_and_spares_none_until_then():
    settings = replace(EAGER, prune_edges=True)
    betas = [-1.0, -1.0, -1.0, 2.0, -2.0]
    decisions, active = drive(JsStability(settings), STILL, evidence=evidence(sums(), betas))
    assert [reason.edge for reason in removed(decisions, "edge_evidence")] == [3]
    assert np.flatnonzero(active[0, 3]).tolist() == [NONE]
    assert (active.sum(axis=-1) == 1).all()
    assert active[0, [0, 1, 2, 4], BEST].all()
    equal, active = drive(JsStability(settings), STILL, evidence=evidence(sums()))
    assert not removed(equal, "edge_evidence")
    assert active[0, 2:, NONE].all()
    assert not active[0, :2, NONE].any()


def test_a_node_with_a_dead_edge_keeps_all_its_edges():
    settings = replace(EAGER, prune_edges=True)
    one = evidence(sums(), [-1.0, -1.0, -1.0, 2.0, -2.0], alive_since=np.array([[8, 8, -1, 8, 8]]))
    decisions, _ = drive(JsStability(settings), STILL, evidence=one)
    assert not removed(decisions, "edge_evidence")


def test_fast_settings_are_the_same_rules_with_other_defaults():
    fast = JsStabilityFastSettings()
    assert isinstance(fast, JsStabilitySettings)
    assert fast.prune_edges
    assert fast.pace != SearchPace() == JsStabilitySettings().pace


@pytest.mark.parametrize(
    ("name", "value"), [("window_epochs", 0), ("noise_factor", 0.0), ("max_share", 1.0)]
)
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        JsStabilitySettings(**{name: value})
