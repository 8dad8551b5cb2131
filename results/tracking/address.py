"""Whether an address can be that of an MLflow tracking server, before anything is asked."""

import difflib
from urllib.parse import urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from addresses.sqlite import sqlite_path
from results.errors import TrackingSettingError

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LONGEST_EXPERIMENT_NAME = 256
"""Letters that MLflow's databases hold."""
_DRIVERS = {"postgresql": "psycopg[binary]", "mysql": "pymysql", "mssql": "pyodbc"}
_LOCAL = "leave tracking.uri out to use a local file"


def scheme_of(uri: str) -> str:
    """Return the scheme of an address without its driver, in small letters.

    Examples:
        >>> scheme_of("postgresql+psycopg://h/db"), scheme_of("./mlruns")
        ('postgresql', '')
    """
    scheme, found, _ = uri.partition("://")
    return scheme.partition("+")[0].lower() if found else ""


def check_address(uri: str) -> None:
    """Check an address without asking anything.

    Raises:
        TrackingSettingError: If its scheme is unknown, its driver is not installed, or host or
            port are missing or malformed.
    """
    scheme = scheme_of(uri)
    if scheme in SERVERS:
        _check_server(uri)
    elif scheme in DATABASES:
        _check_database(uri, scheme)
    elif scheme in ("", "file"):
        raise TrackingSettingError(
            uri,
            "tracking.uri must be a server or a database: this MLflow writes no folder of files",
            repr(uri),
            f"give http://HOST:PORT or sqlite:///PATH/mlflow.db, or {_LOCAL}",
        )
    else:
        near = difflib.get_close_matches(scheme, [*SERVERS, *DATABASES], n=1)
        hint = f"did you mean {near[0]}://? " if near else ""
        raise TrackingSettingError(
            uri,
            f"tracking.uri must begin with one of {', '.join([*SERVERS, *DATABASES])}",
            f"{scheme}://",
            f"{hint}correct it, or {_LOCAL}",
        )


def check_experiment_name(uri: str, name: str) -> None:
    """Check that MLflow's databases hold the name of an experiment.

    Raises:
        TrackingSettingError: If it is empty, too long, or holds control characters.
    """
    way_out = "give another tracking.experiment"
    if len(name) > LONGEST_EXPERIMENT_NAME:
        rule = f"an experiment's name must have at most {LONGEST_EXPERIMENT_NAME} letters"
        raise TrackingSettingError(uri, rule, f"{len(name)} ({name[:40]}…)", way_out)
    if not name.strip() or not name.isprintable():
        rule = "an experiment's name must be printable and not empty"
        raise TrackingSettingError(uri, rule, repr(name), way_out)


def _check_server(uri: str) -> None:
    rule = "tracking.uri must be http://HOST:PORT with a port from 1 to 65535"
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may hold the password
        raise TrackingSettingError(
            uri, rule, "a malformed host or port", "correct it; an IPv6 address stands in [ ]"
        ) from None
    if not host or port == 0 or any(sign.isspace() for sign in uri):
        value = "no host" if not host else "port 0" if port == 0 else "a blank"
        raise TrackingSettingError(uri, rule, value, "correct it")


def _check_database(uri: str, scheme: str) -> None:
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # the text may hold the password
        raise TrackingSettingError(
            uri,
            f"tracking.uri must be {scheme}://USER:PASSWORD@HOST:PORT/NAME",
            "a malformed address",
            "correct it; in a password write %40 for @, %2F for / and %3A for :",
        ) from None
    if url.port is not None and not 1 <= url.port <= 65535:
        rule = "the port of tracking.uri must be from 1 to 65535"
        raise TrackingSettingError(uri, rule, url.port, "correct it")
    if scheme == "sqlite" and (url.host or sqlite_path(uri) is None):
        raise TrackingSettingError(
            uri,
            "tracking.uri must name a SQLite file",
            f"the host {url.host!r}" if url.host else "a database in memory",
            f"give sqlite:///PATH/mlflow.db, with four slashes if PATH is absolute, or {_LOCAL}",
        )
    _check_driver(uri, url, scheme)


def _check_driver(uri: str, url: URL, scheme: str) -> None:
    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        rule = f"the driver of {scheme} must be one that SQLAlchemy knows"
        way_out = f"write {scheme}:// alone, or correct it"
        raise TrackingSettingError(uri, rule, url.drivername, way_out) from None
    except ImportError as error:
        raise TrackingSettingError(
            uri,
            f"the driver of {url.drivername} must be installed",
            f"no module {error.name or error}",
            f"run `pip install '{_DRIVERS.get(scheme, url.drivername)}'`, or name another one",
        ) from None
