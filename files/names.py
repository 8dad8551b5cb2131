"""Names of files that are being written: they say who writes, and that they are not whole."""

import re
import uuid
import zlib
from pathlib import Path

from files.processes import ProcessIdentity, machine, own_identity

MARK = ".tmp"
"""Suffix of a file that is being written; another one may follow that a library insists on."""
_MOST_BYTES_OF_A_NAME = 190  # of the 255 that file systems take
_WRITER = re.compile(r"\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.tmp(\.\w+)?$")


def temporary_path(path: Path, *, suffix: str = "") -> Path:
    """Return a new name beside a file, for its content until that is whole.

    Args:
        path: The file.
        suffix: How the name must end, for libraries that look at it.
    """
    short = path.name.encode()[:_MOST_BYTES_OF_A_NAME].decode(errors="ignore")
    own = own_identity()
    writer = f"{_digest(own.machine)}-{own.pid}-{own.start}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f"{short}.{writer}{MARK}{suffix}")


def is_temporary(name: str) -> bool:
    """Return whether a file of this name was not whole when it got it.

    Examples:
        >>> is_temporary("images.npy"), is_temporary("case.tmp.nii"), is_temporary("a.json.7.tmp")
        (False, True, True)
    """
    return MARK in Path(name).suffixes


def writer_of(name: str) -> ProcessIdentity | None:
    """Return who writes a file, if its name says so and this machine can look the process up."""
    found = _WRITER.search(name)
    if found is None or found[1] != _digest(machine()):
        return None
    return ProcessIdentity(machine=machine(), pid=int(found[2]), start=int(found[3]))


def _digest(machine: str) -> str:
    return f"{zlib.crc32(machine.encode()):08x}"
