"""A tuned arm on the cells that it was tuned on, and on others by what the study saw of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from results.comparison import comparison_table
from results.liveness import ArmNames
from results.tables.cells import (
    COUNT,
    DICE,
    DICE_POINTS,
    P_VALUE,
    TIMES,
    Number,
    interval,
    number,
)
from results.tables.table import Column, Table, plain

THE_SAME = "the same"
SEEN = "other cells, patients the study saw"
NOT_KNOWN = "other cells, patients not known to be unseen"
NEVER_SEEN = "never seen"
EXPOSURES = (THE_SAME, SEEN, NOT_KNOWN, NEVER_SEEN)
"""What the study saw of a cell and its scored patients, as the report says it.

Patients are told apart by dataset and id: two datasets of a sweep should not share a folder.
"""
_UNDEFINED = "undefined for these values"
_COLUMNS = (
    *plain("arm", "tuned on", "judged on"),
    Column(heading="cells", format=COUNT),
    *plain("reference"),
    Column(heading="Dice", format=DICE),
    *plain("difference", "95 % interval", form=DICE_POINTS),
    Column(heading="p", format=P_VALUE),
    Column(heading="epochs", format=COUNT),
    Column(heading="fewer operations", format=TIMES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySplit:
    """The patients that a study saw in one split of its cells.

    Attributes:
        dataset: Name of the dataset in the sweep.
        patients: Those that trained or validated; None if that is not known.
    """

    dataset: str
    patients: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedArm:
    """An arm whose settings a study chose.

    Attributes:
        pruner: Value of the pruner axis.
        tuned_on: The cells that the study was judged on, in words.
        seen: Ids of the jobs on these cells, of all arms.
        splits: Every split of these cells.
        references: Arms that it is compared with, if they are there.
    """

    pruner: str
    tuned_on: str
    seen: frozenset[str]
    splits: tuple[StudySplit, ...]
    references: tuple[str, ...]


def transfer_table(
    jobs: pd.DataFrame,
    patients: pd.DataFrame,
    trajectories: pd.DataFrame,
    tuned: Sequence[TunedArm],
    subset: str = "test",
) -> pd.DataFrame:
    """Return a row per tuned arm, reference and group of cells, by what the study saw of them.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        trajectories: Of all searches.
        tuned: The tuned arms.
        subset: ``validation`` or ``test``.

    Returns:
        The columns of `results.comparison.comparison_table`, with ``tuned_on``,
        ``exposure`` (one of `EXPOSURES`), ``n_cells``, ``epochs`` (mean, of the arm's searches),
        ``epoch_equivalents`` (these counted in operations, with the reference's as
        ``reference_epoch_equivalents``).
    """
    costs = epoch_equivalents(trajectories)
    rows = []
    for arm in tuned:
        exposures = _exposures(jobs, patients[patients["subset"] == subset], arm)
        for exposure in EXPOSURES:
            part = jobs[exposures == exposure]
            for reference in arm.references:
                both = part[part["pruner"].isin((arm.pruner, reference))]
                pair = (arm.pruner, reference)
                for row in comparison_table(both, patients, [pair], subset).to_dict("records"):
                    cell = both[
                        (both["dataset"] == row["dataset"]) & (both["backbone"] == row["backbone"])
                    ]
                    own, others = _in_both(
                        cell[cell["pruner"] == arm.pruner], cell[cell["pruner"] == reference]
                    )
                    rows.append(
                        {
                            **row,
                            "tuned_on": arm.tuned_on,
                            "exposure": exposure,
                            "n_cells": len(own),
                            "epochs": float(own["search_epochs"].mean()),
                            "epoch_equivalents": float(costs.reindex(own["job_id"]).mean()),
                            "reference_epoch_equivalents": float(
                                costs.reindex(others["job_id"]).mean()
                            ),
                        }
                    )
    return pd.DataFrame(rows)


def _exposures(jobs: pd.DataFrame, scored: pd.DataFrame, arm: TunedArm) -> "pd.Series[str]":
    """What the study saw of each job's cell: never seen only if that holds for every patient."""
    patients = {str(job_id): set(own) for job_id, own in scored.groupby("job_id")["patient_id"]}

    def exposure(job_id: str, dataset: str) -> str:
        if job_id in arm.seen:
            return THE_SAME
        splits = [split.patients for split in arm.splits if split.dataset == dataset]
        own = patients.get(job_id, set())
        if any(saw is not None and own & saw for saw in splits):
            return SEEN
        return NOT_KNOWN if None in splits else NEVER_SEEN

    found = [exposure(*names) for names in zip(jobs["job_id"], jobs["dataset"], strict=True)]
    return pd.Series(found, index=jobs.index, dtype="object")


def _in_both(own: pd.DataFrame, others: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The jobs of two arms on the cells that both have: same seed, same split."""
    names = ["seed", *(name for name in own.columns if name.startswith("config_split_"))]

    def cells(jobs: pd.DataFrame) -> "pd.Series[str]":
        found: pd.Series[str] = jobs[names].astype(str).agg("|".join, axis=1)
        return found

    return own[cells(own).isin(cells(others))], others[cells(others).isin(cells(own))]


def transfer_section(table: pd.DataFrame, title: str, subset: str, names: ArmNames) -> Table:
    """Return the report's table of tuned arms.

    Args:
        table: As `transfer_table` returns it.
        title: Settings that the group stands for, empty if there is one group.
        subset: ``validation`` or ``test``.
        names: Names of the group's arms.
    """
    rows = tuple(
        (
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            str(row["tuned_on"]),
            f"{row['dataset']} · {row['backbone']}, {row['exposure']}",
            Number(row["n_cells"]),
            names.of(row["dataset"], row["backbone"], row["reference"]),
            Number(row["dice"]),
            Number(row["difference"]),
            interval(row["low"], row["high"], _UNDEFINED),
            number(row["p"], _UNDEFINED),
            number(row["epochs"], "no search of the arm says how many epochs it ran"),
            number(
                row["reference_epoch_equivalents"] / row["epoch_equivalents"],
                "the trajectory of one of them is not recorded",
            ),
        )
        for row in table.to_dict("records")
    )
    return Table(
        title="Tuned settings where they were tuned, and elsewhere"
        + (f" ({title})" if title else ""),
        caption="A study chose the arm's settings by validation patients of the cells under "
        f"“tuned on”. Never seen: other cells, of whose {subset} patients none trained or "
        "validated in a split of the study's cells; not known to be unseen: such a split is no "
        f"longer at hand. Dice as in the differences above, on {subset} patients. Epochs: of the "
        "arm's searches, in the mean. Fewer operations: epochs counted in the operations that "
        "were there, the reference's over the arm's.",
        columns=_COLUMNS,
        rows=rows,
    )


def epoch_equivalents(trajectories: pd.DataFrame) -> "pd.Series[float]":
    """Return what each search cost in epochs of a full one, counted in operations.

    Args:
        trajectories: Rows of the table of that name.

    Returns:
        Job → sum over its epochs of the share of operations that were there.
    """
    by_job = trajectories.groupby("job_id")
    share = by_job["active"].mean().astype("float64")
    found: pd.Series[float] = share * by_job["epoch"].nunique()
    return found
