"""Ask a tracking server or database whether it can be read and written, in bounded time."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from addresses.sqlite import PREFIX, sqlite_path
from results.errors import TrackingAwayError, TrackingRefusedError, TrackingSettingError
from results.tracking.address import SERVERS, check_address, scheme_of
from results.tracking.database import ask_database
from results.tracking.faults import START_IT, status_fault, tracking_faults

PATIENCE_S = 10.0
"""How long an absence is waited out before a command goes on without tracking."""
_SECONDS_BETWEEN_KNOCKS = 0.5
_KNOCK_S = 3.0
_ANSWER_S = 8.0
_PATH = "/api/2.0/mlflow/experiments/search"


def ask(uri: str, *, writes: bool = True, patience_s: float = 0.0) -> None:
    """Check an address, then ask what is there until it answers or patience ends.

    Nothing is left behind. A SQLite file that is missing is fine for a writer.

    Args:
        uri: MLflow's tracking URI.
        writes: Whether it is to be written, too.
        patience_s: How long an absence is waited out.

    Raises:
        TrackingSettingError: If the address is wrong.
        TrackingRefusedError: If what answers cannot be used.
        TrackingAwayError: If nothing answers in time.
    """
    check_address(uri)
    deadline = time.monotonic() + patience_s - _SECONDS_BETWEEN_KNOCKS
    while True:
        try:
            with tracking_faults(uri):
                _ask_once(uri, writes=writes)
        except TrackingAwayError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_KNOCKS)
        else:
            return


def knock(uri: str) -> None:
    """Find out in seconds that a server or a database is away, or locked; a server is not asked.

    Raises:
        TrackingAwayError: If nothing answers.
        TrackingRefusedError: If a database cannot be written any more.
    """
    if scheme_of(uri) in SERVERS:
        check_reachable(uri)
    else:
        ask(uri)


def check_reachable(uri: str, timeout_s: float = _KNOCK_S) -> None:
    """Find out in seconds, not minutes, that a tracking server is away.

    Raises:
        TrackingAwayError: If the URI is a server and its port does not answer.
        TrackingRefusedError: If its host is unknown.
    """
    if scheme_of(uri) not in SERVERS:
        return
    parts = urlsplit(uri)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise TrackingAwayError(uri, "its name must be found", host, START_IT) from error
        way_out = f"correct it, connect to its network, or {START_IT.partition(', or ')[2]}"
        rule = "the host of tracking.uri must be known"
        raise TrackingRefusedError(uri, rule, repr(host), way_out) from error
    except OSError as error:
        value = f"no tracking server at {host}:{port} ({error.strerror or error})"
        rule = "the tracking server must answer"
        raise TrackingAwayError(uri, rule, value, START_IT) from error


def _ask_once(uri: str, *, writes: bool) -> None:
    if scheme_of(uri) in SERVERS:
        check_reachable(uri)
        _ask_server(uri, _ANSWER_S)
        return
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        if not writes:
            raise TrackingSettingError(
                uri,
                "the tracking database must exist",
                f"no file {path}",
                "run the sweep first, or correct the address",
            )
        _check_folder(uri, path)
        return
    ask_database(uri, writes=writes, timeout_s=_KNOCK_S)


def _ask_server(uri: str, timeout_s: float) -> None:
    """Ask for one experiment; only an MLflow server answers in its form."""
    query = {"max_results": 1}
    try:
        answer = http_request(
            get_default_host_creds(uri.rstrip("/")), _PATH, "POST",
            json=query, timeout=timeout_s, max_retries=0, raise_on_status=False,
        )  # fmt: skip
    except MlflowException as error:
        # Its text has the whole address; what lies below it has none.
        raise (error.__cause__ or error.__context__ or error) from None
    try:
        told = answer.json()
    except ValueError:
        told = None
    is_mlflow = isinstance(told, dict) and told.keys() <= {"experiments", "next_page_token"}
    if answer.status_code == 200 and is_mlflow:
        return
    text = ""
    if isinstance(told, dict):
        text = str(told.get("message", "")).partition("\n")[0]
        if told.get("error_code") == "TEMPORARILY_UNAVAILABLE":
            rule = "the database of the tracking server must answer"
            raise TrackingAwayError(uri, rule, text, "start it")
    raise status_fault(uri, answer.status_code, text)


def _check_folder(uri: str, path: Path) -> None:
    """Look whether a SQLite file can be made in its folder.

    Raises:
        TrackingRefusedError: If the nearest folder that exists is none, or cannot be written.
    """
    folder = path.absolute().parent
    near = next(parent for parent in [folder, *folder.parents] if os.path.lexists(parent))
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        raise TrackingRefusedError(
            uri,
            "the tracking database must lie in a folder that can be written",
            f"{near}, {'not writable' if near.is_dir() else 'no folder'}",
            "choose another folder with --runs, or another tracking.uri",
        )


@contextmanager
def no_folders_left(uri: str) -> Iterator[None]:
    """Remove the empty folders that MLflow makes for the encoded path of a SQLite URL."""
    encoded = Path(uri.removeprefix(PREFIX)).parent
    made: list[Path] = []
    if uri.startswith(PREFIX) and "%" in uri:
        made = [one for one in [encoded, *encoded.parents] if not os.path.lexists(one)]
    try:
        yield
    finally:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
