"""Folders that cannot be written or read, and disks that are full: one line and the way out."""

import errno
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

LEAST_FREE_GIB = 5.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_PROBE_BYTES = 64 * 2**10
_FULL_BELOW_BYTES = 2**20


def existing_part(path: Path) -> Path:
    """Return a path, or the nearest one above it that exists."""
    whole = path.absolute()
    return next(part for part in (whole, *whole.parents) if _exists(part))


def write_trouble(folder: Path) -> str:
    """Return why nothing can be written into a folder, as ``rule, got value; way out``.

    A small file is written and removed, in the nearest folder above if it does not exist yet.

    Args:
        folder: The folder.

    Returns:
        One line with the path; empty if it can be written.
    """
    place = existing_part(folder)
    if not place.is_dir():
        return f"{place}: must be a folder, got a file; name another folder"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        # Not with the name of the small file, which says nothing to anybody.
        return line_of(OSError(error.errno, error.strerror), [place])
    return ""


def free_gib(folder: Path) -> float:
    """Return GiB that are free where a folder is, or will be."""
    return shutil.disk_usage(existing_part(folder)).free / 2**30


def is_full(error: BaseException) -> bool:
    """Return whether an error, or what it came from, says that a disk has no room."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if "database or disk is full" in str(seen):
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


def full_line(folder: Path | str) -> str:
    """Return what is said of a full disk."""
    return (
        f"{folder}: the disk must have room, got none left; make room there and the same command "
        "goes on, or choose another folder"
    )


def line_of(error: OSError, folders: Iterable[Path] = ()) -> str:
    """Return what is said of a file or folder that cannot be used: path, rule, way out.

    Args:
        error: What was raised.
        folders: Folders that were worked in: an error of a write does not name its file.
    """
    known = list(folders)
    name = error.filename2 or error.filename
    where = Path(str(name)) if isinstance(name, str | Path) else None
    reason = error.strerror or str(error) or type(error).__name__
    if is_full(error):
        # Of a file that could not be written, its folder is what helps.
        return full_line(where or full_folder(known) or (known[0] if known else "a disk"))
    place = where or (known[0] if known else "a file")
    if error.errno in _NOT_ALLOWED:
        return (
            f"{place}: must be open to this user, got {reason}; change its rights, or choose "
            "another"
        )
    if error.errno in _NO_FOLDER:
        return f"{place}: must be {_wanted(error)}, got {reason}; name another"
    if error.errno == errno.ENAMETOOLONG:
        start = str(place)[:80]
        return f"{start}…: a path must be short enough, got {reason}; choose a shorter one"
    if error.errno == errno.ENOENT:
        return f"{place}: must exist, got {reason}; correct the path"
    return f"{place}: must be usable, got {reason}; correct the path, or look at the disk"


def _wanted(error: OSError) -> str:
    return "a file" if error.errno == errno.EISDIR else "a folder"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a path that is too long, or closed to this user
        return False
