"""From a data folder to slices of one size, one volume in memory at a time.

Every volume leaves a part, a file that is whole or absent; what was prepared before a stop or a
crash is not prepared again. At the end the parts become the arrays that training maps.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy import ndarray

from files.reading import warn_damaged
from files.writing import whole_file, write_json
from iac_core.checkpoint import is_whole_archive
from iac_core.config import PrepareSettings
from iac_core.data.check import load_checked
from iac_core.data.intensities import clip_to_histogram, foreground_histogram, zscore
from iac_core.data.nifti import canonical_axes
from iac_core.data.slices import (
    HISTOGRAMS,
    IMAGES,
    INDEX,
    LABELS,
    REFERENCE,
    PreparedVolume,
)
from iac_core.data.transforms import to_slices, volume_geometry
from iac_core.errors import StopRequested
from iac_core.seeding import numpy_generator
from iac_core.types import DatasetDescription, Reporter, SegmentationDataset, Volume, VolumeRef

PARTS = "checkpoint.parts"
"""Folder of the parts, below that of the preparation."""
_NORMALISATION_OF = {"mr": "zscore", "mr_masked": "zscore_nonzero", "ct": "ct"}


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
    """Write slices, labels, reference labels, histograms of CT and their index.

    Args:
        dataset: The data folder.
        settings: Size, spacing and normalisation.
        into: An existing folder; parts of an earlier attempt in it are used.
        reporter: Told of every volume; asked whether to stop before each.

    Raises:
        DataError: If a volume breaks a rule that `check_dataset` has for it.
        StopRequested: If the user asked to stop; the parts stay.
    """
    refs, description = dataset.volumes(), dataset.description
    parts = into / PARTS
    parts.mkdir(exist_ok=True)
    paths = [parts / f"{position:06d}.npz" for position in range(len(refs))]
    for position, (ref, path) in enumerate(zip(refs, paths, strict=True)):
        if reporter.should_stop():
            raise StopRequested("preparation stopped")
        if not is_whole_part(path):
            write_part(path, _part(ref, load_checked(dataset, ref), description, settings))
        reporter.progress(epoch=position + 1, n_epochs=len(refs))
    summary = write_slices(
        map(_read_part, paths),
        into,
        description,
        settings,
        shape=(settings.size, settings.size),
        flip_axes=description.flip_axes,
    )
    for path in paths:
        path.unlink()
    parts.rmdir()
    return summary


def _part(
    ref: VolumeRef, volume: Volume, description: DatasetDescription, settings: PrepareSettings
) -> dict[str, ndarray]:
    """Everything that the joined arrays take from one volume."""
    chosen = settings.normalisation
    normalisation = _NORMALISATION_OF[ref.intensity] if chosen == "modality" else chosen
    described = _describe(ref, volume, description, settings, normalisation)
    geometry = described.geometry
    if normalisation == "ct":
        image = clip_to_histogram(volume.image)
        histogram = foreground_histogram(image, volume.labels > 0)
    else:
        image = zscore(
            volume.image, settings.clip_percentiles, nonzero=normalisation == "zscore_nonzero"
        )
        histogram = np.zeros((len(image), 0), dtype=np.uint32)
    channels = [
        to_slices(channel, geometry, interpolate=True, fill=float(channel.min()))
        for channel in image
    ]
    indices = np.searchsorted(description.label_values, volume.labels).astype(np.uint8)
    labels = to_slices(indices, geometry, interpolate=False, fill=0)
    return {
        "images": np.stack(channels, axis=1).astype(np.float16),
        "labels": labels,
        "reference": packed_labels(volume.labels),
        "histogram": histogram,
        "trains": training_slices(labels, ref, settings),
        "volume": np.array(json.dumps(asdict(described))),
    }


def packed_labels(labels: ndarray) -> ndarray:
    """Return label values on the original grid, compressed, as uint8."""
    packed = zlib.compress(np.ascontiguousarray(labels).tobytes(), level=1)
    return np.frombuffer(packed, dtype=np.uint8)


def axes_of(
    description: DatasetDescription, affine: ndarray
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the file axis that becomes rows, columns and slices, and −1 where it is reversed."""
    if not description.reorients:
        return (0, 1, 2), (1, 1, 1)
    order, signs = canonical_axes(affine)
    return order, (signs[0], signs[1], signs[2])


