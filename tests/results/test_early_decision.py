"""How early final operations lead, on searches small enough to count by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.early_decision import (
    LAST,
    early_decision_curves,
    early_decision_section,
    early_decision_table,
    leading_shares,
)
from results.schema import conform, empty
from results.store import read_tables

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
OPERATIONS = ("none", "a", "b", "c", "d", "e", "f", "g")


def job(job_id, pruner="none", operation="a", search_key=None, **more):
    levels = [[[0, 2, operation], [1, 2, "b"]]]
    row = {
        "job_id": job_id, "dataset": "acdc", "backbone": "unet", "pruner": pruner, "seed": 0,
        "status": "done", "genotype": json.dumps({"n_nodes": 1, "levels": levels}),
        "search_key": search_key or f"k{job_id}", "search_s": 1.0,
    }  # fmt: skip
    return row | more


def jobs(*rows):
    return conform("jobs", pd.DataFrame(rows))


def epoch(job_id, number, *edges, level=0):
    """Rows of one epoch: for each edge the operations in the order of their importance.

    Those that are not named are gone.
    """
    return [
        {
            "job_id": job_id, "search_key": f"k{job_id}", "epoch": number, "level": level,
            "edge": edge, "source": edge, "target": 2, "operation": name,
            "importance": (8 - order.index(name)) / 36 if name in order else 0.0,
            "active": name in order,
        }
        for edge, order in enumerate(edges)
        for name in OPERATIONS
    ]  # fmt: skip


def trajectories(*epochs):
    return conform("trajectories", pd.DataFrame([row for rows in epochs for row in rows]))


ALL_A = ("a", "b", "c", "d", "e", "f", "g", "none")
B_FOURTH = ("c", "d", "e", "b", "a", "f", "g", "none")


def test_a_final_operation_leads_from_the_third_place_on_and_not_from_the_fourth():
    third = ("d", "e", "a", "b", "c", "f", "g", "none")
    found = leading_shares(
        jobs(job("1")), trajectories(epoch("1", 0, third, B_FOURTH), epoch("1", 5, ALL_A, ALL_A))
    )
    assert found["epoch"].tolist() == [0, 5]
    # Final operations: a on the first edge, b on the second.
    assert found["share"].tolist() == [0.5, 1.0]
    assert found["chance"].tolist() == pytest.approx([3 / 7, 3 / 7])


def test_none_takes_no_place_in_the_order():
    behind_none = ("none", "d", "e", "a", "b", "c", "f", "g")
    found = leading_shares(jobs(job("1")), trajectories(epoch("1", 0, behind_none, ALL_A)))
    assert found["share"].tolist() == [1.0]


def test_what_is_gone_does_not_lead_and_chance_counts_what_is_there():
    rows = [
        epoch("1", 0, ("c", "d", "e", "b", "none"), ALL_A),  # a, the final one, is gone
        epoch("1", 1, ("c", "d", "e", "a"), ("b", "none")),  # fourth of four; one of one
        epoch("1", 2, ("e", "a"), ("b",)),
    ]
    found = leading_shares(jobs(job("1")), trajectories(*rows))
    assert found["share"].tolist() == [0.5, 0.5, 1.0]
    assert found["chance"].tolist() == pytest.approx([(3 / 4 + 3 / 7) / 2, (3 / 4 + 1) / 2, 1.0])


def test_an_edge_that_lost_all_but_none_still_counts():
    rows = trajectories(epoch("1", 0, ALL_A, ALL_A), epoch("1", 1, ("none",), ALL_A))
    found = leading_shares(jobs(job("1")), rows)
    assert found["share"].tolist() == [1.0, 0.5]
    assert found["chance"].tolist() == pytest.approx([3 / 7, 3 / 14])


def test_equal_operations_share_the_places_that_are_left():
    table = trajectories(epoch("1", 0, ALL_A, ALL_A))
    same = table.assign(importance=1 / 8)
    # Seven of the same importance share three places.
    assert leading_shares(jobs(job("1")), same)["share"].tolist() == pytest.approx([3 / 7])
    # b is level with c and d behind a and g: three share the third place. a leads the other edge.
    importance = {"a": 0.3, "g": 0.2, "b": 0.1, "c": 0.1, "d": 0.1}
    level = table.assign(importance=table["operation"].map(importance).fillna(0.01))
    found = leading_shares(jobs(job("1")), level)
    assert found["share"].tolist() == pytest.approx([(1 + 1 / 3) / 2])


def test_every_level_of_a_genotype_is_looked_up_on_its_own():
    cells = json.dumps({"n_nodes": 1, "levels": [[[0, 2, "a"]], [[0, 2, "g"]]]})
    rows = trajectories(epoch("1", 0, ALL_A, level=0), epoch("1", 0, ALL_A, level=1))
    found = leading_shares(jobs(job("1", genotype=cells)), rows)
    assert found["share"].tolist() == [0.5]


SHORT = trajectories(
    epoch("1", 0, B_FOURTH, B_FOURTH), epoch("1", 1, ALL_A, B_FOURTH),
    epoch("2", 0, ALL_A, B_FOURTH), epoch("2", 5, ALL_A, ALL_A),
    epoch("3", 0, ALL_A, ALL_A),
)  # fmt: skip
THREE = jobs(job("1"), job("2"), job("3", pruner="shapley"), job("4", pruner="random"))


def test_the_table_has_means_over_searches_and_their_last_epochs():
    table = early_decision_table(THREE, SHORT).set_index(["pruner", "epoch"])
    assert set(table.index) == {
        ("none", LAST), ("none", 0), ("none", 5), ("shapley", LAST), ("shapley", 0),
    }  # fmt: skip
    assert table.loc[("none", 0), ["n", "share"]].tolist() == [2, 0.25]
    assert table.loc[("none", 5), ["n", "share"]].tolist() == [1, 1.0]
    # The first search ended with epoch 1 and half of its operations in front, the second with 5.
    assert table.loc[("none", LAST), ["n", "share"]].tolist() == [2, 0.75]
    assert table.loc[("none", 0), "n_searches"] == 2


def test_a_curve_ends_with_the_first_search():
    curves = early_decision_curves(THREE, SHORT)
    none = curves[curves["pruner"] == "none"]
    assert none["epoch"].tolist() == [0]
    assert none["share"].tolist() == [0.25]


def test_a_search_that_several_jobs_retrain_counts_once_in_an_arm():
    again = epoch("9", 0, ALL_A, ALL_A)
    table = trajectories(epoch("1", 0, ALL_A, ALL_A), again, epoch("2", 0, B_FOURTH, B_FOURTH))
    found = early_decision_table(
        jobs(job("1"), job("9", search_key="k1"), job("2")), table
    ).set_index("epoch")  # fmt: skip
    assert found.loc[0, ["n_searches", "n", "share"]].tolist() == [2, 2, 0.5]


def test_the_section_shows_percents_chance_and_missing_searches():
    found = early_decision_section(THREE, SHORT, "cell_form replace")
    assert found.title == "How early the final operations lead (cell_form replace)"
    assert found.header[3:] == ("searches", "0", "5", "last")
    lines = {line[2]: line[3:] for line in found.lines}
    assert lines == {
        "none": ("2", "25 (43)", "100 (43), n 1", "75 (43)"),
        "shapley": ("1", "100 (43)", "—", "100 (43)"),
    }


def test_arms_without_searches_have_no_line():
    only = jobs(job("4", pruner="random", search_key=None) | {"search_key": ""})
    assert early_decision_section(only, SHORT, "").lines == ()
    assert early_decision_section(THREE, empty("trajectories"), "").lines == ()


def test_the_record_of_full_searches_shows_what_was_counted_apart_from_this():
    found = read_tables(RECORDS / "acdc_claims_withdrawn")
    full = found["jobs"][found["jobs"]["pruner"] == "none"]
    table = early_decision_table(full, found["trajectories"])
    at = table[table["epoch"] == 45]
    # With `none` in the order it is 35 of 40 on both backbones; without, as here, 36 and 35.
    assert sorted(at["share"]) == pytest.approx([35 / 40, 36 / 40])
    assert np.allclose(table["chance"], 3 / 7)
    assert (table.loc[table["epoch"] == LAST, "share"] == 1).all()
