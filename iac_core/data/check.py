"""Look at every volume of a data set before anything runs."""

from dataclasses import dataclass

import numpy as np

from iac_core.errors import DataError, Problem
from iac_core.types import SegmentationDataset, Volume, VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What a data folder holds, and what is wrong with it.

    Attributes:
        n_patients: Patients.
        n_volumes: Labelled volumes that could be read.
        spacing_mm: Smallest and largest edge length along each axis of the file.
        shape: Smallest and largest extent along each axis of the file, in voxels.
        problems: Every problem found; empty if the folder can be used.
    """

    n_patients: int
    n_volumes: int
    spacing_mm: tuple[tuple[float, float], ...]
    shape: tuple[tuple[int, int], ...]
    problems: tuple[Problem, ...]


def check_dataset(dataset: SegmentationDataset) -> DatasetSummary:
    """Read every volume, one at a time, and collect all problems; raises none of them."""
    try:
        refs = dataset.volumes()
    except DataError as error:
        return DatasetSummary(
            n_patients=0, n_volumes=0, spacing_mm=(), shape=(), problems=error.problems
        )
    problems: list[Problem] = []
    spacings, shapes = [], []
    for ref in refs:
        try:
            volume = dataset.load(ref)
        except DataError as error:
            problems.extend(error.problems)
            continue
        spacings.append(volume.spacing_mm)
        shapes.append(volume.labels.shape)
        problems += _outside_convention(dataset, ref, volume)
    return DatasetSummary(
        n_patients=len({ref.patient_id for ref in refs}),
        n_volumes=len(shapes),
        spacing_mm=tuple((min(axis), max(axis)) for axis in zip(*spacings, strict=True)),
        shape=tuple((min(axis), max(axis)) for axis in zip(*shapes, strict=True)),
        problems=tuple(problems),
    )


def _outside_convention(
    dataset: SegmentationDataset, ref: VolumeRef, volume: Volume
) -> list[Problem]:
    unknown = sorted(set(np.unique(volume.labels).tolist()) - set(dataset.label_values))
    if not unknown:
        return []
    first = tuple(int(index) for index in np.argwhere(volume.labels == unknown[0])[0])
    return [
        Problem(
            file=str(ref.label_path),
            place=f"voxel {first}",
            rule=f"labels must be among {', '.join(map(str, dataset.label_values))}",
            value=", ".join(map(str, unknown)),
            way_out="map the labels to this convention, or name the right layout",
        )
    ]
