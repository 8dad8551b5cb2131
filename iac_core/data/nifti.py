"""NIfTI files. The only file that imports nibabel."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Integer
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from numpy import ndarray

from iac_core.errors import DataError, Problem
from iac_core.types import Volume, VolumeRef

_AFFINE_TOLERANCE_MM = 1e-3


def read_volume(ref: VolumeRef) -> Volume:
    """Read an image with its labels and check that they fit each other.

    Raises:
        DataError: With every problem of the two files: unreadable, wrong number of axes, NaN or
            infinite voxels, labels that are not whole numbers, different shape or affine.
    """
    problems: list[Problem] = []
    image, image_affine = _read(ref.image_path, problems)
    labels, label_affine = _read(ref.label_path, problems)
    if image is not None:
        problems += _not_finite(ref.image_path, image)
    if labels is not None:
        problems += _not_whole(ref.label_path, labels)
    if image is not None and labels is not None:
        problems += _misfit(ref, image.shape, labels.shape, image_affine, label_affine)
    if problems or image is None or labels is None:
        raise DataError(problems)
    spacing_mm = voxel_sizes(image_affine)
    return Volume(
        image=np.ascontiguousarray(image[None], dtype=np.float32),
        labels=labels.astype(np.uint8),
        spacing_mm=(float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        affine=image_affine,
    )


def read_labels(path: Path) -> Integer[ndarray, "x y z"]:
    """Read a label file alone, uint8.

    Raises:
        DataError: If it is unreadable, has another number of axes, or holds no whole numbers.
    """
    problems: list[Problem] = []
    labels, _ = _read(path, problems)
    if labels is not None:
        problems += _not_whole(path, labels)
    if problems or labels is None:
        raise DataError(problems)
    return labels.astype(np.uint8)


def write_nifti(path: Path, array: ndarray, affine: Float[ndarray, "4 4"]) -> None:
    """Write an array with its affine; the bytes depend on nothing else (no time stamp).

    Args:
        path: Ends in ``.nii.gz`` or ``.nii``.
        array: Axes X, Y, Z.
        affine: Voxel indices to millimetres.
    """
    image = nibabel.Nifti1Image(array, affine)
    image.set_data_dtype(array.dtype)
    nibabel.save(image, path)


def canonical_axes(affine: Float[ndarray, "4 4"]) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return how to turn an array to the closest canonical orientation.

    Canonical axes point to the right, to the front and to the head.

    Args:
        affine: Voxel indices to millimetres.

    Returns:
        The file axis that becomes each canonical axis, and 1 or −1 for each canonical axis, −1
        where the axis is reversed.
    """
    orientation = nibabel.io_orientation(affine)
    order = tuple(int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3))
    signs = tuple(int(orientation[axis, 1]) for axis in order)
    return (order[0], order[1], order[2]), signs


def _read(path: Path, problems: list[Problem]) -> tuple[ndarray | None, ndarray]:
    """Read voxels and affine; on failure note why and return None."""
    nothing = np.eye(4)
    try:
        file = nibabel.load(path)
        voxels = np.asarray(file.dataobj)
    except FileNotFoundError:
        problems.append(
            Problem(
                file=str(path),
                rule="the file must exist",
                value="no file",
                way_out="restore it from the original data, or remove the patient's folder",
            )
        )
        return None, nothing
    except (OSError, EOFError, zlib.error, ImageFileError, ValueError) as error:
        problems.append(
            Problem(
                file=str(path),
                rule="a NIfTI file must be whole",
                value=str(error).splitlines()[0] or type(error).__name__,
                way_out="the file is damaged or was cut off while copying; copy it again",
            )
        )
        return None, nothing
    if voxels.ndim != 3:
        problems.append(
            Problem(
                file=str(path),
                rule="a volume must have 3 axes",
                value=f"shape {voxels.shape}",
                way_out="store each frame as a file of its own",
            )
        )
        return None, nothing
    return voxels, np.asarray(file.affine, dtype=np.float64)


def _first(mask: ndarray) -> str:
    return f"voxel {tuple(int(index) for index in np.argwhere(mask)[0])}"


def _not_finite(path: Path, image: Float[ndarray, "x y z"]) -> list[Problem]:
    wrong = ~np.isfinite(image)
    if not wrong.any():
        return []
    return [
        Problem(
            file=str(path),
            place=_first(wrong),
            rule="every voxel must be a finite number",
            value=f"{int(wrong.sum())} voxels that are NaN or infinite",
            way_out="export the image again, or fill these voxels with the background intensity",
        )
    ]


def _not_whole(path: Path, labels: ndarray) -> list[Problem]:
    wrong = ~np.isfinite(labels) | (labels != np.floor(labels)) | (labels < 0) | (labels > 255)
    if not wrong.any():
        return []
    index = tuple(np.argwhere(wrong)[0])
    return [
        Problem(
            file=str(path),
            place=_first(wrong),
            rule="a label must be a whole number from 0 to 255",
            value=f"{labels[index]} ({int(wrong.sum())} such voxels)",
            way_out="export the labels as integers, without interpolation",
        )
    ]


def _misfit(
    ref: VolumeRef,
    image_shape: Sequence[int],
    label_shape: Sequence[int],
    image_affine: ndarray,
    label_affine: ndarray,
) -> list[Problem]:
    if tuple(image_shape) != tuple(label_shape):
        return [
            Problem(
                file=str(ref.label_path),
                rule=f"labels must have the shape of {ref.image_path.name}, {tuple(image_shape)}",
                value=str(tuple(label_shape)),
                way_out="pair the image with its own labels",
            )
        ]
    difference = float(np.abs(image_affine - label_affine).max())
    if difference > _AFFINE_TOLERANCE_MM:
        return [
            Problem(
                file=str(ref.label_path),
                rule=f"labels must have the affine of {ref.image_path.name}",
                value=f"a difference of {difference:.4g} mm",
                way_out="resample the labels to the image, or copy its header if only that is off",
            )
        ]
    return []
