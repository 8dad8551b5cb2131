"""SQLite files as database URLs and back; any letter may stand in a path."""

from pathlib import Path
from urllib.parse import unquote

PREFIX = "sqlite:///"


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, by its absolute path.

    SQLAlchemy ends the path at ``?`` and decodes ``%``; both are encoded, nothing else.

    Examples:
        >>> sqlite_url(Path("/runs/50%25 a?b#c/mlflow.db"))
        'sqlite:////runs/50%2525 a%3Fb#c/mlflow.db'
    """
    return PREFIX + in_url(path.resolve())


def in_url(path: Path) -> str:
    """Return a path as it stands in the URL of a SQLite file.

    Examples:
        >>> in_url(Path("/a?b"))
        '/a%3Fb'
    """
    return str(path).replace("%", "%25").replace("?", "%3F")


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None if it is another database, or one in memory.

    Examples:
        >>> sqlite_path("sqlite:////runs/a%3Fb/mlflow.db?timeout=3")
        PosixPath('/runs/a?b/mlflow.db')
        >>> sqlite_path("sqlite://"), sqlite_path("postgresql://h/db")
        (None, None)
    """
    scheme, _, rest = url.partition("://")
    name = unquote(rest.partition("?")[0].removeprefix("/"))
    if scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
        return None
    return Path(name.removeprefix("file:"))
