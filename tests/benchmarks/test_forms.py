"""The rule by which the screen of forms has a winner."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.forms import FORM, compared, winner

CELLS = [f"random_{n}" for n in range(6)]


def screen(**forms):
    """Jobs of forms: mean Dice, deviation between cells, share that kept its start, seeds."""
    generator = np.random.default_rng(0)
    rows = [
        {"pruner": "no_cell", "seed": seed, "status": "done", "val_dice": 0.83}
        for seed in range(3)
    ]
    for form, (dice, sd, kept, n_seeds) in forms.items():
        own = sd * np.linspace(-1, 1, len(CELLS))
        rows += [
            {
                "pruner": cell, "seed": seed, "status": "done",
                "val_dice": dice + own[place] + 0.001 * generator.standard_normal(),
                "retrain_kept_start": place < kept * len(CELLS),
                FORM[0]: 0.25 if form == "papers" else 1.0, FORM[1]: form, FORM[2]: "replace",
            }
            for seed in range(n_seeds)
            for place, cell in enumerate(CELLS)
        ]  # fmt: skip
    jobs = pd.DataFrame(rows).convert_dtypes()  # as a table of Parquet is read
    jobs.loc[jobs[FORM[1]] == "papers", FORM[1]] = "plain"
    return jobs


def test_the_best_form_wins_that_trains_and_tells_cells_apart():
    jobs = screen(
        papers=(0.79, 0.01, 0.0, 3),
        returns_its_start=(0.84, 0.01, 1.0, 3),
        ties=(0.83, 0.0, 0.0, 3),
        one_seed=(0.82, 0.01, 0.0, 1),
        good=(0.81, 0.005, 0.0, 3),
    )
    rows = compared(jobs)
    assert rows["start"].tolist() == ["returns_its_start", "ties", "one_seed", "good", "plain"]
    assert winner(rows)["start"] == "good"
    good = rows.set_index("start").loc["good"]
    assert good["gain"] == pytest.approx(2.0, abs=0.1)
    assert good["low"] < good["gain"] < good["high"]
    assert good["to_backbone"] == pytest.approx(-2.0, abs=0.1)
    assert good["sd_seeds"] == pytest.approx(0.1, abs=0.05)
    assert np.isnan(rows.set_index("start").loc["one_seed", "p_cells"])


def test_without_a_form_that_can_win_there_is_no_winner():
    rows = compared(screen(papers=(0.79, 0.0, 0.0, 3), ties=(0.83, 0.0, 0.0, 3)))
    with pytest.raises(SystemExit, match="must tell cells apart"):
        winner(rows)
