"""Uniform cells, cells without pools and second forms beside the random cells of a table."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.cell_table.table import (
    CONTROL,
    RANDOM,
    UNIFORM,
    WITHOUT_POOLS,
    CellTable,
    by_seed,
    percentile,
)

Interval = tuple[float, float]
_NOTHING: Interval = (float("nan"), float("nan"))


def means(table: CellTable, kind: str, seeds: Sequence[int] = (), form: str = "") -> pd.Series:
    """Return the mean Dice over the retraining seeds of each cell of a kind."""
    return by_seed(table, kind, seeds=seeds, form=form).mean(axis=1)


def best_uniform(table: CellTable, seeds: Sequence[int] = ()) -> tuple[str, float]:
    """Return name and mean Dice of the uniform cell with the highest validation Dice.

    The best of several is chosen by the numbers that it is then compared by, so on validation
    patients it looks better than it is: a cautious rival. NaN without uniform cells.
    """
    chosen = by_seed(table, UNIFORM, column="validation_dice", seeds=seeds).mean(axis=1)
    if chosen.empty:
        return "", float("nan")
    name = str(chosen.idxmax())
    return name, float(means(table, UNIFORM, seeds)[name])


def beside_random(table: CellTable) -> pd.DataFrame:
    """Return a row for the random cells, for those without pools, and for each other cell.

    Returns:
        Columns: ``cell``, ``kind``, ``n`` (cells), ``dice`` (mean over cells and seeds), ``sd``
        (of cells, Dice points), ``percentile`` among the random cells (median of the group),
        ``to_random``, ``low``, ``high`` (Dice points over the mean of the random cells; 95 %
        interval by Welch's t over cells, NaN for a single cell).
    """
    random = means(table, RANDOM)
    reference, rows = random.to_numpy(), []
    for kind in (RANDOM, WITHOUT_POOLS, UNIFORM, CONTROL):
        own = means(table, kind)
        is_one = kind in (UNIFORM, CONTROL)
        parts = [(str(name), own[[name]]) for name in own.index] if is_one else [("all", own)]
        for name, part in parts:
            if part.empty:
                continue
            values = part.to_numpy()
            low, high = _NOTHING if kind == RANDOM else welch(values, reference)[:2]
            places = [percentile(value, reference) for value in values]
            rows.append(
                {
                    "cell": name,
                    "kind": kind,
                    "n": len(values),
                    "dice": values.mean(),
                    "sd": 100 * values.std(ddof=1) if len(values) > 1 else float("nan"),
                    "percentile": float(np.median(places)),
                    "to_random": 100 * (values.mean() - reference.mean()),
                    "low": 100 * low,
                    "high": 100 * high,
                }
            )
    return pd.DataFrame(rows)


def second_forms(table: CellTable) -> pd.DataFrame:
    """Return a row per further form in which random cells were retrained.

    Returns:
        Columns: ``form``, ``n`` (cells in both forms), ``dice`` in the form, ``percentile`` among
        the random cells in the table's form (median), ``gain``, ``low``, ``high`` (Dice points
        over the same cells in the table's form; 95 % interval by Student's t over cells), ``rank``
        (Spearman's correlation of both forms over cells; NaN where all cells are equal).
    """
    base, rows = means(table, RANDOM), []
    forms = table.rows.loc[table.rows["kind"] == RANDOM, "form"].unique()
    for form in sorted(set(forms) - {table.form}):
        second = means(table, RANDOM, form=form)
        both = [name for name in second.index if name in base.index]
        if not both:
            continue
        own, first = second[both].to_numpy(), base[both].to_numpy()
        low, high = student(own - first)
        can_rank = len(both) > 2 and min(np.ptp(own), np.ptp(first)) > 0
        rows.append(
            {
                "form": form,
                "n": len(both),
                "dice": own.mean(),
                "percentile": float(np.median([percentile(v, base.to_numpy()) for v in own])),
                "gain": 100 * (own - first).mean(),
                "low": 100 * low,
                "high": 100 * high,
                "rank": float(stats.spearmanr(own, first).statistic) if can_rank else np.nan,
            }
        )
    return pd.DataFrame(rows)


def student(values: np.ndarray) -> Interval:
    """Return the 95 % interval of a mean by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return _NOTHING
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def welch(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return the 95 % interval of our mean minus theirs, and the one-sided p that ours is higher.

    By Welch's t. NaN where either side has fewer than two values or neither varies. One side may
    be all equal, as when all searches find the same cell.
    """
    if min(len(ours), len(theirs)) < 2:
        return (*_NOTHING, float("nan"))
    parts = [float(values.var(ddof=1)) / len(values) for values in (ours, theirs)]
    error = sum(parts)
    if error == 0:
        return (*_NOTHING, float("nan"))
    squares = zip(parts, (ours, theirs), strict=True)
    df = error**2 / sum(part**2 / (len(values) - 1) for part, values in squares)
    difference = float(ours.mean() - theirs.mean())
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(error)
    p = float(stats.t.sf(difference / math.sqrt(error), df))
    return difference - half, difference + half, p
