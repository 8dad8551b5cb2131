"""Paired differences of patient Dice between two arms, with intervals and verdicts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, wilcoxon

MARGIN = 0.01
"""Non-inferiority margin: one Dice point (row 40, our choice)."""
_N_RESAMPLES = 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean difference of patient Dice, an arm minus its reference.

    Attributes:
        mean: NaN without patients that both arms scored.
        low: Lower end of the bootstrap 95 % interval (percentile, over patients).
        high: Its upper end.
        p: Two-sided Wilcoxon signed-rank test; NaN with fewer than 6 patients.
        n_patients: Patients it rests on.
    """

    mean: float
    low: float
    high: float
    p: float
    n_patients: int

    @property
    def verdict(self) -> str:
        """What the interval says: of zero first, then of the margin.

        Better and worse: it excludes zero. Not inferior: it excludes a loss of the margin or more.
        Inferior: it excludes everything but a loss of more than the margin.
        """
        if np.isnan(self.low):
            return "too few patients"
        if self.low > 0:
            return "better"
        if self.low > -MARGIN:
            return "not inferior"
        if self.high < -MARGIN:
            return "inferior"
        return "worse" if self.high < 0 else "undecided"


def patient_dice(patients: pd.DataFrame, subset: str) -> pd.Series:
    """Return the Dice of every patient: mean over volumes, then classes, then jobs.

    Args:
        patients: Rows of the table of that name, of one arm.
        subset: ``validation`` or ``test``.
    """
    rows = patients[(patients["subset"] == subset) & patients["dice"].notna()]
    per_class = rows.groupby(["patient_id", "job_id", "class_name"])["dice"].mean()
    per_job = per_class.groupby(["patient_id", "job_id"]).mean()
    result: pd.Series = per_job.groupby("patient_id").mean().astype("float64")
    return result


def paired_difference(arm: pd.Series, reference: pd.Series) -> Difference:
    """Compare two arms on the patients that both scored.

    Args:
        arm: Patient → Dice, as `patient_dice` returns it.
        reference: The same of the arm it is compared with.
    """
    both = arm.index.intersection(reference.index)
    gaps = (arm.loc[both] - reference.loc[both]).to_numpy(dtype=float)
    n = len(gaps)
    if n < 2:
        mean = float(gaps.mean()) if n else float("nan")
        return Difference(
            mean=mean, low=float("nan"), high=float("nan"), p=float("nan"), n_patients=n
        )
    if np.ptp(gaps) == 0:
        same = float(gaps[0])
        return Difference(
            mean=same, low=same, high=same, p=1.0 if same == 0 else float("nan"), n_patients=n
        )
    interval = bootstrap(
        (gaps,),
        np.mean,
        n_resamples=_N_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    p = float(wilcoxon(gaps).pvalue) if n >= 6 else float("nan")
    return Difference(
        mean=float(gaps.mean()),
        low=float(interval.low),
        high=float(interval.high),
        p=p,
        n_patients=n,
    )


def comparison_table(
    jobs: pd.DataFrame, patients: pd.DataFrame, reference: str, subset: str = "test"
) -> pd.DataFrame:
    """Return a row per dataset, backbone and pruner: its difference to a reference arm.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        reference: Value of the pruner axis that the others are compared with.
        subset: ``validation`` or ``test``.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``reference``, ``dice``, ``difference``,
        ``low``, ``high``, ``p``, ``n_patients``, ``verdict``; arms without a patient in common
        with the reference are left out.
    """
    rows = []
    for (dataset, backbone), part in jobs.groupby(["dataset", "backbone"], sort=True):
        scores = {
            pruner: patient_dice(patients[patients["job_id"].isin(set(own["job_id"]))], subset)
            for pruner, own in part.groupby("pruner", sort=True)
        }
        if reference not in scores:
            continue
        for pruner, score in scores.items():
            if pruner == reference:
                continue
            found = paired_difference(score, scores[reference])
            if found.n_patients == 0:
                continue
            rows.append(
                {
                    "dataset": dataset,
                    "backbone": backbone,
                    "pruner": pruner,
                    "reference": reference,
                    "dice": float(score.mean()),
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "n_patients": found.n_patients,
                    "verdict": found.verdict,
                }
            )
    names = ["dataset", "backbone", "pruner", "reference", "dice", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "p", "n_patients", "verdict"])
