"""Predicted masks in files: one compressed file a volume, and an index of them."""

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from files.encoding import DamagedError, from_json
from files.writing import whole_file, write_json
from iac_core.errors import DataError, Problem

INDEX = "masks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOfVolume:
    """Where the mask of a volume lies.

    Attributes:
        subset: ``validation`` or ``test``.
        patient_id: The patient.
        volume_id: The volume.
        file: Name of the file, in the folder of the index.
    """

    subset: str
    patient_id: str
    volume_id: str
    file: str


def write_mask(path: Path, labels: ndarray) -> None:
    """Write a mask.

    Args:
        path: The file, ``.npz``.
        labels: Label values on the original grid, shape ``(X, Y, Z)``, uint8.
    """
    with whole_file(path) as file:
        np.savez_compressed(file, labels=labels)


def write_index(folder: Path, masks: Iterable[MaskOfVolume]) -> None:
    """Write the index of a folder's masks."""
    write_json(folder / INDEX, {"masks": [asdict(mask) for mask in masks]}, is_indented=True)


class Masks:
    """The masks of a folder; each is read when it is asked for.

    Args:
        folder: The folder.

    Raises:
        DataError: If its index cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            entries = from_json((folder / INDEX).read_bytes(), dict)["masks"]
            self._masks = {entry["volume_id"]: MaskOfVolume(**entry) for entry in entries}
        except (DamagedError, KeyError, TypeError) as error:
            raise _damaged(folder / INDEX, error) from error

    def of(self, volume_id: str) -> ndarray:
        """Return the mask of a volume: label values, shape ``(X, Y, Z)``, uint8.

        Raises:
            DataError: If there is none, or its file is damaged.
        """
        if volume_id not in self._masks:
            raise _damaged(self._folder / INDEX, f"no mask of {volume_id}")
        path = self._folder / self._masks[volume_id].file
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                labels: ndarray = arrays["labels"]
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
            raise _damaged(path, error) from error
        return labels


def _damaged(path: Path, reason: object) -> DataError:
    problem = Problem(
        file=str(path),
        rule="predicted masks must be whole",
        value=str(reason),
        way_out="remove the folder, and the same command predicts them again",
    )
    return DataError([problem])
