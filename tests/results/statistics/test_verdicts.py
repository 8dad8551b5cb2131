"""Holm's correction against another implementation; verdicts: see test_comparison."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from results.statistics.verdicts import holm


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_holm_is_that_of_statsmodels(n):
    p_values = np.random.default_rng(n).uniform(0, 0.2, n)
    p_values[-1] = p_values[0]
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values.tolist()) == pytest.approx(expected)


def test_undefined_values_do_not_count_and_an_empty_family_is_none():
    found = holm([0.03, float("nan"), 0.02])
    assert found[0] == pytest.approx(0.04)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(0.04)
    assert holm([]) == []
