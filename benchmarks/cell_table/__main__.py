"""What a table of cells shows: ``python -m benchmarks.cell_table TABLES [TABLES …]``.

Reads the tables of sweeps such as sweeps/cell_table_hippocampus.yaml, by validation Dice unless
``--subset test``; random search and halving always choose by validation curves. With ``--found``
the cells of searches on the same backbone and fold are placed among the random ones.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cell_table.beside import beside_random, best_uniform, second_forms
from benchmarks.cell_table.ceiling import ceiling
from benchmarks.cell_table.explained import explained
from benchmarks.cell_table.found import arms, common_seeds, placed
from benchmarks.cell_table.replay import Curves, curves_of, replay, rungs
from benchmarks.cell_table.table import RANDOM, CellTable, by_seed, cell_rows, cell_table, read
from results.statistics.variance_components import (
    Estimate,
    TwoWayAnova,
    reliability,
    row_ratio,
    share_of_pair,
    two_way_anova,
    variance_shares,
)

_BUDGETS = (1, 2, 4, 8, 16)
_ROUNDING = 1e-9
"""Differences in Dice below this are rounding."""


def main() -> None:
    """Print what the table shows, then one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cell_table", description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+", help="folders of tables of the cells")
    parser.add_argument(
        "--found", type=Path, nargs="+", default=[], help="folders of tables of searches"
    )
    parser.add_argument("--subset", choices=("validation", "test"), default="validation")
    options = parser.parse_args()
    rows = cell_rows(read(options.tables, "jobs"), options.subset)
    table = cell_table(rows, read(options.tables, "curves"))
    found = cell_rows(read(options.found, "jobs"), options.subset) if options.found else None
    print(json.dumps(plain(report(table, found) | {"subset": options.subset}), allow_nan=False))


def report(table: CellTable, found: pd.DataFrame | None) -> dict[str, Any]:
    """Print all parts and return what the last line says."""
    dice = by_seed(table, RANDOM)
    if len(dice) < 3 or len(table.seeds) < 2:
        raise SystemExit(
            "the analysis needs three random cells with two retraining seeds each, got "
            f"{dice.shape[0]} with {len(table.seeds)}; run the sweep on"
        )
    if np.ptp(dice.to_numpy(), axis=0).max() < _ROUNDING:
        raise SystemExit(
            "random cells must differ in Dice, got one value for all; with a form that starts as "
            "the backbone every retraining may have returned its start"
        )
    n_all = table.rows[table.rows["kind"] == RANDOM]["name"].nunique()
    print(f"{len(dice)} of {n_all} random cells have all of the seeds {table.seeds}.")
    anova = two_way_anova(dice.to_numpy())
    limits = {n: reliability(row_ratio(anova), n) for n in range(1, len(table.seeds) + 1)}
    said = {
        "name": "cell_table",
        "form": table.form,
        "n": dice.size,
        "unit": "Dice; percentiles of the random cells; Dice points for differences",
        "n_cells": len(dice),
        "n_seeds": len(table.seeds),
        **_variances(anova),
        "reliability": asdict(limits[len(table.seeds)]),
        "ceiling": _ceilings(limits[len(table.seeds)], len(dice)),
        "r2": _explained(table, dice, limits[len(table.seeds)]),
        "cells": _beside(table),
        "second_forms": _second_forms(table),
    }
    costs: dict[str, float] = {}
    if found is not None:
        seeds = common_seeds(table, found)
        top = ceiling(limits[len(seeds)].value, len(dice)).judged
        said["found"], costs = _found(table, found, seeds, top)
    curves = curves_of(table)
    if curves is None:
        print("\nThe tables have no validation curves of all random cells: nothing is replayed.")
    else:
        said["replay"] = _replayed(curves, dice, costs)
    return said


def _variances(anova: TwoWayAnova) -> dict[str, Any]:
    shares = variance_shares(anova)
    pair = share_of_pair(row_ratio(anova))
    variances = (anova.row_variance, anova.column_variance, anova.residual_variance)
    named = dict(
        zip(
            ("genotype", "seed", "residual"),
            zip(variances, (shares.row, shares.column, shares.residual), strict=True),
            strict=True,
        )
    )
    print("\nVariance components (genotype × retraining seed, one value each)")
    for name, (variance, share) in named.items():
        print(f"{name:>10}: sd {100 * math.sqrt(variance):.2f} points, share {_text(share)}")
    print(f"  genotype / (genotype + residual): {_text(pair)}, exact F-interval")
    return {
        "sd": {name: 100 * math.sqrt(variance) for name, (variance, _) in named.items()},
        "shares": {name: asdict(share) for name, (_, share) in named.items()},
        "genotype_of_pair": asdict(pair),
    }


