"""The one MLflow writer: finished jobs, from their stage folders, once each.

A run is found again by its ``iac.job_id`` tag, never by memory, and its metrics carry the times at
which their epochs ended, so writing it a second time writes nothing new. The tag ``iac.digest``
is set last: a run without it is not whole and is taken up where it was left.
"""

import logging
import os
import queue
import socket
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlparse

import pandas as pd
from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.rows import curves, job_tables
from results.escaping import file_name
from results.schema import SCHEMA_VERSION
from results.store import write_table
from workers.job import Job, content_hash
from workers.lease import TIME_TO_LIVE_S, Lease, LeaseLostError, LeaseWatch
from workers.places import Place, StoreAwayError
from workers.run_stage import Failure
from workers.stage_store import StageStore
from workers.tasks import StageTask

logger = logging.getLogger(__name__)

T = TypeVar("T")

_METRICS_PER_REQUEST = 1000
_PARAMS_PER_REQUEST = 100
_PARAM_LENGTH = 6000
_JOB_METRICS = (
    "val_dice",
    "test_dice",
    "val_hd95_mm",
    "test_hd95_mm",
    "test_surface_dice_2mm",
    "search_s",
    "search_epochs",
    "search_is_alive",
    "live_edge_share",
    "cell_contribution",
    "start_val_dice",
    "pretrain_s",
    "retrain_s",
    "n_parameters",
    "n_macs",
)
_SQLITE = "sqlite:///"
_NOT_LOGGED = ("epoch", "ended_at")
_SECONDS_BETWEEN_LOOKS = 0.5
_PAUSE_S = 30.0


class TrackingUnavailable(Exception):  # noqa: N818 - a state of the world, handled by waiting
    """The tracking server did not answer; what is missing is sent at the next opportunity."""


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
        keys = [task.key for task in self.tasks]
        error = self.failure.error if self.failure else ""
        return content_hash([keys, error, SCHEMA_VERSION])


