"""Found cells in a table, other cells beside it, and the whole benchmark on written tables."""

import json
import sys

import numpy as np
import pytest
from cell_tables import cell, curves, random_cells, simulated, write
from scipy import stats

from benchmarks.cell_table.__main__ import main
from benchmarks.cell_table.beside import beside_random, best_uniform, second_forms
from benchmarks.cell_table.found import arms, common_seeds, placed
from benchmarks.cell_table.table import cell_rows, cell_table, read

DICE = simulated(60, 3, sd_cell=0.02, sd_seed=0.005, sd_noise=0.01)
FREE = simulated(20, 3, sd_cell=0.01, sd_seed=0, sd_noise=0.01, seed=5) + 0.02
OPERATIONS = "none,skip_connect,sep_conv_3x3"


def given():
    return [
        *random_cells(DICE),
        *cell("sep", [0.83, 0.83, 0.84], config_pruner_operation="sep_conv_5x5"),
        *cell("skip", [0.70, 0.70, 0.70], config_pruner_operation="skip_connect"),
        *cell("no_cell", [0.85] * 3),
        *(
            row
            for n, dice in enumerate(FREE.tolist())
            for row in cell(
                f"free_{n}", dice, config_pruner_draw=100 + n, config_pruner_operations=OPERATIONS
            )
        ),
    ]


def search(arm, seed, dice, *, seeds=(0, 1, 2), **more):
    row = {
        "search_is_alive": True, "live_edge_share": 1.0, "search_epochs": 30, "search_s": 100.0,
        "seed": seed,
    }  # fmt: skip
    return cell(arm, dice, seeds=seeds, **(row | more))


@pytest.fixture
def table(tmp_path):
    return table_of(tmp_path / "given", given())


def table_of(folder, jobs):
    write(folder, jobs)
    return cell_table(cell_rows(read([folder], "jobs"), "validation"), read([folder], "curves"))


def rows_of(tmp_path, jobs):
    return cell_rows(read([write(tmp_path / "found", jobs)], "jobs"), "validation")


def test_a_found_cell_stands_among_the_random_ones_of_the_same_seeds(table, tmp_path):
    jobs = [
        *search("none", 0, [0.80, 0.81], seeds=(0, 1)),
        *search("none", 1, [0.9, 0.9], seeds=(0, 1)),
        *search("none", 2, [0.9], seeds=(0,)),
    ]
    found = rows_of(tmp_path, jobs)
    seeds = common_seeds(table, found)
    assert seeds == (0, 1)
    rows = placed(table, found, seeds)
    assert rows["seed"].tolist() == [0, 1]  # the third lacks a seed
    assert rows["percentile"].tolist() == [
        pytest.approx(100 * np.mean(DICE[:, :2].mean(axis=1) < 0.805)),
        100,
    ]
    assert rows["to_uniform"].tolist() == pytest.approx([100 * (0.805 - 0.83), 7])


def test_an_arm_is_tested_over_its_living_searches(table, tmp_path):
    values = [0.83, 0.84, 0.82, 0.85, 0.83, 0.81]
    jobs = [row for seed, v in enumerate(values) for row in search("js", seed, [v] * 3)]
    jobs += search("js", 6, [0.2] * 3, search_is_alive=False)
    found = rows_of(tmp_path, jobs)
    searches = placed(table, found, (0, 1, 2))
    (row,) = arms(table, searches, (0, 1, 2), 90.0).to_dict("records")
    assert (row["n"], row["n_dead"]) == (6, 1)
    assert row["dice"] == pytest.approx(np.mean(values))
    middle = np.median([100 * np.mean(DICE.mean(axis=1) < value) for value in values])
    assert (row["percentile"], row["of_ceiling"]) == pytest.approx((middle, middle / 90))
    random = DICE.mean(axis=1)
    expected = stats.ttest_ind(values, random, equal_var=False, alternative="greater")
    assert row["p"] == pytest.approx(expected.pvalue)
    interval = stats.ttest_ind(values, random, equal_var=False).confidence_interval(0.95)
    assert (row["random_low"], row["random_high"]) == pytest.approx(
        (100 * interval.low, 100 * interval.high)
    )
    assert row["to_random"] == pytest.approx(100 * (np.mean(values) - random.mean()))
    assert row["random_low"] < row["to_random"] < row["random_high"]
    mean, sd = np.mean(values) - 2.5 / 3, np.std(values, ddof=1)
    assert row["to_uniform"] == pytest.approx(100 * mean)
    half = stats.t.ppf(0.975, 5) * sd / np.sqrt(6)
    assert (row["uniform_low"], row["uniform_high"]) == pytest.approx(
        (100 * (mean - half), 100 * (mean + half))
    )
    assert row["to_free"] == pytest.approx(100 * (np.mean(values) - FREE.mean()))
    assert row["cost"] == pytest.approx(1 + 100 / 50)


