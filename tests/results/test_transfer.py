"""The table of a tuned arm where it was tuned, and elsewhere."""

from dataclasses import replace

import pandas as pd
import pytest

from results.schema import conform
from results.sections import sections
from results.transfer import (
    NEVER_SEEN,
    NOT_KNOWN,
    SEEN,
    THE_SAME,
    StudySplit,
    TunedArm,
    epoch_equivalents,
    transfer_table,
)

DICE = {
    ("unet", 0): {"none": 0.80, "tuned": 0.82},
    ("unet", 1): {"none": 0.80, "tuned": 0.76},
    ("resnet", 0): {"none": 0.70, "tuned": 0.69},
}
N_PATIENTS = 8


def job_id(backbone, seed, pruner):
    return f"{backbone}-{seed}-{pruner}"


def names(backbone, seed, pruner):
    return {
        "job_id": job_id(backbone, seed, pruner), "dataset": "acdc", "backbone": backbone,
        "pruner": pruner, "seed": seed,
    }  # fmt: skip


@pytest.fixture
def tables():
    jobs, patients, trajectories = [], [], []
    for (backbone, seed), arms in DICE.items():
        for pruner, dice in arms.items():
            named = names(backbone, seed, pruner)
            n_epochs = 4 if pruner == "none" else 2
            jobs.append({**named, "status": "done", "search_epochs": n_epochs})
            patients += [
                {
                    **named, "subset": "test", "patient_id": f"{seed}-{place}", "class_name": "LV",
                    "volume_id": "a", "state": "ok",
                    "dice": dice + 0.001 * place * (pruner == "tuned"),
                }
                for place in range(N_PATIENTS)
            ]  # fmt: skip
            trajectories += [
                {
                    **named, "search_key": named["job_id"], "epoch": epoch, "level": 0, "edge": 0,
                    "operation": operation,
                    "active": pruner == "none" or epoch == 0 or operation == "none",
                }
                for epoch in range(n_epochs)
                for operation in ("none", "skip_connect")
            ]  # fmt: skip
    return (
        conform("jobs", pd.DataFrame(jobs)),
        conform("patients", pd.DataFrame(patients)),
        conform("trajectories", pd.DataFrame(trajectories)),
    )


ARM = TunedArm(
    pruner="tuned",
    tuned_on="acdc · unet · seed 0",
    seen=frozenset({job_id("unet", 0, "none"), job_id("unet", 0, "tuned")}),
    splits=(StudySplit(dataset="acdc", patients=frozenset({"1-0", "1-7", "2-3"})),),
    references=("none",),
)


def exposures(tables, arm):
    found = transfer_table(*tables, [arm])
    return {(row["backbone"], row["exposure"]): row["n_cells"] for _, row in found.iterrows()}


def test_cells_stand_apart_by_what_the_study_saw_of_them(tables):
    """The study's split tests the patients of seed 0; two of seed 1 trained or validated in it."""
    found = transfer_table(*tables, [ARM])
    assert list(zip(found["backbone"], found["exposure"], found["n_cells"], strict=True)) == [
        ("unet", THE_SAME, 1), ("unet", SEEN, 1), ("resnet", NEVER_SEEN, 1),
    ]  # fmt: skip
    more = 0.001 * (N_PATIENTS - 1) / 2
    expected = [0.02 + more, -0.04 + more, -0.01 + more]
    assert found["difference"].to_list() == pytest.approx(expected)
    assert set(found["n_patients"]) == {N_PATIENTS}
    assert set(found["epochs"]) == {2.0}


def test_one_patient_that_the_study_saw_is_enough(tables):
    one = StudySplit(dataset="acdc", patients=frozenset({"0-5"}))
    found = exposures(tables, replace(ARM, splits=(one,)))
    assert found == {("unet", THE_SAME): 1, ("unet", NEVER_SEEN): 1, ("resnet", SEEN): 1}


def test_patients_are_unseen_only_if_every_split_of_the_study_is_known(tables):
    lost = StudySplit(dataset="acdc", patients=None)
    found = exposures(tables, replace(ARM, splits=(lost, *ARM.splits)))
    assert found == {("unet", THE_SAME): 1, ("unet", SEEN): 1, ("resnet", NOT_KNOWN): 1}
    found = exposures(tables, replace(ARM, splits=(lost,)))
    assert found == {("unet", THE_SAME): 1, ("unet", NOT_KNOWN): 1, ("resnet", NOT_KNOWN): 1}


def test_a_study_on_another_dataset_saw_none_of_these_patients(tables):
    elsewhere = [
        StudySplit(dataset="amos", patients=patients) for patients in (None, frozenset({"1-0"}))
    ]
    found = exposures(tables, replace(ARM, seen=frozenset(), splits=tuple(elsewhere)))
    assert found == {("unet", NEVER_SEEN): 2, ("resnet", NEVER_SEEN): 1}


def test_patients_of_the_other_subset_do_not_count(tables):
    jobs, patients, trajectories = tables
    validating = patients.assign(subset="validation", patient_id="1-0")
    both = pd.concat([patients, validating], ignore_index=True)
    assert exposures((jobs, both, trajectories), ARM) == exposures(tables, ARM)


def test_the_report_says_what_the_study_saw(tables):
    jobs, patients, trajectories = tables
    by_name = {"patients": patients, "trajectories": trajectories}
    (section,) = [
        section
        for section in sections(jobs, by_name, [ARM])
        if section.title.startswith("Tuned settings")
    ]
    assert [line[2] for line in section.lines] == [
        "acdc · unet, the same",
        "acdc · unet, other cells, patients the study saw",
        "acdc · resnet, never seen",
    ]
    assert "of whose test patients none trained or validated" in section.caption


def test_cost_counts_the_operations_that_were_there(tables):
    costs = epoch_equivalents(tables[2])
    assert costs[job_id("unet", 0, "none")] == 4
    assert costs[job_id("unet", 0, "tuned")] == 1.5
    found = transfer_table(*tables, [ARM])
    assert set(found["epoch_equivalents"]) == {1.5}
    assert set(found["reference_epoch_equivalents"]) == {4.0}


def test_without_a_tuned_arm_there_is_no_row(tables):
    assert len(transfer_table(*tables, [])) == 0
