"""JSON of plain values, read without trust: what is damaged is told from what is well."""

import json
from typing import Any, TypeVar

T = TypeVar("T")


class DamagedError(ValueError):
    """A file of the project's own does not hold what was written into it."""


def to_json(value: Any) -> bytes:  # noqa: ANN401 - plain values of any shape
    """Return plain values as JSON.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(value, allow_nan=False).encode()


def from_json(content: bytes, of: type[T]) -> T:
    """Return the plain value that a file holds.

    Args:
        content: Of the file.
        of: Type of the outermost value, such as ``dict``.

    Raises:
        DamagedError: If it is no JSON, no UTF-8, nested too deep, or of another type.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"must be JSON, got {error or 'too deep nesting'}") from error
    if not isinstance(value, of):
        raise DamagedError(f"must hold a {of.__name__}, got {type(value).__name__}")
    return value
