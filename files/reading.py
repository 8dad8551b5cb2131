"""Read a small file of the project's own: a damaged one counts as absent, with one warning."""

import logging
import os
from pathlib import Path
from typing import TypeVar

from files.encoding import DamagedError, from_json

T = TypeVar("T")

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def read_bytes(path: Path) -> bytes | None:
    """Return the content of a file; None if it is absent, or a folder lies in its place.

    Raises:
        OSError: If it cannot be read, although it is there.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        warn_damaged(str(path), "must be a file, got a folder")
        return None


def read_json(path: Path, of: type[T]) -> T | None:
    """Return the plain value that a file holds; None if it is absent or damaged.

    Args:
        path: The file.
        of: Type of the outermost value, such as ``dict``.

    Raises:
        OSError: If it cannot be read, although it is there.
    """
    content = read_bytes(path)
    return None if content is None else value_or_none(content, of, name=str(path))


def value_or_none(content: bytes, of: type[T], *, name: str) -> T | None:
    """Return the plain value of a file that was read; None if it is damaged.

    Args:
        content: Of the file.
        of: Type of the outermost value.
        name: Of the file, for the warning.
    """
    try:
        return from_json(content, of)
    except DamagedError as error:
        warn_damaged(name, str(error))
        return None


def names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder; none if it is missing, or a file lies in its place."""
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()
    except NotADirectoryError:
        if folder.exists():
            warn_damaged(str(folder), "must be a folder, got a file")
        return frozenset()


def warn_damaged(name: str, rule: str, *, way_out: str = "counts as absent") -> None:
    """Say once in this process that a file is damaged, and what becomes of it.

    Args:
        name: Of the file.
        rule: What must hold, and what was found.
        way_out: What happens now.
    """
    if name not in _warned:
        _warned.add(name)
        _log.warning("%s is damaged and %s: %s", name, way_out, rule)
