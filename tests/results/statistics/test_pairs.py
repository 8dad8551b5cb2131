"""What pairs two values, and the order in which they are averaged."""

import numpy as np
import pandas as pd
import pytest

from results.statistics.pairs import (
    by_search,
    is_replicate,
    mean_over_patients,
    mean_per_patient,
    paired,
    scored,
)


def table(*rows):
    names = ["pruner", "seed", "patient_id", "volume_id", "class_name", "dice"]
    found = pd.DataFrame(rows, columns=names)
    found["job_id"] = found["pruner"] + found["seed"].astype(str)
    jobs = found[["job_id", "pruner", "seed"]].drop_duplicates()
    return jobs, found.drop(columns=["pruner", "seed"]).assign(subset="test")


def test_volumes_are_averaged_first_then_patients_then_classes():
    jobs, patients = table(
        ("a", 0, "p", "p1", "lv", 0.2),
        ("a", 0, "p", "p2", "lv", 0.4),
        ("a", 0, "q", "q1", "lv", 0.7),
        ("a", 0, "q", "q1", "rv", 0.1),
        *[("b", 0, *place, 0.0) for place in [
            ("p", "p1", "lv"), ("p", "p2", "lv"), ("q", "q1", "lv"), ("q", "q1", "rv")
        ]],
    )  # fmt: skip
    pairs = paired(scored(jobs, patients, "test"), "a", "b")
    assert mean_over_patients(pairs).tolist() == pytest.approx([((0.3 + 0.7) / 2 + 0.1) / 2])
    assert mean_per_patient(pairs).tolist() == pytest.approx([0.3, (0.7 + 0.1) / 2])


def test_only_values_of_the_subset_that_both_arms_have_are_paired():
    jobs, patients = table(
        ("a", 0, "p", "p1", "lv", 0.5), ("b", 0, "p", "p1", "lv", 0.4),
        ("a", 0, "q", "q1", "lv", 0.5), ("b", 0, "q", "q1", "lv", np.nan),
        ("a", 1, "p", "p1", "lv", 0.9), ("b", 2, "p", "p1", "lv", 0.1),
    )  # fmt: skip
    pairs = paired(scored(jobs, patients, "test"), "a", "b")
    assert pairs["gap"].tolist() == pytest.approx([0.1])
    assert paired(scored(jobs, patients, "validation"), "a", "b").empty


def test_the_same_seed_on_another_split_is_another_search():
    jobs, patients = table(
        ("a", 0, "p", "p1", "lv", 0.5), ("b", 0, "p", "p1", "lv", 0.4),
    )  # fmt: skip
    other = jobs.assign(job_id=jobs["job_id"] + "x", config_split_fold=1)
    both = pd.concat([jobs.assign(config_split_fold=0), other])
    scores = pd.concat([patients, patients.assign(job_id=patients["job_id"] + "x")])
    values = scored(both, scores, "test")
    assert values["search"].nunique() == 2
    assert len(mean_over_patients(paired(values, "a", "b"))) == 2
    searches, found = by_search(values, ["a", "b", "absent"])
    assert len(searches) == 0
    assert found.shape == (0, 3)
    searches, found = by_search(values, ["b", "a"])
    assert found.tolist() == [[0.4, 0.5], [0.4, 0.5]]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("config_split_fold", True),
        ("config_split_seed", True),
        ("config_retrain_seed", True),
        ("config_pretrain_seed", True),
        ("config_split_n_train_patients", False),
        ("config_retrain_epochs", False),
    ],
)
def test_what_repeats_a_job_is_no_setting_of_it(column, expected):
    assert is_replicate(column) is expected
