"""Remove what killed writers left: temporary files whose writer is certainly gone."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from files.names import is_temporary, temporary_path, writer_of

LONGEST_WRITE_S = 24 * 3600.0
"""A temporary file that nobody has touched for so long has no writer; our choice."""


def remove_leftovers(folder: Path, *, is_recursive: bool = True) -> int:
    """Remove the temporary files of writers that are gone, and return how many there were.

    A writer of this machine is looked up. One of another machine, or of an older version whose
    names do not say who writes, counts as gone once its file was left alone for a day, by the
    clock of the file system.

    Args:
        folder: Where to look.
        is_recursive: Whether folders below are looked at too.
    """
    n_removed, now = 0, 0.0
    for path in _temporary_files(folder, is_recursive=is_recursive):
        with contextlib.suppress(OSError):  # another has removed it, or may not be changed
            writer = writer_of(path.name)
            if writer is None:
                now = now or clock_of(folder)
                is_left = now - path.stat().st_mtime > LONGEST_WRITE_S
            else:
                is_left = writer.is_gone
            if is_left:
                path.unlink()
                n_removed += 1
    return n_removed


def is_left_alone(folder: Path) -> bool:
    """Return whether nothing in a folder was touched for a day, by the clock of its files."""
    try:
        paths = [folder, *folder.rglob("*")]
        return clock_of(folder.parent) - max(map(_touched, paths)) > LONGEST_WRITE_S
    except OSError:  # gone this moment, or nothing can be written there
        return False


def _touched(path: Path) -> float:
    return path.lstat().st_mtime


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens if there is neither.

    Raises:
        OSError: If a file cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clock_of(folder: Path) -> float:
    """Return the time by the clock that stamps the files of a folder: seconds since 1970.

    Raises:
        OSError: If nothing can be written there.
    """
    probe = temporary_path(folder / "clock")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _temporary_files(folder: Path, *, is_recursive: bool) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        yield from (Path(where) / name for name in names if is_temporary(name))
        if not is_recursive:
            folders.clear()
