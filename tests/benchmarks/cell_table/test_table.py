"""From Parquet tables to cells × seeds, and tables that cannot be put together."""

import numpy as np
import pytest
from cell_tables import cell, curves, random_cells, simulated, write

from benchmarks.cell_table.table import (
    CONTROL,
    RANDOM,
    SEARCHED,
    UNIFORM,
    WITHOUT_POOLS,
    by_seed,
    cell_rows,
    cell_table,
    own_percentiles,
    percentile,
    read,
)
from results.schema import empty

DICE = simulated(5, 3, sd_cell=0.02, sd_seed=0.01, sd_noise=0.01)
FREE = "none,skip_connect,sep_conv_3x3"


def table_of(tmp_path, jobs, curve_rows=None, subset="validation"):
    folder = write(tmp_path / "tables", jobs, curve_rows)
    return cell_table(cell_rows(read([folder], "jobs"), subset), read([folder], "curves"))


def test_settings_of_the_pruner_axis_say_what_a_cell_is(tmp_path):
    jobs = [
        *random_cells(DICE),
        *cell("free_0", [0.7] * 3, config_pruner_draw=100, config_pruner_operations=FREE),
        *cell("skip", [0.6] * 3, config_pruner_operation="skip_connect"),
        *cell("no_cell", [0.5] * 3),
        *cell("js_stability", [0.4] * 3),
    ]
    table = table_of(tmp_path, jobs)
    assert by_seed(table, RANDOM).to_numpy() == pytest.approx(DICE)
    assert list(by_seed(table, RANDOM).index) == [f"random_{n}" for n in range(5)]
    names = {kind: list(by_seed(table, kind).index) for kind in (WITHOUT_POOLS, UNIFORM, CONTROL)}
    assert names == {WITHOUT_POOLS: ["free_0"], UNIFORM: ["skip"], CONTROL: ["no_cell"]}
    assert list(by_seed(table, SEARCHED).index) == ["js_stability"]


def test_validation_dice_is_looked_at_unless_test_is_asked_for(tmp_path):
    table = table_of(tmp_path, random_cells(DICE), subset="test")
    assert by_seed(table, RANDOM).to_numpy() == pytest.approx(DICE - 0.1)
    assert by_seed(table, RANDOM, column="validation_dice").to_numpy() == pytest.approx(DICE)
    with pytest.raises(SystemExit, match="finished jobs with test Dice, got none"):
        table_of(tmp_path, random_cells(DICE, test_dice=None), subset="test")


def test_failed_jobs_and_cells_that_lack_a_seed_are_left_out(tmp_path):
    jobs = random_cells(DICE)
    jobs[0]["status"] = "failed"
    del jobs[5]
    table = table_of(tmp_path, jobs)
    assert table.seeds == (0, 1, 2)
    assert list(by_seed(table, RANDOM).index) == ["random_2", "random_3", "random_4"]
    assert len(by_seed(table, RANDOM, seeds=[1])) == 5


def test_the_form_of_most_random_cells_is_that_of_the_table(tmp_path):
    first = write(tmp_path / "replace", random_cells(DICE), curves(random_cells(DICE)))
    second = write(tmp_path / "added", random_cells(DICE[:2] + 0.1, config_cell_form="added"))
    folders = [second, first]
    table = cell_table(cell_rows(read(folders, "jobs"), "validation"), read(folders, "curves"))
    assert table.form == "replace"
    assert by_seed(table, RANDOM, form="added").to_numpy() == pytest.approx(DICE[:2] + 0.1)
    assert len(table.curves) == 5 * 3 * 21


def test_a_sweep_without_curves_has_no_rows_of_them(tmp_path):
    folder = write(tmp_path, random_cells(DICE))
    assert read([folder], "curves").equals(empty("curves"))


def test_what_cannot_be_compared_is_refused(tmp_path):
    folder = write(tmp_path / "tables", random_cells(DICE))
    with pytest.raises(SystemExit, match="one of the folders alone"):
        read([folder, folder], "jobs")
    with pytest.raises(SystemExit, match="one pretrain_key, got 2"):
        table_of(tmp_path, random_cells(DICE) + cell("no_cell", [0.5] * 3, pretrain_key="q"))
    with pytest.raises(SystemExit, match="one retraining, got 2"):
        table_of(tmp_path, random_cells(DICE) + cell("x", [0.5] * 3, config_retrain_epochs=9))
    again = [row | {"job_id": "again"} for row in random_cells(DICE)[:1]]
    with pytest.raises(SystemExit, match="once per form and seed"):
        table_of(tmp_path, random_cells(DICE) + again)
    with pytest.raises(SystemExit, match="must hold random cells"):
        table_of(tmp_path, cell("no_cell", [0.5] * 3))


def test_ties_count_half_in_a_percentile():
    assert percentile(0.5, np.array([0.5] * 4)) == 50
    assert own_percentiles(np.array([0.5, 0.5, 0.7])).tolist() == [25, 25, 100]
