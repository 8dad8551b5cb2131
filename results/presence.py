"""Classes that a volume lacks: does the prediction say so, and does it find those that are there?

Dice says little here: it is undefined where both masks lack the class, and a single false voxel
makes it 0. So presence is counted by itself.
"""

import math

import pandas as pd

from results.liveness import ArmNames
from results.tables.cells import COUNT, Number
from results.tables.table import Row, Table, plain

_ARM = ["dataset", "backbone", "pruner"]
_ROW = ["dataset", "backbone", "class_name", "pruner"]
_COLUMNS = (
    *plain("dataset", "backbone", "class", "arm"),
    *plain("present", "missed", "absent", "false alarms", "correct absences", form=COUNT),
)
_VALUE = ["job_id", "patient_id", "volume_id", "class_name"]


def presence_table(
    jobs: pd.DataFrame, patients: pd.DataFrame, subset: str = "test"
) -> pd.DataFrame:
    """Return a row per dataset, backbone, class and arm: what was missed, and what was made up.

    A (patient, volume, job) counts once. Jobs of an arm that share one evaluation, whatever else
    differs, have the same masks and count as one.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        subset: ``validation`` or ``test``.

    Returns:
        Columns ``dataset``, ``backbone``, ``class_name``, ``pruner``; ``n_present`` and
        ``n_absent``, volumes whose reference has the class and has it not; of the present ones
        ``n_missed``, the prediction being empty; of the absent ones ``n_false_alarms``, the
        prediction not being empty, and ``n_correct_absences``, both being empty; ``missed_ml``
        and ``false_alarm_ml``, the median volumes of what was missed and made up, NaN if nothing
        was.
    """
    distinct = _distinct_evaluations(jobs)
    is_scored = (patients["subset"] == subset) & patients["state"].notna()
    scored = patients[is_scored].drop_duplicates(_VALUE)
    names = [*_VALUE, "state", "reference_ml", "prediction_ml"]
    rows = distinct[[*_ARM, "job_id"]].merge(scored[names], on="job_id")
    is_missed, is_false_alarm = rows["state"] == "pred_empty", rows["state"] == "gt_empty"
    is_correct_absence = rows["state"] == "both_empty"
    counted = rows.assign(
        n_present=(rows["state"] == "ok") | is_missed,
        n_absent=is_false_alarm | is_correct_absence,
        n_missed=is_missed,
        n_false_alarms=is_false_alarm,
        n_correct_absences=is_correct_absence,
        missed_ml=rows["reference_ml"].astype(float).where(is_missed),
        false_alarm_ml=rows["prediction_ml"].astype(float).where(is_false_alarm),
    )
    counts = ["n_present", "n_absent", "n_missed", "n_false_alarms", "n_correct_absences"]
    medians = ["missed_ml", "false_alarm_ml"]
    found = counted.astype(dict.fromkeys(counts, int)).groupby(_ROW, as_index=False)
    return found.agg(dict.fromkeys(counts, "sum") | dict.fromkeys(medians, "median"))


def presence_section(
    jobs: pd.DataFrame, patients: pd.DataFrame, title: str, subset: str = "test"
) -> Table:
    """Return the report's table of absent classes.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        title: Settings that the group stands for, empty if there is one group.
        subset: ``validation`` or ``test``.

    Returns:
        A row per class and arm, of the classes that some reference or prediction of their dataset
        and backbone lacks; no rows if there are none.
    """
    names, table = ArmNames(jobs), presence_table(jobs, patients, subset)
    lacks = (table["n_absent"] > 0) | (table["n_missed"] > 0)
    of_class = [table[name] for name in ("dataset", "backbone", "class_name")]
    shown = table[lacks.groupby(of_class).transform("any").astype(bool)]
    rows: tuple[Row, ...] = tuple(
        (
            *(str(row[name]) for name in ("dataset", "backbone", "class_name")),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            Number(row["n_present"]),
            _with_volume(row["n_missed"], row["missed_ml"]),
            Number(row["n_absent"]),
            _with_volume(row["n_false_alarms"], row["false_alarm_ml"]),
            Number(row["n_correct_absences"]),
        )
        for row in shown.to_dict("records")
    )
    return Table(
        title="Absent classes" + (f" ({title})" if title else ""),
        caption=f"Volumes of {subset} patients, counted once a job, by whether the reference has "
        "the class. Missed: the reference has it, the prediction is empty (median volume of the "
        "reference). False alarms: the reference is empty, the prediction is not (median volume "
        "of the prediction). Correct absences: both are empty. Classes that every reference and "
        "every prediction has are left out.",
        columns=_COLUMNS,
        rows=rows,
    )


def _distinct_evaluations(jobs: pd.DataFrame) -> pd.DataFrame:
    """One finished job for each evaluation of an arm; a job that names none counts by itself."""
    done = jobs[jobs["status"] == "done"].sort_values("job_id")
    evaluations = done["evaluate_key"].astype(object).where(done["evaluate_key"].fillna("") != "")
    keyed = done.assign(evaluation=evaluations.fillna(done["job_id"]))
    return keyed.drop_duplicates([*_ARM, "evaluation"])


def _with_volume(n: int, median_ml: float) -> Number:
    if math.isnan(median_ml):
        return Number(n)
    volume = f"{median_ml:.0f} ml" if median_ml >= 10 else f"{median_ml:.2g} ml"
    return Number(n, detail=volume)
