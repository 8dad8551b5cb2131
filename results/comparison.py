"""Tables of comparisons: declared claims, what stands beside them, and Friedman's test.

The unit is the search: one genotype with its retrainings on one split. An arm's values are paired
with its reference's by seed, split, patient, volume and class (`results.statistics.pairs`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from results.declared import Claim
from results.statistics.intervals import (
    UNDEFINED,
    Interval,
    bca,
    hierarchical_bootstrap,
    mixed_model,
    nadeau_bengio,
    sign_flip,
    smallest_sign_flip,
)
from results.statistics.omnibus import friedman
from results.statistics.pairs import SEARCH, paired, scored
from results.statistics.verdicts import Comparison, compare, holm

_NAMES = ["dataset", "backbone", "pruner", "reference"]


def comparison_table(
    jobs: pd.DataFrame,
    patients: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    subset: str = "test",
) -> pd.DataFrame:
    """Return a row per dataset, backbone and pair of arms that have values in common.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        pairs: ``(arm, reference)``, values of the pruner axis.
        subset: ``validation`` or ``test``.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``reference``, ``dice`` (of the arm, on the
        values that both have), ``difference``, ``low``, ``high``, ``p`` (Student's, over
        searches), ``n_searches``, ``n_patients``, ``comparison``.
    """
    rows = [
        {
            **names,
            "dice": float(both["score"].groupby(both["class_name"]).mean().mean()),
            "difference": found.mean,
            "low": found.interval.low,
            "high": found.interval.high,
            "p": found.interval.p,
            "n_searches": found.n_searches,
            "n_patients": found.n_patients,
            "comparison": found,
        }
        for names, both, found in _compared(jobs, patients, pairs, subset)
    ]
    further = ["dice", "difference", "low", "high", "p", "n_searches", "n_patients", "comparison"]
    return pd.DataFrame(rows, columns=[*_NAMES, *further])


def claims_table(
    jobs: pd.DataFrame,
    patients: pd.DataFrame,
    claims: Sequence[Claim],
    subset: str = "test",
) -> pd.DataFrame:
    """Return a row per dataset, backbone and declared claim; `with_verdicts` judges them.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        claims: As the sweep declares them.
        subset: ``validation`` or ``test``.

    Returns:
        The columns of `comparison_table`, ``p`` being that of the claim, and ``kind``.
    """
    tables = []
    for claim in claims:
        table = comparison_table(jobs, patients, [(claim.arm, claim.reference)], subset)
        table["kind"] = claim.kind
        table["p"] = [found.p_of(claim.kind) for found in table["comparison"]]
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def with_verdicts(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return tables of claims with ``p_holm`` and ``verdict``; all rows are one family.

    Args:
        tables: As `claims_table` returns them, one per group of the report.
    """
    p_values = [float(p) for table in tables if len(table) for p in table["p"]]
    corrected = iter(holm(p_values))
    found = []
    for table in tables:
        p_holm = [next(corrected) for _ in range(len(table))]
        verdicts = [
            row["comparison"].verdict(row["kind"], p)
            for p, (_, row) in zip(p_holm, table.iterrows(), strict=True)
        ]
        found.append(table.assign(p_holm=p_holm, verdict=verdicts))
    return found


def sensitivity_table(
    jobs: pd.DataFrame,
    patients: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    subset: str = "test",
) -> pd.DataFrame:
    """Return what other methods say of the same differences; they decide nothing.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        pairs: ``(arm, reference)``.
        subset: ``validation`` or ``test``.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``reference``; `Interval` in ``bca``,
        ``hierarchical``, ``mixed``, ``corrected_t`` (undefined unless searches differ in the
        fold); ``sign_flip`` and ``smallest_p``. Pairs with one search are left out.
    """
    rows = []
    for names, both, found in _compared(jobs, patients, pairs, subset):
        if found.n_searches < 2:
            continue
        of_dataset = jobs[jobs["dataset"] == names["dataset"]]
        rows.append(
            {
                **names,
                "bca": bca(found.gaps),
                "hierarchical": hierarchical_bootstrap(both),
                "mixed": mixed_model(both),
                "corrected_t": _corrected(found, both, of_dataset, patients),
                "sign_flip": sign_flip(found.gaps),
                "smallest_p": smallest_sign_flip(found.n_searches),
            }
        )
    return pd.DataFrame(rows)


