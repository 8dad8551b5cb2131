"""Read a small file of the project's own: a damaged one counts as absent, with one warning."""

import logging
from pathlib import Path
from typing import TypeVar

from files.encoding import DamagedError, from_json

T = TypeVar("T")

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def read_json(path: Path, of: type[T]) -> T | None:
    """Return the plain value that a file holds; None if it is absent or damaged.

    Args:
        path: The file.
        of: Type of the outermost value, such as ``dict``.

    Raises:
        OSError: If it cannot be read, although it is there.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return value_or_none(content, of, name=str(path))


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


def warn_damaged(name: str, rule: str) -> None:
    """Say once in this process that a file is damaged and counts as absent."""
    if name not in _warned:
        _warned.add(name)
        _log.warning("%s is damaged and counts as absent: it %s", name, rule)
