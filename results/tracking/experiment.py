"""The experiment of a sweep on a server that answers: found, and written and read on trial."""

import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from results.errors import TrackingRefusedError

_PROBE = "iac.probe"


def find_experiment(client: MlflowClient, uri: str, name: str) -> Experiment | None:
    """Return an experiment by its name; None if there is none.

    Raises:
        TrackingRefusedError: If it was deleted: its runs are hidden, and the name is taken.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingRefusedError(
            uri,
            "the experiment must not be deleted",
            f"{name!r}, deleted",
            f"restore it with `MLFLOW_TRACKING_URI={uri} mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`, or give another tracking.experiment",
        )
    return found


def try_tag(client: MlflowClient, uri: str, experiment_id: str) -> None:
    """Write a tag of an experiment, read it back and remove it.

    Raises:
        TrackingRefusedError: If something else is read than was written.
    """
    name, value = f"{_PROBE}.{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    client.set_experiment_tag(experiment_id, name, value)
    found = client.get_experiment(experiment_id).tags.get(name)
    try:
        client.delete_experiment_tag(experiment_id, name)
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":  # an older server
            raise
    if found != value:
        rule = "what is written must be read back"
        raise TrackingRefusedError(uri, rule, f"{found!r} for {value!r}", "look at the server")


def artifacts_of(uri: str, run: Run) -> ArtifactRepository:
    """Return the artifacts of a run; a client would remember where they lay before a move."""
    return get_artifact_repository(run.info.artifact_uri, tracking_uri=uri)


def try_artifact(uri: str, run: Run) -> None:
    """Write an artifact of a run, read it back and remove it.

    Raises:
        TrackingRefusedError: If something else is read than was written.
    """
    text = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{_PROBE}.{text[:8]}"
        path.write_text(text, encoding="utf-8")
        where = artifacts_of(uri, run)
        where.log_artifact(str(path))
        into = Path(folder) / "back"
        into.mkdir()
        back = Path(where.download_artifacts(path.name, str(into)))
        found = back.read_text(encoding="utf-8") if back.is_file() else "nothing"
    with suppress(MlflowException, NotImplementedError, OSError):
        where.delete_artifacts(path.name)
    if found != text:
        rule = "artifacts that are written must be read back"
        raise TrackingRefusedError(uri, rule, found[:80], "look at the server's artifacts")
