from report_rows import job, tables

from results.main_table import MAIN_COLUMNS, main_table
from results.tables.cells import Missing, Noted

ROWS = [
    job("no_cell", 0, 0.80), job("no_cell", 1, 0.84),
    job("none", 0, 0.86, 100.0), job("none", 1, 0.88, 120.0),
    job("js_stability", 0, 0.85, 25.0), job("js_stability", 1, 0.87, 40.0),
]  # fmt: skip


def entries(frame):
    """Arm → heading → what its row shows."""
    found = main_table(frame)
    rows = [dict(zip(found.header, line, strict=True)) for line in found.lines]
    return {row["arm"]: row for row in rows}


def test_the_main_table_has_means_deviations_and_speedups():
    found = entries(tables(ROWS)["jobs"])
    assert list(found) == ["no_cell", "none", "js_stability"]
    assert found["no_cell"]["Dice"] == "0.820 ± 0.028"
    assert found["no_cell"]["search (s)"] == found["no_cell"]["speed-up"] == "—"
    assert found["none"]["speed-up"] == "1"
    assert found["js_stability"]["speed-up"] == "3.5×"
    assert found["js_stability"]["epochs"] == "20 / 50"
    assert found["js_stability"]["HD95 (mm)"] == "5.5 ± 0.7"


def test_a_setting_on_the_grid_makes_rows_of_its_own():
    rows = [
        *ROWS,
        *(row | {"config_cell_form": "residual", "job_id": f"r{i}"} for i, row in enumerate(ROWS)),
    ]
    found = main_table(tables(rows)["jobs"])
    assert found.header[:3] == ("dataset", "backbone", "cell_form")
    groups = [[row[2].text for row in group] for group in found.groups()]
    assert groups == [["replace"] * 3, ["residual"] * 3]


def test_a_refused_speedup_is_missing_with_its_reason_and_a_footnote():
    rows = [row | {"search_exclusive": False} for row in ROWS]
    found = main_table(tables(rows)["jobs"])
    place = found.header.index("speed-up")
    reason = "a search shared its device (resources.exclusive_search is off)"
    note = f"No speed-up is given: {reason}."
    no_search = Missing("no finished search")
    refused = Noted(Missing(reason), note)
    assert [row[place] for row in found.rows] == [no_search, refused, refused]
    assert found.footnotes == (f"(1) {note}",)


def test_scores_of_validation_patients_are_called_so():
    rows = [row | {"val_dice": 0.7, "test_dice": None} for row in ROWS]
    found = main_table(tables(rows)["jobs"])
    assert "Dice, validation" in found.header
    assert found.lines[0][found.header.index("Dice, validation")] == "0.700 ± 0.000"


def test_the_notes_define_every_column_that_has_a_meaning():
    notes = main_table(tables(ROWS)["jobs"]).notes
    meanings = [shown.column.meaning for shown in MAIN_COLUMNS if shown.column.meaning]
    assert len(meanings) == 3
    assert set(meanings) <= set(notes)
    assert notes[0].startswith("Dice, HD95, pooled HD95 and surface Dice are computed")
    assert any(note.startswith("Search alive:") for note in notes)


def test_no_jobs_make_a_table_without_rows():
    found = main_table(tables([])["jobs"])
    assert found.rows == ()
    assert found.header[:3] == ("dataset", "backbone", "arm")
