"""What a perfect search can reach, and what features of a cell explain."""

import numpy as np
import pandas as pd
import pytest
from cell_tables import genotype_of
from scipy.stats import norm

from benchmarks.cell_table.ceiling import ceiling
from benchmarks.cell_table.explained import explained, leave_one_out_r2, operation_counts


def test_without_reliability_a_perfect_search_stands_in_the_middle():
    found = ceiling(0.0, 60)
    assert found.judged == pytest.approx(50, abs=1)
    assert found.chosen == pytest.approx(50, abs=1)


def test_with_full_reliability_it_stands_at_the_top():
    assert ceiling(1.0, 60).judged == ceiling(1.0, 60).chosen == 100


@pytest.mark.parametrize("reliability", [0.2, 0.5, 0.8])
def test_the_expected_percentile_is_the_integral_over_the_normal_law(reliability):
    """The best true value z of n cells; another's t below it; means differ with noise of both."""
    n, grid = 60, np.linspace(-7, 7, 1401)
    z, t = grid[:, None], grid[None, :]
    best = n * norm.pdf(grid) * norm.cdf(grid) ** (n - 1)
    other = norm.pdf(t) / norm.cdf(z) * np.where(t < z, 1.0, np.where(t == z, 0.5, 0.0))
    beaten = norm.cdf(np.sqrt(reliability) * (z - t) / np.sqrt(2 * (1 - reliability)))
    step = grid[1] - grid[0]
    law = 100 * float((best * (other * beaten).sum(axis=1)).sum() * step**2)
    found = ceiling(reliability, n)
    assert found.judged == pytest.approx(law, abs=0.5)
    assert found.chosen == pytest.approx(law, abs=0.5)
    assert found.judged_median >= found.judged


def test_the_ceiling_rises_with_the_reliability():
    levels = [ceiling(rho, 20, n_draws=4000).judged for rho in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert levels == sorted(levels)


def test_leaving_one_out_equals_the_formula_of_the_hat_matrix():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((25, 3))
    values = features @ [1.0, 0.0, -2.0] + generator.standard_normal(25)
    design = np.column_stack([np.ones(25), features])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    press = (((values - hat @ values) / (1 - np.diag(hat))) ** 2).sum()
    mean_press = (((values - values.mean()) * 25 / 24) ** 2).sum()
    assert leave_one_out_r2(features, values) == pytest.approx(1 - press / mean_press)


def test_a_feature_that_is_constant_explains_nothing():
    values = np.random.default_rng(0).standard_normal(20)
    assert leave_one_out_r2(np.ones((20, 1)), values) == pytest.approx(0)
    assert np.isnan(leave_one_out_r2(values[:, None], np.ones(20)))


def test_noise_is_not_explained():
    generator = np.random.default_rng(0)
    found = [
        leave_one_out_r2(generator.standard_normal((60, 7)), generator.standard_normal(60))
        for _ in range(50)
    ]
    assert -0.35 < np.mean(found) < 0


def test_counts_of_operations_add_up_to_the_edges_and_explain_what_they_cause():
    genotypes = [genotype_of(draw) for draw in range(60)]
    counts = operation_counts(genotypes)
    assert counts.sum(axis=1).tolist() == [8] * 60
    pools = counts[:, 0] + counts[:, 1]
    dice = pd.Series(0.8 - 0.01 * pools)
    cells = pd.DataFrame(
        {
            "genotype": genotypes,
            "n_cell_parameters": np.random.default_rng(0).integers(1000, 9000, 60),
            "n_macs": 1e6 * (8 - pools),
        }
    )
    found = explained(dice, cells)
    assert found["operation counts"] == pytest.approx(1)
    assert found["MACs"] == pytest.approx(1)
    assert found["parameters"] < 0.1
