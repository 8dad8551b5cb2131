"""The table of a tuned arm where it was tuned, and elsewhere."""

import pandas as pd
import pytest

from results.schema import conform
from results.transfer import TunedArm, epoch_equivalents, transfer_table

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
        pd.DataFrame(patients),
        conform("trajectories", pd.DataFrame(trajectories)),
    )


ARM = TunedArm(
    pruner="tuned",
    tuned_on="acdc · unet · seed 0",
    seen=frozenset({job_id("unet", 0, "none"), job_id("unet", 0, "tuned")}),
    references=("none",),
)


def test_seen_and_unseen_cells_stand_apart(tables):
    found = transfer_table(*tables, [ARM])
    assert list(zip(found["backbone"], found["is_seen"], found["n_cells"], strict=True)) == [
        ("unet", True, 1), ("resnet", False, 1), ("unet", False, 1),
    ]  # fmt: skip
    more = 0.001 * (N_PATIENTS - 1) / 2
    expected = [0.02 + more, -0.01 + more, -0.04 + more]
    assert found["difference"].to_list() == pytest.approx(expected)
    assert set(found["n_patients"]) == {N_PATIENTS}
    assert set(found["epochs"]) == {2.0}


def test_cost_counts_the_operations_that_were_there(tables):
    costs = epoch_equivalents(tables[2])
    assert costs[job_id("unet", 0, "none")] == 4
    assert costs[job_id("unet", 0, "tuned")] == 1.5
    found = transfer_table(*tables, [ARM])
    assert set(found["epoch_equivalents"]) == {1.5}
    assert set(found["reference_epoch_equivalents"]) == {4.0}


def test_without_a_tuned_arm_there_is_no_row(tables):
    assert len(transfer_table(*tables, [])) == 0
