"""Identity of a data folder: of what its files hold, wherever the folder lies."""

import hashlib
from pathlib import Path

from iac_core.errors import DataError, Problem
from iac_core.types import SegmentationDataset

_GZIP_TRAILER_BYTES = 8
_SIDE_FILES = ("Info.cfg",)


def fingerprint(dataset: SegmentationDataset, root: Path) -> str:
    """Return 16 hexadecimal digits that change whenever a used file changes.

    SHA-256 over path below the root, size and content mark of every file that the reader uses. The
    content mark of a ``.gz`` file is its last 8 bytes, the checksum and length that gzip itself
    keeps of the content, so that hundreds of gigabytes need not be read; that of any other file
    is SHA-256 of its content. Times and the root's own path count nothing.

    Raises:
        DataError: If the folder is not of the reader's layout, or a file is missing.
    """
    files = {root / name for name in dataset.description.side_files}
    for ref in dataset.volumes():
        files |= {*ref.image_paths, ref.label_path}
        beside = (ref.label_path.parent / name for name in _SIDE_FILES)
        files |= {path for path in beside if _is_file(path)}
    problems = [_absent(path) for path in sorted(files) if not _is_file(path)]
    if problems:
        raise DataError(problems)
    total = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(root).as_posix()
        total.update(f"{name}\0{path.stat().st_size}\0{_content_mark(path)}\n".encode())
    return total.hexdigest()[:16]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _absent(path: Path) -> Problem:
    return Problem(
        file=str(path),
        rule="a file that the data set names must exist",
        value="no file",
        way_out="restore it from the original data",
    )


def _content_mark(path: Path) -> str:
    if path.suffix != ".gz":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _GZIP_TRAILER_BYTES))
        return file.read().hex()
