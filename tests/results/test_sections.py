from report_rows import job, tables

from results.sections import failures, groups_of, sections


def test_failed_jobs_are_listed_with_stage_and_error():
    rows = [
        job("none", 0, 0.8, 10.0),
        job("random", 3, None, status="failed", failed_stage="search", error="NaN loss"),
    ]
    (table,) = failures(tables(rows)["jobs"])
    assert table.header == ("dataset", "backbone", "arm", "seed", "stage", "error")
    assert table.lines == (("acdc", "unet_&_co", "random", "3", "search", "NaN loss"),)
    assert failures(tables(rows[:1])["jobs"]) == []


def test_jobs_are_parted_by_the_settings_on_the_grid():
    rows = [
        job("none", seed, 0.8, 10.0, job_id=f"{form}{seed}", config_cell_form=form)
        for form in ("added", None)
        for seed in (0, 1)
    ]
    jobs = tables(rows)["jobs"]
    found = {title: list(part["job_id"]) for title, part in groups_of(jobs)}
    assert found == {
        "cell_form added": ["added0", "added1"],
        "cell_form unset": ["None0", "None1"],
    }
    ((title, part),) = groups_of(jobs[jobs["config_cell_form"] == "added"])
    assert (title, len(part)) == ("", 2)


def test_sections_without_rows_are_left_out():
    rows = [job("none", 0, 0.8, 10.0)]
    found = tables(rows)
    shown = sections(found["jobs"], found)
    assert [table.title for table in shown] == ["Living searches and starting states"]
    assert all(isinstance(table.rows, tuple) and table.rows for table in shown)
