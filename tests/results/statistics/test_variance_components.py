"""Variance components against published numbers, exact formulas and simulated tables."""

import numpy as np
import pytest
from scipy import stats

from results.statistics.variance_components import (
    column_ratio,
    reliability,
    row_ratio,
    share_of_pair,
    two_way_anova,
    variance_shares,
)

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]],
    dtype=float,
)
"""Six targets rated by four judges (Shrout and Fleiss 1979, table 2)."""


def simulated(n_tables, *, rows, columns, sd_row, sd_column, sd_residual, seed=0):
    """Tables of known components, shape (tables, rows, columns)."""
    generator = np.random.default_rng(seed)
    return (
        0.8
        + sd_row * generator.standard_normal((n_tables, rows, 1))
        + sd_column * generator.standard_normal((n_tables, 1, columns))
        + sd_residual * generator.standard_normal((n_tables, rows, columns))
    )


def is_nominal(covered, level=0.95):
    """Whether so many intervals cover as chance gives at a level, in 99.9 % of cases."""
    n = len(covered)
    low, high = stats.binom(n, level).interval(0.999)
    return low <= np.sum(covered) <= high


def test_the_table_of_shrout_and_fleiss():
    anova = two_way_anova(SHROUT_FLEISS)
    assert anova.row_mean_square == pytest.approx(11.24, abs=0.005)
    assert anova.column_mean_square == pytest.approx(32.49, abs=0.005)
    assert anova.residual_mean_square == pytest.approx(1.02, abs=0.005)
    one, four = share_of_pair(row_ratio(anova)), reliability(row_ratio(anova), 4)
    assert (one.value, one.low, one.high) == pytest.approx((0.715, 0.342, 0.946), abs=0.001)
    assert (four.value, four.low, four.high) == pytest.approx((0.909, 0.676, 0.986), abs=0.001)


def test_the_reliability_of_all_columns_is_one_minus_the_inverse_of_f():
    anova = two_way_anova(SHROUT_FLEISS)
    f = anova.row_mean_square / anova.residual_mean_square
    assert reliability(row_ratio(anova), 4).value == pytest.approx(1 - 1 / f)


def test_sums_of_squares_add_up_to_the_total():
    values = simulated(1, rows=7, columns=3, sd_row=1, sd_column=2, sd_residual=1)[0]
    anova = two_way_anova(values)
    total = (
        6 * anova.row_mean_square
        + 2 * anova.column_mean_square
        + anova.residual_df * anova.residual_mean_square
    )
    assert total == pytest.approx(((values - values.mean()) ** 2).sum())


def test_rows_and_columns_are_treated_alike():
    values = simulated(1, rows=6, columns=4, sd_row=1, sd_column=1, sd_residual=1)[0]
    assert row_ratio(two_way_anova(values)) == column_ratio(two_way_anova(values.T))


@pytest.mark.parametrize("sd_row", [0.0, 0.5, 2.0])
def test_exact_intervals_of_both_ratios_cover_the_truth_at_their_level(sd_row):
    tables = simulated(1000, rows=20, columns=3, sd_row=sd_row, sd_column=0.7, sd_residual=1.0)
    anovas = [two_way_anova(table) for table in tables]
    for level in (0.8, 0.95):
        rows = [row_ratio(anova, level) for anova in anovas]
        columns = [column_ratio(anova, level) for anova in anovas]
        assert is_nominal([one.low <= 0.49 <= one.high for one in columns], level)
        if sd_row:
            assert is_nominal([one.low <= sd_row**2 <= one.high for one in rows], level)
        else:  # bounds below 0 are 0, and so cover it
            assert is_nominal([one.low > 0 for one in rows], (1 - level) / 2)


def test_reliability_covers_the_squared_correlation_with_the_true_value():
    sd_row, sd_residual = 0.3, 0.4
    truth = sd_row**2 / (sd_row**2 + sd_residual**2 / 3)
    tables = simulated(
        1000, rows=60, columns=3, sd_row=sd_row, sd_column=0.2, sd_residual=sd_residual
    )
    found = [reliability(row_ratio(two_way_anova(table)), 3) for table in tables]
    assert is_nominal([one.low <= truth <= one.high for one in found])
    assert np.median([one.value for one in found]) == pytest.approx(truth, abs=0.01)

    generator = np.random.default_rng(1)
    true = sd_row * generator.standard_normal(100_000)
    noise = sd_residual * generator.standard_normal((100_000, 3))
    squared = np.corrcoef(true, (true[:, None] + noise).mean(axis=1))[0, 1] ** 2
    assert squared == pytest.approx(truth, abs=0.01)


def test_shares_of_three_components_cover_the_truth_and_add_up_to_one():
    tables = simulated(400, rows=60, columns=3, sd_row=0.6, sd_column=0.5, sd_residual=0.8)
    total = 0.6**2 + 0.5**2 + 0.8**2
    found = [variance_shares(two_way_anova(table), n_draws=2000) for table in tables]
    for name, sd in (("row", 0.6), ("column", 0.5), ("residual", 0.8)):
        shares = [getattr(one, name) for one in found]
        covered = np.mean([one.low <= sd**2 / total <= one.high for one in shares])
        assert 0.93 <= covered <= 0.98, name
    one = found[0]
    assert one.row.value + one.column.value + one.residual.value == pytest.approx(1)


def test_without_differences_between_columns_a_share_is_the_exact_one_of_the_pair():
    values = simulated(1, rows=60, columns=3, sd_row=0.6, sd_column=0, sd_residual=0.8)[0]
    values -= values.mean(axis=0)
    anova = two_way_anova(values)
    share, exact = variance_shares(anova).row, share_of_pair(row_ratio(anova))
    assert share.value == pytest.approx(exact.value)
    assert (share.low, share.high) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_a_table_with_holes_or_one_row_or_no_residual_is_refused():
    with pytest.raises(ValueError, match="two rows and two columns, got shape"):
        two_way_anova(np.ones((1, 3)))
    with pytest.raises(ValueError, match="every value"):
        two_way_anova(np.array([[1.0, np.nan], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="leave a residual"):
        two_way_anova(np.ones((3, 3)))
    with pytest.raises(ValueError, match="leave a residual"):
        two_way_anova(0.1 + np.arange(3)[:, None] * 0.1 + np.arange(4)[None, :] * 0.7)
