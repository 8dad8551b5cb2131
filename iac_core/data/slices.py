"""Prepared slices: memory-mapped arrays that every worker of a machine shares, and their index."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from iac_core.data.transforms import VolumeGeometry, probabilities_to_volume
from iac_core.errors import DataError, Problem

IMAGES = "images.npy"
LABELS = "labels.npy"
REFERENCE = "reference_labels.npy"
INDEX = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedVolume:
    """One volume among the slices.

    Attributes:
        patient_id: Its patient.
        volume_id: Its name, unique in the data set.
        phase: What it shows, empty if there is one per patient.
        first_slice: Index of its first slice.
        n_slices: Number of its slices.
        first_voxel: Where its labels on the original grid start in the flat array.
        spacing_mm: Voxel edge lengths along the file's X, Y, Z.
        affine: Voxel indices of the file to millimetres, rows of a 4 × 4 matrix.
        geometry: The steps from file to slices.
    """

    patient_id: str
    volume_id: str
    phase: str
    first_slice: int
    n_slices: int
    first_voxel: int
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    geometry: VolumeGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedData:
    """All slices of a data set.

    Attributes:
        images: Shape ``(N, C, H, W)``, float32, memory-mapped.
        labels: Indices into `label_values`, shape ``(N, H, W)``, uint8, memory-mapped.
        volumes: Where each volume's slices are, ordered by patient.
        label_values: Values in the label files, background first.
        classes: What is scored: name → label values.
        channels: Names of the image channels.
        trains: Which slices training uses, shape ``(N,)``, bool.
        flip_axes: Axes of a slice along which it may be mirrored: ``rows``, ``columns``.
    """

    images: Float[ndarray, "n c h w"]
    labels: Integer[ndarray, "n h w"]
    volumes: tuple[PreparedVolume, ...]
    label_values: tuple[int, ...]
    classes: Mapping[str, tuple[int, ...]]
    channels: tuple[str, ...]
    trains: ndarray
    flip_axes: tuple[str, ...]
    _reference: ndarray

    @classmethod
    def open(cls, folder: Path) -> "PreparedData":
        """Open what `iac_core.data.prepare.prepare` wrote.

        Raises:
            DataError: If a file is missing or does not fit the index.
        """
        try:
            index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            arrays = [
                np.load(folder / name, mmap_mode="r") for name in (IMAGES, LABELS, REFERENCE)
            ]
        except (OSError, ValueError) as error:
            raise _damaged(folder, str(error)) from error
        images, labels, reference = arrays
        n_slices = len(index["trains"])
        if len(images) != n_slices or len(labels) != n_slices:
            raise _damaged(folder, f"{len(images)} images and {len(labels)} labels of {n_slices}")
        return cls(
            images=images,
            labels=labels,
            volumes=tuple(_volume_from_json(entry) for entry in index["volumes"]),
            label_values=tuple(index["label_values"]),
            classes={name: tuple(values) for name, values in index["classes"].items()},
            channels=tuple(index["channels"]),
            trains=np.asarray(index["trains"], dtype=bool),
            flip_axes=tuple(index.get("flip_axes", ("rows", "columns"))),
            _reference=reference,
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient ids, each once, in ascending order."""
        return tuple(sorted({volume.patient_id for volume in self.volumes}))

    @property
    def n_classes(self) -> int:
        """Classes that a network tells apart, background included."""
        return len(self.label_values)

    @property
    def n_channels(self) -> int:
        """Image channels."""
        return len(self.channels)

    @property
    def size(self) -> int:
        """Rows and columns of a slice."""
        return int(self.images.shape[-1])

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
        shape = volume.geometry.shape
        flat = self._reference[volume.first_voxel : volume.first_voxel + int(np.prod(shape))]
        return np.asarray(flat).reshape(shape)

    def to_original(
        self, volume: PreparedVolume, probabilities: Float[ndarray, "d k h w"]
    ) -> Integer[ndarray, "x y z"]:
        """Return predicted label values on the original grid, uint8."""
        indices = probabilities_to_volume(probabilities, volume.geometry)
        values: ndarray = np.asarray(self.label_values, dtype=np.uint8)[indices]
        return values


def volume_to_json(volume: PreparedVolume) -> dict[str, Any]:
    """Return a volume's entry in the index."""
    return asdict(volume)


def _volume_from_json(entry: Mapping[str, Any]) -> PreparedVolume:
    raw = dict(entry["geometry"])
    geometry = VolumeGeometry(
        shape=tuple(raw["shape"]),
        axis_order=tuple(raw["axis_order"]),
        axis_signs=tuple(raw["axis_signs"]),
        resampled=tuple(raw["resampled"]),
        size=raw["size"],
    )
    affine = tuple(tuple(row) for row in entry["affine"])
    changed = {"geometry": geometry, "spacing_mm": tuple(entry["spacing_mm"]), "affine": affine}
    return PreparedVolume(**{**entry, **changed})


def _damaged(folder: Path, value: str) -> DataError:
    return DataError(
        [
            Problem(
                file=str(folder),
                rule=f"prepared data must hold {IMAGES}, {LABELS}, {REFERENCE} and {INDEX}",
                value=value,
                way_out="delete the folder; the preparation runs again",
            )
        ]
    )
