"""Write to a tracking server and read from it, and leave nothing there."""

import tempfile
from pathlib import Path

from mlflow.tracking import MlflowClient

from addresses.redaction import redact
from addresses.sqlite import sqlite_path, sqlite_url
from results.tracking.address import check_experiment_name
from results.tracking.database import make_database
from results.tracking.experiment import find_experiment, try_tag
from results.tracking.faults import tracking_faults
from results.tracking.server import PATIENCE_S, ask, no_folders_left


def try_tracking(uri: str, experiment: str | None = None) -> str:
    """Write and read on trial, and return what was found.

    A tag is written to the experiment, or to another one while a sweep has not made it, and
    removed again. A SQLite file that is missing is made in a folder beside it, and removed again.

    Args:
        uri: MLflow's tracking URI.
        experiment: Name of a sweep's experiment.

    Raises:
        TrackingError: If the address is wrong, nothing answers within `PATIENCE_S`, or what
            answers cannot be used.
    """
    if experiment is not None:
        check_experiment_name(uri, experiment)
    ask(uri, patience_s=PATIENCE_S)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        with tracking_faults(uri):
            _try_database(path)
        return f"{redact(uri)}: the first run makes it; written and read on trial"
    with tracking_faults(uri), no_folders_left(uri):
        client = MlflowClient(tracking_uri=uri)
        found = None if experiment is None else find_experiment(client, uri, experiment)
        others = [] if found else client.search_experiments(max_results=1)
        for one in [found] if found else others:
            try_tag(client, uri, one.experiment_id)
        name = "no experiment yet" if not others and not found else "written and read"
        of = f" (experiment {experiment!r})" if found else ""
    return f"{redact(uri)}: {name}{of}"


def _try_database(path: Path) -> None:
    """Make a database where one is to lie, or in the nearest folder that exists."""
    folder = path.absolute().parent
    near = next(parent for parent in [folder, *folder.parents] if parent.exists())
    with tempfile.TemporaryDirectory(dir=near, prefix="mlflow-trial-") as temporary:
        trial = sqlite_url(Path(temporary) / "mlflow.db")
        make_database(trial)
        client = MlflowClient(tracking_uri=trial)
        try_tag(client, trial, client.search_experiments(max_results=1)[0].experiment_id)
