"""Save and load the state of a stage: written beside and moved into place, read without pickle."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from files.reading import warn_damaged
from files.writing import whole_file
from iac_core.errors import DataError, Problem


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts; the file is whole or absent.

    Args:
        path: The file; its folder exists.
        state: Nested dicts and lists of tensors and plain values.
    """
    with whole_file(path, makes_folder=False) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises:
        DataError: If the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        check_archive(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}")
    except Exception as error:  # torch raises half a dozen kinds for one bad file
        problem = Problem(
            file=str(path),
            rule="a checkpoint must be a whole file of tensors and plain values",
            value=f"{type(error).__name__}: {error}".splitlines()[0],
            way_out=f"delete the folder {path.parent}; the same command computes it again",
        )
        raise DataError([problem]) from error
    return state


def resume_from(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint that a stage goes on from; None if it starts from its beginning.

    Args:
        path: The checkpoint. A damaged one counts as absent, with a warning.
    """
    if not path.exists():
        return None
    try:
        return load_checkpoint(path)
    except DataError as error:
        way_out = "left alone; the stage starts from its beginning"
        warn_damaged(str(path), error.problems[0].value, way_out=way_out)
        return None


def is_whole_archive(path: Path) -> bool:
    """Return whether a file of `save_checkpoint` or `numpy.savez` is as it was written."""
    try:
        check_archive(path)
    except (OSError, ValueError):
        return False
    return True


def check_archive(path: Path) -> None:
    """Compare the checksum of every entry of a ZIP archive, which NumPy and torch write.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no archive, or not as it was written.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"must be a whole archive, got {error or type(error).__name__}"
        ) from error
    if wrong is not None:
        raise ValueError(f"must be a whole archive, got a damaged entry {wrong}")
