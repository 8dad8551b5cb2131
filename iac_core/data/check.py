"""Look at every volume of a data set before anything runs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from iac_core.data.nifti import canonical_axes
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, SegmentationDataset, Volume, VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """What a data folder holds, and what is wrong with it.

    Attributes:
        n_patients: Patients.
        n_official_test: Those that the publishers set aside for testing.
        n_volumes: Labelled volumes that could be read.
        channels: Names of the image channels.
        intensities: ``mr``, ``mr_masked`` or ``ct`` → volumes.
        spacing_mm: Smallest and largest edge length along rows, columns and slices as cut.
        shape: Smallest and largest extent along the same axes, in voxels.
        n_volumes_with: What is scored → volumes that show it.
        known_faults: Patients of the folder with faults that are known → what is wrong.
        problems: Every problem found; empty if the folder can be used.
    """

    n_patients: int = 0
    n_official_test: int = 0
    n_volumes: int = 0
    channels: tuple[str, ...] = ()
    intensities: Mapping[str, int] = field(default_factory=dict)
    spacing_mm: tuple[tuple[float, float], ...] = ()
    shape: tuple[tuple[int, int], ...] = ()
    n_volumes_with: Mapping[str, int] = field(default_factory=dict)
    known_faults: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...]


def check_dataset(
    dataset: SegmentationDataset, on_volume: Callable[[int, int], None] = lambda done, of: None
) -> DatasetSummary:
    """Read every volume, one at a time, and collect all problems; raises none of them.

    Args:
        dataset: The data folder.
        on_volume: Told after every volume how many are done, of how many.

    Raises:
        ConfigError: If the options of the data set do not fit the folder.
    """
    try:
        refs, description = dataset.volumes(), dataset.description
    except DataError as error:
        return DatasetSummary(problems=error.problems)
    problems = _repeated(refs)
    spacings, shapes = [], []
    shown: Counter[str] = Counter()
    for position, ref in enumerate(refs):
        try:
            volume = dataset.load(ref)
        except DataError as error:
            problems.extend(error.problems)
            continue
        finally:
            on_volume(position + 1, len(refs))
        order = canonical_axes(volume.affine)[0] if description.reorients else (0, 1, 2)
        spacings.append([volume.spacing_mm[axis] for axis in order])
        shapes.append([volume.labels.shape[axis] for axis in order])
        present = set(np.unique(volume.labels).tolist())
        problems += _outside_convention(description, ref, volume, present)
        shown.update(name for name, values in description.classes.items() if present & {*values})
    patients = {ref.patient_id for ref in refs}
    return DatasetSummary(
        n_patients=len(patients),
        n_official_test=len({ref.patient_id for ref in refs if ref.is_official_test}),
        n_volumes=len(shapes),
        channels=description.channels,
        intensities=dict(Counter(ref.intensity for ref in refs)),
        spacing_mm=tuple((min(axis), max(axis)) for axis in zip(*spacings, strict=True)),
        shape=tuple((min(axis), max(axis)) for axis in zip(*shapes, strict=True)),
        n_volumes_with={name: shown[name] for name in description.classes},
        known_faults={
            name: fault for name, fault in description.known_faults.items() if name in patients
        },
        problems=tuple(problems),
    )


def _repeated(refs: tuple[VolumeRef, ...]) -> list[Problem]:
    """Two volumes of one name would overwrite each other."""
    first: dict[str, VolumeRef] = {}
    problems = []
    for ref in refs:
        if ref.volume_id in first:
            problems.append(
                Problem(
                    file=str(ref.label_path),
                    rule="a volume's name must be unique in the data set",
                    value=f"{ref.volume_id}, also {first[ref.volume_id].label_path}",
                    way_out="remove or rename one of the two",
                )
            )
        first.setdefault(ref.volume_id, ref)
    return problems


def _outside_convention(
    description: DatasetDescription, ref: VolumeRef, volume: Volume, present: set[int]
) -> list[Problem]:
    unknown = sorted(present - set(description.label_values))
    if not unknown:
        return []
    first = tuple(int(index) for index in np.argwhere(volume.labels == unknown[0])[0])
    return [
        Problem(
            file=str(ref.label_path),
            place=f"voxel {first}",
            rule=f"labels must be among {', '.join(map(str, description.label_values))}",
            value=", ".join(map(str, unknown)),
            way_out="map the labels to this convention, or name the right layout",
        )
    ]