def _describe(
    ref: VolumeRef,
    volume: Volume,
    description: DatasetDescription,
    settings: PrepareSettings,
    normalisation: str,
) -> PreparedVolume:
    order, signs = axes_of(description, volume.affine)
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
        is_official_test=ref.is_official_test,
        normalisation=normalisation,
        n_slices=shape[order[2]],
        spacing_mm=volume.spacing_mm,
        affine=tuple(tuple(float(value) for value in row) for row in volume.affine),
        geometry=geometry,
    )


def training_slices(labels: ndarray, ref: VolumeRef, settings: PrepareSettings) -> ndarray:
    """Return which slices train: all with foreground, a drawn share of the others; bool."""
    draws = numpy_generator(0, "background", ref.volume_id).random(len(labels))
    has_foreground = labels.reshape(len(labels), -1).any(axis=1)
    chosen: ndarray = has_foreground | (draws < settings.background_share)
    return chosen


def write_part(path: Path, part: dict[str, ndarray]) -> None:
    """Write arrays as a part: the file is whole or absent."""
    with whole_file(path) as file:
        np.savez(file, allow_pickle=False, **part)


def is_whole_part(path: Path) -> bool:
    """Return whether a part is there and as it was written; a damaged one is made again."""
    if not path.exists():
        return False
    is_whole = is_whole_archive(path)
    if not is_whole:
        warn_damaged(str(path), "must be a whole archive", way_out="made again")
    return is_whole


def _read_part(path: Path) -> dict[str, ndarray]:
    with np.load(path, allow_pickle=False) as part:
        return dict(part)


def write_slices(
    parts: Iterable[Mapping[str, ndarray]],
    into: Path,
    description: DatasetDescription,
    settings: PrepareSettings,
    *,
    shape: tuple[int, int],
    flip_axes: Sequence[str],
) -> PreparedSummary:
    """Append part after part to the arrays that training maps, and write their index.

    Args:
        parts: One for each volume: ``images`` ``(N, C, H, W)`` float16, ``labels`` ``(N, H, W)``
            uint8, ``reference`` and ``histogram``, ``trains`` bool, ``volume`` (JSON of a
            `PreparedVolume`).
        into: An existing folder.
        description: Of the data set.
        settings: Neighbours and percentiles.
        shape: Rows and columns of a slice.
        flip_axes: Axes of a slice along which it may be mirrored.
    """
    n_channels = len(description.channels)
    volumes: list[PreparedVolume] = []
    trains: list[bool] = []
    first_byte = 0
    with (
        _growing_array(into / IMAGES, (n_channels, *shape), np.float16) as images,
        _growing_array(into / LABELS, shape, np.uint8) as labels,
        _growing_array(into / REFERENCE, (), np.uint8) as reference,
        _growing_array(into / HISTOGRAMS, (), np.uint32) as histograms,
    ):
        for part in parts:
            images.append(part["images"])
            labels.append(part["labels"])
            reference.append(part["reference"])
            histograms.append(part["histogram"].reshape(-1))
            described = json.loads(str(part["volume"]))
            described |= {
                "first_slice": len(trains),
                "first_byte": first_byte,
                "n_bytes": len(part["reference"]),
            }
            volumes.append(PreparedVolume.from_json(described))
            first_byte += len(part["reference"])
            trains += [bool(value) for value in part["trains"]]
    index = {
        "label_values": list(description.label_values),
        "classes": {name: list(values) for name, values in description.classes.items()},
        "channels": list(description.channels),
        "flip_axes": list(flip_axes),
        "n_neighbours": settings.n_neighbours,
        "clip_percentiles": list(settings.clip_percentiles),
        "trains": trains,
        "volumes": [asdict(volume) for volume in volumes],
    }
    write_json(into / INDEX, index)
    return PreparedSummary(
        n_patients=len({volume.patient_id for volume in volumes}),
        n_volumes=len(volumes),
        n_slices=len(trains),
        n_training_slices=sum(trains),
    )


class _Growing:
    """A ``.npy`` file that grows along its first axis."""

    def __init__(self, file: IO[bytes], entry_shape: tuple[int, ...], dtype: type) -> None:
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
    with whole_file(path) as file:
        array = _Growing(file, entry_shape, dtype)
        yield array
        array.close()
