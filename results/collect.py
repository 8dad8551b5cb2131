"""From MLflow to tables, incrementally: only runs that changed are read again."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from files.checksums import checksums_of, damage_of
from files.leftovers import remove
from files.reading import names_in, read_json, warn_damaged
from files.writing import copy_file, write_json
from results.errors import SchemaError, TrackingRefusedError, TrackingSettingError
from results.schema import TABLES, conform, empty
from results.store import read_table, write_table
from results.tracking.artifacts import fetch_artifacts, set_aside
from results.tracking.experiment import find_experiment
from results.tracking.faults import tracking_faults
from results.tracking.server import ask, no_folders_left

_NOTE = "collected.json"
_PARTS = "runs"
_SORT_KEYS: dict[str, list[str]] = {
    "jobs": ["dataset", "backbone", "pruner", "seed", "job_id"],
    "patients": ["job_id", "subset", "volume_id", "class_name"],
    "trajectories": ["job_id", "epoch", "level", "edge", "operation"],
    "events": ["job_id", "epoch", "level", "edge", "rule"],
    "liveness": ["job_id", "look", "level", "edge"],
    "curves": ["job_id", "stage", "epoch"],
    "stages": ["kind", "key", "attempt_id", "job_id"],
}


def collect(
    tracking_uri: str,
    experiment: str,
    into: Path,
    *,
    job_ids: set[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Draw a sweep's tables from MLflow and write them as Parquet.

    A run counts once its tag ``iac.digest`` is set, which its writer does last. Its rows are kept
    beside the tables and read again only when the digest changes. A run that lacks a table, since
    an older version wrote it, has no rows of it.

    Args:
        tracking_uri: MLflow's tracking URI.
        experiment: The sweep's experiment.
        into: Folder of the tables; made.
        job_ids: Jobs of the sweep as it is now; runs of others are left out. None takes every job
            but those of a study's trials.

    Returns:
        Table name → rows, sorted.

    Raises:
        TrackingError: If the server does not answer, has no such experiment, or has deleted it or
            the artifacts of a run. The tables of before are left as they are.
    """
    ask(tracking_uri, writes=False)
    with tracking_faults(tracking_uri), no_folders_left(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        runs = {
            run.data.tags["iac.job_id"]: run
            for run in _whole_runs(client, tracking_uri, experiment)
            if _is_wanted(run, job_ids)
        }
        for job_id, run in runs.items():
            _fetch(client, tracking_uri, run, into / _PARTS / job_id)
    for stale in _stale(into / _PARTS, set(runs)):
        remove(stale)
    tables = {name: _join(name, into / _PARTS, sorted(runs)) for name in TABLES}
    for name, frame in tables.items():
        write_table(into / f"{name}.parquet", name, frame)
    return tables


def _is_wanted(run: Run, job_ids: set[str] | None) -> bool:
    if job_ids is None:
        return "iac.trial" not in run.data.tags
    return run.data.tags["iac.job_id"] in job_ids


def _rows_of(folder: Path, table: str) -> pd.DataFrame:
    """Rows of a table, none if its file is not there."""
    path = folder / f"{table}.parquet"
    return read_table(path, table) if path.exists() else empty(table)


def _whole_runs(client: MlflowClient, uri: str, experiment: str) -> Iterator[Run]:
    found = find_experiment(client, uri, experiment)
    if found is None:
        names = ", ".join(entry.name for entry in client.search_experiments(max_results=10))
        rule = "the experiment must exist"
        raise TrackingSettingError(uri, rule, repr(experiment), f"known: {names}")
    token = None
    while True:
        page = client.search_runs(
            [found.experiment_id],
            "tags.`iac.kind` = 'job'",
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=1000,
            page_token=token,
        )
        yield from (run for run in page if run.data.tags.get("iac.digest"))
        token = page.token
        if not token:
            return


def _fetch(client: MlflowClient, uri: str, run: Run, folder: Path) -> None:
    """Download a run's tables unless the same version lies there already.

    Raises:
        TrackingRefusedError: If they are gone, or damaged.
    """
    version = {"run_id": run.info.run_id, "digest": run.data.tags["iac.digest"]}
    if _is_kept(folder, version):
        return
    if not folder.is_dir():
        remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove(folder / _NOTE)
    with tempfile.TemporaryDirectory() as temporary:
        got = fetch_artifacts(client, uri, run, "tables", Path(temporary))
        if not (got / "jobs.parquet").exists():  # every version has written it
            raise TrackingRefusedError(
                uri,
                "the tables of every run must be among its artifacts",
                f"none of run {run.info.run_id}, job {run.data.tags['iac.job_id']}",
                "delete the run, then `orchestrator sync` writes it again from the stages",
            )
        for name in TABLES:
            kept = folder / f"{name}.parquet"
            remove(kept)  # of an earlier version of the run
            if (got / kept.name).is_file():
                copy_file(got / kept.name, kept)
                _check_artifact(uri, run, kept, name)
    sums = checksums_of(folder, lambda name: name.endswith(".parquet"))
    write_json(folder / _NOTE, {**version, "files": sums})


def _is_kept(folder: Path, version: dict[str, str]) -> bool:
    """Whether a run's tables lie in a folder as they were when this version was downloaded."""
    known = read_json(folder / _NOTE, dict)
    if known is None or any(known.get(name) != value for name, value in version.items()):
        return False
    # An older version wrote no checksums.
    wrong = damage_of(folder, known["files"]) if "files" in known else _unreadable(folder)
    if wrong:
        warn_damaged(str(folder), wrong, way_out="collected again")
    return not wrong


def _unreadable(folder: Path) -> str | None:
    """What is wrong with the first table of a folder that cannot be read."""
    if not (folder / "jobs.parquet").exists():
        return "jobs.parquet is missing"
    for name in TABLES:
        try:
            _rows_of(folder, name)
        except SchemaError as error:
            return str(error)
    return None


def _check_artifact(uri: str, run: Run, kept: Path, table: str) -> None:
    """Look whether a table that was downloaded is whole.

    Raises:
        TrackingRefusedError: If it is not.
    """
    try:
        read_table(kept, table)
    except SchemaError as error:
        remove(kept)
        set_aside(run, uri, f"tables/{kept.name}")
        raise TrackingRefusedError(
            uri,
            f"the artifact tables/{kept.name} of run {run.info.run_id}, job "
            f"{run.data.tags['iac.job_id']}, must be a whole table",
            str(error.__cause__ or error).splitlines()[0],
            "`orchestrator sync` with the sweep's file writes it again from the stages; on a "
            "server delete the run first",
        ) from error


def _stale(parts: Path, job_ids: set[str]) -> list[Path]:
    return [parts / name for name in names_in(parts) if name not in job_ids]


def _join(table: str, parts: Path, job_ids: list[str]) -> pd.DataFrame:
    frames = [_rows_of(parts / job_id, table) for job_id in job_ids]
    filled = [frame.dropna(axis=1, how="all") for frame in frames if len(frame)]
    if not filled:
        return empty(table)
    joined = conform(table, pd.concat(filled, ignore_index=True))
    if table == "stages":
        joined = joined.sort_values("job_id").drop_duplicates(["key", "attempt_id"])
    return joined.sort_values(_SORT_KEYS[table], kind="stable").reset_index(drop=True)
