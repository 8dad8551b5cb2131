"""Sweeps of the claims: which arms they have, and that no patient is tested twice."""

from pathlib import Path

import pytest

from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
RIVALS = {"attention_unet", "unet_plus_plus"}
CELLS = {
    "hippocampus_claims": {"unet"},
    "acdc_claims": {"unet", "resnet18_unet"},
}
ARMS = {
    "no_cell",
    "no_cell_longer",
    "random",
    "random_without_pools",
    "best_uniform",
    "none",
    "none_15",
    "none_30",
    "fixed_schedule",
    "js_stability",
    "js_stability_fast",
    "shapley",
    "shapley_fast",
    "one_shot",
}
AUGMENTED = {"no_cell", "no_cell_longer", "random", "none", "js_stability_fast", "one_shot"}


@pytest.mark.parametrize("name", CELLS)
def test_every_arm_has_one_search_per_fold(name):
    spec = load_sweep(SWEEPS / f"{name}.yaml", tables=tables())
    jobs = expand(spec).jobs
    n_folds = spec.stages["split"].n_folds
    of_arm = {}
    for job in jobs:
        arm = (job.backbone, job.pruner, job.settings.augmentation.enabled)
        of_arm.setdefault(arm, []).append((job.seed, job.settings.split.fold))
    every_fold = [(fold, fold) for fold in range(n_folds)]
    assert all(sorted(found) == every_fold for found in of_arm.values())
    assert {pruner for _, pruner, augments in of_arm if not augments} == ARMS
    assert {arm[:2] for arm in of_arm if arm[2]} == {("unet", pruner) for pruner in AUGMENTED}
    for backbone in CELLS[name]:
        assert {pruner for host, pruner, _ in of_arm if host == backbone} == ARMS
    assert {arm for arm in of_arm if arm[0] in RIVALS} == {
        (rival, "no_cell", False) for rival in RIVALS
    }
    assert spec.compare


@pytest.mark.parametrize("name", CELLS)
def test_the_schedule_has_the_pace_of_the_pruner_that_it_is_a_control_for(name):
    pruners = load_sweep(SWEEPS / f"{name}.yaml", tables=tables()).pruners
    assert pruners["fixed_schedule"].pace == pruners["js_stability_fast"].pace
    assert pruners["fixed_schedule"].prune_edges
