"""Prepared slices: memory-mapped arrays that every worker of a machine shares, and their index."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from files.encoding import from_json
from iac_core.data.intensities import N_BINS, CtStatistics
from iac_core.data.transforms import VolumeGeometry, probabilities_to_volume
from iac_core.errors import DataError, Problem

IMAGES = "images.npy"
LABELS = "labels.npy"
REFERENCE = "reference_labels.npy"
HISTOGRAMS = "histograms.npy"
INDEX = "index.json"
_ARRAYS = (IMAGES, LABELS, REFERENCE, HISTOGRAMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVolume:
    """One volume among the slices.

    Attributes:
        patient_id: Its patient.
        volume_id: Its name, unique in the data set.
        phase: What it shows, empty if there is one per patient.
        is_official_test: Whether the publishers set it aside for testing.
        normalisation: ``zscore``, ``zscore_nonzero``, or ``ct``: stored in Hounsfield units.
        first_slice: Index of its first slice.
        n_slices: Number of its slices.
        first_byte: Where its compressed labels on the original grid start.
        n_bytes: Their length.
        spacing_mm: Voxel edge lengths along the file's X, Y, Z.
        affine: Voxel indices of the file to millimetres, rows of a 4 × 4 matrix.
        geometry: The steps from file to slices.
    """

    patient_id: str
    volume_id: str
    phase: str
    is_official_test: bool
    normalisation: str
    first_slice: int = 0
    n_slices: int
    first_byte: int = 0
    n_bytes: int = 0
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    geometry: VolumeGeometry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "PreparedVolume":
        """Return the volume of an entry in the index."""
        raw = dict(entry["geometry"])
        geometry = VolumeGeometry(
            shape=tuple(raw["shape"]),
            axis_order=tuple(raw["axis_order"]),
            axis_signs=tuple(raw["axis_signs"]),
            resampled=tuple(raw["resampled"]),
            size=raw["size"],
        )
        affine = tuple(tuple(row) for row in entry["affine"])
        spacing_mm = tuple(entry["spacing_mm"])
        changed = {"geometry": geometry, "spacing_mm": spacing_mm, "affine": affine}
        return cls(**{**entry, **changed})


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """All slices of a data set.

    Attributes:
        images: Shape ``(N, C, H, W)``, float16, memory-mapped; CT in Hounsfield units.
        labels: Indices into `label_values`, shape ``(N, H, W)``, uint8, memory-mapped.
        volumes: Where each volume's slices are, ordered by patient.
        label_values: Values in the label files, background first.
        classes: What is scored: name → label values.
        channels: Names of the image channels.
        trains: Which slices training uses, shape ``(N,)``, bool.
        flip_axes: Axes of a slice along which it may be mirrored: ``rows``, ``columns``.
        n_neighbours: Slices above and below that are further channels.
        clip_percentiles: Of CT.
        ct: How CT is normalised; None until `with_ct_of` was called, or without CT.
    """

    images: Float[ndarray, "n c h w"]
    labels: Integer[ndarray, "n h w"]
    volumes: tuple[PreparedVolume, ...]
    label_values: tuple[int, ...]
    classes: Mapping[str, tuple[int, ...]]
    channels: tuple[str, ...]
    trains: ndarray
    flip_axes: tuple[str, ...]
    n_neighbours: int
    clip_percentiles: tuple[float, float]
    ct: CtStatistics | None = None
    _reference: ndarray
    _histograms: ndarray
    _bounds: ndarray
    _is_ct: ndarray

    @classmethod
    def open(cls, folder: Path) -> "PreparedData":
        """Open what `iac_core.data.prepare.prepare` wrote.

        Raises:
            DataError: If a file is missing or does not fit the index.
        """
        try:
            index = from_json((folder / INDEX).read_bytes(), dict)
            images, labels, reference, histograms = (_mapped(folder / name) for name in _ARRAYS)
        except (OSError, ValueError) as error:
            raise _damaged(folder, str(error)) from error
        try:
            return cls._of(folder, index, images, labels, reference, histograms)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(folder, f"an index without or with another {error}") from error

    @classmethod
    def _of(
        cls,
        folder: Path,
        index: Mapping[str, Any],
        images: ndarray,
        labels: ndarray,
        reference: ndarray,
        histograms: ndarray,
    ) -> "PreparedData":
        n_slices = len(index["trains"])
        if len(images) != n_slices or len(labels) != n_slices:
            raise _damaged(folder, f"{len(images)} images and {len(labels)} labels of {n_slices}")
        volumes = tuple(PreparedVolume.from_json(entry) for entry in index["volumes"])
        counts = [volume.n_slices for volume in volumes]
        bounds = [(one.first_slice, one.first_slice + one.n_slices - 1) for one in volumes]
        low, high = index["clip_percentiles"]
        return cls(
            images=images,
            labels=labels,
            volumes=volumes,
            label_values=tuple(index["label_values"]),
            classes={name: tuple(values) for name, values in index["classes"].items()},
            channels=tuple(index["channels"]),
            trains=np.asarray(index["trains"], dtype=bool),
            flip_axes=tuple(index["flip_axes"]),
            n_neighbours=index["n_neighbours"],
            clip_percentiles=(low, high),
            _reference=reference,
            _histograms=histograms,
            _bounds=np.repeat(np.asarray(bounds), counts, axis=0),
            _is_ct=np.repeat([volume.normalisation == "ct" for volume in volumes], counts),
        )

    def with_ct_of(self, patient_ids: Sequence[str]) -> "PreparedData":
        """Return the same slices with CT normalised by the foreground of some patients.

        Args:
            patient_ids: The training patients of the split.

        Raises:
            ConfigError: If these patients have no foreground.
        """
        scans = [volume.normalisation == "ct" for volume in self.volumes]
        if not any(scans):
            return self
        row_of = np.cumsum(scans) - 1
        shape = (-1, len(self.channels), N_BINS)
        wanted = set(patient_ids)
        rows = [
            row
            for row, is_ct, volume in zip(row_of, scans, self.volumes, strict=True)
            if is_ct and volume.patient_id in wanted
        ]
        counts = self._histograms.reshape(shape)[rows].sum(axis=0, dtype=np.int64)
        return replace(self, ct=CtStatistics.from_histogram(counts, self.clip_percentiles))

    def load_images(self, indices: Integer[ndarray, " b"]) -> Float[ndarray, "b c h w"]:
        """Return normalised slices with their neighbours as channels, float32.

        Channels run from the slice furthest below to the one furthest above; at the ends of a
        volume its last slice is repeated.
        """
        offsets = range(-self.n_neighbours, self.n_neighbours + 1)
        low, high = self._bounds[indices].T
        stacked = [self._normalised(np.clip(indices + offset, low, high)) for offset in offsets]
        return stacked[0] if len(stacked) == 1 else np.concatenate(stacked, axis=1)

    def _normalised(self, indices: Integer[ndarray, " b"]) -> Float[ndarray, "b c h w"]:
        images: ndarray = self.images[indices].astype(np.float32)
        is_ct = self._is_ct[indices]
        if is_ct.any():
            assert self.ct is not None, "CT needs the statistics of training patients"
            images[is_ct] = self.ct.normalise(images[is_ct])
        return images

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient ids, each once, in ascending order."""
        return tuple(sorted({volume.patient_id for volume in self.volumes}))

    @property
    def official_test(self) -> tuple[str, ...]:
        """Patients that the publishers set aside for testing, in ascending order."""
        return tuple(sorted({one.patient_id for one in self.volumes if one.is_official_test}))

    @property
    def n_classes(self) -> int:
        """Classes that a network tells apart, background included."""
        return len(self.label_values)

    @property
    def n_channels(self) -> int:
        """Channels of a network's input, neighbours included."""
        return len(self.channels) * (2 * self.n_neighbours + 1)

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        rows, columns = self.images.shape[-2:]
        return int(rows), int(columns)

    def volumes_of(self, patient_ids: Sequence[str]) -> tuple[PreparedVolume, ...]:
        """Return the volumes of some patients, in the order of the index."""
        wanted = set(patient_ids)
        return tuple(volume for volume in self.volumes if volume.patient_id in wanted)

    def slice_indices(
        self, patient_ids: Sequence[str], *, for_training: bool
    ) -> Integer[ndarray, " n"]:
        """Return the slices of some patients.

        Args:
            patient_ids: The patients.
            for_training: Leave out most slices without foreground.
        """
        mask = np.zeros(len(self.trains), dtype=bool)
        for volume in self.volumes_of(patient_ids):
            mask[volume.first_slice : volume.first_slice + volume.n_slices] = True
        return np.flatnonzero(mask & self.trains if for_training else mask)

    def reference_labels(self, volume: PreparedVolume) -> Integer[ndarray, "x y z"]:
        """Return the expert labels on the original grid: label values, uint8."""
        packed = self._reference[volume.first_byte : volume.first_byte + volume.n_bytes]
        flat = np.frombuffer(zlib.decompress(packed.tobytes()), dtype=np.uint8)
        return flat.reshape(volume.geometry.shape)

    def to_original(
        self, volume: PreparedVolume, probabilities: Float[ndarray, "d k h w"]
    ) -> Integer[ndarray, "x y z"]:
        """Return predicted label values on the original grid, uint8."""
        indices = probabilities_to_volume(probabilities, volume.geometry)
        values: ndarray = np.asarray(self.label_values, dtype=np.uint8)[indices]
        return values


def _mapped(path: Path) -> ndarray:
    """A memory-mapped array; an empty one cannot be mapped."""
    try:
        array: ndarray = np.load(path, mmap_mode="r")
    except ValueError:
        array = np.load(path)
    return array


def _damaged(folder: Path, value: str) -> DataError:
    return DataError(
        [
            Problem(
                file=str(folder),
                rule=f"prepared data must hold {', '.join(_ARRAYS)} and {INDEX}",
                value=value,
                way_out="delete the folder; the preparation runs again",
            )
        ]
    )