class Tracker:
    """Writes the finished jobs of one sweep into MLflow.

    Args:
        uri: MLflow's tracking URI.
        experiment: Name of the experiment, one per sweep.
        sweep: Name of the sweep.
        store: Where stages lie.
        artifact_root: Folder of artifacts if the experiment is created on a database that this
            process writes itself; None leaves it to the server.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        sweep: str,
        store: StageStore,
        *,
        artifact_root: Path | None = None,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.sweep = sweep
        self.store = store
        self._artifact_root = artifact_root
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""
        self._runs: dict[str, Run] = {}
        self._trials: dict[int, str] = {}

    def open(self) -> None:
        """Connect, make experiment and parent run if they are missing, and find earlier runs.

        Raises:
            TrackingUnavailable: If the server does not answer.
        """
        check_reachable(self.uri)
        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
        with _unavailable_if_it_fails():
            _make_file(self.uri)
            client = MlflowClient(tracking_uri=self.uri)
            found = client.get_experiment_by_name(self.experiment)
            if found is not None:
                self._experiment_id = found.experiment_id
            else:
                root = self._artifact_root
                location = (
                    None
                    if root is None
                    else (root / file_name(self.experiment)).resolve().as_uri()
                )
                self._experiment_id = client.create_experiment(
                    self.experiment, artifact_location=location
                )
            self._client = client
            self._find_runs(client)
            client.update_run(self._parent_id, status="RUNNING")

    def write(self, finished: FinishedJob | FinishedTrial) -> bool:
        """Write a job, or a trial without jobs, unless its run is whole and says the same.

        Returns:
            Whether anything was written.

        Raises:
            TrackingUnavailable: If the server does not answer.
        """
        if self._client is None:
            self.open()
        assert self._client is not None
        if isinstance(finished, FinishedTrial):
            is_new = finished.number not in self._trials
            with _unavailable_if_it_fails():
                self._run_of_trial(self._client, finished, int(time.time() * 1000))
            return is_new
        digest = finished.digest()
        run = self._runs.get(finished.job.job_id)
        if run is not None and run.data.tags.get("iac.digest") == digest:
            return False
        with _unavailable_if_it_fails():
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
            with _unavailable_if_it_fails():
                self._client.set_terminated(self._parent_id, status=status)

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
        start_ms, end_ms = _span_ms(tables["stages"])
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
        for params in _chunks(_params(job), _PARAMS_PER_REQUEST):
            client.log_batch(run_id, params=params)
        metrics = [*_curve_metrics(curves(finished.tasks, self.store)), *_final_metrics(tables)]
        for chunk in _chunks(metrics, _METRICS_PER_REQUEST):
            client.log_batch(run_id, metrics=chunk)
        self._log_artifacts(client, run_id, tables, str(row["genotype"] or ""))
        client.log_batch(run_id, tags=_tags(finished, row))
        status = "FAILED" if finished.failure else "FINISHED"
        client.set_terminated(run_id, status=status, end_time=end_ms)
        client.set_tag(run_id, "iac.digest", digest)
        self._runs[job.job_id] = client.get_run(run_id)

    def _log_artifacts(
        self, client: MlflowClient, run_id: str, tables: Mapping[str, pd.DataFrame], genotype: str
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, frame in tables.items():
                path = Path(folder) / f"{name}.parquet"
                write_table(path, name, frame)
                client.log_artifact(run_id, str(path), "tables")
            if genotype:
                path = Path(folder) / "genotype.json"
                path.write_text(genotype, encoding="utf-8")
                client.log_artifact(run_id, str(path))


def check_reachable(uri: str, timeout_s: float = 3.0) -> None:
    """Find out in seconds, not minutes, that a tracking server is away.

    Raises:
        TrackingUnavailable: If the URI is a server and its port does not answer.
    """
    parts = urlparse(uri)
    if parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=timeout_s):
            return
    except OSError as error:
        raise TrackingUnavailable(f"no tracking server at {parts.hostname}:{port}") from error


def _make_file(uri: str) -> None:
    """Make a SQLite file whole, or not at all: MLflow fails on one that a kill left half made."""
    if not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).exists():
        return
    path = Path(uri.removeprefix(_SQLITE))
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        made = SqlAlchemyStore(
            f"{_SQLITE}{temporary}", (path.parent / "mlartifacts").resolve().as_uri()
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


@contextmanager
def _unavailable_if_it_fails() -> Iterator[None]:
    """Turn MLflow's errors into one kind; no retries inside, where they could make two runs."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        yield
    except StoreAwayError:
        raise  # the stages are away, not MLflow
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingUnavailable(str(error).splitlines()[0]) from error