def test_a_worse_arm_has_a_high_p_and_one_search_has_none(table, tmp_path):
    jobs = [row for seed in range(6) for row in search("bad", seed, [0.7 + seed / 100] * 3)]
    jobs += search("once", 0, [0.9] * 3)
    searches = placed(table, rows_of(tmp_path, jobs), (0, 1, 2))
    bad, once = arms(table, searches, (0, 1, 2), 90.0).to_dict("records")
    assert bad["p"] > 0.9
    assert np.isnan([once["p"], once["random_low"], once["uniform_low"], once["free_high"]]).all()
    assert once["percentile"] == 100


def test_an_arm_of_dead_searches_alone_has_no_numbers(table, tmp_path):
    jobs = [
        row for seed in range(3) for row in search("dead", seed, [0.9] * 3, search_is_alive=False)
    ]
    searches = placed(table, rows_of(tmp_path, jobs), (0, 1, 2))
    (row,) = arms(table, searches, (0, 1, 2), 90.0).to_dict("records")
    assert (row["n"], row["n_dead"]) == (0, 3)
    assert np.isnan([row["dice"], row["percentile"], row["p"], row["cost"]]).all()


def test_searches_that_do_not_say_whether_they_were_alive_count(table, tmp_path):
    jobs = [
        row for seed in range(3) for row in search("old", seed, [0.9] * 3, search_is_alive=None)
    ]
    searches = placed(table, rows_of(tmp_path, jobs), (0, 1, 2))
    (row,) = arms(table, searches, (0, 1, 2), 90.0).to_dict("records")
    assert (row["n"], row["n_dead"], row["percentile"]) == (3, 0, 100)
    # All of them found the same cell: the error is that of the random cells alone.
    random = DICE.mean(axis=1)
    half = stats.t.ppf(0.975, 59) * random.std(ddof=1) / np.sqrt(60)
    assert row["random_high"] - row["to_random"] == pytest.approx(100 * half)
    assert row["p"] < 1e-6


def test_the_one_sided_test_keeps_its_level_where_found_cells_are_random_ones(table, tmp_path):
    generator = np.random.default_rng(3)
    jobs = []
    for arm in range(120):
        dice = 0.8 + 0.02 * generator.standard_normal((6, 1))
        dice = dice + 0.01 * generator.standard_normal((6, 3))
        dice += DICE.mean() - 0.8
        jobs += [row for seed in range(6) for row in search(f"a{arm}", seed, dice[seed].tolist())]
    searches = placed(table, rows_of(tmp_path, jobs), (0, 1, 2))
    p = arms(table, searches, (0, 1, 2), 90.0)["p"]
    low, high = stats.binom(120, 0.05).interval(0.999)
    assert low <= (p < 0.05).sum() <= high


@pytest.mark.parametrize(
    ("column", "value"),
    [("pretrain_key", "q"), ("config_cell_form", "added"), ("config_retrain_epochs", 5)],
)
def test_searches_of_another_backbone_form_or_length_are_refused(table, tmp_path, column, value):
    found = rows_of(tmp_path, search("none", 0, [0.8] * 3, **{column: value}))
    with pytest.raises(SystemExit, match="of the table"):
        common_seeds(table, found)


def test_searches_without_a_common_seed_or_with_one_twice_are_refused(table, tmp_path):
    with pytest.raises(SystemExit, match="retrained with a seed of the table"):
        common_seeds(table, rows_of(tmp_path, search("none", 0, [0.8], seeds=(7,))))
    jobs = search("none", 0, [0.8] * 3)
    twice = rows_of(tmp_path, jobs + [row | {"job_id": f"{n}"} for n, row in enumerate(jobs)])
    with pytest.raises(SystemExit, match="once per seed"):
        placed(table, twice, (0, 1, 2))


