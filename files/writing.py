"""Write a file whole or not at all: beside its place first, then moved into it."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from files.encoding import to_json

SUFFIX = ".tmp"
"""End of the names of files that are being written."""


@contextmanager
def whole_file(path: Path, *, is_durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when the block ends; if it raises, nothing changes.

    Args:
        path: The file; its folder is made if it is missing.
        is_durable: Whether the content and the name survive a loss of power once the block has
            ended. Needed where later work rests on the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of 255 bytes is the longest that file systems take.
    temporary = path.with_name(f"{path.name[:200]}.{uuid.uuid4().hex[:8]}{SUFFIX}")
    try:
        with temporary.open("wb") as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes, *, is_durable: bool = True) -> None:
    """Write bytes, whole or not at all."""
    with whole_file(path, is_durable=is_durable) as file:
        file.write(content)


def write_text(path: Path, text: str, *, is_durable: bool = True) -> None:
    """Write text in UTF-8, whole or not at all."""
    write_bytes(path, text.encode(), is_durable=is_durable)


def write_json(path: Path, value: Any, *, is_durable: bool = True) -> None:  # noqa: ANN401
    """Write plain values as JSON, whole or not at all.

    Raises:
        ValueError: If a number is not finite.
    """
    write_bytes(path, to_json(value), is_durable=is_durable)


def _sync_folder(folder: Path) -> None:
    """Make a rename last; file systems that cannot sync a folder are left alone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
