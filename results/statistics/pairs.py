"""Pairs of values that two arms both have, and one mean difference per search."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

SEARCH = "search"
"""Column that says which search a value belongs to: its seed and its split."""

_WITHIN_SEARCH = ("config_retrain_seed", "config_pretrain_seed")
_VALUE = ("patient_id", "volume_id", "class_name")


def is_replicate(column: str) -> bool:
    """Whether a setting says which repetition a job is, not what was done.

    Examples:
        >>> [is_replicate(f"config_{name}") for name in ("split_fold", "cell_form")]
        [True, False]
    """
    return column in ("config_split_fold", "config_split_seed", *_WITHIN_SEARCH)


def scored(
    jobs: pd.DataFrame, patients: pd.DataFrame, subset: str, score: str = "dice"
) -> pd.DataFrame:
    """Return every value of some jobs with what pairs it to the same value of another arm.

    Args:
        jobs: Finished jobs of one dataset and backbone.
        patients: Rows of the table of that name.
        subset: ``validation`` or ``test``.
        score: Column of `patients`.

    Returns:
        Columns ``pruner``, ``search`` (seed and split), ``retraining`` (seeds of retraining and
        pre-training), ``patient_id``, ``volume_id``, ``class_name``, ``score``; undefined scores
        are left out.
    """
    of_split = sorted(name for name in jobs.columns if str(name).startswith("config_split_"))
    within = [name for name in _WITHIN_SEARCH if name in jobs.columns]
    of_job = pd.DataFrame(
        {
            "job_id": jobs["job_id"],
            "pruner": jobs["pruner"],
            SEARCH: _joined(jobs, ["seed", *of_split]),
            "retraining": _joined(jobs, within),
        }
    )
    rows = patients.loc[
        (patients["subset"] == subset) & patients[score].notna(), ["job_id", *_VALUE, score]
    ]
    found = rows.merge(of_job, on="job_id").rename(columns={score: "score"})
    found["score"] = found["score"].astype("float64")
    return found.drop(columns="job_id")


def _joined(jobs: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    joined = pd.Series("", index=jobs.index)
    for name in names:
        joined += "|" + jobs[name].map(lambda value: "" if pd.isna(value) else str(value))
    return joined


def paired(values: pd.DataFrame, arm: str, reference: str) -> pd.DataFrame:
    """Return a row per (search, retraining, patient, volume, class) that two arms both scored.

    Args:
        values: As `scored` returns them.
        arm: Value of the pruner axis.
        reference: Likewise.

    Returns:
        The keys, ``score`` of the arm, ``reference`` and ``gap`` (arm minus reference).
    """
    keys = [SEARCH, "retraining", *_VALUE]
    own, other = (
        values[values["pruner"] == name].groupby(keys, sort=True)["score"].mean()
        for name in (arm, reference)
    )
    both = pd.concat({"score": own, "reference": other}, axis=1, join="inner").reset_index()
    both["gap"] = both["score"] - both["reference"]
    return both


def mean_over_patients(pairs: pd.DataFrame, column: str = "gap") -> pd.Series:
    """Return the mean of each search: over volumes and retrainings, then patients, then classes.

    Args:
        pairs: As `paired` returns them.
        column: What is averaged.
    """
    per_patient = pairs.groupby([SEARCH, "class_name", "patient_id"], sort=True)[column].mean()
    per_class = per_patient.groupby([SEARCH, "class_name"]).mean()
    found: pd.Series = per_class.groupby(SEARCH).mean()
    return found


def mean_per_patient(pairs: pd.DataFrame, column: str = "gap") -> pd.Series:
    """Return the mean of each search and patient: over volumes and retrainings, then classes."""
    per_class = pairs.groupby([SEARCH, "patient_id", "class_name"], sort=True)[column].mean()
    found: pd.Series = per_class.groupby([SEARCH, "patient_id"]).mean()
    return found


def by_search(
    values: pd.DataFrame, arms: Collection[str]
) -> tuple[pd.Index, Float[ndarray, "searches arms"]]:
    """Return the score of every search of several arms, on the values that all of them have.

    Args:
        values: As `scored` returns them.
        arms: Values of the pruner axis, in the order of the columns.

    Returns:
        The searches that all arms have, and their scores.
    """
    keys = [SEARCH, "retraining", *_VALUE]
    wide = values[values["pruner"].isin(list(arms))].pivot_table(
        index=keys, columns="pruner", values="score", aggfunc="mean", sort=True
    )
    wide = wide.reindex(columns=list(arms)).dropna().reset_index()
    if wide.empty:
        return pd.Index([], name=SEARCH), np.empty((0, len(arms)))
    means = pd.concat([mean_over_patients(wide, arm) for arm in arms], axis=1)
    return means.index, means.to_numpy(dtype=float)
