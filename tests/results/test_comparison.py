"""Tables of comparisons: pairs, claims, absent predictions, Holm over the whole family."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from results.comparison import (
    claims_table,
    comparison_table,
    friedman_table,
    sensitivity_table,
    unpredicted,
    with_verdicts,
)
from results.declared import Claim


def rows_of(gaps, arm="js", reference="none", *, n_patients=8, noise=0.0, backbone="unet"):
    """Jobs and patients of two arms whose searches differ by `gaps`, one per seed."""
    generator = np.random.default_rng(0)
    jobs, patients = [], []
    for seed, gap in enumerate(gaps):
        for pruner, shift in ((reference, 0.0), (arm, gap)):
            job_id = f"{backbone}-{pruner}-{seed}"
            jobs.append(
                {
                    "job_id": job_id, "dataset": "acdc", "backbone": backbone, "pruner": pruner,
                    "seed": seed, "config_split_fold": seed, "n_val_patients": 4,
                    "genotype": "" if pruner == "no_cell" else "{}",
                }
            )  # fmt: skip
            for place in range(n_patients):
                own = noise * generator.standard_normal() if pruner == arm else 0.0
                patients += [
                    {
                        "job_id": job_id, "subset": "test", "patient_id": f"{seed}-{place}",
                        "volume_id": f"{seed}-{place}-a", "class_name": name, "state": "ok",
                        "dice": 0.5 + 0.01 * place + shift + own,
                    }
                    for name in ("lv", "rv")
                ]  # fmt: skip
    return pd.DataFrame(jobs), pd.DataFrame(patients)


def judged(jobs, patients, *claims):
    (table,) = with_verdicts([claims_table(jobs, patients, claims)])
    return table


def test_the_unit_is_the_search_and_the_test_is_students():
    gaps = [0.02, 0.03, 0.025, 0.01, 0.04]
    table = comparison_table(*rows_of(gaps), [("js", "none")])
    (row,) = table.to_dict("records")
    expected = ttest_1samp(gaps, 0)
    interval = expected.confidence_interval(0.95)
    assert row["difference"] == pytest.approx(np.mean(gaps))
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["n_searches"], row["n_patients"]) == (5, 40)


def test_a_seed_that_one_arm_lost_is_left_out_of_both():
    """Seed 1 is harder for every arm; the arm that lost it must not look better for that."""
    jobs, patients = rows_of([0.0, 0.0])
    hard = patients["job_id"].str.endswith("-1")
    patients.loc[hard, "dice"] -= 0.2
    # The folds share their test patients, as with an official test part.
    patients["patient_id"] = patients["patient_id"].str.split("-").str[1]
    patients["volume_id"] = patients["patient_id"]
    lost = jobs[jobs["job_id"] != "unet-js-1"]
    (row,) = comparison_table(lost, patients, [("js", "none")]).to_dict("records")
    assert row["difference"] == pytest.approx(0.0, abs=1e-12)
    assert row["n_searches"] == 1


def test_a_correct_empty_prediction_is_not_held_against_a_false_one():
    """Class rv is absent: js says so (undefined), none has one false voxel there (0)."""
    jobs, patients = rows_of([-0.1] * 5)
    absent = patients["class_name"] == "rv"
    own = absent & patients["job_id"].str.contains("js")
    patients.loc[own, "dice"] = np.nan
    patients.loc[absent & ~own, "dice"] = 0.0
    (row,) = comparison_table(jobs, patients, [("js", "none")]).to_dict("records")
    assert row["difference"] == pytest.approx(-0.1)


def test_retrainings_of_one_search_are_one_unit():
    jobs, patients = rows_of([0.02, 0.04])
    again = jobs.assign(job_id=jobs["job_id"] + "r", config_retrain_seed=1)
    both = pd.concat([jobs.assign(config_retrain_seed=0), again])
    more = patients.assign(job_id=patients["job_id"] + "r")
    more.loc[more["job_id"].str.contains("js"), "dice"] += 0.02
    scores = pd.concat([patients, more])
    (row,) = comparison_table(both, scores, [("js", "none")]).to_dict("records")
    assert row["n_searches"] == 2
    assert row["difference"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("gaps", "kind", "verdict"),
    [
        ([0.02, 0.03, 0.025, 0.01, 0.04], "different", "better"),
        ([-0.02, -0.03, -0.025, -0.01, -0.04], "different", "worse"),
        ([0.02, 0.03, 0.025, 0.01, 0.04], "better", "better"),
        ([-0.02, -0.03, -0.025, -0.01, -0.04], "better", "not shown"),
        ([0.001, -0.002, 0.0, -0.001, 0.001], "not_inferior", "not inferior"),
        ([0.001, -0.002, 0.0, -0.001, 0.001], "equivalent", "equivalent"),
        ([0.03, 0.031, 0.029, 0.03, 0.031], "equivalent", "not shown"),
        ([0.03, -0.08, 0.02, 0.01, -0.04], "not_inferior", "not shown"),
        ([0.01] * 5, "different", "not shown"),
        ([0.01] * 6, "different", "better"),
        ([0.0] * 5, "different", "the same in every value"),
        ([0.00003, 0.00004, 0.00003, 0.00004, 0.00003], "better", "below 0.01 points"),
        ([0.02, 0.03, 0.025, 0.01], "different", "too few searches"),
    ],
)
def test_the_verdict_answers_the_claim_that_was_declared(gaps, kind, verdict):
    table = judged(*rows_of(gaps), Claim(arm="js", reference="none", kind=kind))
    assert list(table["verdict"]) == [verdict]


def test_one_network_each_is_judged_by_patients_and_in_those_words():
    jobs, patients = rows_of([0.05], n_patients=12, noise=0.005)
    table = judged(jobs, patients, Claim(arm="js", reference="none"))
    assert list(table["verdict"]) == ["these two trained networks differ"]
    few = patients[patients["patient_id"].isin([f"0-{place}" for place in range(5)])]
    table = judged(jobs, few, Claim(arm="js", reference="none"))
    assert list(table["verdict"]) == ["too few patients"]


def test_there_is_no_verdict_where_a_class_is_predicted_nowhere():
    jobs, patients = rows_of([0.02, 0.03, 0.025, 0.01, 0.04])
    own = (patients["class_name"] == "rv") & patients["job_id"].str.contains("js")
    patients.loc[own, "state"] = "pred_empty"
    assert unpredicted(jobs, patients, "test") == {"js": ("rv",)}
    table = judged(jobs, patients, Claim(arm="js", reference="none"))
    assert list(table["verdict"]) == ["rv predicted nowhere"]
    # One volume with a prediction is enough, and a class that no reference has is no gap.
    patients.loc[own[own].index[0], "state"] = "ok"
    assert unpredicted(jobs, patients, "test") == {}
    patients.loc[own, "state"] = "both_empty"
    assert unpredicted(jobs, patients, "test") == {}


def test_holm_corrects_over_all_claims_and_groups_of_the_sweep():
    """p = 0.03 alone is a verdict; in a family of four it is none."""
    gaps = [0.001, 0.004, 0.002, 0.0045, 0.0005]
    claim = Claim(arm="js", reference="none")
    jobs, patients = rows_of(gaps)
    assert ttest_1samp(gaps, 0).pvalue == pytest.approx(0.048, abs=0.02)
    assert list(judged(jobs, patients, claim)["verdict"]) == ["better"]
    tables = [claims_table(jobs, patients, [claim]) for _ in range(4)]
    judged_together = with_verdicts([*tables, pd.DataFrame()])
    assert [list(table["verdict"]) for table in judged_together[:4]] == [["not shown"]] * 4
    assert judged_together[0]["p_holm"][0] == pytest.approx(4 * tables[0]["p"][0])
    assert judged_together[4].empty


def test_arms_are_compared_on_their_own_backbone_and_only_where_both_are():
    one, two = rows_of([0.01, 0.02]), rows_of([0.03, 0.04], backbone="resnet")
    jobs, patients = (pd.concat(parts) for parts in zip(one, two, strict=True))
    table = comparison_table(jobs, patients, [("js", "none"), ("js", "absent")])
    assert list(table["backbone"]) == ["resnet", "unet"]
    assert list(table["difference"]) == pytest.approx([0.035, 0.015])
    assert comparison_table(jobs, patients, [("js", "absent")]).empty


def test_other_methods_stand_beside_and_the_corrected_t_is_wider():
    jobs, patients = rows_of([0.02, 0.03, 0.025, 0.01, 0.04], noise=0.01)
    pairs = [("js", "none")]
    (plain,) = comparison_table(jobs, patients, pairs).to_dict("records")
    (row,) = sensitivity_table(jobs, patients, pairs).to_dict("records")
    for name in ("bca", "hierarchical", "mixed"):
        assert 0 < row[name].low < plain["difference"] < row[name].high < 0.05
    # 40 patients, 8 test and 4 validate: 28 train, so the variance is 1/5 + 8/28 instead of 1/5.
    width = (row["corrected_t"].high - row["corrected_t"].low) / (plain["high"] - plain["low"])
    assert width == pytest.approx(np.sqrt(1 + 5 * 8 / 28))
    assert row["sign_flip"] == row["smallest_p"] == 1 / 16


def test_friedman_ranks_arms_with_cells_over_the_searches_that_all_have():
    gaps = {"a": [0.03, 0.02, 0.04, 0.05], "b": [0.01, 0.015, 0.02, 0.01], "no_cell": [0.2] * 4}
    parts = [rows_of(values, arm) for arm, values in gaps.items()]
    jobs = pd.concat([jobs for jobs, _ in parts]).drop_duplicates("job_id")
    patients = pd.concat([patients for _, patients in parts])
    (row,) = friedman_table(jobs, patients).to_dict("records")
    assert row["n_arms"] == 3
    assert row["n_blocks"] == 4
    assert [arm for _, arm in row["ranks"]] == ["a", "b", "none"]
    assert row["statistic"] == pytest.approx(8.0)  # every block agrees: n (k - 1)
    assert friedman_table(jobs[jobs["pruner"] != "b"], patients).empty