def test_other_cells_stand_beside_the_random_ones(table):
    rows = beside_random(table).set_index("cell")
    random = DICE.mean(axis=1)
    assert rows["kind"].tolist() == ["random", "without pools", "uniform", "uniform", "control"]
    assert rows.loc["sep", "percentile"] == pytest.approx(100 * np.mean(random < 2.5 / 3))
    free = rows[rows["kind"] == "without pools"].iloc[0]
    assert free["to_random"] == pytest.approx(100 * (FREE.mean() - DICE.mean()))
    assert free["low"] < free["to_random"] < free["high"]
    assert best_uniform(table) == ("sep", pytest.approx(2.5 / 3))


def test_the_best_uniform_cell_is_chosen_by_validation_patients_alone(tmp_path):
    jobs = given()
    for row in jobs:
        row["test_dice"] = {"sep": 0.1, "skip": 0.9}.get(row["pruner"], 0.5)
    folder = write(tmp_path, jobs)
    rows = cell_rows(read([folder], "jobs"), "test")
    assert best_uniform(cell_table(rows, read([folder], "curves"))) == ("sep", pytest.approx(0.1))


def test_a_second_form_is_paired_with_the_same_cells(tmp_path):
    second = DICE[:20] + 0.03
    second[0] -= 0.001
    jobs = given() + random_cells(second, config_cell_form="added")
    (row,) = second_forms(table_of(tmp_path, jobs)).to_dict("records")
    assert (row["form"], row["n"]) == ("added", 20)
    assert row["gain"] == pytest.approx(3 - 0.1 / 20)
    assert row["low"] < row["gain"] < row["high"] < row["low"] + 0.1
    assert row["rank"] > 0.99


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["cell_table", *map(str, arguments)])
    main()
    printed = capsys.readouterr().out
    return printed, json.loads(printed.splitlines()[-1])


def test_the_benchmark_ends_with_a_line_of_json(tmp_path, monkeypatch, capsys):
    jobs = given()
    tables = write(tmp_path / "given", jobs, curves(jobs))
    second = random_cells(DICE[:20] + 0.03, config_cell_form="added")
    forms = write(tmp_path / "added", second, curves(second))
    searches = [row for s in range(6) for row in search("none", s, [0.82 + s / 100] * 3)]
    found = write(tmp_path / "found", searches)
    printed, said = run(monkeypatch, capsys, tables, forms, "--found", found)
    assert (said["name"], said["subset"], said["n"]) == ("cell_table", "validation", 180)
    assert said["sd"]["genotype"] == pytest.approx(2.0, abs=0.5)
    truth = 0.02**2 / (0.02**2 + 0.01**2 / 3)
    assert said["reliability"]["low"] < truth < said["reliability"]["high"]
    assert 90 < said["ceiling"]["judged"] < 100
    assert set(said["r2"]) == {"operation counts", "parameters", "MACs"}
    assert said["second_forms"]["added"]["gain"] == pytest.approx(3)
    assert said["found"]["none"]["n"] == 6
    budgets = list(said["replay"])
    assert budgets == ["1", "2", "4", "8", "16", "as none"]
    # Curves keep the order of cells, so halving sees more of them for the same epochs.
    for budget in ("4", "8", "16"):
        random, halved = said["replay"][budget].values()
        assert halved["n_candidates"] > random["n_candidates"]
        assert halved["percentile"] > random["percentile"]
    assert said["replay"]["as none"]["random search"]["epochs"] == 60
    assert said["cells"]["best_uniform"]["name"] == "sep"
    assert "exact F-interval" in printed


def test_tables_of_an_older_version_are_read_and_not_replayed(tmp_path, monkeypatch, capsys):
    tables = write(tmp_path / "given", [row for row in given() if row["config_retrain_seed"] < 2])
    printed, said = run(monkeypatch, capsys, tables, "--subset", "test")
    assert "nothing is replayed" in printed
    assert (said["n_seeds"], said["subset"], "replay" in said) == (2, "test", False)


def test_a_table_with_one_seed_is_not_enough(tmp_path, monkeypatch, capsys):
    tables = write(tmp_path, [row for row in given() if row["config_retrain_seed"] < 1])
    with pytest.raises(SystemExit, match="two retraining seeds each, got 60 with 1"):
        run(monkeypatch, capsys, tables)


def test_cells_that_all_returned_the_backbone_are_refused(tmp_path, monkeypatch, capsys):
    tables = write(tmp_path, random_cells(np.full((9, 3), 0.8)))
    with pytest.raises(SystemExit, match="must differ in Dice"):
        run(monkeypatch, capsys, tables)
