"""The compiled loops against the same rules in plain Python."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pruner_states import drive
from stability_reference import PlainJsAbsolute, plain_choice, plain_divergence

from iac_core.cells.genotype import cell_edges, discretise
from iac_core.config import OPERATION_NAMES
from iac_core.pruners.js_absolute import JsAbsolute, JsAbsoluteSettings, window_divergence

RULES = st.builds(
    JsAbsoluteSettings,
    window_epochs=st.integers(1, 4),
    threshold=st.floats(1e-4, 0.2),
    patience_epochs=st.integers(1, 3),
    rank_guard=st.booleans(),
    weak_share=st.floats(0, 1),
    max_share=st.floats(0.1, 0.9),
    min_operations=st.integers(1, 3),
    prune_edges=st.booleans(),
)


def walk(seed, n_levels, n_edges, n_epochs=40):
    """Logits that drift less and less."""
    generator = np.random.default_rng(seed)
    steps = generator.normal(size=(n_epochs, n_levels, n_edges, 8))
    return np.cumsum(steps / (1 + np.arange(n_epochs))[:, None, None, None], axis=0)


@given(RULES, st.integers(0, 10_000), st.sampled_from([1, 3]), st.sampled_from([2, 5, 9, 14]))
@settings(max_examples=60)
def test_every_decision_is_that_of_the_plain_rule(rules, seed, n_levels, n_edges):
    alphas = list(walk(seed, n_levels, n_edges))
    ours, left = drive(JsAbsolute(rules), alphas)
    theirs, plain_left = drive(PlainJsAbsolute(rules), alphas)
    assert [decision.reasons for decision in ours] == [decision.reasons for decision in theirs]
    assert (left == plain_left).all()


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=40)
def test_divergence_is_that_of_means_of_softmaxes(seed, window):
    history = walk(seed, 2, 5, 2 * window)
    active = np.random.default_rng(seed).random((2, 5, 8)) < 0.6
    active[..., 0] = True
    history[:, ~active] = np.nan
    jsd, mean = window_divergence(history, active, window)
    plain_jsd, plain_mean = plain_divergence(history, active, window)
    np.testing.assert_allclose(jsd, plain_jsd, atol=1e-12)
    np.testing.assert_allclose(mean, plain_mean, atol=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 3]))
@settings(max_examples=60)
def test_the_chosen_edges_are_those_of_the_best_scores(seed, n_nodes, n_levels):
    generator = np.random.default_rng(seed)
    shape = (n_levels, len(cell_edges(n_nodes)), 8)
    alpha, beta = generator.normal(size=shape), generator.normal(size=shape[:2])
    active = generator.random(shape) < 0.5
    active[..., 1 + seed % 7] = True
    genotype = discretise(alpha, beta, active, OPERATION_NAMES, n_nodes)
    expected = plain_choice(alpha, beta, active, OPERATION_NAMES, n_nodes)
    for (level, target), kept in expected.items():
        found = [(e.source, e.operation) for e in genotype.level(level) if e.target == target]
        assert found == kept


def test_equal_logits_keep_the_earlier_edge_and_the_earlier_operation():
    active = np.ones((1, 5, 8), dtype=bool)
    genotype = discretise(np.zeros((1, 5, 8)), np.zeros((1, 5)), active, OPERATION_NAMES, 2)
    kept = [(edge.source, edge.target, edge.operation) for edge in genotype.level(0)]
    first = OPERATION_NAMES[1]
    assert kept == [(0, 2, first), (1, 2, first), (0, 3, first), (1, 3, first)]
