"""Look at every volume of a data set before anything runs."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from iac_core.data.nifti import canonical_axes
from iac_core.errors import DataError, IncompleteFolderError, Problem
from iac_core.types import DatasetDescription, SegmentationDataset, Volume, VolumeRef

CHECK_VERSION = 2
"""Raised when the rules change, so that a folder found clean by older ones is looked at again."""
_CHUNK = 2**20


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
        warnings: What may not be meant; the folder can be used all the same.
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
    warnings: tuple[Problem, ...] = ()


def load_checked(dataset: SegmentationDataset, ref: VolumeRef) -> Volume:
    """Read a volume whose labels are all of the data set's convention.

    Raises:
        DataError: With every problem of the volume.
    """
    volume = dataset.load(ref)
    problems = _outside_convention(dataset.description, ref, volume)
    if problems:
        raise DataError(problems)
    return volume


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
        description = dataset.description
        refs = dataset.volumes()
        problems = _repeated(refs)
    except IncompleteFolderError as error:
        refs = error.usable
        problems = [*error.problems, *_repeated(refs)]
    except DataError as error:
        return DatasetSummary(problems=error.problems)
    warnings: list[Problem] = []
    spacings, shapes = [], []
    shown: Counter[str] = Counter()
    first_of: dict[bytes, VolumeRef] = {}
    for position, ref in enumerate(refs):
        try:
            volume = load_checked(dataset, ref)
        except DataError as error:
            problems.extend(error.problems)
            continue
        finally:
            on_volume(position + 1, len(refs))
        warnings += volume.warnings
        problems += _same_image(ref, volume, first_of)
        order = canonical_axes(volume.affine)[0] if description.reorients else (0, 1, 2)
        spacings.append([volume.spacing_mm[axis] for axis in order])
        shapes.append([volume.labels.shape[axis] for axis in order])
        present = set(_values(volume))
        shown.update(name for name, values in description.classes.items() if present & {*values})
    for name in description.classes if shapes else ():
        if not shown[name]:
            warnings.append(_never_shown(refs[0], name))
    if shapes and not shown:
        problems.append(_all_background(refs[0]))
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
        warnings=tuple(warnings),
    )


def warning_lines(warnings: Iterable[Problem]) -> Iterator[str]:
    """Yield a line for each rule, with its first file and how many others there are."""
    by_rule: dict[str, list[Problem]] = {}
    for warning in warnings:
        by_rule.setdefault(warning.rule, []).append(warning)
    for same in by_rule.values():
        others = f" (and {len(same) - 1} more like it)" if len(same) > 1 else ""
        yield f"{same[0]}{others}"


def _values(volume: Volume) -> list[int]:
    """Label values that a volume shows, ascending."""
    flat = volume.labels.reshape(-1)
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(flat), _CHUNK):  # bincount makes 8 bytes of each
        counts += np.bincount(flat[start : start + _CHUNK], minlength=256)
    return [int(value) for value in np.flatnonzero(counts)]


def _same_image(ref: VolumeRef, volume: Volume, first_of: dict[bytes, VolumeRef]) -> list[Problem]:
    """The image of another patient: training and test could share it."""
    digest = hashlib.sha1(volume.image.data, usedforsecurity=False)
    digest.update(repr(volume.image.shape).encode())
    first = first_of.setdefault(digest.digest(), ref)
    if first.patient_id == ref.patient_id:
        return []
    return [
        Problem(
            file=str(ref.image_paths[0]),
            rule="an image must belong to one patient, or a patient of the test may be trained on",
            value=f"the image of {first.patient_id} ({first.image_paths[0]}) as {ref.patient_id}",
            way_out=f"remove one, leave one out (leave_out: [{ref.patient_id}]), or name the "
            "patient that both belong to by patient_pattern",
        )
    ]


def _never_shown(ref: VolumeRef, name: str) -> Problem:
    return Problem(
        file=str(ref.label_path.parent),
        rule="each class should be in the labels of some volume",
        value=f"no voxel of {name}",
        way_out="leave the class out of the data set's description if it is not labelled",
    )


def _all_background(ref: VolumeRef) -> Problem:
    return Problem(
        file=str(ref.label_path.parent),
        rule="labels must show a class in some volume",
        value="background alone",
        way_out="restore the labels, or name the right layout",
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
    description: DatasetDescription, ref: VolumeRef, volume: Volume
) -> list[Problem]:
    unknown = sorted(set(_values(volume)) - set(description.label_values))
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
