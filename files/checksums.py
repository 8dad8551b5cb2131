"""Sizes and checksums of the files of a folder: CRC-32, which tells every damage of a byte."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from files.names import is_temporary

_CHUNK = 2**20
Checksums = dict[str, tuple[int, str]]
"""Name of a file, relative and with ``/`` → its size in bytes and its CRC-32 in hexadecimal."""


def checksum_of(content: bytes) -> tuple[int, str]:
    """Return size and CRC-32 of a content.

    Examples:
        >>> checksum_of(b"123456789")
        (9, 'cbf43926')
    """
    return len(content), f"{zlib.crc32(content):08x}"


def checksum_of_file(path: Path) -> tuple[int, str]:
    """Return size and CRC-32 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    crc, size = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return size, f"{crc:08x}"


def checksums_of(folder: Path, is_counted: Callable[[str], bool]) -> Checksums:
    """Return the checksums of the whole files below a folder.

    Args:
        folder: The folder.
        is_counted: Whether a file of a name belongs to them.
    """
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    chosen = sorted(name for name in names if is_counted(name) and not is_temporary(name))
    return {name: checksum_of_file(folder / name) for name in chosen}


def checksums_of_files(folder: Path, paths: Iterable[Path]) -> Checksums:
    """Return the checksums of some files below a folder."""
    whole = sorted(path for path in paths if path.is_file() and not is_temporary(path.name))
    return {path.relative_to(folder).as_posix(): checksum_of_file(path) for path in whole}


def damage_of(folder: Path, expected: Mapping[str, Any]) -> str | None:
    """Return the first file of a folder that is not as it was, and how; None if all are.

    Args:
        folder: The folder.
        expected: Its files, as `checksums_of` returned them or as JSON keeps that.
    """
    for name, known in expected.items():
        try:
            wrong = difference(checksum_of_file(folder / name), known)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            wrong = "is missing"
        if wrong:
            return f"{name} {wrong}"
    return None


def difference(found: tuple[int, str], expected: Sequence[Any]) -> str:
    """Return in what size and CRC-32 differ from those expected; empty if they do not."""
    (size, crc), (known_size, known_crc) = found, expected
    if size != known_size:
        return f"must have {known_size} bytes, got {size}"
    return "" if crc == known_crc else f"must have the CRC-32 {known_crc}, got {crc}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
