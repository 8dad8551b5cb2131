"""Save and load the state of a stage: written beside and moved into place, read without pickle."""

import os
from pathlib import Path
from typing import Any

import torch

from iac_core.errors import DataError, Problem


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts; the file is whole or absent.

    Args:
        path: The file; its folder exists.
        state: Nested dicts and lists of tensors and plain values.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises:
        DataError: If the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for one bad file
        problem = Problem(
            file=str(path),
            rule="a checkpoint must be a whole file of tensors and plain values",
            value=f"{type(error).__name__}: {error}".splitlines()[0],
            way_out="delete it; the stage starts from its beginning",
        )
        raise DataError([problem]) from error
    return state
