"""From a data folder to slices of one size, one volume in memory at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy import ndarray

from iac_core.config import PrepareSettings
from iac_core.data.nifti import canonical_axes
from iac_core.data.slices import (
    IMAGES,
    INDEX,
    LABELS,
    REFERENCE,
    PreparedVolume,
    volume_to_json,
)
from iac_core.data.transforms import normalise, to_slices, volume_geometry
from iac_core.errors import StopRequested
from iac_core.seeding import numpy_generator
from iac_core.types import Reporter, SegmentationDataset, Volume, VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSummary:
    """What a preparation wrote."""

    n_patients: int
    n_volumes: int
    n_slices: int
    n_training_slices: int


def prepare(
    dataset: SegmentationDataset, settings: PrepareSettings, into: Path, reporter: Reporter
) -> PreparedSummary:
    """Write slices, labels, reference labels and their index.

    Args:
        dataset: The data folder.
        settings: Size, spacing and normalisation.
        into: An existing folder.
        reporter: Told of every volume; asked whether to stop before each.

    Raises:
        DataError: If a volume cannot be read.
        StopRequested: If the user asked to stop; the preparation starts again.
    """
    refs = dataset.volumes()
    size = settings.size
    volumes: list[PreparedVolume] = []
    trains: list[bool] = []
    n_voxels = 0
    image_shape, label_shape = (len(dataset.channels), size, size), (size, size)
    with (
        _growing_array(into / IMAGES, image_shape, np.float32) as images,
        _growing_array(into / LABELS, label_shape, np.uint8) as labels,
        _growing_array(into / REFERENCE, (), np.uint8) as reference,
    ):
        for position, ref in enumerate(refs):
            if reporter.should_stop():
                raise StopRequested("preparation stopped")
            volume = dataset.load(ref)
            prepared = _describe(ref, volume, dataset, settings, len(trains), n_voxels)
            image_slices, label_slices = _slices(volume, prepared, dataset, settings)
            images.append(image_slices)
            labels.append(label_slices)
            reference.append(volume.labels.reshape(-1))
            trains += _training_slices(label_slices, ref, settings)
            n_voxels += volume.labels.size
            volumes.append(prepared)
            reporter.progress(epoch=position + 1, n_epochs=len(refs))
    index = {
        "label_values": list(dataset.label_values),
        "classes": {name: list(values) for name, values in dataset.classes.items()},
        "channels": list(dataset.channels),
        "trains": trains,
        "volumes": [volume_to_json(volume) for volume in volumes],
    }
    (into / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return PreparedSummary(
        n_patients=len({ref.patient_id for ref in refs}),
        n_volumes=len(volumes),
        n_slices=len(trains),
        n_training_slices=sum(trains),
    )


def _describe(
    ref: VolumeRef,
    volume: Volume,
    dataset: SegmentationDataset,
    settings: PrepareSettings,
    first_slice: int,
    first_voxel: int,
) -> PreparedVolume:
    order, signs = (0, 1, 2), (1, 1, 1)
    if dataset.reorients:
        order, found = canonical_axes(volume.affine)
        signs = (found[0], found[1], found[2])
    shape = volume.labels.shape
    geometry = volume_geometry(
        (shape[0], shape[1], shape[2]),
        volume.spacing_mm,
        axis_order=order,
        axis_signs=signs,
        target_spacing_mm=settings.spacing_mm,
        size=settings.size,
    )
    return PreparedVolume(
        patient_id=ref.patient_id,
        volume_id=ref.volume_id,
        phase=ref.phase,
        first_slice=first_slice,
        n_slices=shape[order[2]],
        first_voxel=first_voxel,
        spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(float(value) for value in row) for row in volume.affine),
        geometry=geometry,
    )


def _slices(
    volume: Volume,
    prepared: PreparedVolume,
    dataset: SegmentationDataset,
    settings: PrepareSettings,
) -> tuple[ndarray, ndarray]:
    """Images ``(D, C, H, W)`` float32 and label indices ``(D, H, W)`` uint8 of one volume."""
    geometry = prepared.geometry
    normalised = normalise(volume.image, settings.clip_percentiles)
    channels = [
        to_slices(channel, geometry, interpolate=True, fill=float(channel.min()))
        for channel in normalised
    ]
    indices = np.searchsorted(dataset.label_values, volume.labels).astype(np.uint8)
    labels = to_slices(indices, geometry, interpolate=False, fill=0)
    return np.stack(channels, axis=1).astype(np.float32), labels


def _training_slices(labels: ndarray, ref: VolumeRef, settings: PrepareSettings) -> list[bool]:
    """All slices with foreground, and a drawn share of the others."""
    draws = numpy_generator(0, "background", ref.volume_id).random(len(labels))
    has_foreground = labels.reshape(len(labels), -1).any(axis=1)
    return [bool(value) for value in has_foreground | (draws < settings.background_share)]


class _Growing:
    """A ``.npy`` file that grows along its first axis."""

    def __init__(self, file: BinaryIO, entry_shape: tuple[int, ...], dtype: type) -> None:
        self._file = file
        self._entry_shape = entry_shape
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._header_bytes = self._write_header()

    def append(self, entries: ndarray) -> None:
        """Add entries at the end."""
        self._file.write(np.ascontiguousarray(entries, dtype=self._dtype).tobytes())
        self._length += len(entries)

    def close(self) -> None:
        """Write the true length; NumPy's header leaves room for it to grow."""
        self._file.seek(0)
        if self._write_header() != self._header_bytes:
            raise ValueError("the header of a growing array must keep its length")

    def _write_header(self) -> int:
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self._length, *self._entry_shape),
            },
        )
        return self._file.tell()


@contextmanager
def _growing_array(path: Path, entry_shape: tuple[int, ...], dtype: type) -> Iterator[_Growing]:
    with path.open("wb") as file:
        array = _Growing(file, entry_shape, dtype)
        yield array
        array.close()
