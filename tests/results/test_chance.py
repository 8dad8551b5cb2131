"""Random cells and rankings, against values computed by hand and against the measures."""

import json
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from results.agreement import mean_jaccard, operation_kappa
from results.chance import (
    N_DRAWS,
    UNKNOWN,
    CellShape,
    beside,
    cell_null,
    jaccards,
    kappas,
    random_choices,
    ranking_null,
)


def shape(n_cells, n_nodes=4, n_operations=7, in_degree=2, n_levels=1):
    degrees = ((in_degree,) * n_nodes * n_levels,) * n_cells
    return CellShape(in_degrees=degrees, n_nodes=n_nodes, n_operations=n_operations)


def edges_of(n_nodes):
    return [
        (source, target) for target in range(2, 2 + n_nodes) for source in range(target)
    ]  # fmt: skip


def genotype(choice, n_nodes):
    """JSON of one cell: ``choice`` is ``(levels × edges,)``, as `random_choices` draws it."""
    edges = edges_of(n_nodes)
    levels = [
        [[*edge, f"op{k}"] for edge, k in zip(edges, level, strict=True) if k]
        for level in choice.reshape(-1, len(edges))
    ]
    return json.dumps({"n_nodes": n_nodes, "levels": levels})


@pytest.mark.parametrize("n_levels", [1, 2])
def test_random_cells_have_the_shape_of_those_found(n_levels):
    drawn = random_choices(shape(3, n_levels=n_levels), 2000, np.random.default_rng(0))
    assert drawn.shape == (14 * n_levels, 3, 2000)
    assert (drawn.min(), drawn.max()) == (0, 7)
    edges = edges_of(4) * n_levels
    for node in range(2, 6):
        own = [place for place, (_, target) in enumerate(edges) if target == node]
        for level in np.split(np.array(own), n_levels):
            assert ((drawn[level] > 0).sum(axis=0) == 2).all()
            # Two of as many sources as there are, each as likely as another; 6000 cells.
            kept = (drawn[level] > 0).mean(axis=(1, 2))
            assert kept == pytest.approx(2 / len(level), abs=0.03)
    kinds = np.bincount(drawn[drawn > 0], minlength=8)[1:]
    assert kinds / kinds.sum() == pytest.approx(1 / 7, abs=0.01)


def test_a_node_keeps_as_many_edges_as_its_cell_does():
    degrees = ((2, 1), (0, 2))
    drawn = random_choices(
        CellShape(in_degrees=degrees, n_nodes=2, n_operations=3), 50, np.random.default_rng(0)
    )
    assert ((drawn[:2] > 0).sum(axis=0) == np.array([[2], [0]])).all()
    assert ((drawn[2:] > 0).sum(axis=0) == np.array([[1], [2]])).all()


@pytest.mark.parametrize("n_cells", [2, 5])
@pytest.mark.parametrize("n_levels", [1, 3])
def test_random_cells_are_measured_as_found_ones_are(n_cells, n_levels):
    drawn = random_choices(
        shape(n_cells, n_nodes=2, n_operations=3, n_levels=n_levels), 40, np.random.default_rng(1)
    )
    for index, (jaccard, kappa) in enumerate(zip(jaccards(drawn), kappas(drawn), strict=True)):
        cells = [genotype(drawn[:, cell, index], 2) for cell in range(n_cells)]
        assert jaccard == pytest.approx(mean_jaccard(cells))
        assert kappa == pytest.approx(operation_kappa(cells))


def test_two_cells_of_two_edges_and_two_operations_agree_as_two_coins_do():
    null = cell_null(shape(2, n_nodes=1, n_operations=2)).jaccard
    # Both edges are kept. Same operation on none, one, both: |A ∩ B| / |A ∪ B| = 0/4, 1/3, 2/2.
    values, counts = np.unique(null.round(9), return_counts=True)
    assert values == pytest.approx([0, 1 / 3, 1])
    assert counts / N_DRAWS == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.03)
    assert beside(null, 1 / 3).p == pytest.approx(3 / 4, abs=0.03)


def test_cells_with_one_choice_agree_wholly():
    null = cell_null(shape(3, n_nodes=1, n_operations=1))
    assert (null.jaccard == 1).all()
    assert (null.kappa == 1).all()


@pytest.mark.parametrize(
    ("n_cells", "mean"), [(2, -0.133), (3, -0.031), (5, 0.027), (10, 0.055), (20, 0.057)]
)
def test_kappa_of_random_cells_is_not_zero(n_cells, mean):
    """Means from another program's random cells of four nodes and seven operations."""
    assert cell_null(shape(n_cells)).kappa.mean() == pytest.approx(mean, abs=0.006)


def test_jaccard_of_random_cells_is_that_of_another_program():
    null = cell_null(shape(5)).jaccard
    assert null.mean() == pytest.approx(0.051, abs=0.002)
    assert np.quantile(null, [0.025, 0.975]) == pytest.approx([0.020, 0.091], abs=0.006)


def test_pairs_of_searches_share_their_rankings():
    # Two operations: three searches rank them alike (1 in 4: all pairs agree), or one stands
    # alone: one pair agrees and two do not. Independent pairs would sometimes all disagree.
    values, counts = np.unique(ranking_null(3, 1, 2), return_counts=True)
    assert values == pytest.approx([-1 / 3, 1])
    assert counts / N_DRAWS == pytest.approx([3 / 4, 1 / 4], abs=0.03)


def test_tau_of_random_rankings_has_kendalls_variance():
    null = ranking_null(2, 14, 8)
    assert null.mean() == pytest.approx(0, abs=0.005)
    # Kendall (1938): 2 (2n + 5) / (9 n (n - 1)) for two rankings of n.
    assert null.std() == pytest.approx(math.sqrt(2 * 21 / (9 * 8 * 7) / 14), rel=0.05)


def test_the_sum_over_pairs_is_that_of_kendalls_tau():
    # What the null's docstring derives, on three rankings of one edge.
    rankings = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 0, 1]])
    first, second = np.triu_indices(4, k=1)
    signs = np.where(rankings[:, first] > rankings[:, second], 1, -1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    taus = [kendalltau(rankings[a], rankings[b]).statistic for a, b in pairs]
    total = ((signs.sum(axis=0) ** 2).sum() - 3 * 6) / (2 * 6)
    assert total == pytest.approx(sum(taus))


def test_p_counts_the_draws_that_reach_the_value_and_itself():
    null = np.arange(99) / 100
    assert beside(null, 0.97).p == pytest.approx(3 / 100)
    assert beside(null, 2.0).p == pytest.approx(1 / 100)
    assert beside(null, -1.0).p == 1
    assert (beside(null, 0.5).low, beside(null, 0.5).high) == pytest.approx((0.0245, 0.9555))
    # The sum of tenths in another order differs in its last digit and is reached all the same.
    assert beside(np.array([0.1 + 0.2]), 0.3).p == beside(np.array([0.3]), 0.1 + 0.2).p == 1
    assert beside(null, math.nan) is UNKNOWN


def test_the_same_shape_has_the_same_null_and_nobody_can_change_it():
    assert cell_null(shape(5)) is cell_null(shape(5))
    with pytest.raises(ValueError, match="read-only"):
        cell_null(shape(5)).kappa[0] = 1
