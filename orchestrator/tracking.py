"""The one MLflow writer: finished jobs, from their stage folders, once each.

A run is found again by its ``iac.job_id`` tag, never by memory, and its metrics carry the times at
which their epochs ended, so writing it a second time writes nothing new. The tag ``iac.digest``
is set last: a run without it is not whole and is taken up where it was left.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from orchestrator.rows import curves, job_tables
from orchestrator.tracking_fields import (
    curve_metrics,
    final_metrics,
    params_of,
    span_ms,
    tags_of,
)
from results.schema import SCHEMA_VERSION, TABLES
from results.store import write_table
from results.tracking.address import check_experiment_name
from results.tracking.artifacts import artifact_location, follow_the_folder, has_artifacts
from results.tracking.database import make_database
from results.tracking.experiment import artifacts_of, find_experiment, try_artifact, try_tag
from results.tracking.faults import tracking_faults
from results.tracking.server import ask, knock, no_folders_left
from workers.job import Job, content_hash
from workers.places import StoreAwayError
from workers.run_stage import Failure
from workers.stage_store import StageStore
from workers.stages.table import STAGES
from workers.task import StageTask

T = TypeVar("T")

_METRICS_PER_REQUEST = 1000
_PARAMS_PER_REQUEST = 100
_TABLE_FILES = tuple(f"tables/{name}.parquet" for name in TABLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTrial:
    """A trial of a study that has ended.

    Attributes:
        number: Of Optuna.
        params: What it drew.
        values: Its objectives by name; none if it was pruned.
        pruned_at: Epoch of retraining at which it was pruned; None if it was not.
    """

    number: int
    params: Mapping[str, Any]
    values: Mapping[str, float]
    pruned_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedJob:
    """A job that is done or has failed.

    Attributes:
        job: The job.
        tasks: Its stages whose keys are known, in order.
        failure: Why it failed, if it did.
        trial: The trial of a study that it belongs to, if it does.
    """

    job: Job
    tasks: tuple[StageTask, ...]
    failure: Failure | None = None
    trial: FinishedTrial | None = None

    def digest(self) -> str:
        """Return what changes when the job's rows change: stage keys, failure, version of tables.

        A run that an older version wrote is so written anew while its stages are in the store.
        """
        keys = [task.key for task in self.tasks if not STAGES[task.kind].is_on_demand]
        error = self.failure.error if self.failure else ""
        return content_hash([keys, error, SCHEMA_VERSION])


class Tracker:
    """Writes the finished jobs of one sweep into MLflow.

    Args:
        uri: MLflow's tracking URI. Artifacts of a SQLite file lie beside it.
        experiment: Name of the experiment, one per sweep.
        sweep: Name of the sweep.
        store: Where stages lie.

    Attributes:
        has_answered: Whether something answered when it was last connected to.
    """

    def __init__(self, uri: str, experiment: str, sweep: str, store: StageStore) -> None:
        self.uri = uri
        self.experiment = experiment
        self.sweep = sweep
        self.store = store
        self.has_answered = False
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._runs: dict[str, Run] = {}
        self._trials: dict[int, str] = {}

    def connect(self) -> MlflowClient:
        """Connect, make the experiment if it is missing, and write and read a tag of it.

        Any process may do so, beside one that writes runs.

        Raises:
            TrackingError: If the address is wrong, nothing answers, or what answers cannot be
                used.
        """
        self.has_answered = False
        check_experiment_name(self.uri, self.experiment)
        ask(self.uri)
        self.has_answered = True
        with self._faults(), no_folders_left(self.uri):
            make_database(self.uri)
            follow_the_folder(self.uri)
            client = MlflowClient(tracking_uri=self.uri)
            self._experiment_id = self._make_experiment(client)
            try_tag(client, self.uri, self._experiment_id)
        return client

    def open(self) -> None:
        """Connect, make the parent run if it is missing, try an artifact, find earlier runs.

        Only for the one process that writes.

        Raises:
            TrackingError: As `connect` does.
        """
        client = self.connect()
        with self._faults():
            self._find_runs(client)
            client.update_run(self._parent_id, status="RUNNING")
            try_artifact(self.uri, client.get_run(self._parent_id))
        self._client = client

    def write(self, finished: FinishedJob | FinishedTrial) -> bool:
        """Write a job, or a trial without jobs, unless its run is whole and says the same.

        Returns:
            Whether anything was written.

        A run whose artifacts are gone from this machine is written again from its stages.

        Raises:
            TrackingError: If the server does not answer, or cannot be used.
        """
        if self._client is None:
            self.open()
        else:
            knock(self.uri)
        assert self._client is not None
        if isinstance(finished, FinishedTrial):
            is_new = finished.number not in self._trials
            with self._faults():
                self._run_of_trial(self._client, finished, int(time.time() * 1000))
            return is_new
        digest = finished.digest()
        run = self._runs.get(finished.job.job_id)
        is_whole = run is not None and run.data.tags.get("iac.digest") == digest
        if run is not None and is_whole and has_artifacts(run, _TABLE_FILES):
            return False
        with self._faults():
            self._write(self._client, finished, run, digest)
        return True

    def disconnect(self) -> None:
        """Forget the connection and every run: what the server has is asked again."""
        self._client = None

    def close(self, status: str) -> None:
        """End the parent run.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if self._client is not None:
            knock(self.uri)
            with self._faults():
                self._client.set_terminated(self._parent_id, status=status)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn MLflow's errors into three kinds, and leave those of the stages alone."""
        store_error: StoreAwayError | None = None
        with tracking_faults(self.uri):
            try:
                yield
            except StoreAwayError as error:
                store_error = error
        if store_error is not None:
            raise store_error  # the stages are away, not MLflow

    def _make_experiment(self, client: MlflowClient) -> str:
        """The identity of the experiment, made if it is missing."""
        found = find_experiment(client, self.uri, self.experiment)
        if found is not None:
            return str(found.experiment_id)
        where = artifact_location(self.uri, self.experiment)
        try:
            made: str = client.create_experiment(self.experiment, artifact_location=where)
        except MlflowException:
            found = find_experiment(client, self.uri, self.experiment)
            if found is None:
                raise
            return str(found.experiment_id)  # another driver was faster
        return made

    def _find_runs(self, client: MlflowClient) -> None:
        """Read the sweep's runs; the parent is made if there is none.

        Of two runs for one job or sweep, which a lost answer of the server can make, one goes.
        """
        self._runs, self._trials, self._parent_id, token = {}, {}, "", None
        while True:
            page = client.search_runs(
                [self._experiment_id],
                f"tags.`iac.sweep` = '{self.sweep}'",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                if run.data.tags.get("iac.kind") == "sweep" and self._parent_id:
                    client.delete_run(run.info.run_id)
                elif run.data.tags.get("iac.kind") == "sweep":
                    self._parent_id = run.info.run_id
                elif run.data.tags.get("iac.kind") == "trial":
                    self._keep_one_trial(client, run)
                else:
                    self._keep_one(client, run)
            token = page.token
            if not token:
                break
        if not self._parent_id:
            parent = client.create_run(
                self._experiment_id,
                run_name=f"sweep {self.sweep}",
                tags={"iac.kind": "sweep", "iac.sweep": self.sweep},
            )
            self._parent_id = parent.info.run_id

    def _keep_one(self, client: MlflowClient, run: Run) -> None:
        """Remember a job's run; of two the one that is whole, or the older."""
        job_id = run.data.tags["iac.job_id"]
        other = self._runs.get(job_id)
        if other is not None and "iac.digest" in other.data.tags:
            run, other = other, run
        self._runs[job_id] = run
        if other is not None:
            client.delete_run(other.info.run_id)

    def _keep_one_trial(self, client: MlflowClient, run: Run) -> None:
        """Remember a trial's run; of two the older, and none that was not written to its end."""
        number = int(run.data.tags["iac.trial"])
        if number in self._trials or run.info.status != "FINISHED":
            client.delete_run(run.info.run_id)
        else:
            self._trials[number] = run.info.run_id

    def _run_of_trial(self, client: MlflowClient, trial: FinishedTrial, start_ms: int) -> str:
        """The run of a trial below the sweep's, made if missing."""
        if trial.number not in self._trials:
            pruned = {} if trial.pruned_at is None else {"iac.pruned_at": str(trial.pruned_at)}
            run_id = client.create_run(
                self._experiment_id,
                start_time=start_ms,
                run_name=f"trial {trial.number}",
                tags={
                    "iac.kind": "trial",
                    "iac.sweep": self.sweep,
                    "iac.trial": str(trial.number),
                    "mlflow.parentRunId": self._parent_id,
                    **pruned,
                },
            ).info.run_id
            now = int(time.time() * 1000)
            client.log_batch(
                run_id,
                params=[Param(name, str(value)) for name, value in trial.params.items()],
                metrics=[Metric(name, value, now, 0) for name, value in trial.values.items()],
            )
            client.set_terminated(run_id, status="FINISHED")
            self._trials[trial.number] = run_id
        return self._trials[trial.number]

    def _write(
        self, client: MlflowClient, finished: FinishedJob, run: Run | None, digest: str
    ) -> None:
        job = finished.job
        tables = job_tables(finished.tasks, self.store, sweep=self.sweep, failure=finished.failure)
        row = tables["jobs"].iloc[0]
        start_ms, end_ms = span_ms(tables["stages"])
        trial, parent_id = finished.trial, self._parent_id
        if run is None and trial is not None:
            parent_id = self._run_of_trial(client, trial, start_ms)
        if run is None:
            run = client.create_run(
                self._experiment_id,
                start_time=start_ms,
                run_name=job.label,
                tags={
                    "iac.kind": "job",
                    "iac.sweep": self.sweep,
                    "iac.job_id": job.job_id,
                    "mlflow.parentRunId": parent_id,
                    **({} if trial is None else {"iac.trial": str(trial.number)}),
                },
            )
        run_id = run.info.run_id
        client.update_run(run_id, status="RUNNING")
        for params in _chunks(params_of(job), _PARAMS_PER_REQUEST):
            client.log_batch(run_id, params=params)
        metrics = [*curve_metrics(curves(finished.tasks, self.store)), *final_metrics(tables)]
        for chunk in _chunks(metrics, _METRICS_PER_REQUEST):
            client.log_batch(run_id, metrics=chunk)
        self._log_artifacts(run, tables, str(row["genotype"] or ""))
        client.log_batch(run_id, tags=tags_of(finished.tasks, row))
        status = "FAILED" if finished.failure else "FINISHED"
        client.set_terminated(run_id, status=status, end_time=end_ms)
        client.set_tag(run_id, "iac.digest", digest)
        self._runs[job.job_id] = client.get_run(run_id)

    def _log_artifacts(self, run: Run, tables: Mapping[str, pd.DataFrame], genotype: str) -> None:
        into = artifacts_of(self.uri, run)
        with tempfile.TemporaryDirectory() as folder:
            for name, frame in tables.items():
                path = Path(folder) / f"{name}.parquet"
                write_table(path, name, frame)
                into.log_artifact(str(path), "tables")
            if genotype:
                path = Path(folder) / "genotype.json"
                path.write_text(genotype, encoding="utf-8")
                into.log_artifact(str(path))


def _chunks(values: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
