"""MLflow's many errors as three kinds: a wrong setting, a refusal, an absence."""

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from results.errors import TrackingAwayError, TrackingError, TrackingRefusedError

START_IT = "start it, or leave tracking.uri out to use a local file"
_ANSWERS = "the tracking server must answer"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_STARTING = ("starting up", "shutting down", "recovery", "too many", "remaining connection slots")
_AWAY_STATUSES = (408, 425, 429, 502, 503, 504)
_MYSQL_AWAY = (1040, 1053, 2002, 2003, 2006, 2013)
_LONGEST_REASON = 300
_FULL_DISK = (
    "the disk must have room for the tracking database and its artifacts",
    "none left",
    "make room there, or choose another folder with --runs",
)


@contextmanager
def tracking_faults(uri: str) -> Iterator[None]:
    """Turn the errors of MLflow, its database and its files into one tree.

    Nothing is tried again inside: a repeated request could make two runs of one job.

    Args:
        uri: MLflow's tracking URI, for the messages.

    Raises:
        TrackingAwayError: If nothing answers now.
        TrackingRefusedError: If what answers cannot be used.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It logs every error of a database with its traceback.
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)
    try:
        yield
    except TrackingError:
        raise
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        raise fault(uri, error) from error


def fault(uri: str, error: BaseException) -> TrackingError:
    """Return what an error means for a user of a tracking server."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, DBAPIError):
            return database_fault(uri, cause)
        if isinstance(cause, requests.exceptions.SSLError):
            rule = "the certificate of the tracking server must be valid"
            way_out = "set MLFLOW_TRACKING_SERVER_CERT_PATH, or correct the scheme"
            return TrackingRefusedError(uri, rule, reason(cause), way_out)
        if isinstance(cause, (ConnectionError, TimeoutError, requests.RequestException)):
            return TrackingAwayError(uri, _ANSWERS, reason(cause), START_IT)
    for cause in causes:
        if isinstance(cause, RestException) or type(cause) is MlflowException:
            return _server_fault(uri, cause)
        if isinstance(cause, OSError):
            return _file_fault(uri, cause)
    return TrackingRefusedError(uri, _ANSWERS, reason(error), START_IT)


def status_fault(uri: str, status: int, text: str) -> TrackingError:
    """Return what an HTTP status means that no tracking server in order answers with."""
    words = f"HTTP {status} {_phrase(status)}".rstrip()
    if status in _AWAY_STATUSES:
        return TrackingAwayError(uri, _ANSWERS, words, "wait until it is ready, or start it")
    if status in (401, 403, 407):
        return TrackingRefusedError(
            uri,
            "the tracking server must accept who asks",
            words,
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if status >= 500:
        said = f"{words}: {text}" if text else words
        return TrackingRefusedError(uri, _ANSWERS, said, "look at the server's log")
    return TrackingRefusedError(
        uri,
        "an MLflow tracking server must answer there",
        f"{words}, not from MLflow",
        "correct the address; it ends before /api and /#/",
    )


def database_fault(uri: str, error: DBAPIError) -> TrackingError:
    """Return what an error of a database means."""
    text, original = reason(error.orig or error), error.orig
    code = getattr(original, "sqlite_errorcode", None)
    if code is not None:
        if code & 0xFF in _BUSY:
            way_out = "close the program that holds it"
            return TrackingAwayError(uri, "the tracking database must be free", text, way_out)
        if code & 0xFF == sqlite3.SQLITE_FULL:
            return TrackingRefusedError(uri, *_FULL_DISK)
        if code & 0xFF in _DAMAGED:
            return TrackingRefusedError(
                uri,
                "the tracking database must be whole",
                text,
                "move the file away, and the next run, sync or report writes every finished job "
                "again from the stages",
            )
        return TrackingRefusedError(
            uri,
            "the tracking database must be a SQLite file that can be read and written",
            text,
            "mend its rights or choose another folder with --runs or another tracking.uri",
        )
    if isinstance(error, (OperationalError, InterfaceError)) and _is_away(original, text):
        return TrackingAwayError(uri, "the tracking database must answer", text, START_IT)
    rule = "the tracking database must accept who asks, and be whole"
    return TrackingRefusedError(uri, rule, text, "correct tracking.uri, or mend the database")


def reason(error: BaseException) -> str:
    """Return the first line of an error's text, without what surrounds the fact."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_LONGEST_REASON]


def _is_away(original: BaseException | None, text: str) -> bool:
    """Whether a database that is no SQLite file did not answer, or not yet."""
    arguments = getattr(original, "args", ())
    if arguments and isinstance(arguments[0], int):
        return arguments[0] in _MYSQL_AWAY
    if any(word in text for word in _STARTING):
        return True
    is_unknown_host = "failed to resolve host" in text and "Temporary failure" not in text
    return "FATAL" not in text and not is_unknown_host


def _server_fault(uri: str, error: BaseException) -> TrackingError:
    """What a message of MLflow itself means."""
    code = str(getattr(error, "error_code", ""))
    if code in ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
        return TrackingAwayError(uri, _ANSWERS, reason(error), START_IT)
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
        return status_fault(uri, HTTPStatus.FORBIDDEN, "")
    rule = "MLflow must take what is written"
    return TrackingRefusedError(uri, rule, reason(error), "see its log, or choose another server")


def _file_fault(uri: str, error: OSError) -> TrackingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TrackingRefusedError(uri, *_FULL_DISK)
    where = f" ({error.filename})" if error.filename else ""
    return TrackingRefusedError(
        uri,
        "the tracking database and its artifacts must be writable",
        f"{error.strerror or error}{where}",
        "mend the disk or its rights, or choose another folder with --runs",
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
