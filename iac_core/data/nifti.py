"""Volumes from NIfTI files, and back. nibabel is used here and in the files ``volume_*``."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Integer
from nibabel.affines import voxel_sizes
from nibabel.volumeutils import apply_read_scaling
from numpy import ndarray

from iac_core.data.findings import Findings
from iac_core.data.volume_file import MAX_VOLUME_GIB, read_stored
from iac_core.data.volume_grid import GRID_TOLERANCE, corner_distance
from iac_core.data.volume_header import VolumeHeader
from iac_core.data.voxels import check_contrast, check_intensities, check_labels, is_lost
from iac_core.errors import DataError
from iac_core.types import Volume, VolumeRef

_Placed = tuple[ndarray, Float[ndarray, "4 4"]]


def read_volume(
    ref: VolumeRef, *, n_channels: int, max_volume_gib: float = MAX_VOLUME_GIB
) -> Volume:
    """Read an image with its labels and check that they fit each other.

    Args:
        ref: The files.
        n_channels: Channels that the image must have.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.

    Returns:
        The volume with its warnings.

    Raises:
        DataError: With every problem of the files: unreadable, a header that `volume_header` or
            `volume_grid` refuses, intensities or labels that `voxels` refuses, different shape or
            grid.
    """
    of_labels = Findings(ref.label_path)
    labels = _read_labels(of_labels, max_volume_gib)
    per_file = n_channels if len(ref.image_paths) == 1 else 1
    of_images = [Findings(path) for path in ref.image_paths]
    read = [_read_image(findings, per_file, max_volume_gib) for findings in of_images]
    images = [one for one in read if one is not None]
    if labels is not None:
        for findings, one in zip(of_images, read, strict=True):
            if one is not None:
                _check_fit(of_labels, findings.path, labels, one)
    found = [of_labels, *of_images]
    if len(images) == len(read):
        image = images[0][0] if len(images) == 1 else np.concatenate([one for one, _ in images])
        per_channel = [one for one in of_images for _ in range(per_file)]
        check_contrast(image, per_channel, ref.intensity)
    problems = [problem for one in found for problem in one.problems]
    if problems or labels is None:
        raise DataError(problems)
    affine = images[0][1]
    spacing_mm = voxel_sizes(affine)
    return Volume(
        image=image,
        labels=labels[0],
        spacing_mm=(float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])),
        affine=affine,
        warnings=tuple(warning for one in found for warning in one.warnings),
    )


def read_labels(
    path: Path, *, max_volume_gib: float = MAX_VOLUME_GIB
) -> Integer[ndarray, "x y z"]:
    """Read a label file alone, uint8.

    Raises:
        DataError: If it is unreadable, has another number of axes, or holds no whole numbers.
    """
    findings = Findings(path)
    labels = _read_labels(findings, max_volume_gib)
    if labels is None:
        raise DataError(findings.problems)
    return labels[0]


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


def _read_labels(findings: Findings, max_gib: float) -> _Placed | None:
    """Labels ``(X, Y, Z)`` uint8 and affine; on failure note why and return None."""

    def convert(header: VolumeHeader, stored: ndarray) -> ndarray | None:
        stored = stored.reshape(stored.shape[:3])
        is_plain = stored.dtype.kind in "iu" and not header.is_scaled
        labels = check_labels(stored if is_plain else _values(header, stored), findings)
        return None if labels is None or is_lost(labels, stored, findings) else labels

    return _read(findings, 1, max_gib, convert)


def _read_image(findings: Findings, n_channels: int, max_gib: float) -> _Placed | None:
    """Intensities ``(C, X, Y, Z)`` float32 and affine; on failure note why and return None."""

    def convert(header: VolumeHeader, stored: ndarray) -> ndarray:
        channels = stored[None] if stored.ndim == 3 else np.moveaxis(stored, 3, 0)
        image = _values(header, channels)
        check_intensities(image, findings)
        return image

    return _read(findings, n_channels, max_gib, convert)


def _read(
    findings: Findings,
    n_channels: int,
    max_gib: float,
    convert: Callable[[VolumeHeader, ndarray], ndarray | None],
) -> _Placed | None:
    try:
        found = read_stored(findings.path, findings, n_channels=n_channels, max_gib=max_gib)
        values = None if found is None else convert(*found)
    except MemoryError:
        findings.error(
            "a volume must fit into memory",
            "not enough memory",
            "use a machine with more, or crop the volume",
        )
        return None
    return None if found is None or values is None else (values, found[0].affine)


def _values(header: VolumeHeader, stored: ndarray) -> ndarray:
    """Stored voxels as nibabel scales them, float32; what is too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if header.is_scaled:
            slope, inter = np.asarray(header.slope), np.asarray(header.inter)
            stored = apply_read_scaling(stored, slope, inter)
        return stored.astype(np.float32, order="C")


def _check_fit(of_labels: Findings, image_path: Path, labels: _Placed, image: _Placed) -> None:
    """Note labels of another shape, or on another grid, than the image."""
    shape, label_shape = image[0].shape[1:], labels[0].shape
    if shape != label_shape:
        of_labels.error(
            f"labels must have the shape of {image_path.name}, {shape}",
            label_shape,
            "pair the image with its own labels",
        )
    edges, label_edges = voxel_sizes(image[1]), voxel_sizes(labels[1])
    ratios = edges / label_edges
    if ratios.max() < 1.01 * ratios.min() and _is_of_units(float(ratios[0])):
        of_labels.error(
            f"labels must have the unit of {image_path.name} (xyzt_units)",
            f"edges of {label_edges.min():.4g} mm where the image has {edges.min():.4g} mm",
            "correct the unit in the header that is wrong",
        )
        return
    apart = corner_distance(shape, image[1], labels[1])
    if not apart <= GRID_TOLERANCE * edges.min():
        of_labels.error(
            f"labels must lie on the grid of {image_path.name} (same affine)",
            f"corners up to {apart:.4g} mm apart",
            "resample the labels to the image, or copy its header if only that is off",
        )


def _is_of_units(ratio: float) -> bool:
    """Whether lengths differ as metres, millimetres and micrometres do."""
    return any(abs(ratio / factor - 1) < 0.01 for factor in (1e-6, 1e-3, 1e3, 1e6))
