"""Cells that searches found, placed in a table of cells."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.cell_table.beside import best_uniform, means, student, welch
from benchmarks.cell_table.table import (
    RANDOM,
    SEARCHED,
    WITHOUT_POOLS,
    CellTable,
    percentile,
)

_SEARCH = ["search_is_alive", "live_edge_share", "search_epochs", "search_s"]


def common_seeds(table: CellTable, found: pd.DataFrame) -> tuple[int, ...]:
    """Return the retraining seeds that table and searches share: all means are over these.

    Args:
        table: The cells.
        found: Rows by `cell_rows` of sweeps of searches.

    Raises:
        SystemExit: If the searches cannot be placed: another backbone, fold, form or length of
            retraining, or no seed in common.
    """
    searched = found[found["kind"] == SEARCHED]
    for name in ("pretrain_key", "form", "retraining"):
        own = table.form if name == "form" else table.rows[name].iloc[0]
        others = sorted(set(searched[name]) - {own})
        if others:
            raise SystemExit(
                f"searches must have the {name} of the table, {own!r}, got {', '.join(others)}; "
                "search on the table's backbone and fold, retrain in its form"
            )
    seeds = sorted(set(table.seeds) & {int(seed) for seed in searched["retrain_seed"]})
    if not seeds:
        raise SystemExit("searches must be retrained with a seed of the table, got none")
    return tuple(seeds)


def placed(table: CellTable, found: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Return a row per search whose cell was retrained with all of the seeds.

    Args:
        table: The cells.
        found: Rows by `cell_rows` of sweeps of searches.
        seeds: Those of `common_seeds`.

    Returns:
        Columns: ``arm``, ``seed`` (of the search), ``is_alive`` (True, False or None),
        ``live_edges`` (share), ``epochs``, ``search_s`` (wall clock of whatever machine it ran
        on), ``dice``, ``percentile`` (among the random cells), ``to_uniform`` (Dice points over
        the best uniform cell).

    Raises:
        SystemExit: If a cell was retrained twice with one seed.
    """
    searched = found[(found["kind"] == SEARCHED) & found["retrain_seed"].isin(list(seeds))]
    if searched.duplicated(["name", "seed", "retrain_seed"]).any():
        raise SystemExit("a found cell must be retrained once per seed; leave sweeps out")
    random = means(table, RANDOM, seeds).to_numpy()
    _, uniform = best_uniform(table, seeds)
    rows = []
    for key, part in searched.groupby(["name", "seed"], sort=False):
        if len(part) < len(seeds):
            continue
        dice, first = float(part["dice"].mean()), part[_SEARCH].iloc[0]
        name, is_alive = str(key[0]), first["search_is_alive"]
        rows.append(
            {
                "arm": name,
                "seed": int(part["seed"].iloc[0]),
                "is_alive": None if pd.isna(is_alive) else bool(is_alive),
                "live_edges": first["live_edge_share"],
                "epochs": first["search_epochs"],
                "search_s": first["search_s"],
                "dice": dice,
                "percentile": percentile(dice, random),
                "to_uniform": 100 * (dice - uniform),
            }
        )
    if not rows:
        raise SystemExit("no search was retrained with all seeds that it shares with the table")
    return pd.DataFrame(rows)


def arms(
    table: CellTable, searches: pd.DataFrame, seeds: Sequence[int], ceiling: float
) -> pd.DataFrame:
    """Return a row per arm, over its searches that were alive or do not say.

    The unit is the search. What a dead search found is a random cell and is left out.

    Args:
        table: The cells.
        searches: Rows by `placed`.
        seeds: Those of `common_seeds`.
        ceiling: Percentile that a perfect search can be expected to reach.

    Returns:
        Columns: ``arm``, ``n`` (searches), ``n_dead`` (left out), ``dice`` (mean), ``sd`` (points,
        between searches), ``percentile`` (median), ``of_ceiling`` (that over the ceiling),
        ``to_random`` (Dice points over the
        random cells) with its 95 % interval ``random_low``, ``random_high`` and a one-sided ``p``,
        all by Welch's t, since the mean of the random cells has an error too; ``to_uniform`` (over
        the best uniform cell) with ``uniform_low``, ``uniform_high`` by Student's t; ``to_free``
        (over the random cells without pools) with ``free_low``, ``free_high`` by Welch's t;
        ``cost`` (full retrainings: the median search and one retraining of what it found, in
        recorded seconds).
    """
    random = means(table, RANDOM, seeds).to_numpy()
    free = means(table, WITHOUT_POOLS, seeds).to_numpy()
    retraining_s = table.rows.loc[table.rows["kind"] == RANDOM, "retrain_s"].median()
    rows = []
    for name, every in searches.groupby("arm", sort=False):
        part = every[every["is_alive"].ne(False)]
        own, uniform = part["dice"].to_numpy(float), part["to_uniform"].to_numpy(float)
        middle = float(part["percentile"].median())
        low, high, p = welch(own, random)
        rows.append(
            {
                "arm": name,
                "n": len(part),
                "n_dead": len(every) - len(part),
                "dice": part["dice"].mean(),
                "sd": 100 * part["dice"].std(),
                "percentile": middle,
                "of_ceiling": middle / ceiling,
                "to_random": 100 * (part["dice"].mean() - random.mean()),
                **_named(("random_low", "random_high"), (low, high), 100),
                "p": p,
                "to_uniform": part["to_uniform"].mean(),
                **_named(("uniform_low", "uniform_high"), student(uniform), 1),
                "to_free": 100 * (part["dice"].mean() - free.mean()) if len(free) else np.nan,
                **_named(("free_low", "free_high"), welch(own, free)[:2], 100),
                "cost": 1 + part["search_s"].median() / retraining_s,
            }
        )
    return pd.DataFrame(rows)


def _named(
    names: tuple[str, str], interval: tuple[float, float], factor: float
) -> dict[str, float]:
    return {name: factor * bound for name, bound in zip(names, interval, strict=True)}
