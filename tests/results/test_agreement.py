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


def test_the_table_has_a_row_for_each_arm_with_cells():
    jobs = pd.DataFrame(
        {
            "job_id": ["1", "2", "3", "4", "5"],
            "dataset": "acdc", "backbone": "unet",
            "pruner": ["none", "none", "random", "random", "no_cell"],
            "genotype": [A, B, A, A, ""],
            "search_key": ["one", "two", "", "", ""],
        }
    )  # fmt: skip
    searches = pd.concat(
        [trajectory("one", {"a": 0.6, "b": 0.4}), trajectory("two", {"a": 0.4, "b": 0.6})]
    )
    table = agreement_table(jobs, searches).set_index("pruner")
    assert list(table.index) == ["none", "random"]
    assert table.loc["none", "kendall_tau"] == pytest.approx(-1)
    assert table.loc["random", "jaccard"] == 1
    assert np.isnan(table.loc["random", "kendall_tau"])
