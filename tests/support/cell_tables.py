"""Tables of cells with known variances, as sweeps leave them."""

import numpy as np
import pandas as pd

from iac_core.cells.genotype import random_genotype
from iac_core.config import CellSettings
from results.schema import conform
from results.store import write_table

EPOCHS = (4, 8, 12, 16, 20)
"""Epochs of retraining until each validation."""
_SAME = {
    "dataset": "d", "backbone": "unet", "seed": 0, "status": "done", "pretrain_key": "p",
    "config_cell_form": "replace", "config_cell_start": "plain", "config_retrain_epochs": 20,
}  # fmt: skip


def cell(name, dice, *, seeds=(0, 1, 2), genotype="", **more):
    """Rows of `jobs` of one cell: a Dice per retraining seed; test Dice is 0.1 lower."""
    return [
        _SAME
        | {
            "job_id": f"{name}-{more.get('config_cell_form', '')}-{more.get('seed', 0)}-{seed}",
            "pruner": name, "config_retrain_seed": seed, "val_dice": value,
            "test_dice": value - 0.1, "genotype": genotype or genotype_of(0),
            "n_cell_parameters": 1000, "n_macs": 10**6, "retrain_s": 50.0,
        }
        | more
        for seed, value in zip(seeds, dice, strict=True)
    ]  # fmt: skip


def genotype_of(draw):
    return random_genotype(CellSettings(), 3, np.random.default_rng(draw)).to_json()


def random_cells(dice, **more):
    """Rows of `jobs` of random cells.

    Args:
        dice: Shape ``(cells, seeds)``.
        more: Columns that are the same for all of them.
    """
    return [
        row
        for draw, values in enumerate(np.asarray(dice).tolist())
        for row in cell(
            f"random_{draw}", values, seeds=range(len(values)), genotype=genotype_of(draw),
            config_pruner_draw=draw, config_pruner_operations="", **more,
        )
    ]  # fmt: skip


def simulated(n_cells, n_seeds, *, sd_cell, sd_seed, sd_noise, seed=0):
    """Dice of known components, shape ``(cells, seeds)``."""
    generator = np.random.default_rng(seed)
    return (
        0.8
        + sd_cell * generator.standard_normal((n_cells, 1))
        + sd_seed * generator.standard_normal((1, n_seeds))
        + sd_noise * generator.standard_normal((n_cells, n_seeds))
    )


def curves(jobs, scores=None, epochs=EPOCHS, n_epochs=20, start=0.3):
    """Rows of `curves` of some jobs.

    Args:
        jobs: Rows of `jobs`.
        scores: Job → validation Dice after each of the epochs; by default it rises to the job's.
        epochs: Epochs of retraining until each validation.
        n_epochs: Length of a retraining.
        start: Dice of the starting state.
    """
    rows = []
    for job in jobs:
        own = scores[job["job_id"]] if scores else job["val_dice"] - 0.1 / np.arange(1, 6) + 0.02
        dice = dict(zip(epochs, own, strict=True))
        ids = {name: job[name] for name in ("job_id", "dataset", "backbone", "pruner", "seed")}
        rows.append(ids | {"stage": "retrain", "epoch": -1, "validation_dice": start})
        rows += [
            ids | {"stage": "retrain", "epoch": epoch - 1, "validation_dice": dice.get(epoch)}
            for epoch in range(1, n_epochs + 1)
        ]
    return rows


def write(folder, jobs, curve_rows=None):
    """Write tables as a sweep leaves them; one without curves is of an older version."""
    write_table(folder / "jobs.parquet", "jobs", conform("jobs", pd.DataFrame(jobs)))
    if curve_rows is not None:
        write_table(folder / "curves.parquet", "curves", pd.DataFrame(curve_rows))
    return folder
