"""Searched cells beside random and uniform ones: ``python -m benchmarks.found_cells FOUND GIVEN``.

Reads the tables of two sweeps on one backbone and one fold (sweeps/acdc_searches.yaml and
sweeps/acdc_cells.yaml, or those of hippocampus). A cell's Dice is the mean over its retraining
seeds, on validation patients. A found cell's percentile is the share of the random cells that it
beats.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from results.store import read_table


def cell_dice(jobs: pd.DataFrame, by: list[str]) -> pd.Series:
    """Return the mean validation Dice of the finished jobs of each cell."""
    done = jobs[jobs["status"] == "done"]
    return done.groupby(by, sort=False)["val_dice"].mean()


def compared(searches: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return a row per found cell.

    Args:
        searches: Table ``jobs`` of the searches.
        cells: Table ``jobs`` of random and uniform cells.

    Returns:
        Columns: ``pruner``, ``seed``, ``is_alive``, ``live_edges`` (share), ``epochs``,
        ``search_s`` (wall-clock of whatever machine it ran on), ``dice``, ``percentile`` (of the
        random cells, 0 to 100), ``to_uniform`` (Dice points over the best uniform cell).
    """
    given = cell_dice(cells, ["pruner"])
    random = given[given.index.str.startswith("random_")].to_numpy()
    is_uniform = ~given.index.str.startswith(("random_", "no_cell"))
    best_uniform = float(given[is_uniform].max())
    found = cell_dice(searches, ["pruner", "seed"])
    first = searches.drop_duplicates(["pruner", "seed"]).set_index(["pruner", "seed"])
    rows = [
        {
            "pruner": pruner,
            "seed": seed,
            "is_alive": first.loc[(pruner, seed), "search_is_alive"],
            "live_edges": first.loc[(pruner, seed), "live_edge_share"],
            "epochs": first.loc[(pruner, seed), "search_epochs"],
            "search_s": first.loc[(pruner, seed), "search_s"],
            "dice": dice,
            "percentile": 100 * float(np.mean(random < dice)),
            "to_uniform": 100 * (dice - best_uniform),
        }
        for (pruner, seed), dice in found.items()
    ]
    return pd.DataFrame(rows)


def main() -> None:
    """Print the given cells, a row per search, and the medians by kind of search as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("searches", type=Path, help="folder of the tables of the searches")
    parser.add_argument("cells", type=Path, help="folder of the tables of the given cells")
    options = parser.parse_args()
    cells = read_table(options.cells / "jobs.parquet", "jobs")
    searches = read_table(options.searches / "jobs.parquet", "jobs")
    given = cell_dice(cells, ["pruner"]).sort_values(ascending=False)
    print(given.to_string(float_format=lambda value: f"{value:.4f}"))
    rows = compared(searches, cells)
    print(rows.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    medians = rows.groupby("pruner", sort=False)[["percentile", "to_uniform", "epochs"]].median()
    alive = rows.groupby("pruner", sort=False)["is_alive"].agg(lambda one: int(one.eq(True).sum()))
    print(
        json.dumps(
            {
                "name": "found_cells",
                "median": json.loads(medians.round(2).to_json(orient="index")),
                "alive": {str(name): int(count) for name, count in alive.items()},
                "n": len(rows),
                "unit": "percentile of the random cells; Dice points over the best uniform cell",
            }
        )
    )


if __name__ == "__main__":
    main()
