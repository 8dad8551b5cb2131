"""MLflow's tables in a database: asked in seconds, where MLflow waits for minutes; made whole."""

import glob
import os
import time
import uuid
from pathlib import Path

import mlflow
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.pool import NullPool

from addresses.sqlite import sqlite_path, sqlite_url
from results.errors import TrackingRefusedError
from results.tracking.address import scheme_of

_TIMEOUT = {"sqlite": "timeout", "mssql": "timeout"}
_SECONDS_UNTIL_LEFT = 600.0
"""After which a half-made file is one that a kill left."""
_UNCHANGED = "UPDATE alembic_version SET version_num = version_num"


def ask_database(uri: str, *, writes: bool, timeout_s: float) -> None:
    """Connect to a database, compare its tables with those of this MLflow, and write nothing new.

    Args:
        uri: Its URL.
        writes: Whether it is to be written; what is tried is rolled back.
        timeout_s: How long to wait for a connection or a lock.

    Raises:
        TrackingRefusedError: If another version of MLflow has made its tables.
        SQLAlchemyError: If it does not answer, or refuses.
    """
    scheme = scheme_of(uri)
    options = {_TIMEOUT.get(scheme, "connect_timeout"): max(1, round(timeout_s))}
    engine = create_engine(uri, poolclass=NullPool, connect_args=options)
    if scheme == "sqlite":
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        is_made = inspect(connection).has_table("alembic_version")
        if is_made:
            _check_version(uri, connection)
        if not writes:
            return
        if scheme == "sqlite":  # sqlite3 begins a transaction too late by itself
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if is_made:
                connection.exec_driver_sql(_UNCHANGED)
        finally:
            if scheme == "sqlite":
                connection.exec_driver_sql("ROLLBACK")
            else:
                connection.rollback()


def _check_version(uri: str, connection: Connection) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    wanted = scripts.get_current_head()
    if found in (None, wanted):
        return
    try:
        is_older = scripts.get_revision(found) is not None
    except CommandError:
        is_older = False
    way_out = f"install the MLflow that made them (a later one than {mlflow.__version__})"
    if is_older:
        way_out = f"make a copy of the database, then run `mlflow db upgrade '{uri}'`"
    raise TrackingRefusedError(
        uri,
        f"the tables of the tracking database must be those of MLflow {mlflow.__version__} "
        f"(revision {wanted})",
        f"revision {found}",
        way_out,
    )


def make_database(uri: str) -> None:
    """Make a SQLite file whole, or not at all: MLflow fails on one that a kill left half made.

    Does nothing for other databases and servers, and if the file exists.
    """
    path = sqlite_path(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp*"):
        if time.time() - left.stat().st_mtime > _SECONDS_UNTIL_LEFT:
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        made = SqlAlchemyStore(
            sqlite_url(temporary), (path.parent / "mlartifacts").resolve().as_uri()
        )
        made.engine.dispose()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another driver was faster
        except OSError:  # a file system without links
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        Path(f"{temporary}-journal").unlink(missing_ok=True)
