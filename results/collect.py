"""From MLflow to tables, incrementally: only runs that changed are read again."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from results.errors import TrackingRefusedError, TrackingSettingError
from results.schema import TABLES, conform, empty
from results.store import read_table, write_json, write_table
from results.tracking.artifacts import fetch_artifacts
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
        shutil.rmtree(stale)
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
        TrackingRefusedError: If they are gone.
    """
    note = folder / _NOTE
    version = {"run_id": run.info.run_id, "digest": run.data.tags["iac.digest"]}
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == version:
        return
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
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
            kept.unlink(missing_ok=True)  # of an earlier version of the run
            if (got / kept.name).exists():
                shutil.copyfile(got / kept.name, kept)
    write_json(note, version)


def _stale(parts: Path, job_ids: set[str]) -> list[Path]:
    return (
        [entry for entry in parts.iterdir() if entry.name not in job_ids] if parts.is_dir() else []
    )


def _join(table: str, parts: Path, job_ids: list[str]) -> pd.DataFrame:
    frames = [_rows_of(parts / job_id, table) for job_id in job_ids]
    filled = [frame.dropna(axis=1, how="all") for frame in frames if len(frame)]
    if not filled:
        return empty(table)
    joined = conform(table, pd.concat(filled, ignore_index=True))
    if table == "stages":
        joined = joined.sort_values("job_id").drop_duplicates(["key", "attempt_id"])
    return joined.sort_values(_SORT_KEYS[table], kind="stable").reset_index(drop=True)
