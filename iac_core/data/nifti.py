"""NIfTI files. The only file that imports nibabel."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Integer
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy import ndarray

from iac_core.errors import DataError, Problem
from iac_core.types import Volume, VolumeRef

_GRID_TOLERANCE = 0.1
"""Image and labels may lie apart by this share of the smallest voxel edge: headers are rounded."""
_LABEL_TOLERANCE = 1e-3


def read_volume(ref: VolumeRef, *, n_channels: int) -> Volume:
    """Read an image with its labels and check that they fit each other.

    Args:
        ref: The files.
        n_channels: Channels that the image must have.

    Raises:
        DataError: With every problem of the files: unreadable, wrong number of axes or channels,
            NaN or infinite voxels, labels that are not whole numbers, different shape or grid.
    """
    problems: list[Problem] = []
    labels, label_affine = _read(ref.label_path, 1, problems)
    if labels is not None:
        problems += _not_whole(ref.label_path, labels[0])
    per_file = n_channels if len(ref.image_paths) == 1 else 1
    images = []
    for path in ref.image_paths:
        image, affine = _read(path, per_file, problems)
        if image is None:
            continue
        problems += _not_finite(path, image)
        images.append((image, affine))
        if labels is not None:
            problems += _misfit(path, ref.label_path, image.shape[1:], labels.shape[1:])
            problems += _apart(path, ref.label_path, image.shape[1:], affine, label_affine)
    if problems or labels is None:
        raise DataError(problems)
    first_affine = images[0][1]
    spacing_mm = voxel_sizes(first_affine)
    return Volume(
        image=np.concatenate([image for image, _ in images]),
        labels=np.round(labels[0]).astype(np.uint8),
        spacing_mm=(float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        affine=first_affine,
    )


def read_labels(path: Path) -> Integer[ndarray, "x y z"]:
    """Read a label file alone, uint8.

    Raises:
        DataError: If it is unreadable, has another number of axes, or holds no whole numbers.
    """
    problems: list[Problem] = []
    labels, _ = _read(path, 1, problems)
    if labels is not None:
        problems += _not_whole(path, labels[0])
    if problems or labels is None:
        raise DataError(problems)
    whole: ndarray = np.round(labels[0]).astype(np.uint8)
    return whole


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


def _read(path: Path, n_channels: int, problems: list[Problem]) -> tuple[ndarray | None, ndarray]:
    """Read voxels ``(C, X, Y, Z)`` float32 and affine; on failure note why and return None."""
    nothing = np.eye(4)
    try:
        file = nibabel.load(path, mmap=False)  # a mapped file that is cut off kills the process
        if not isinstance(file, SpatialImage):
            raise ImageFileError(f"a {type(file).__name__}, not an image")
        voxels = file.get_fdata(dtype=np.float32, caching="unchanged")
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
    except (OSError, EOFError, zlib.error, ImageFileError, ValueError, MemoryError) as error:
        problems.append(
            Problem(
                file=str(path),
                rule="a NIfTI file must be whole",
                value=(str(error).splitlines() or [type(error).__name__])[0],
                way_out="the file is damaged or was cut off while copying; copy it again",
            )
        )
        return None, nothing
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    if voxels.ndim != 4 or voxels.shape[3] != n_channels or 0 in voxels.shape:
        channels = "" if n_channels == 1 else f" and a fourth for {n_channels} channels"
        problems.append(
            Problem(
                file=str(path),
                rule=f"a volume must have 3 axes{channels}",
                value=f"shape {tuple(file.shape)}",
                way_out="store each frame or channel as the layout wants it",
            )
        )
        return None, nothing
    affine = np.asarray(file.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        problems.append(
            Problem(
                file=str(path),
                rule="the header must place every voxel at a point of its own",
                value=f"the affine {affine[:3].round(4).tolist()}",
                way_out="correct the header (sform or qform), or export the file again",
            )
        )
        return None, nothing
    return np.ascontiguousarray(np.moveaxis(voxels, 3, 0)), affine


def _first(mask: ndarray) -> str:
    return f"voxel {tuple(int(index) for index in np.argwhere(mask)[0])}"


def _not_finite(path: Path, image: Float[ndarray, "c x y z"]) -> list[Problem]:
    wrong = ~np.isfinite(image)
    if not wrong.any():
        return []
    return [
        Problem(
            file=str(path),
            place=_first(wrong.any(axis=0)),
            rule="every voxel must be a finite number",
            value=f"{int(wrong.sum())} voxels that are NaN or infinite",
            way_out="export the image again, or fill these voxels with the background intensity",
        )
    ]


def _not_whole(path: Path, labels: ndarray) -> list[Problem]:
    off = np.abs(labels - np.round(labels)) > _LABEL_TOLERANCE  # header factors round
    wrong = ~np.isfinite(labels) | off | (labels < -_LABEL_TOLERANCE) | (labels > 255)
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
    image_path: Path, label_path: Path, image_shape: Sequence[int], label_shape: Sequence[int]
) -> list[Problem]:
    if tuple(image_shape) == tuple(label_shape):
        return []
    return [
        Problem(
            file=str(label_path),
            rule=f"labels must have the shape of {image_path.name}, {tuple(image_shape)}",
            value=str(tuple(label_shape)),
            way_out="pair the image with its own labels",
        )
    ]


def _apart(
    image_path: Path,
    label_path: Path,
    shape: Sequence[int],
    image_affine: ndarray,
    label_affine: ndarray,
) -> list[Problem]:
    """Grids whose corners do not coincide."""
    corners = np.stack(np.meshgrid(*[(0, extent - 1) for extent in shape]), axis=-1).reshape(-1, 3)
    homogeneous = np.concatenate([corners, np.ones((len(corners), 1))], axis=1)
    distances = np.linalg.norm(homogeneous @ (image_affine - label_affine)[:3].T, axis=1)
    if distances.max() <= _GRID_TOLERANCE * voxel_sizes(image_affine).min():
        return []
    return [
        Problem(
            file=str(label_path),
            rule=f"labels must lie on the grid of {image_path.name} (same affine)",
            value=f"corners up to {distances.max():.4g} mm apart",
            way_out="resample the labels to the image, or copy its header if only that is off",
        )
    ]
