"""Write a file whole or not at all: beside its place first, then moved into it.

Everything that the project writes for itself goes through this module.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from files.encoding import to_json
from files.names import temporary_path


@contextmanager
def whole_file(
    path: Path, *, is_durable: bool = True, makes_folder: bool = True
) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when the block ends; if it raises, nothing changes.

    Args:
        path: The file.
        is_durable: Whether the content and the name survive a loss of power once the block has
            ended. Needed where later work rests on the file.
        makes_folder: Whether its folder is made if it is missing.
    """
    beside = whole_path(path, is_durable=is_durable, makes_folder=makes_folder)
    with beside as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def whole_path(
    path: Path, *, suffix: str = "", is_durable: bool = True, makes_folder: bool = True
) -> Iterator[Path]:
    """Give a name to write under to a library that opens files itself; then as `whole_file`.

    Args:
        path: The file.
        suffix: How the name must end.
        is_durable: As in `whole_file`.
        makes_folder: As in `whole_file`.
    """
    if makes_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path, suffix=suffix)
    try:
        yield temporary
        if is_durable:
            sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def write_bytes(
    path: Path, content: bytes, *, is_durable: bool = True, makes_folder: bool = True
) -> None:
    """Write bytes, whole or not at all."""
    with whole_file(path, is_durable=is_durable, makes_folder=makes_folder) as file:
        file.write(content)


def write_text(path: Path, text: str, *, is_durable: bool = True) -> None:
    """Write text in UTF-8, whole or not at all."""
    write_bytes(path, text.encode(), is_durable=is_durable)


def write_json(
    path: Path,
    value: Any,  # noqa: ANN401 - plain values of any shape
    *,
    is_durable: bool = True,
    takes_nan: bool = False,
    is_indented: bool = False,
) -> None:
    """Write plain values as JSON (`files.encoding.to_json`), whole or not at all.

    Raises:
        ValueError: If a number is not finite and must be.
    """
    write_bytes(
        path, to_json(value, takes_nan=takes_nan, is_indented=is_indented), is_durable=is_durable
    )


def create_bytes(path: Path, content: bytes) -> bool:
    """Write bytes where there is no file; of several callers one wins.

    Returns:
        False if there is a file already; it stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(content)
        sync_file(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def copy_file(source: Path, path: Path, *, links: bool = False) -> None:
    """Copy a file, whole or not at all.

    Args:
        source: The file.
        path: Its copy.
        links: Whether a second name for the same content will do, where the file system has such.
    """
    temporary = temporary_path(path)
    try:
        if links:
            try:
                os.link(source, temporary)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(source, temporary)
        else:
            shutil.copyfile(source, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last; file systems that cannot sync a folder are left alone."""
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


def sync_file(path: Path) -> None:
    """Bring the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
