"""The layout of the Medical Segmentation Decathlon, all ten tasks.

::

    <root>/dataset.json                   modality {"0": "CT"}, labels {"0": "background", …},
                                          training [{"image": "./imagesTr/x.nii.gz", "label": …}]
    <root>/imagesTr/la_003.nii.gz         channels along the fourth axis where there are several
    <root>/labelsTr/la_003.nii.gz
    <root>/imagesTs/…                     no labels: passed over

No task names its subjects: every file counts as a patient unless a pattern finds it in the name
(the hippocampus task holds left and right crops that cannot be told apart).
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from iac_core.data.folders import existing, in_order, stem
from iac_core.data.nifti import read_volume
from iac_core.data.side_files import inside, read_json, texts, whole_numbers
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, Volume, VolumeRef

_BRAIN_TUMOUR = ["background", "edema", "non-enhancing tumor", "enhancing tumour"]
_REGIONS: Mapping[str, tuple[int, ...]] = {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
"""Task01 labels oedema 1 and the non-enhancing core 2: BraTS has them the other way round."""


class Msd:
    """One task of the Decathlon.

    Args:
        root: The folder that holds ``dataset.json``, for example ``Task04_Hippocampus``.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(self, root: Path, *, max_volume_gib: float = MAX_VOLUME_GIB) -> None:
        self.root, self.max_volume_gib = root, max_volume_gib

    @cached_property
    def _header(self) -> dict[str, Any]:
        existing(self.root)
        needs = {"labels": dict, "modality": dict, "training": list}
        try:
            return read_json(self.root / "dataset.json", needs=needs)
        except DataError as error:
            inner = sorted(path.parent for path in self.root.glob("Task*/dataset.json"))
            if inner and not (self.root / "dataset.json").exists():
                problem = Problem(
                    file=str(self.root),
                    rule="a folder in the MSD layout must be one task",
                    value=f"a folder that holds {', '.join(path.name for path in inner[:4])}",
                    way_out=f"give one of them, for example {inner[0]}",
                )
                raise DataError([problem]) from error
            raise

    @cached_property
    def description(self) -> DatasetDescription:
        """Labels and channels of ``dataset.json``; the brain tumours as three regions."""
        path, labels = self.root / "dataset.json", self._header["labels"]
        values = whole_numbers(path, "labels", labels)
        order = whole_numbers(path, "modality", self._header["modality"])
        modality = texts(path, "modality", self._header["modality"].values(), may_repeat=True)
        named = sorted(zip(values, texts(path, "labels", labels.values()), strict=True))
        classes: dict[str, tuple[int, ...]] = {name: (value,) for value, name in named if value}
        names = [name.lower().replace("tumour", "tumor") for _, name in named]
        if names == [name.replace("tumour", "tumor") for name in _BRAIN_TUMOUR]:
            classes = dict(_REGIONS)
        return DatasetDescription(
            label_values=tuple(value for value, _ in named),
            classes=classes,
            channels=tuple(name for _, name in sorted(zip(order, modality, strict=True))),
            reorients=True,
            side_files=("dataset.json",),
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled file.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        path = self.root / "dataset.json"
        channels = [name.lower() for name in self.description.channels]
        is_brain = "WT" in self.description.classes
        problems: list[Problem] = []
        refs = {}
        for entry in self._header["training"]:
            if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
                problems.append(_wrong(path, "an image and a label", repr(entry)))
                continue
            try:
                image, label = (inside(self.root, path, entry[key]) for key in ("image", "label"))
            except DataError as error:
                problems += error.problems
                continue
            if image.name.startswith((".", "_")):
                continue
            if stem(image) in refs:
                problems.append(_wrong(path, "each file once", image.name))
                continue
            refs[stem(image)] = VolumeRef(
                patient_id=stem(image),
                volume_id=stem(image),
                image_paths=(image,),
                label_path=label,
                intensity="mr_masked" if is_brain else "ct" if channels == ["ct"] else "mr",
            )
        if not refs and not problems:
            problems.append(_wrong(path, "at least one labelled volume", "none"))
        return in_order(refs.values(), problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read a file with its labels; several channels lie along the fourth axis."""
        return read_volume(
            ref, n_channels=len(self.description.channels), max_volume_gib=self.max_volume_gib
        )


def _wrong(path: Path, rule: str, value: str) -> Problem:
    return Problem(
        file=str(path),
        place="training",
        rule=f"entries of training must name {rule}",
        value=value[:80],
        way_out="restore dataset.json from the original data",
    )
