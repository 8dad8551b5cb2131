"""Intervals and tests against scipy, statsmodels-free references and hand-made values."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from results.statistics.intervals import (
    bca,
    hierarchical_bootstrap,
    mixed_model,
    nadeau_bengio,
    sign_flip,
    smallest_sign_flip,
    student,
    student_above,
)

GAPS = np.array([0.02, -0.01, 0.03, 0.015, 0.005, 0.012])


def pairs_of(gaps, within, n_patients=20, *, crossed=False, patient_sd=0.0):
    """Paired values whose searches have these gaps, patients scattering about them."""
    generator = np.random.default_rng(1)
    of_patient = patient_sd * generator.standard_normal(n_patients)
    rows = [
        {
            "search": str(search), "class_name": "lv",
            "patient_id": f"{place}" if crossed else f"{search}-{place}",
            "gap": gap + within * generator.standard_normal() + of_patient[place],
        }
        for search, gap in enumerate(gaps)
        for place in range(n_patients)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_students_interval_and_p_are_scipys():
    found, expected = student(GAPS), stats.ttest_1samp(GAPS, 0)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    one_sided = stats.ttest_1samp(GAPS, 0.005, alternative="greater").pvalue
    assert student_above(GAPS, 0.005) == pytest.approx(one_sided)


def test_one_search_has_no_interval_and_equal_ones_have_a_p():
    assert np.isnan(student(GAPS[:1]).low)
    assert np.isnan(student_above(GAPS[:1], 0.0))
    found = student(np.full(10, 0.01))
    assert (found.low, found.high) == (0.01, 0.01)
    assert found.p == pytest.approx(2 / 2**10)
    assert student_above(np.full(4, 0.01), 0.0) == 1 / 16
    assert student_above(np.full(4, -0.01), 0.0) == 1.0
    assert student(np.zeros(5)).p == 1.0


def test_the_sign_flip_test_counts_every_flip():
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip(np.array([1.0, 2.0, -3.0])) == 1.0
    expected = stats.permutation_test(
        (GAPS,), np.sum, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip(GAPS) == pytest.approx(expected)
    many = np.random.default_rng(0).normal(0.5, 1.0, 30)
    assert sign_flip(many) == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)


@pytest.mark.parametrize("n", [2, 5, 16, 17, 40])
def test_the_smallest_p_is_that_of_gaps_of_one_sign(n):
    assert sign_flip(np.linspace(1, 2, n)) >= smallest_sign_flip(n)
    assert sign_flip(np.linspace(1, 1.01, n)) == pytest.approx(smallest_sign_flip(n), rel=1.01)


def test_bca_is_near_students_and_undefined_where_nothing_varies():
    gaps = np.random.default_rng(3).normal(0.01, 0.02, 40)
    found, expected = bca(gaps), student(gaps)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)
    assert np.isnan(bca(np.full(5, 0.1)).low)


def test_the_hierarchical_bootstrap_sees_both_scatters():
    same = hierarchical_bootstrap(pairs_of(np.zeros(10), within=0.05))
    # Patients alone: deviation of the mean 0.05 / sqrt(200).
    assert same.high - same.low == pytest.approx(2 * 1.96 * 0.05 / np.sqrt(200) * 2**0.5, rel=0.3)
    apart = np.random.default_rng(5).normal(0, 0.05, 10)
    found = hierarchical_bootstrap(pairs_of(apart, within=0.0))
    width = 2 * 1.96 * apart.std() / np.sqrt(10)
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert np.isnan(hierarchical_bootstrap(pairs_of([0.1], within=0.1)).low)


@pytest.mark.parametrize("crossed", [False, True])
def test_the_mixed_model_recovers_a_balanced_design(crossed):
    """Nested and balanced: the error of the mean is that of the means of searches."""
    gaps = np.random.default_rng(2).normal(0.02, 0.03, 12)
    pairs = pairs_of(gaps, within=0.02, crossed=crossed, patient_sd=0.02 if crossed else 0.0)
    found = mixed_model(pairs)
    means = pairs.groupby("search")["gap"].mean()
    middle = (found.low + found.high) / 2
    assert middle == pytest.approx(means.mean(), abs=1e-6)
    error = (found.high - found.low) / 2 / 1.959964
    if crossed:
        assert error > means.std(ddof=1) / np.sqrt(12)  # patients do not average out
    else:
        assert error == pytest.approx(means.std(ddof=1) / np.sqrt(12), rel=1e-3)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(middle) / error))


def test_the_mixed_model_of_searches_that_do_not_differ_is_that_of_patients():
    pairs = pairs_of(np.zeros(6), within=0.02)
    pairs["gap"] -= pairs.groupby("search")["gap"].transform("mean")
    pairs["gap"] += 0.004
    found = mixed_model(pairs)
    error = pairs["gap"].std(ddof=1) / np.sqrt(len(pairs))
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(error, rel=0.02)
    assert np.isnan(mixed_model(pairs_of([0.1, 0.2], within=0.1)).low)


def test_the_corrected_t_adds_the_overlap_of_training_sets():
    plain, found = student(GAPS), nadeau_bengio(GAPS, n_train=208, n_test=26)
    factor = np.sqrt((1 / 6 + 26 / 208) / (1 / 6))
    assert found.high - found.low == pytest.approx(factor * (plain.high - plain.low))
    assert np.isnan(nadeau_bengio(GAPS, n_train=0, n_test=26).low)
