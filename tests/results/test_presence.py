"""Presence of classes, on volumes that can be counted by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest

from results.presence import presence_section, presence_table
from results.report import write_report
from results.schema import conform, empty
from results.sections import sections
from results.store import read_tables

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"


def job(job_id, pruner, evaluate_key=None, **more):
    row = {
        "job_id": job_id, "dataset": "amos", "backbone": "unet", "pruner": pruner, "seed": 0,
        "status": "done", "evaluate_key": evaluate_key or f"e{job_id}", "test_dice": 0.8,
    }  # fmt: skip
    return row | more


def value(job_id, volume, class_name, reference_ml, prediction_ml, subset="test"):
    states = {(1, 1): "ok", (1, 0): "pred_empty", (0, 1): "gt_empty", (0, 0): "both_empty"}
    return {
        "job_id": job_id, "patient_id": f"p{volume // 2}", "volume_id": f"v{volume}",
        "class_name": class_name, "subset": subset, "reference_ml": reference_ml,
        "prediction_ml": prediction_ml, "dice": 0.5,
        "state": states[reference_ml > 0, prediction_ml > 0],
    }  # fmt: skip


def frames(job_rows, values):
    return conform("jobs", pd.DataFrame(job_rows)), conform("patients", pd.DataFrame(values))


JOBS = [job("1", "none"), job("2", "none"), job("3", "random")]
VALUES = [
    *(value(name, volume, "liver", 90, 80) for name in "123" for volume in range(4)),
    # The tumour is in volumes 0 and 1.
    value("1", 0, "tumour", 0.4, 0), value("1", 1, "tumour", 2.0, 1.0),
    value("1", 2, "tumour", 0, 0.03), value("1", 3, "tumour", 0, 0),
    value("2", 0, "tumour", 0.4, 0), value("2", 1, "tumour", 2.0, 0),
    value("2", 2, "tumour", 0, 0), value("2", 3, "tumour", 0, 12.0),
    value("3", 0, "tumour", 0.4, 1.0), value("3", 1, "tumour", 2.0, 1.0),
    value("3", 2, "tumour", 0, 0), value("3", 3, "tumour", 0, 0),
    value("3", 9, "tumour", 0, 5.0, subset="validation"),
]  # fmt: skip
COUNTS = ["n_present", "n_missed", "n_absent", "n_false_alarms", "n_correct_absences"]


def test_what_is_missed_and_made_up_is_counted_over_jobs_and_volumes():
    table = presence_table(*frames(JOBS, VALUES)).set_index(["class_name", "pruner"])
    assert table.loc[("tumour", "none"), COUNTS].tolist() == [4, 3, 4, 2, 2]
    assert table.loc[("tumour", "random"), COUNTS].tolist() == [2, 0, 2, 0, 2]
    assert table.loc[("liver", "none"), COUNTS].tolist() == [8, 0, 0, 0, 0]
    # Missed: 0.4, 0.4 and 2.0 ml; made up: 0.03 and 12 ml.
    assert table.loc[("tumour", "none"), "missed_ml"] == pytest.approx(0.4)
    assert table.loc[("tumour", "none"), "false_alarm_ml"] == pytest.approx(6.015)
    assert math.isnan(table.loc[("tumour", "random"), "missed_ml"])


def test_the_other_subset_is_counted_when_it_is_asked_for():
    table = presence_table(*frames(JOBS, VALUES), "validation")
    assert table[["pruner", *COUNTS]].values.tolist() == [["random", 0, 0, 1, 1, 0]]


def test_a_job_that_shares_its_evaluation_and_a_row_that_stands_twice_count_once():
    shared = [job("1", "none"), job("2", "none", "e1"), job("3", "random", "e1")]
    rows = [value(name, 0, "tumour", 0, 1.0) for name in "123"]
    table = presence_table(*frames(shared, [*rows, *rows])).set_index("pruner")
    assert table["n_false_alarms"].to_dict() == {"none": 1, "random": 1}


def test_jobs_without_an_evaluation_key_count_by_themselves_and_failed_ones_do_not():
    rows = [
        job("1", "none") | {"evaluate_key": None}, job("2", "none") | {"evaluate_key": ""},
        job("3", "none", status="failed"),
    ]  # fmt: skip
    table = presence_table(*frames(rows, [value(name, 0, "tumour", 0, 1.0) for name in "123"]))
    assert table["n_false_alarms"].tolist() == [2]


def test_the_section_has_the_classes_that_something_lacks_for_every_arm():
    found = presence_section(*frames(JOBS, VALUES), "cell_form replace")
    assert found.title == "Absent classes (cell_form replace)"
    assert found.lines == (
        ("amos", "unet", "tumour", "none", "4", "3 (0.4 ml)", "4", "2 (6 ml)", "2"),
        ("amos", "unet", "tumour", "random", "2", "0", "2", "0", "2"),
    )
    assert all(len(line) == len(found.header) for line in found.lines)


def test_volumes_are_shown_without_exponents():
    rows = [value("1", 0, "tumour", 1234.4, 0), value("2", 0, "tumour", 0, 0.00042)]
    lines = presence_section(*frames(JOBS[:2], rows), "").lines
    assert lines == (
        ("amos", "unet", "tumour", "none", "1", "1 (1234 ml)", "1", "1 (0.00042 ml)", "0"),
    )


def tables(job_rows, values):
    found = {name: empty(name) for name in ("stages", "trajectories", "events", "liveness")}
    found["jobs"], found["patients"] = frames(job_rows, values)
    return found


def test_where_every_mask_has_every_class_there_is_no_section():
    found = tables(JOBS, [entry for entry in VALUES if entry["class_name"] == "liver"])
    assert presence_section(found["jobs"], found["patients"], "").lines == ()
    titles = [section.title for section in sections(found["jobs"], found)]
    assert not [title for title in titles if "Absent" in title]


@pytest.mark.parametrize("kind", ["markdown", "html", "latex"])
def test_every_format_shows_absent_classes(tmp_path, kind):
    paths = write_report(tables(JOBS, VALUES), tmp_path, sweep="s")
    text = getattr(paths, kind).read_text()
    assert "Absent classes" in text
    assert "3 (0.4 ml)" in text
    assert "Empty masks" not in text


def test_only_jobs_of_the_group_are_counted():
    forms = [
        entry | {"config_cell_form": form}
        for entry, form in zip(JOBS, ("x", "y", "x"), strict=True)
    ]
    found = tables(forms, VALUES)
    by_title = {one.title: one.lines for one in sections(found["jobs"], found)}
    assert [line[3:6] for line in by_title["Absent classes (cell_form x)"]] == [
        ("none", "2", "1 (0.4 ml)"), ("random", "2", "0"),
    ]  # fmt: skip
    assert by_title["Absent classes (cell_form y)"][0][3:6] == ("none", "2", "2 (1.2 ml)")


def test_a_record_has_as_many_missed_masks_as_its_table_of_patients():
    found = read_tables(RECORDS / "acdc_claims_withdrawn")
    table = presence_table(found["jobs"], found["patients"])
    assert table[["n_missed", "n_absent"]].sum().tolist() == [16, 0]
    assert set(table["n_present"]) == {84}
