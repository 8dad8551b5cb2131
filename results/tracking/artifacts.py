"""Where the artifacts of a SQLite database lie: in ``mlartifacts`` beside it, wherever it is now.

MLflow keeps absolute addresses. A folder of runs that was moved or copied would so send new
artifacts to its old place, and read the old ones there.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from addresses.sqlite import sqlite_path

FOLDER = "mlartifacts"
_LONGEST_NAME = 120
_END_OF_PARQUET = b"PAR1"
_STORED = (
    ("experiments", "experiment_id", "artifact_location"),
    ("runs", "run_uuid", "artifact_uri"),
)


def artifact_root(uri: str) -> Path | None:
    """Return the folder of artifacts of a SQLite file; None leaves it to the server."""
    path = sqlite_path(uri)
    return None if path is None else path.resolve().parent / FOLDER


def artifact_location(uri: str, experiment: str) -> str | None:
    """Return the address of a new experiment's artifacts; None leaves it to the server.

    A name with ``/`` or one too long for a folder is encoded or cut.
    """
    root = artifact_root(uri)
    if root is None:
        return None
    name = quote(experiment, safe=" ")
    name = name.replace(".", "%2E") if set(name) <= {"."} else name
    return (root / name[:_LONGEST_NAME]).as_uri()


def moved(uri: str, stored: str) -> str:
    """Return where artifacts are now that a database holds an absolute address of.

    Args:
        uri: The database or server.
        stored: The address that it holds.

    Examples:
        >>> moved("sqlite:////new/mlflow.db", "file:///old/mlartifacts/tiny/1/artifacts")
        'file:///new/mlartifacts/tiny/1/artifacts'
        >>> moved("sqlite:////new/mlflow.db", "s3://bucket/mlartifacts/tiny")
        's3://bucket/mlartifacts/tiny'
    """
    root, path = artifact_root(uri), local_path(stored)
    if root is None or path is None or FOLDER not in path.parts:
        return stored
    place = len(path.parts) - 1 - path.parts[::-1].index(FOLDER)
    is_of_another = path.exists() and not Path(*path.parts[:place], root_name(uri)).exists()
    if is_of_another:  # a folder that was set by hand, not one that was copied or left behind
        return stored
    return root.joinpath(*path.parts[place + 1 :]).as_uri()


def root_name(uri: str) -> str:
    """Return the name of the SQLite file beside the artifacts."""
    path = sqlite_path(uri)
    return "" if path is None else path.name


def local_path(address: str) -> Path | None:
    """Return the folder of a ``file:`` address; None if it is another one."""
    parts = urlsplit(address)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def follow_the_folder(uri: str) -> int:
    """Let a SQLite database hold the addresses of where its artifacts are now.

    Returns:
        How many addresses were changed.
    """
    path = sqlite_path(uri)
    if path is None or not path.exists():
        return 0
    engine, n_changed = create_engine(uri, poolclass=NullPool), 0
    with engine.begin() as connection:
        if not inspect(connection).has_table(_STORED[0][0]):
            return 0
        for table, key, column in _STORED:
            found = connection.execute(text(f"SELECT {key}, {column} FROM {table}")).all()
            changes = [
                {"key": identity, "now": now}
                for identity, stored in found
                if stored and (now := moved(uri, stored)) != stored
            ]
            if changes:
                change = text(f"UPDATE {table} SET {column} = :now WHERE {key} = :key")
                connection.execute(change, changes)
            n_changed += len(changes)
    return n_changed


def has_artifacts(run: Run, names: Iterable[str]) -> bool:
    """Return whether tables of a run's artifacts are there; those of a server are taken to be.

    A file that was emptied or cut counts as absent: it does not end as Parquet does.

    Args:
        run: The run, its address already that of now.
        names: Of the files, relative to its artifacts.
    """
    folder = local_path(run.info.artifact_uri)
    return folder is None or all(_has_its_end(folder / name) for name in names)


def set_aside(run: Run, uri: str, name: str) -> None:
    """Rename a damaged artifact of this machine, so that it counts as absent.

    Args:
        run: The run.
        uri: Of the server.
        name: The file, relative to its artifacts.
    """
    folder = local_path(moved(uri, run.info.artifact_uri))
    if folder is not None and (folder / name).is_file():
        (folder / name).replace(folder / f"{name}.damaged")


def fetch_artifacts(client: MlflowClient, uri: str, run: Run, name: str, into: Path) -> Path:
    """Return a folder of a run's artifacts on this machine; it need not exist if it is local.

    Args:
        client: Of the server.
        uri: Its address.
        run: The run.
        name: The folder, relative to its artifacts.
        into: Where a download goes.
    """
    folder = local_path(moved(uri, run.info.artifact_uri))
    if folder is None:
        return Path(client.download_artifacts(run.info.run_id, name, str(into)))
    return folder / name


def _has_its_end(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, n_bytes - len(_END_OF_PARQUET)))
            return file.read() == _END_OF_PARQUET
    except OSError:
        return False
