"""Tables as Parquet files. The only file that imports pyarrow."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from files.writing import whole_file
from results.errors import SchemaError
from results.schema import SCHEMA_VERSION, TABLES, columns, conform

_VERSION_KEY = b"iac.schema_version"


def write_table(path: Path, table: str, frame: pd.DataFrame) -> None:
    """Write a table; the file is whole or absent, its metadata has the schema version and units.

    Args:
        path: The ``.parquet`` file; its folder is made.
        table: Name of the table.
        frame: Its rows.

    Raises:
        SchemaError: If the rows do not fit the table.
    """
    arrow = pa.Table.from_pandas(conform(table, frame), preserve_index=False)
    by_name = {column.name: column for column in columns(table)}
    described = [
        field.with_metadata(
            {"unit": by_name[field.name].unit, "meaning": by_name[field.name].meaning}
        )
        if field.name in by_name
        else field
        for field in arrow.schema
    ]
    metadata = dict(arrow.schema.metadata or {}) | {
        _VERSION_KEY: str(SCHEMA_VERSION).encode(),
        b"iac.table": table.encode(),
    }
    arrow = arrow.cast(pa.schema(described, metadata=metadata))
    with whole_file(path) as file:
        pq.write_table(arrow, file, compression="zstd", write_page_checksum=True)


def read_table(path: Path, table: str) -> pd.DataFrame:
    """Read a table; columns that an older schema did not have are null.

    Raises:
        SchemaError: If the file was written by a newer schema, is no such table, or is damaged.
    """
    arrow = _read(path)
    metadata = arrow.schema.metadata or {}
    version = int(metadata.get(_VERSION_KEY, b"0"))
    if not 1 <= version <= SCHEMA_VERSION:
        raise SchemaError(
            f"{path}: the schema version must be 1 to {SCHEMA_VERSION}, got {version}; "
            "read it with the version of this project that wrote it"
        )
    found = metadata.get(b"iac.table", b"").decode()
    if found != table:
        raise SchemaError(
            f"{path}: the table must be {table!r}, got {found!r}; give the right file"
        )
    return conform(table, arrow.to_pandas(types_mapper=_nullable))


def _read(path: Path) -> pa.Table:
    """Read a Parquet file whose pages have their checksums, where it has any."""
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SchemaError(
            f"{path}: a table must be a whole Parquet file, got {reason}; delete it and write "
            "the report again"
        ) from error


def read_tables(folder: Path, tables: Iterable[str] = tuple(TABLES)) -> dict[str, pd.DataFrame]:
    """Read tables of a folder, or of its parts (folders ``part=…``) joined.

    Args:
        folder: With ``jobs.parquet`` and others, or with parts that have them. A table that is
            missing has no rows.
        tables: Names of those to read.

    Raises:
        SchemaError: If there is no ``jobs.parquet``, or a job stands in two parts.
    """
    parts = sorted(path.parent for path in folder.glob("part=*/jobs.parquet")) or [folder]
    if not (parts[0] / "jobs.parquet").exists():
        raise SchemaError(
            f"{folder}: a folder of tables must have jobs.parquet, or parts (part=NAME) that do; "
            "give the right folder"
        )
    jobs = {part: read_table(part / "jobs.parquet", "jobs") for part in parts}
    of_job: dict[str, Path] = {}
    for part, frame in jobs.items():
        for job_id in frame["job_id"]:
            if job_id in of_job:
                raise SchemaError(
                    f"{part}: a job must stand in one part, got {job_id} also in "
                    f"{of_job[job_id]}; remove one of the parts"
                )
            of_job[job_id] = part
    found = {}
    for table in tables:
        frames = [
            read_table(part / f"{table}.parquet", table)
            for part in parts
            if (part / f"{table}.parquet").exists()
        ]
        joined = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        if table == "stages" and len(joined):
            # A stage that jobs of several parts share was run once.
            joined = joined.drop_duplicates(["key", "job_id", "attempt_id"], ignore_index=True)
        found[table] = conform(table, joined)
    return found


def _nullable(kind: pa.DataType) -> object:
    """Keep nulls apart from NaN, and whole numbers whole."""
    return {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(),
        pa.large_string(): pd.StringDtype(),
    }.get(kind)
