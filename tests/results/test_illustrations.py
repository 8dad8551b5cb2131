from report_rows import job, tables, trajectory

from results.illustrations import illustrations


def test_cells_are_drawn_up_to_a_limit_that_the_first_caption_says():
    rows = [job("none", seed, 0.8, 10.0) for seed in range(14)]
    found = tables(rows)
    shown = illustrations(found["jobs"], found)
    cells = [one for one in shown if one.name.startswith("cell_")]
    assert len(cells) == 12
    assert cells[0].caption.endswith("seed 0 (12 of 14 cells are drawn).")
    assert cells[1].caption.endswith("seed 1.")
    assert all("<svg" in one.svg for one in cells)


def test_a_figure_with_nothing_to_show_is_left_out():
    found = tables([job("no_cell", 0, 0.8)])
    assert illustrations(found["jobs"], found) == []


def test_importances_are_drawn_for_one_search_of_each_arm():
    rows = [job(pruner, 0, 0.8, 10.0) for pruner in ("js_stability", "none")]
    found = tables(rows, trajectory("js_stability") + trajectory("none"))
    names = [one.name for one in illustrations(found["jobs"], found)]
    assert [name for name in names if name.startswith("importance_")] == [
        "importance_none",
        "importance_js_stability",
    ]
