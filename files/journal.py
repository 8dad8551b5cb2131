"""Files that grow by lines of JSON: a torn end is cut off, every line has a checksum."""

import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from files.encoding import DamagedError, from_json
from files.leftovers import clock_of
from files.writing import write_bytes

_CRC = "crc32"
_log = logging.getLogger(__name__)


def line_of(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line with its checksum."""
    return json.dumps({**entry, _CRC: _crc_of(entry)}, separators=(",", ":")).encode() + b"\n"


def checked(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without its checksum; one of an older version has none.

    Raises:
        DamagedError: If it is not as it was written.
    """
    expected = entry.pop(_CRC, None)
    if expected is not None and expected != _crc_of(entry):
        raise DamagedError("must have its checksum, got another content")
    return entry


def cut_torn_end(path: Path) -> Path | None:
    """Cut off a last line that has no end, as a kill during a write leaves it.

    Only for who holds the journal's lock: nobody else may be writing.

    Returns:
        A copy of what was cut, beside the journal; None if the last line is whole.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return None
    kept = path.with_name(f"{path.name}.torn-{clock_of(path.parent):.0f}")
    write_bytes(kept, content[whole:])
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    _log.warning(
        "%s: its last line was torn by a kill and is cut off; it is kept in %s", path, kept.name
    )
    return kept


def first_damage(path: Path) -> tuple[int, str] | None:
    """Return the number of the first line that is damaged, from 1, and how; None if all are well.

    A last line without an end is not looked at.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            checked(from_json(line, dict))
        except DamagedError as error:
            return number, str(error)
    return None


def _crc_of(entry: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(entry))
    return f"{zlib.crc32(json.dumps(plain, sort_keys=True).encode()):08x}"
