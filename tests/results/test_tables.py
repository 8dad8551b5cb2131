import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.aggregate import mean_over_seeds, speedup, varying_settings
from results.errors import SchemaError
from results.schema import SCHEMA_VERSION, TABLES, conform, empty, wall_clock_columns
from results.store import read_table, read_tables, write_table

VALUES = {
    "string": st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=6)),
    "int64": st.one_of(st.none(), st.integers(-(2**53), 2**53)),
    "float64": st.one_of(st.none(), st.floats(allow_nan=False, width=64)),
    "bool": st.one_of(st.none(), st.booleans()),
}


@settings(max_examples=25)
@given(st.sampled_from(sorted(TABLES)), st.data())
def test_every_table_survives_parquet_value_by_value(tmp_path_factory, table, data):
    n = data.draw(st.integers(0, 3))
    frame = conform(
        table,
        pd.DataFrame(
            {
                column.name: [data.draw(VALUES[column.type]) for _ in range(n)]
                for column in TABLES[table]
            }
        ),
    )
    path = tmp_path_factory.mktemp("tables") / f"{table}.parquet"
    write_table(path, table, frame)
    pd.testing.assert_frame_equal(read_table(path, table), frame)


def test_parquet_says_units_meanings_and_version(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "patients.parquet"
    write_table(path, "patients", empty("patients"))
    schema = pq.read_schema(path)
    assert schema.field("hd95_mm").metadata[b"unit"] == b"mm"
    assert schema.metadata[b"iac.schema_version"] == str(SCHEMA_VERSION).encode()


def test_an_unknown_column_and_a_wrong_type_are_named():
    with pytest.raises(SchemaError, match=r"must be in results/schema.py, got speed"):
        conform("events", pd.DataFrame({"speed": [1]}))
    with pytest.raises(SchemaError, match=r"jobs.seed must be int64, got 'x'"):
        conform("jobs", pd.DataFrame({"seed": ["x"]}))
    with pytest.raises(SchemaError, match="must be one of jobs"):
        empty("job")


def test_settings_of_a_job_are_kept_as_columns_of_their_own():
    frame = conform("jobs", pd.DataFrame({"config_search_epochs": [50], "seed": [1]}))
    assert frame["config_search_epochs"].tolist() == [50]


def test_a_setting_that_some_jobs_leave_unset_is_null_there(tmp_path):
    columns = {"seed": [0, 1], "config_split_n_train_patients": ["", 10], "config_x": [1, "a"]}
    frame = pd.DataFrame(columns, dtype=object)
    write_table(tmp_path / "jobs.parquet", "jobs", frame)
    found = read_table(tmp_path / "jobs.parquet", "jobs")
    assert found["config_split_n_train_patients"].isna().tolist() == [True, False]
    assert found["config_split_n_train_patients"][1] == 10
    assert found["config_x"].tolist() == ["1", "a"]


def test_a_newer_schema_and_another_table_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "events.parquet"
    write_table(path, "events", empty("events"))
    with pytest.raises(SchemaError, match="the table must be 'jobs', got 'events'"):
        read_table(path, "jobs")
    monkeypatch.setattr("results.store.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    write_table(path, "events", empty("events"))
    monkeypatch.undo()
    with pytest.raises(
        SchemaError,
        match=f"schema version must be 1 to {SCHEMA_VERSION}, got {SCHEMA_VERSION + 1}",
    ):
        read_table(path, "events")


def test_columns_that_an_older_file_lacks_are_null(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "events.parquet"
    metadata = {b"iac.schema_version": b"1", b"iac.table": b"events"}
    table = pa.table({"rule": ["js_stability"]}).replace_schema_metadata(metadata)
    pq.write_table(table, path)
    frame = read_table(path, "events")
    assert frame["rule"].tolist() == ["js_stability"]
    assert frame["threshold"].isna().all()


def write_part(folder, job_id):
    write_table(folder / "jobs.parquet", "jobs", pd.DataFrame({"job_id": [job_id]}))
    rows = {"job_id": [job_id] * 2, "dice": [0.5, 0.6]}
    write_table(folder / "patients.parquet", "patients", pd.DataFrame(rows))
    shared = {"key": "k", "job_id": "a", "attempt_id": "x"}
    write_table(folder / "stages.parquet", "stages", pd.DataFrame([shared]))


def test_parts_of_a_campaign_are_one_set_of_tables(tmp_path):
    for name, job_id in (("seed0", "a"), ("seed1", "b")):
        write_part(tmp_path / f"part={name}", job_id)
    (tmp_path / "part=seed1" / "patients.parquet").unlink()
    found = read_tables(tmp_path)
    assert set(found) == set(TABLES)
    assert found["jobs"]["job_id"].tolist() == ["a", "b"]
    assert found["patients"]["dice"].tolist() == [0.5, 0.6]
    assert len(found["stages"]) == 1
    assert found["jobs"].dtypes["seed"] == "Int64"
    assert read_tables(tmp_path / "part=seed0")["jobs"]["job_id"].tolist() == ["a"]


def test_a_job_in_two_parts_and_a_folder_without_tables_are_refused(tmp_path):
    for name in ("seed0", "seed1"):
        write_part(tmp_path / f"part={name}", "a")
    with pytest.raises(SchemaError, match=r"part=seed1.*must stand in one part, got a also in"):
        read_tables(tmp_path)
    with pytest.raises(SchemaError, match=r"must have jobs\.parquet, or parts"):
        read_tables(tmp_path / "elsewhere")


def test_seconds_and_hosts_are_wall_clock_and_scores_are_not():
    assert {"search_s", "host", "commit"} <= set(wall_clock_columns("jobs"))
    assert not {"test_dice", "genotype", "search_epochs"} & set(wall_clock_columns("jobs"))


def jobs(**columns):
    n = len(next(iter(columns.values())))
    base = {
        "job_id": [str(index) for index in range(n)],
        "seed": [0] * n,
        "status": ["done"] * n,
        "device": ["gpu"] * n,
        "n_threads": [1] * n,
        "torch_version": ["2"] * n,
        "versions": ["{}"] * n,
        "search_exclusive": [True] * n,
        "search_other_load": [0.0] * n,
    }
    return conform("jobs", pd.DataFrame(base | columns))


def test_a_mean_says_on_how_many_values_it_rests():
    assert mean_over_seeds(pd.Series([1.0, 3.0, None])).n == 2
    assert mean_over_seeds(pd.Series([1.0, 3.0])).sd == pytest.approx(math.sqrt(2))
    assert math.isnan(mean_over_seeds(pd.Series([2.0])).sd)
    assert math.isnan(mean_over_seeds(pd.Series([], dtype=float)).mean)


def test_a_speedup_is_the_median_over_seeds():
    frame = jobs(
        pruner=["none"] * 3 + ["js"] * 3, seed=[0, 1, 2] * 2, search_s=[100, 100, 100, 50, 25, 10]
    )
    found = speedup(frame, "js")
    assert (found.ratio, found.n, found.refusal) == (4.0, 3, "")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("device", ["a", "b"], "device differs"),
        ("n_threads", [1, 2], "threads differs"),
        ("torch_version", ["1", "2"], "torch differs"),
        ("versions", ["{}", '{"a": "1"}'], "versions differs"),
        ("search_exclusive", [True, False], "shared its device"),
        ("search_other_load", [0.0, 0.5], "other processes"),
        ("search_other_load", [None, 0.0], "other processes"),
        ("search_n_micro_batches", [1, 2], "batches of a search were cut"),
        ("seed", [1, 0], "no full search with seed 0"),
    ],
)
def test_seconds_that_cannot_be_compared_give_a_reason_and_no_number(column, values, reason):
    frame = jobs(**({"pruner": ["none", "js"], "search_s": [100.0, 50.0]} | {column: values}))
    found = speedup(frame, "js")
    assert math.isnan(found.ratio)
    assert reason in found.refusal


def test_settings_that_the_grid_varies_are_found():
    frame = jobs(pruner=["none", "js"]).assign(
        config_cell_form=["replace", "residual"],
        config_search_epochs=[50, 50],
        config_pruner_threshold=[np.nan, 0.1],
    )
    assert varying_settings(frame) == ["config_cell_form"]
    folds = frame.assign(config_split_fold=[0, 1], config_split_n_train_patients=[None, 10])
    assert varying_settings(folds) == ["config_cell_form", "config_split_n_train_patients"]
