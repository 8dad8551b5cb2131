"""Tables as Parquet files. The only file that imports pyarrow."""

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from results.errors import SchemaError
from results.schema import SCHEMA_VERSION, columns, conform

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pq.write_table(arrow, temporary, compression="zstd")
    temporary.replace(path)


def read_table(path: Path, table: str) -> pd.DataFrame:
    """Read a table; columns that an older schema did not have are null.

    Raises:
        SchemaError: If the file was written by a newer schema, or is no such table.
    """
    arrow = pq.read_table(path)
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


def write_json(path: Path, value: object) -> None:
    """Write JSON beside a path and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)


def _nullable(kind: pa.DataType) -> object:
    """Keep nulls apart from NaN, and whole numbers whole."""
    return {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
        pa.string(): pd.StringDtype(),
        pa.large_string(): pd.StringDtype(),
    }.get(kind)
