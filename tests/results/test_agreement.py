import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from results.agreement import agreement_table, mean_jaccard, mean_kendall_tau, operation_kappa


def genotype(*edges):
    return json.dumps({"n_nodes": 2, "levels": [[list(edge) for edge in edges]]})


A = genotype((0, 2, "sep"), (1, 2, "max"), (0, 3, "dil"), (1, 3, "avg"))
B = genotype((0, 2, "sep"), (1, 2, "avg"), (0, 3, "dil"), (2, 3, "avg"))


def test_jaccard_is_the_share_of_common_choices():
    assert mean_jaccard([A, A]) == 1
    assert mean_jaccard([A, B]) == pytest.approx(2 / 6)
    assert mean_jaccard([A, A, B]) == pytest.approx((1 + 2 / 6 + 2 / 6) / 3)
    assert np.isnan(mean_jaccard([A]))


def test_kappa_equals_its_definition_and_is_one_for_equal_cells():
    assert operation_kappa([A, A, A]) == pytest.approx(1)
    assert np.isnan(operation_kappa([A]))
    # Subjects: the five edges that either chose; two raters, so agreement is equality.
    votes = [("sep", "sep"), ("max", "avg"), ("dil", "dil"), ("avg", "-"), ("-", "avg")]
    observed = np.mean([a == b for a, b in votes])
    listed = [vote for pair in votes for vote in pair]
    expected = sum((listed.count(name) / len(listed)) ** 2 for name in set(listed))
    assert operation_kappa([A, B]) == pytest.approx((observed - expected) / (1 - expected))


def test_random_cells_agree_by_chance():
    generator = np.random.default_rng(0)
    operations = ["a", "b", "c", "d"]
    cells = [
        genotype(*((edge, 2, operations[generator.integers(4)]) for edge in range(200)))
        for _ in range(4)
    ]
    assert operation_kappa(cells) == pytest.approx(0, abs=0.08)


def trajectory(key, importances, removed=()):
    """Two epochs of one edge; removed operations are active in the first alone."""
    return pd.DataFrame(
        {
            "search_key": key, "epoch": epoch, "level": 0, "edge": 0, "operation": name,
            "importance": value, "active": epoch == 0 or name not in removed,
        }
        for epoch in range(2)
        for name, value in importances.items()
    )  # fmt: skip


def test_kendall_ranks_by_survival_then_importance():
    first = trajectory("one", {"a": 0.5, "b": 0.3, "c": 0.2})
    same = trajectory("two", {"a": 0.4, "b": 0.35, "c": 0.25})
    pruned = trajectory("three", {"a": 0.5, "b": 0.3, "c": 0.2}, removed=["a"])
    assert mean_kendall_tau(pd.concat([first, same])) == pytest.approx(1)
    expected = kendalltau([3, 2, 1], [1, 3, 2]).statistic
    assert mean_kendall_tau(pd.concat([first, pruned])) == pytest.approx(expected)
    taus = [1, expected, expected]
    assert mean_kendall_tau(pd.concat([first, same, pruned])) == pytest.approx(np.mean(taus))
    assert len(list(combinations("abc", 2))) == len(taus)
    assert np.isnan(mean_kendall_tau(first))


def test_none_has_no_rank_since_pruners_keep_it_on_purpose():
    first = trajectory("one", {"a": 0.5, "b": 0.3, "none": 0.2}, removed=["a", "b"])
    second = trajectory("two", {"a": 0.3, "b": 0.5, "none": 0.2}, removed=["a", "b"])
    assert mean_kendall_tau(pd.concat([first, second])) == pytest.approx(-1)


def arms(*rows, **more):
    names = ["job_id", "pruner", "genotype", "search_key"]
    frame = pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows])
    return frame.assign(dataset="acdc", backbone="unet", **more)


SEARCHES = pd.concat(
    [trajectory("one", {"a": 0.6, "b": 0.4}), trajectory("two", {"a": 0.4, "b": 0.6})]
)


def test_the_table_has_a_row_for_each_arm_with_cells():
    jobs = arms(
        ("1", "none", A, "one"), ("2", "none", B, "two"), ("3", "random", A, ""),
        ("4", "random", B, ""), ("5", "no_cell", "", ""),
    )  # fmt: skip
    table = agreement_table(jobs, SEARCHES).set_index("pruner")
    assert list(table.index) == ["none", "random"]
    assert table.loc["none", "kendall_tau"] == pytest.approx(-1)
    assert table.loc["random", "jaccard"] == pytest.approx(2 / 6)
    assert np.isnan(table.loc["random", "kendall_tau"])


def test_a_search_that_several_jobs_retrain_counts_once_and_so_does_a_given_cell():
    jobs = arms(
        ("1", "none", A, "one"), ("2", "none", A, "one"), ("3", "none", B, "two"),
        ("4", "uniform", A, None), ("5", "uniform", A, None), ("6", "uniform", A, ""),
    )  # fmt: skip
    table = agreement_table(jobs, SEARCHES).set_index("pruner")
    assert table["n"].to_dict() == {"none": 2, "uniform": 1}
    assert table.loc["none", "jaccard"] == pytest.approx(2 / 6)
    assert np.isnan(table.loc["uniform", "jaccard"])
    assert np.isnan(table.loc["uniform", "jaccard_p"])


def test_agreement_stands_beside_that_of_random_cells_of_the_same_candidates():
    jobs = arms(
        ("1", "none", A, "one"), ("2", "none", A, "two"),
        config_cell_operations="none,sep,max,dil,avg,x,y,z",
    )  # fmt: skip
    row = agreement_table(jobs, SEARCHES).iloc[0]
    assert (row["jaccard"], row["kappa"]) == pytest.approx((1, 1))
    # Two nodes keep 1 of 1 and 1 of 3 pairs of sources; four operations, each the same 1 in 7.
    assert row["jaccard_p"] == pytest.approx(1 / 4001, abs=3 / 4001)
    assert 0 <= row["jaccard_low"] < row["jaccard_high"] < 0.5
    assert row["kappa_low"] < 0 < row["kappa_high"] < 1
    few = agreement_table(jobs.assign(config_cell_operations="none,sep,max"), SEARCHES).iloc[0]
    assert few["jaccard_high"] > row["jaccard_high"]
    # One edge, two operations: τ is -1 or 1, each in half of the draws.
    assert (row["kendall_tau"], row["kendall_tau_p"]) == (-1, 1)
    assert (row["kendall_tau_low"], row["kendall_tau_high"]) == (-1, 1)


def test_an_arm_that_draws_from_fewer_operations_is_judged_by_these():
    jobs = arms(
        ("1", "random", A, None), ("2", "random", B, None),
        config_cell_operations="none,sep,max,dil,avg,x,y,z",
    )  # fmt: skip
    of_all = agreement_table(jobs.assign(config_pruner_operations=""), SEARCHES).iloc[0]
    of_few = agreement_table(
        jobs.assign(config_pruner_operations="sep,max,dil,avg"), SEARCHES
    ).iloc[0]
    assert of_few["jaccard"] == of_all["jaccard"]
    assert of_few["jaccard_p"] > of_all["jaccard_p"]


def test_without_recorded_candidates_there_is_a_value_and_no_null():
    row = agreement_table(
        arms(("1", "random", A, None), ("2", "random", B, None)), SEARCHES
    ).iloc[0]  # fmt: skip
    assert row["jaccard"] == pytest.approx(2 / 6)
    assert np.isnan(
        row[["jaccard_low", "jaccard_high", "jaccard_p", "kappa_p"]].astype(float)
    ).all()
