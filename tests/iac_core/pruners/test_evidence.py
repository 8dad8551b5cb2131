"""When sums of gradients are more than noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.pruners.evidence import (
    all_alive,
    best_of,
    blank_evidence,
    evidence_against,
    evidence_bound,
    is_look,
    n_looks_within,
    self_normalised,
)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 8))
def test_evidence_is_that_of_the_differences_step_by_step(seed, n_steps, n):
    steps = np.random.default_rng(seed).normal(size=(n_steps, 3, n)) * 1e-4
    best = np.random.default_rng(seed).integers(n, size=3)
    sums = steps.sum(axis=0)
    found = evidence_against(sums, np.einsum("seo,sep->eop", steps, steps), best)
    for edge in range(3):
        differences = steps[:, edge] - steps[:, edge, best[edge], None]
        squares = np.square(differences).sum(axis=0)
        expected = differences.sum(axis=0) / np.sqrt(np.where(squares > 0, squares, 1.0))
        np.testing.assert_allclose(found[edge], expected, atol=1e-6)
        assert found[edge, best[edge]] == 0
    assert (np.abs(found) <= np.sqrt(n_steps) + 1e-6).all()


def test_operations_with_the_same_gradients_have_no_evidence_against_each_other():
    steps = np.random.default_rng(0).normal(size=(50, 1)) * np.ones(3)
    found = evidence_against(steps.sum(axis=0), steps.T @ steps, np.array(1))
    assert (found == 0).all()


def test_no_gradient_is_no_evidence():
    assert self_normalised(np.zeros(3), np.zeros(3)).tolist() == [0, 0, 0]
    blank = blank_evidence((1, 5, 8), 4.6)
    found = evidence_against(
        blank.gradient_sum,
        blank.gradient_products,
        best_of(blank.gradient_sum, np.ones((1, 5, 8), bool)),
    )
    assert (found == 0).all()
    assert blank.live_edge_share == 0
    assert blank_evidence((1, 5, 8), 4.6, alive=True).live_edge_share == 1


def test_noise_exceeds_the_bound_of_one_test_no_more_often_than_its_error():
    bound = evidence_bound(1, 1, 1, error=0.05)
    steps = np.random.default_rng(0).standard_t(3, size=(20_000, 60))  # heavy tails
    found = self_normalised(steps.sum(axis=1), np.square(steps).sum(axis=1))
    assert (np.abs(found) > bound).mean() <= 0.05


def test_looks_double():
    assert [n for n in range(300) if is_look(n)] == [8, 16, 32, 64, 128, 256]
    assert all(n_looks_within(n) == sum(map(is_look, range(n + 1))) for n in range(300))


def test_the_bound_grows_with_everything_that_is_tested_and_knows_a_search_without_looks():
    assert evidence_bound(14, 8, 7) < evidence_bound(28, 8, 7) < evidence_bound(28, 8, 9)
    assert evidence_bound(14, 8, 0) == evidence_bound(14, 8, 1)
    assert evidence_bound(14, 8, 7, error=0.01) > evidence_bound(14, 8, 7)


def test_the_best_is_among_those_that_may_stay():
    sums = np.array([[-5.0, -1.0, -3.0]])
    assert best_of(sums, np.array([[True, True, True]])).tolist() == [0]
    assert best_of(sums, np.array([[False, True, True]])).tolist() == [2]


@pytest.mark.parametrize(
    ("dead", "live", "expected"),
    [
        ([], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
        ([2], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]),
        ([0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1]),
        ([2], [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]),  # an edge that carries nothing does not count
    ],
)
def test_a_node_is_alive_with_all_edges_that_carry_something(dead, live, expected):
    evidence = blank_evidence((1, 5, 8), 4.6, alive=True)
    evidence.alive_since[0, dead] = -1
    found = all_alive(evidence, np.array([live], dtype=bool), np.array([2, 2, 3, 3, 3]))
    assert found.astype(int).tolist() == [expected]