def _ceilings(estimate: Estimate, n_cells: int) -> dict[str, Any]:
    bounds = {name: ceiling(value, n_cells) for name, value in asdict(estimate).items()}
    print(f"\nReliability of the mean over all seeds: {_text(estimate)}, exact F-interval")

    def line(words: str, attribute: str) -> str:
        value, low, high = (getattr(bounds[name], attribute) for name in ("value", "low", "high"))
        return f"  {words}: percentile {value:.1f} ({low:.1f} to {high:.1f})"

    print("  A perfect search takes the cell whose true value is the highest; it stands")
    print(line("by its noisy mean at expected", "judged"))
    print(line("(median)", "judged_median"))
    print(line("The highest noisy mean has an expected true", "chosen"))
    return asdict(bounds["value"]) | {"low": bounds["low"].judged, "high": bounds["high"].judged}


def _explained(table: CellTable, dice: pd.DataFrame, limit: Estimate) -> dict[str, float]:
    rows = table.rows[(table.rows["kind"] == RANDOM) & (table.rows["form"] == table.form)]
    cells = rows.drop_duplicates("name").set_index("name").loc[dice.index]
    found = explained(dice.mean(axis=1), cells)
    print("\nLeave-one-out R² of the mean Dice (0: no better than the mean; at most the")
    print(f"reliability, {limit.value:.2f})")
    for name, value in found.items():
        print(f"  {name}: {value:.3f}")
    return found


def _beside(table: CellTable) -> dict[str, Any]:
    rows = beside_random(table)
    print("\nBeside the random cells (percentiles; Dice points over the mean of the random cells)")
    print(_frame(rows))
    name, dice = best_uniform(table)
    keyed = rows.assign(key=rows["kind"].where(rows["cell"] == "all", rows["cell"]))
    columns = ["dice", "percentile", "to_random"]
    found = _by_name(keyed.set_index("key")[columns])
    return found | {"best_uniform": {"name": name, "dice": dice}}


def _second_forms(table: CellTable) -> dict[str, Any]:
    rows = second_forms(table)
    if rows.empty:
        return {}
    print(f"\nThe same cells in another form than {table.form} (gain in Dice points)")
    print(_frame(rows))
    return _by_name(rows.set_index("form"))


def _found(
    table: CellTable, found: pd.DataFrame, seeds: tuple[int, ...], top: float
) -> tuple[dict[str, Any], dict[str, float]]:
    """Print searches and arms; return the arms, and their costs in full retrainings."""
    rows = placed(table, found, seeds)
    print(f"\nFound cells, means over the retraining seeds {seeds}")
    print(_frame(rows))
    by_arm = arms(table, rows, seeds, top)
    print(f"\nArms (a perfect search can be expected at percentile {top:.1f})")
    print(_frame(by_arm))
    keyed = by_arm.set_index("arm")
    costs = {str(arm): float(cost) for arm, cost in keyed["cost"].dropna().items()}
    return _by_name(keyed), costs


def _replayed(
    curves: Curves, dice: pd.DataFrame, costs: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Print what random search and successive halving pick at every budget; return it."""
    ways = {"random search": (len(curves.epochs) - 1,), "successive halving": rungs(curves.epochs)}
    lengths = [curves.epochs[look] for look in ways["successive halving"]]
    print(f"\nReplayed searches; halving after {lengths[:-1]} of {curves.epochs[-1]} epochs")
    budgets = {f"{n}": float(n) for n in _BUDGETS} | {f"as {arm}": n for arm, n in costs.items()}
    found = {
        name: {
            way: asdict(replay(curves, dice.to_numpy(), n * curves.epochs[-1], looks))
            for way, looks in ways.items()
        }
        for name, n in budgets.items()
    }
    lines = [
        {"budget": name, "retrainings": budgets[name], "search": way, **one}
        for name, both in found.items()
        for way, one in both.items()
    ]
    print(_frame(pd.DataFrame(lines)))
    return found


def _by_name(rows: pd.DataFrame) -> dict[str, Any]:
    return {str(name): dict(row) for name, row in rows.to_dict(orient="index").items()}


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _frame(rows: pd.DataFrame) -> str:
    return rows.to_string(index=False, float_format=lambda value: f"{value:.4g}")


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON of any shape
    """Return a value as JSON takes it: numbers with five digits, null for NaN."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    main()
