"""JSON of plain values with a checksum of its own: what is damaged is told from what is well."""

import json
import re
import zlib
from typing import Any, TypeVar

T = TypeVar("T")
_CHECKSUM = "checksum"
_SEAL = re.compile(rb',\s*"checksum": "([0-9a-f]{8})"\s*}$')


class DamagedError(ValueError):
    """A file of the project's own does not hold what was written into it."""


def to_json(
    value: Any,  # noqa: ANN401 - plain values of any shape
    *,
    takes_nan: bool = False,
    is_indented: bool = False,
) -> bytes:
    """Return plain values as JSON; an object carries a checksum of all its other members.

    Args:
        value: Objects, lists, strings, numbers, booleans and None.
        takes_nan: Whether a number may be NaN or infinite; it is written as ``NaN``.
        is_indented: Whether people read it; slower for long lists.

    Raises:
        ValueError: If a number is not finite and must be.
    """
    text = json.dumps(value, indent=1 if is_indented else None, allow_nan=takes_nan).encode()
    if not isinstance(value, dict) or not value:
        return text
    body = text.removesuffix(b"}").rstrip()
    end = f'"{_CHECKSUM}": "{zlib.crc32(body):08x}"'
    return body + (f",\n {end}\n}}" if is_indented else f", {end}}}").encode()


def from_json(content: bytes, of: type[T]) -> T:
    """Return the plain value that a file holds.

    Args:
        content: Of the file. An object without a checksum, as versions before wrote it, is taken
            as it is.
        of: Type of the outermost value, such as ``dict``.

    Raises:
        DamagedError: If it is no JSON, no UTF-8, nested too deep, of another type, or does not
            have its checksum.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"must be JSON, got {_in_short(error)}") from error
    if not isinstance(value, of):
        raise DamagedError(f"must hold a {of.__name__}, got {type(value).__name__}")
    if isinstance(value, dict) and value.pop(_CHECKSUM, None) is not None:
        seal = _SEAL.search(content)
        if seal is None or int(seal[1], 16) != zlib.crc32(content[: seal.start()]):
            raise DamagedError("must have its checksum, got another content")
    found: T = value
    return found


def _in_short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "too deep nesting"
    return str(error) or type(error).__name__
