"""Halving and random search by hand on a tiny table, and against what must hold on any."""

import numpy as np
import pytest
from cell_tables import curves, random_cells, simulated, write

from benchmarks.cell_table.replay import (
    Curves,
    curves_of,
    n_affordable,
    n_epochs,
    pick,
    replay,
    rungs,
)
from benchmarks.cell_table.table import cell_rows, cell_table, read

# Four cells after 1, 2, 3 and 4 epochs. Halving keeps 0 and 1 after the first epoch and 1 after
# the second, though 3 would have been the best in the end.
TINY = np.array(
    [
        [0.60, 0.61, 0.62, 0.63],
        [0.50, 0.65, 0.66, 0.67],
        [0.40, 0.70, 0.71, 0.72],
        [0.10, 0.20, 0.30, 0.90],
    ]
)


def test_halving_by_hand():
    looks = rungs([1, 2, 3, 4])
    assert looks == (0, 1, 3)
    assert pick(TINY, looks) == 1
    assert pick(TINY, (3,)) == 3  # random search among all four
    assert pick(TINY[[0, 2, 3]], looks) == 0  # 3 → 1 cell after the first epoch
    assert n_epochs(4, [1, 2, 4]) == 4 * 1 + 2 * 1 + 1 * 2
    assert n_epochs(3, [1, 2, 4]) == 3 * 1 + 1 * 1 + 1 * 2
    assert n_epochs(4, [4]) == 16


def test_a_budget_buys_as_many_candidates_as_it_pays_for():
    assert [n_affordable(budget, [1, 2, 4], 9) for budget in (4, 5, 8, 16)] == [1, 2, 4, 8]
    assert [n_affordable(budget, [4], 9) for budget in (3, 4, 11, 400)] == [1, 1, 2, 9]
    for budget in (20, 40, 80, 160, 320):
        n = n_affordable(budget, [4, 8, 20], 60)
        assert n_epochs(n, [4, 8, 20]) <= budget < n_epochs(n + 1, [4, 8, 20])


@pytest.mark.parametrize(
    ("epochs", "looks"),
    [
        ([4, 8, 12, 16, 20], (0, 1, 4)),
        (range(1, 9), (0, 1, 3, 7)),
        ([20], (0,)),
        ([10, 20], (0, 1)),
        ([15, 20], (1,)),
    ],
)
def test_lengths_are_halved_down_to_the_first_look(epochs, looks):
    assert rungs(list(epochs)) == looks


def test_a_budget_for_all_cells_picks_what_the_hand_picks():
    dice = np.array([[0.63], [0.67], [0.72], [0.90]])
    tiny = Curves(scores=TINY[:, None, :], epochs=(1, 2, 3, 4))
    halved = replay(tiny, dice, 8, rungs(tiny.epochs), n_resamples=20)
    assert (halved.n_candidates, halved.epochs) == (4, 8)
    assert halved.dice == pytest.approx(0.67)
    assert halved.percentile == pytest.approx(100 / 3)
    whole = replay(tiny, dice, 16, (3,), n_resamples=20)
    assert (whole.n_candidates, whole.epochs, whole.percentile) == (4, 16, 100)
    assert np.isnan(whole.dice_elsewhere)


def test_one_retraining_of_a_random_cell_is_expected_to_be_the_mean():
    dice = simulated(40, 3, sd_cell=0.02, sd_seed=0.01, sd_noise=0.01)
    flat = Curves(scores=dice[:, :, None], epochs=(20,))
    found = replay(flat, dice, 20, (0,))
    assert found.dice == pytest.approx(dice.mean(), abs=0.0015)
    assert found.percentile == pytest.approx(50, abs=2)
    assert found == replay(flat, dice, 20, (0,))


def test_the_best_of_n_is_expected_where_the_order_statistic_says():
    """Without noise the best of n of N cells is picked: its mean rank is n (N + 1) / (n + 1)."""
    dice = np.repeat(np.linspace(0.7, 0.8, 40)[:, None], 3, axis=1)
    exact = Curves(scores=dice[:, :, None], epochs=(20,))
    for n in (2, 4, 8):
        rank = n * 41 / (n + 1)
        found = replay(exact, dice, 20 * n, (0,))
        assert found.percentile == pytest.approx(100 * (rank - 1) / 39, abs=1.5)
        assert found.dice == pytest.approx(found.dice_elsewhere)


def test_the_seed_that_a_cell_is_picked_by_flatters_it():
    noise = simulated(400, 3, sd_cell=0.0, sd_seed=0.0, sd_noise=0.02)
    found = replay(Curves(scores=noise[:, :, None], epochs=(20,)), noise, 320, (0,))
    assert found.dice > noise.mean() + 0.005
    assert found.dice_elsewhere == pytest.approx(noise.mean(), abs=0.004)


def test_curves_are_those_of_the_random_cells_best_so_far(tmp_path):
    dice = simulated(3, 2, sd_cell=0.02, sd_seed=0.01, sd_noise=0.01)
    jobs = random_cells(dice)
    scores = {row["job_id"]: [0.5, 0.4, 0.6, 0.55, row["val_dice"]] for row in jobs}
    folder = write(tmp_path, jobs[::-1], curves(jobs, scores, start=0.45))
    table = cell_table(cell_rows(read([folder], "jobs"), "validation"), read([folder], "curves"))
    found = curves_of(table)
    assert found.epochs == (4, 8, 12, 16, 20)
    assert found.scores.shape == (3, 2, 5)
    # The table's own order of cells: that of its rows.
    assert found.scores[:, :, -1] == pytest.approx(dice[::-1])
    assert found.scores[0, 0, :4].tolist() == [0.5, 0.5, 0.6, 0.6]


def test_a_start_that_no_epoch_beats_is_what_a_short_retraining_returns(tmp_path):
    jobs = random_cells(simulated(3, 2, sd_cell=0.02, sd_seed=0, sd_noise=0.01))
    scores = {row["job_id"]: [0.5, 0.6, 0.7, 0.8, 0.9] for row in jobs}
    folder = write(tmp_path, jobs, curves(jobs, scores, start=0.65))
    table = cell_table(cell_rows(read([folder], "jobs"), "validation"), read([folder], "curves"))
    assert curves_of(table).scores[0, 0].tolist() == [0.65, 0.65, 0.7, 0.8, 0.9]


def test_nothing_is_replayed_without_the_curve_of_a_job(tmp_path):
    jobs = random_cells(simulated(3, 2, sd_cell=0.02, sd_seed=0, sd_noise=0.01))
    folder = write(tmp_path, jobs, curves(jobs[1:]))
    table = cell_table(cell_rows(read([folder], "jobs"), "validation"), read([folder], "curves"))
    assert curves_of(table) is None
