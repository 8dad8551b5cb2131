"""From the Parquet tables of sweeps to one table of cells: a Dice per cell and retraining seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from results.schema import empty
from results.store import read_tables

Subset = Literal["validation", "test"]

RANDOM = "random"
WITHOUT_POOLS = "without pools"
UNIFORM = "uniform"
CONTROL = "control"
SEARCHED = "searched"
OTHER = "other"

_CONTROLS = ("no_cell", "no_cell_longer")
_OUTCOMES = [
    *("job_id", "pruner", "seed", "genotype", "pretrain_key", "val_dice", "test_dice"),
    *("n_cell_parameters", "n_macs", "retrain_s"),
    *("search_s", "search_epochs", "search_is_alive", "live_edge_share"),
]
_FORM = ["config_cell_form", "config_cell_node_width", "config_cell_start"]
_RETRAINING = [
    *("config_cell_n_nodes", "config_cell_second_input"),
    *("config_retrain_epochs", "config_retrain_batch_size", "config_retrain_steps_per_epoch"),
    *("config_retrain_learning_rate", "config_retrain_backbone_learning_rate"),
    *("config_retrain_min_learning_rate", "config_retrain_scope", "config_retrain_precision"),
    "config_retrain_validate_every_epochs",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTable:
    """Cells of one backbone and one fold, each retrained with the same seeds.

    Attributes:
        rows: A row per finished job, by `cell_rows`.
        curves: Rows of the table ``curves`` of these jobs; empty where nothing recorded them.
        form: The form in which most random cells were retrained; the others are second forms.
        seeds: Retraining seeds of the random cells in that form.
    """

    rows: pd.DataFrame
    curves: pd.DataFrame
    form: str
    seeds: tuple[int, ...]


def read(folders: Sequence[Path], table: str) -> pd.DataFrame:
    """Return one table of several sweeps; a sweep without it has no rows of it.

    Args:
        folders: Of tables, or of parts (``part=…``) of them.
        table: Its name.

    Raises:
        SchemaError: If a folder has no table of jobs, or a job twice.
        SystemExit: If a job stands in two of the folders.
    """
    frames = [read_tables(folder, [table])[table] for folder in folders]
    ids = [job_id for frame in frames for job_id in frame["job_id"].unique()]
    if len(set(ids)) < len(ids):
        raise SystemExit("a job must stand in one of the folders alone; give each folder once")
    filled = [frame.dropna(axis=1, how="all") for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else empty(table)


def cell_rows(jobs: pd.DataFrame, subset: Subset) -> pd.DataFrame:
    """Return a row per finished job, with plain types.

    Args:
        jobs: Rows of the table ``jobs``.
        subset: Patients whose Dice is looked at.

    Returns:
        Columns: ``job_id``, ``name`` (value of the pruner axis), ``kind``, ``form``,
        ``retraining`` and ``pretrain_key`` (equal where retrainings can be compared), ``seed``,
        ``retrain_seed``, ``dice``, ``validation_dice``, ``genotype``, ``n_cell_parameters``,
        ``n_macs``, ``retrain_s``, ``search_s``, ``search_epochs``, ``search_is_alive``,
        ``live_edge_share``. Failed jobs and those without a Dice on the subset are left out.

    Raises:
        SystemExit: If no job is left.
    """
    done = jobs[jobs["status"] == "done"].reset_index(drop=True)
    rows = done.reindex(columns=_OUTCOMES).rename(columns={"pruner": "name"})
    rows["kind"] = _kinds(done)
    rows["form"] = _joined(done, _FORM)
    rows["retraining"] = _joined(done, _RETRAINING)
    retrain_seed = done.reindex(columns=["config_retrain_seed"])["config_retrain_seed"]
    rows["retrain_seed"] = pd.to_numeric(retrain_seed).fillna(done["seed"]).astype(int)
    rows["validation_dice"] = rows.pop("val_dice").astype(float)
    test_dice = rows.pop("test_dice").astype(float)
    rows["dice"] = test_dice if subset == "test" else rows["validation_dice"]
    rows = rows[rows["dice"].notna()].reset_index(drop=True)
    if rows.empty:
        raise SystemExit(f"the tables must hold finished jobs with {subset} Dice, got none")
    for name in ("retrain_s", "search_s", "search_epochs", "live_edge_share", "n_macs"):
        rows[name] = rows[name].astype(float)
    rows["n_cell_parameters"] = rows["n_cell_parameters"].astype(float)
    return rows


def cell_table(rows: pd.DataFrame, curves: pd.DataFrame) -> CellTable:
    """Return the table of cells.

    Args:
        rows: Rows by `cell_rows`.
        curves: Rows of the table ``curves``.

    Raises:
        SystemExit: If there are no random cells, or rows are of several backbones, folds or
            lengths of retraining, or a cell was retrained twice with one seed.
    """
    random = rows[rows["kind"] == RANDOM]
    if random.empty:
        raise SystemExit("the tables must hold random cells (`type: random` with `draw`)")
    for name in ("pretrain_key", "retraining"):
        if rows[name].nunique() > 1:
            raise SystemExit(
                f"a table of cells must have one {name}, got {rows[name].nunique()}; give sweeps "
                "of one backbone, one fold and one length of retraining"
            )
    if rows.duplicated(["name", "form", "retrain_seed"]).any():
        raise SystemExit("a cell must be retrained once per form and seed; leave sweeps out")
    n_cells = random.groupby("form")["name"].nunique().sort_index()
    form = str(n_cells.idxmax())
    seeds = random.loc[random["form"] == form, "retrain_seed"]
    own = curves[curves["job_id"].isin(set(rows["job_id"]))]
    return CellTable(
        rows=rows, curves=own, form=form, seeds=tuple(sorted(int(seed) for seed in set(seeds)))
    )


def by_seed(
    table: CellTable, kind: str, *, column: str = "dice", form: str = "", seeds: Sequence[int] = ()
) -> pd.DataFrame:
    """Return cells × retraining seeds; cells that lack one of the seeds are left out.

    Args:
        table: The cells.
        kind: Cells of one kind.
        column: Column of the table's rows.
        form: How the cells join their skips; empty for the table's own form.
        seeds: Retraining seeds; those of the table if empty.
    """
    rows = table.rows[(table.rows["kind"] == kind) & (table.rows["form"] == (form or table.form))]
    wide = rows.pivot_table(index="name", columns="retrain_seed", values=column, sort=False)
    return wide.reindex(columns=list(seeds or table.seeds)).dropna()


def percentile(value: float, reference: np.ndarray) -> float:
    """Return the share of a reference below a value, in percent; ties count half.

    Examples:
        >>> percentile(2.0, np.array([1.0, 2.0, 3.0, 4.0]))
        37.5
    """
    return 100 * float(np.mean(reference < value) + np.mean(reference == value) / 2)


def own_percentiles(values: np.ndarray) -> np.ndarray:
    """Return the percentile of every value among the others; ties count half.

    Examples:
        >>> own_percentiles(np.array([3.0, 1.0, 2.0])).tolist()
        [100.0, 0.0, 50.0]
    """
    found: np.ndarray = 100 * (rankdata(values) - 1) / (len(values) - 1)
    return found


def _kinds(jobs: pd.DataFrame) -> list[str]:
    names = ["config_pruner_operation", "config_pruner_operations", "config_pruner_draw"]
    settings = jobs.reindex(columns=names).astype(object)
    settings = settings.where(settings.notna(), "")
    return [
        _kind(str(name), *map(str, row))
        for name, row in zip(jobs["pruner"], settings.to_numpy(), strict=True)
    ]


def _kind(name: str, operation: str, operations: str, draw: str) -> str:
    """Kind of a cell, by the settings of the pruner axis."""
    if name in _CONTROLS:
        return CONTROL
    if operation:
        return UNIFORM
    if not draw:
        return SEARCHED
    if not operations:
        return RANDOM
    return OTHER if "pool" in operations else WITHOUT_POOLS


def _joined(jobs: pd.DataFrame, names: list[str]) -> list[str]:
    """Values of some settings as one text; settings at rest (unset, plain) are left out."""
    values = jobs.reindex(columns=names).astype(object)
    values = values.where(values.notna(), "").astype(str)
    return [
        " ".join(value for value in row if value not in ("", "plain")) for row in values.to_numpy()
    ]
