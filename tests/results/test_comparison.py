import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, wilcoxon

from results.comparison import comparison_table, paired_difference, patient_dice


def series(values):
    return pd.Series(values, index=[f"p{number:03d}" for number in range(len(values))])


def test_the_interval_is_near_the_normal_one_and_the_p_is_wilcoxons():
    generator = np.random.default_rng(1)
    reference = generator.random(200)
    gaps = generator.normal(0.004, 0.05, size=200)
    found = paired_difference(series(reference + gaps), series(reference))
    half = norm.ppf(0.975) * gaps.std(ddof=1) / np.sqrt(200)
    assert found.mean == pytest.approx(gaps.mean())
    assert found.low == pytest.approx(gaps.mean() - half, abs=0.001)
    assert found.high == pytest.approx(gaps.mean() + half, abs=0.001)
    assert found.p == pytest.approx(wilcoxon(gaps).pvalue)
    assert found.n_patients == 200


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (0.03, 0.01, "better"),
        (-0.002, 0.005, "not inferior"),
        (-0.05, 0.01, "inferior"),
        (-0.012, 0.02, "worse"),
        (-0.01, 0.05, "undecided"),
    ],
)
def test_the_verdict_follows_the_interval_at_one_dice_point(shift, spread, verdict):
    noise = np.random.default_rng(0).normal(size=40)
    noise -= noise.mean()
    reference = np.full(40, 0.8)
    found = paired_difference(series(reference + shift + spread * noise), series(reference))
    assert found.verdict == verdict


def test_patients_that_one_arm_lacks_are_left_out_and_few_patients_decide_nothing():
    arm, reference = series([0.5, 0.6, 0.7]), series([0.4, 0.4])
    assert paired_difference(arm, reference).n_patients == 2
    alone = paired_difference(arm, series([0.5]))
    assert alone.verdict == "too few patients"
    assert alone.mean == 0
    assert np.isnan(paired_difference(arm, series([])).mean)
    equal = paired_difference(arm, arm)
    assert (equal.mean, equal.low, equal.high, equal.p) == (0, 0, 0, 1)


def patient_rows(job_id, dice_of, subset="test"):
    return [
        {
            "job_id": job_id, "subset": subset, "patient_id": patient, "volume_id": f"{patient}_1",
            "class_name": name, "dice": dice,
        }
        for patient, by_class in dice_of.items()
        for name, dice in by_class.items()
    ]  # fmt: skip


def test_patient_dice_averages_volumes_then_classes_then_seeds():
    rows = [
        *patient_rows("one", {"p1": {"lv": 0.8, "rv": 0.4}}),
        {**patient_rows("one", {"p1": {"lv": 0.6}})[0], "volume_id": "p1_2"},
        *patient_rows("two", {"p1": {"lv": 1.0, "rv": None}}),
        *patient_rows("one", {"p1": {"lv": 0.0}}, subset="validation"),
    ]
    found = patient_dice(pd.DataFrame(rows), "test")
    assert found["p1"] == pytest.approx(((0.7 + 0.4) / 2 + 1.0) / 2)


def test_arms_are_compared_over_all_folds_with_the_reference_of_their_backbone():
    jobs = pd.DataFrame(
        {
            "job_id": ["n0", "n1", "j0", "j1"], "dataset": "acdc", "backbone": "unet",
            "pruner": ["none", "none", "js", "js"],
        }
    )  # fmt: skip
    rows = [
        *patient_rows("n0", {"p1": {"lv": 0.8}}),
        *patient_rows("n1", {"p2": {"lv": 0.6}}),
        *patient_rows("j0", {"p1": {"lv": 0.7}}),
        *patient_rows("j1", {"p2": {"lv": 0.7}}),
    ]
    table = comparison_table(jobs, pd.DataFrame(rows), "none")
    assert list(table["pruner"]) == ["js"]
    assert table.iloc[0]["n_patients"] == 2
    assert table.iloc[0]["difference"] == pytest.approx(0.0, abs=1e-12)
    assert comparison_table(jobs, pd.DataFrame(rows), "absent").empty