def friedman_table(
    jobs: pd.DataFrame, patients: pd.DataFrame, subset: str = "test"
) -> pd.DataFrame:
    """Return Friedman's test over the arms with cells, a row per dataset and backbone.

    Args:
        jobs: Finished jobs of one group of the report.
        patients: Of all jobs.
        subset: ``validation`` or ``test``.

    Returns:
        Columns ``dataset``, ``backbone``, ``n_arms``, ``n_blocks``, ``statistic``, ``p``,
        ``ranks`` (mean rank of each arm, the best first); rows without a statistic are left out.
    """
    rows = []
    with_cells = jobs[jobs["genotype"].fillna("") != ""]
    for (dataset, backbone), part in with_cells.groupby(["dataset", "backbone"], sort=True):
        arms = sorted(part["pruner"].unique())
        found = friedman(scored(part, patients, subset), arms)
        if pd.isna(found.statistic):
            continue
        ranked = sorted(zip(found.mean_ranks, found.arms, strict=True))
        rows.append(
            {
                "dataset": dataset,
                "backbone": backbone,
                "n_arms": len(arms),
                "n_blocks": found.n_blocks,
                "statistic": found.statistic,
                "p": found.p,
                "ranks": ranked,
            }
        )
    return pd.DataFrame(rows)


def _compared(
    jobs: pd.DataFrame, patients: pd.DataFrame, pairs: Sequence[tuple[str, str]], subset: str
) -> Iterator[tuple[dict[str, Any], pd.DataFrame, Comparison]]:
    """Names, paired values and comparison of every pair that has values in common."""
    for (dataset, backbone), part in jobs.groupby(["dataset", "backbone"], sort=True):
        values = scored(part, patients, subset)
        nowhere = unpredicted(part, patients, subset)
        for arm, reference in pairs:
            both = paired(values, arm, reference)
            if both.empty:
                continue
            of_either = sorted({*nowhere.get(arm, ()), *nowhere.get(reference, ())})
            names = {
                "dataset": dataset,
                "backbone": backbone,
                "pruner": arm,
                "reference": reference,
            }
            yield names, both, compare(both, of_either)


def unpredicted(
    jobs: pd.DataFrame, patients: pd.DataFrame, subset: str
) -> dict[str, tuple[str, ...]]:
    """Return the classes that an arm predicts nowhere though some reference has them.

    Args:
        jobs: Finished jobs of one dataset and backbone.
        patients: Of all jobs.
        subset: ``validation`` or ``test``.
    """
    scored_rows = patients.loc[patients["subset"] == subset, ["job_id", "class_name", "state"]]
    rows = scored_rows.merge(jobs[["job_id", "pruner"]], on="job_id")
    by_class = rows.groupby(["pruner", "class_name"])["state"]
    found: dict[str, tuple[str, ...]] = {}
    for (arm, name), states in by_class:
        has_reference = states.isin(["ok", "pred_empty"]).any()
        if has_reference and not states.isin(["ok", "gt_empty"]).any():
            found[str(arm)] = (*found.get(str(arm), ()), str(name))
    return found


def _corrected(
    found: Comparison, both: pd.DataFrame, jobs: pd.DataFrame, patients: pd.DataFrame
) -> Interval:
    """The corrected t for folds of one data set: what is neither scored nor validates trains."""
    if "config_split_fold" not in jobs or jobs["config_split_fold"].nunique() < 2:
        return UNDEFINED
    n_scored = float(both.groupby(SEARCH)["patient_id"].nunique().mean())
    n_all = patients.loc[patients["job_id"].isin(set(jobs["job_id"])), "patient_id"].nunique()
    n_train = n_all - n_scored - float(jobs["n_val_patients"].astype("float64").mean())
    most = jobs.get("config_split_n_train_patients", pd.Series(dtype=float))
    most = pd.to_numeric(most, errors="coerce").max()
    if pd.notna(most):
        n_train = min(n_train, float(most))
    return UNDEFINED if pd.isna(n_train) else nadeau_bengio(found.gaps, n_train, n_scored)
