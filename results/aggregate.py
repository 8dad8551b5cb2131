"""From jobs to the numbers of a table: means over seeds, and speed-ups or why there is none."""

import json
from dataclasses import dataclass

import pandas as pd

from results.arms import ArmTypes
from results.statistics.pairs import is_replicate

QUIET_LOAD = 0.25
"""A search counts as alone if other processes used less than this share of the machine's CPUs."""
_SAME_FOR_SPEEDUP = {
    "device": "device",
    "n_threads": "number of threads",
    "torch_version": "version of torch",
    "versions": "package versions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over seeds.

    Attributes:
        mean: NaN if nothing is defined.
        sd: Sample standard deviation; NaN for fewer than two values.
        n: Values it rests on.
    """

    mean: float
    sd: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Seconds of the full search over seconds of another, or why they are not compared.

    Attributes:
        ratio: Median over seeds; NaN if refused.
        n: Pairs of searches it rests on.
        refusal: Why no pair could be compared; empty if one could.
    """

    ratio: float
    n: int
    refusal: str = ""


def mean_over_seeds(values: pd.Series) -> Mean:
    """Return mean and deviation of what is defined."""
    defined = values.dropna().astype(float)
    if len(defined) == 0:
        return Mean(mean=float("nan"), sd=float("nan"), n=0)
    sd = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
    return Mean(mean=float(defined.mean()), sd=sd, n=len(defined))


def varying_settings(jobs: pd.DataFrame) -> list[str]:
    """Return the ``config_*`` columns that a grid varies beside its four named axes.

    Settings of backbones and pruners vary with their axis and do not count; nor does what repeats
    a job: the split and the seeds of pre-training and retraining.
    """
    named = ("config_backbone_", "config_pruner_")
    columns = [name for name in jobs.columns if name.startswith("config_")]
    return [
        name
        for name in columns
        if not name.startswith(named)
        and not is_replicate(name)
        and jobs[name].astype(str).nunique(dropna=False) > 1
    ]


def speedup(jobs: pd.DataFrame, pruner: str) -> Speedup:
    """Compare a pruner's searches with the full ones of the same row of the report.

    A pair has the same seed, split, device, threads and versions, and each search had its device
    to itself.

    Args:
        jobs: The row's jobs, all pruners.
        pruner: The pruner to compare.
    """
    types = ArmTypes(jobs)
    is_full = [types.is_full_search(str(arm)) for arm in jobs["pruner"]]
    full = {_replicate(row): row for _, row in jobs[is_full].iterrows()}
    own = jobs[(jobs["pruner"] == pruner) & jobs["search_s"].notna()]
    if len(own) == 0:
        return Speedup(ratio=float("nan"), n=0, refusal="no search")
    ratios, refusals = [], []
    for _, row in own.iterrows():
        other = full.get(_replicate(row))
        if other is None or pd.isna(other["search_s"]):
            refusals.append(f"no full search with seed {row['seed']}")
            continue
        refusal = _refusal(row, other)
        if refusal:
            refusals.append(refusal)
        else:
            ratios.append(float(other["search_s"]) / float(row["search_s"]))
    if not ratios:
        return Speedup(ratio=float("nan"), n=0, refusal=refusals[0])
    return Speedup(ratio=float(pd.Series(ratios).median()), n=len(ratios))


def _replicate(row: pd.Series) -> tuple[str, ...]:
    """What two searches that are compared must share beside dataset and backbone."""
    names = sorted(name for name in row.index if str(name).startswith("config_split_"))
    return (str(row["seed"]), *(str(row[name]) for name in names))


def _refusal(a: pd.Series, b: pd.Series) -> str:
    """Why two searches' seconds cannot be compared; empty if they can."""
    for column, words in _SAME_FOR_SPEEDUP.items():
        if str(a[column]) != str(b[column]):
            return f"the {words} differs"
    for row in (a, b):
        # Tables of older versions have none: nothing was cut then.
        if pd.notna(row["search_n_micro_batches"]) and row["search_n_micro_batches"] > 1:
            return "the batches of a search were cut for want of GPU memory"
        if not bool(row["search_exclusive"]):
            return "a search shared its device (resources.exclusive_search is off)"
        if pd.isna(row["search_other_load"]) or float(row["search_other_load"]) >= QUIET_LOAD:
            return "other processes used the machine during a search"
    return ""


def reported_subset(jobs: pd.DataFrame) -> str:
    """Return the patients that a report is about: ``validation`` only where no test was scored."""
    only_validation = jobs["test_dice"].isna().all() and jobs["val_dice"].notna().any()
    return "validation" if only_validation else "test"


def package_versions(jobs: pd.DataFrame) -> dict[str, str]:
    """Return package → version, or several if the jobs disagree."""
    found: dict[str, set[str]] = {}
    for text in jobs["versions"].dropna().unique():
        for name, version in json.loads(text).items():
            found.setdefault(name, set()).add(version)
    return {name: " / ".join(sorted(versions)) for name, versions in sorted(found.items())}
