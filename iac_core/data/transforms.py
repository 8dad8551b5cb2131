"""Geometry of volumes: forward to slices, and back to the original grid.

Resampling keeps the extent of a slice: pixel i of n covers ``[i, i + 1] / n`` of it, so the
centre of pixel i lies at ``(i + 0.5) / n``. The same rule serves both directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGeometry:
    """Every geometric step from a volume in its file to slices, so that it can be undone.

    Attributes:
        shape: Extent of the file along X, Y, Z.
        axis_order: File axis that becomes rows, columns and slices.
        axis_signs: 1, or −1 where that axis is reversed.
        resampled: Rows and columns of a slice after resampling.
        size: Rows and columns of a prepared slice, cropped or padded about the centre.
    """

    shape: tuple[int, int, int]
    axis_order: tuple[int, int, int]
    axis_signs: tuple[int, int, int]
    resampled: tuple[int, int]
    size: int


def volume_geometry(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    axis_order: tuple[int, int, int],
    axis_signs: tuple[int, int, int],
    target_spacing_mm: float,
    size: int,
) -> VolumeGeometry:
    """Return the steps that bring a volume to slices of a pixel size and a number of pixels."""
    rows, columns = (
        max(1, round(shape[axis] * spacing_mm[axis] / target_spacing_mm))
        for axis in axis_order[:2]
    )
    return VolumeGeometry(
        shape=shape,
        axis_order=axis_order,
        axis_signs=axis_signs,
        resampled=(rows, columns),
        size=size,
    )


def turn(volume: ndarray, order: Sequence[int], signs: Sequence[int]) -> ndarray:
    """Return a view of a volume with its axes in another order, some of them reversed.

    Args:
        volume: Three axes.
        order: The axis that becomes each axis.
        signs: 1, or −1 where the new axis is reversed.
    """
    turned: ndarray = np.transpose(volume, order)
    return turned[tuple(slice(None, None, sign) for sign in signs)]


def turn_back(turned: ndarray, order: Sequence[int], signs: Sequence[int]) -> ndarray:
    """Undo `turn`.

    Examples:
        >>> volume = np.arange(6).reshape(1, 2, 3)
        >>> turned = turn(volume, (2, 0, 1), (1, -1, -1))
        >>> bool((turn_back(turned, (2, 0, 1), (1, -1, -1)) == volume).all())
        True
    """
    unreversed = turned[tuple(slice(None, None, sign) for sign in signs)]
    return np.ascontiguousarray(np.transpose(unreversed, np.argsort(order)))


def to_slices(
    volume: ndarray, geometry: VolumeGeometry, *, interpolate: bool, fill: float
) -> ndarray:
    """Turn, resample and crop or pad a volume.

    Args:
        volume: Axes X, Y, Z of the file.
        geometry: The steps.
        interpolate: Linearly between pixel centres (images); otherwise nearest (labels).
        fill: Value of padding.

    Returns:
        Slices, shape ``(D, size, size)``, of the volume's dtype.
    """
    slices = np.moveaxis(turn(volume, geometry.axis_order, geometry.axis_signs), 2, 0)
    resampled = resize(slices, geometry.resampled, interpolate=interpolate)
    return centre_crop_or_pad(resampled, (geometry.size, geometry.size), fill)


def labels_to_volume(
    slices: Integer[ndarray, "d h w"], geometry: VolumeGeometry
) -> Integer[ndarray, "x y z"]:
    """Bring prepared label slices back to the original grid; what was cropped away is 0."""
    whole = centre_crop_or_pad(slices, geometry.resampled, 0)
    return _to_file_axes(resize(whole, _turned_shape(geometry), interpolate=False), geometry)


def probabilities_to_volume(
    probabilities: Float[ndarray, "d k h w"], geometry: VolumeGeometry
) -> Integer[ndarray, "x y z"]:
    """Bring class probabilities back to the original grid and take the likeliest class.

    Probabilities are interpolated linearly within a slice; what was cropped away is class 0.

    Returns:
        Class indices, uint8.
    """
    height, width = geometry.resampled
    whole = centre_crop_or_pad(probabilities, (height, width), 0.0)
    outside = whole.sum(axis=1) == 0
    whole[:, 0][outside] = 1.0
    likeliest = [
        resize(one, _turned_shape(geometry), interpolate=True).argmax(axis=0) for one in whole
    ]
    return _to_file_axes(np.stack(likeliest).astype(np.uint8), geometry)


def resize(array: ndarray, shape: Sequence[int], *, interpolate: bool) -> ndarray:
    """Resample the last two axes to a shape.

    Args:
        array: Any leading axes, then rows and columns.
        shape: Rows and columns of the result.
        interpolate: Linear between pixel centres, clamped at the border; otherwise nearest.

    Examples:
        >>> resize(np.array([[0.0, 1.0]]), (1, 4), interpolate=True).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    out = array
    for axis, n_out in ((-2, shape[0]), (-1, shape[1])):
        n_in = out.shape[axis]
        if n_in == n_out:
            continue
        centres = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
        if not interpolate:
            nearest = np.clip(np.floor(centres + 0.5).astype(int), 0, n_in - 1)
            out = np.take(out, nearest, axis=axis)
            continue
        centres = np.clip(centres, 0, n_in - 1)
        low = np.minimum(np.floor(centres).astype(int), max(n_in - 2, 0))
        high = np.minimum(low + 1, n_in - 1)
        share = (centres - low).astype(out.dtype)
        if axis == -2:
            share = share[:, None]
        out = np.take(out, low, axis=axis) * (1 - share) + np.take(out, high, axis=axis) * share
    return out


def centre_crop_or_pad(array: ndarray, shape: Sequence[int], fill: float) -> ndarray:
    """Crop or pad the last two axes about the centre; its own inverse where nothing is lost."""
    out = np.full((*array.shape[:-2], *shape), fill, dtype=array.dtype)
    source, target = [], []
    for n_in, n_out in zip(array.shape[-2:], shape, strict=True):
        n = min(n_in, n_out)
        source.append(slice((n_in - n) // 2, (n_in - n) // 2 + n))
        target.append(slice((n_out - n) // 2, (n_out - n) // 2 + n))
    out[..., target[0], target[1]] = array[..., source[0], source[1]]
    return out


def _turned_shape(geometry: VolumeGeometry) -> tuple[int, int]:
    rows, columns = (geometry.shape[axis] for axis in geometry.axis_order[:2])
    return rows, columns


def _to_file_axes(
    slices: Integer[ndarray, "d h w"], geometry: VolumeGeometry
) -> Integer[ndarray, "x y z"]:
    return turn_back(np.moveaxis(slices, 0, 2), geometry.axis_order, geometry.axis_signs)