def _chunks(values: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _params(job: Job) -> list[Param]:
    values: dict[str, Any] = {
        "dataset": job.dataset,
        "backbone": job.backbone,
        "pruner": job.pruner,
        "seed": job.seed,
        **{name.removeprefix("config_"): value for name, value in job.flat_settings().items()},
    }
    return [Param(name, str(value)[:_PARAM_LENGTH]) for name, value in values.items()]


def _curve_metrics(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Metric]:
    for kind, entries in found.items():
        for entry in entries:
            for name, value in entry.items():
                if name not in _NOT_LOGGED and pd.notna(value):
                    timestamp = int(entry["ended_at"] * 1000)
                    yield Metric(f"{kind}_{name}", float(value), timestamp, int(entry["epoch"]))


def _final_metrics(tables: Mapping[str, pd.DataFrame]) -> Iterator[Metric]:
    row = tables["jobs"].iloc[0]
    _, timestamp = _span_ms(tables["stages"])
    for name in _JOB_METRICS:
        if pd.notna(row[name]):
            yield Metric(name, float(row[name]), timestamp, 0)


def _span_ms(stages: pd.DataFrame) -> tuple[int, int]:
    """First start and last end of a job's stages, in milliseconds since 1970."""
    ends = stages["end"].dropna()
    if len(ends) == 0:
        now = int(time.time() * 1000)
        return now, now
    return int(stages["start"].min() * 1000), int(ends.max() * 1000)


def _tags(finished: FinishedJob, row: "pd.Series[Any]") -> list[RunTag]:
    values = {f"iac.{task.kind}_key": task.key for task in finished.tasks}
    for name in ("commit", "device", "host", "versions", "failed_stage", "error"):
        values[f"iac.{name}"] = "" if pd.isna(row[name]) else str(row[name])[:5000]
    values["mlflow.source.git.commit"] = values["iac.commit"]
    return [RunTag(name, value) for name, value in values.items() if value]


class BackgroundTracker:
    """Writes finished jobs from a thread of its own, so that no stage waits for MLflow.

    While the server is away jobs are kept, and tried again after a pause. Of several drivers one
    writes at a time: the one that holds a lease. A context manager: the lease is kept until its
    end, so that a report can be drawn meanwhile.

    Args:
        tracker: The writer; used by the thread alone.
        lease_place: Where the lease lies.
        lease_s: Its time to live.
        patience_s: How long `close` waits for another writer to end.
        pause_s: Before the server is asked again.
    """

    def __init__(
        self,
        tracker: Tracker,
        lease_place: Place | Path,
        *,
        lease_s: float = TIME_TO_LIVE_S,
        patience_s: float = 0.0,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._tracker = tracker
        self._lease_place, self._lease_s, self._patience_s = lease_place, lease_s, patience_s
        self._pause_s = pause_s
        self._lease: Lease | None = None
        self._is_closing = threading.Event()
        self._queue: queue.Queue[FinishedJob | FinishedTrial | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self.n_written = 0
        self.unsent: deque[FinishedJob | FinishedTrial] = deque()
        self.trouble = ""
        self._error: Exception | None = None
        self._thread.start()

    def __enter__(self) -> "BackgroundTracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lease is not None:
            self._lease.give_back()

    def put(self, finished: FinishedJob | FinishedTrial) -> None:
        """Take a job on, or a trial without jobs."""
        self._queue.put(finished)

    def close(self, status: str) -> None:
        """Wait until everything is written or known to be unsent, then end the parent run."""
        self._is_closing.set()
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        if not self.trouble:
            try:
                self._tracker.close(status)
            except TrackingUnavailable as error:
                self.trouble = str(error)

    def _become_the_writer(self) -> Lease:
        """The lease, once no other process holds it.

        Raises:
            TrackingUnavailable: If another one still does when patience ends, or the lease cannot
                be written.
        """
        if self._lease is not None:
            self._lease.check()
            return self._lease
        watch = LeaseWatch(self._lease_place, self._lease_s)
        last = 0.0
        while True:
            try:
                found = Lease.take(
                    self._lease_place,
                    time_to_live_s=self._lease_s,
                    dead_number=watch.dead_number() or 0,
                )
            except OSError as error:
                reason = f"the lease of its writer cannot be taken: {error}"
                raise TrackingUnavailable(reason) from error
            if isinstance(found, Lease):
                self._lease = found
                return found
            if self._is_closing.wait(_SECONDS_BETWEEN_LOOKS):
                last = last or time.monotonic() + self._patience_s
                if time.monotonic() >= last:
                    who = found.identity or {}
                    raise TrackingUnavailable(
                        f"process {who.get('pid')} on {who.get('host')} writes to it now"
                    )
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _work(self) -> None:
        try:
            again = 0.0
            while (finished := self._next(again)) is not None:
                self.unsent += finished
                if time.monotonic() >= again:
                    again = 0.0 if self._send() else time.monotonic() + self._pause_s
            if self.unsent:
                self._send()
        except Exception as error:  # noqa: BLE001 - raised again by `close`, in the main thread
            self._error = error

    def _next(self, again: float) -> Sequence[FinishedJob | FinishedTrial] | None:
        """The next job, none when what is unsent is due again, or None at the end."""
        try:
            timeout = max(0.0, again - time.monotonic()) if again else None
            finished = self._queue.get(timeout=timeout)
        except queue.Empty:
            return ()
        return None if finished is None else (finished,)

    def _send(self) -> bool:
        """Write what is unsent; False if the server went away."""
        while self.unsent:
            try:
                self._become_the_writer()
                self.n_written += self._tracker.write(self.unsent[0])
            except LeaseLostError:
                self._lease = None
                self.trouble = "another process took over writing to it"
            except StoreAwayError as error:
                self.trouble = f"the store of stages cannot be read: {error}"
            except TrackingUnavailable as error:
                if not self.trouble:
                    logger.warning("the tracking server is away: %s", error)
                self.trouble = str(error)
            else:
                self.unsent.popleft()
                continue
            self._tracker.disconnect()
            return False
        self.trouble = ""
        return True
