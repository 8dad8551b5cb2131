"""Folders that cannot be written or read, and disks that are full: one line and the way out."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from iac_core.errors import Problem

LEAST_FREE_GIB = 5.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = "must be open to this user", "change its rights, or choose another"
_NO_FOLDER = "must be a folder", "name another"
_RULES = {
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: ("must be a file", "name another"),
    errno.ENOENT: ("must exist", "correct the path"),
    errno.ENAMETOOLONG: ("a path must be short enough", "choose a shorter one"),
}
_OTHER = "must be usable", "correct the path, or look at the disk"
_LONGEST_PATH = 500
_FULL_IN_WORDS = ("database or disk is full", "No space left on device", "os error 28")
"""What libraries write that raise errors of their own: SQLite, safetensors."""
_OF_CODE = (NameError, AttributeError, TypeError, AssertionError)
_PROBE_BYTES = 2**20
_FULL_BELOW_BYTES = 2**20


def existing_part(path: Path) -> Path:
    """Return a path, or the nearest one above it that exists."""
    whole = path.absolute()
    return next(part for part in (whole, *whole.parents) if _exists(part))


def write_trouble(folder: Path) -> Problem | None:
    """Return why nothing can be written into a folder, or None.

    A small file is written and removed, in the nearest folder above if it does not exist yet.

    Args:
        folder: The folder.
    """
    place = existing_part(folder)
    if not place.is_dir():
        return Problem(
            file=str(place),
            rule="must be a folder",
            value="a file",
            way_out="name another folder",
        )
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        # Not with the name of the small file, which says nothing to anybody.
        return problem_of(OSError(error.errno, error.strerror), [place])
    return None


def free_gib(folder: Path) -> float:
    """Return GiB that are free where a folder is, or will be."""
    return shutil.disk_usage(existing_part(folder)).free / 2**30


def is_full(error: BaseException) -> bool:
    """Return whether an error, or what it came from, says that a disk has no room.

    A fault of the code that is met while such an error is handled is not one.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, _OF_CODE):
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if any(words in str(seen) for words in _FULL_IN_WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_folder(folders: Iterable[Path]) -> Path | None:
    """Return the first folder whose disk has no room left, or None."""
    for folder in folders:
        place = existing_part(folder)
        try:
            if shutil.disk_usage(place).free < _FULL_BELOW_BYTES:
                return place
        except OSError:
            continue
    return None


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Name the folder where a library says in an error of its own that the disk is full.

    Raises:
        OSError: Then, with the folder.
    """
    try:
        yield
    except Exception as error:
        if is_full(error) and not isinstance(error, OSError):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def full_disk(folder: Path | str) -> Problem:
    """Return what is said of a full disk."""
    return Problem(
        file=str(folder),
        rule="the disk must have room",
        value="none left",
        way_out="make room there and the same command goes on, or choose another folder",
    )


def problem_of(error: OSError, folders: Iterable[Path] = ()) -> Problem:
    """Return what is said of a file or folder that cannot be used.

    Args:
        error: What was raised.
        folders: Folders that were worked in: an error of a write does not name its file.
    """
    known = list(folders)
    name = error.filename2 or error.filename
    where = Path(str(name)) if isinstance(name, str | Path) else None
    if is_full(error):
        return full_disk(where or full_folder(known) or (known[0] if known else "a disk"))
    place = where or (known[0] if known else "a file")
    reason = error.strerror or str(error) or type(error).__name__
    rule, way_out = _RULES.get(error.errno or 0, _OTHER)
    return Problem(file=str(place)[:_LONGEST_PATH], rule=rule, value=reason, way_out=way_out)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a path that is too long, or closed to this user
        return False
