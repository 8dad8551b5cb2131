"""The AMOS22 layout: abdominal CT and MR with fifteen organs.

::

    <root>/dataset.json                   "training" and "validation": {"image", "label"} entries
    <root>/imagesTr/amos_0001.nii.gz      <root>/labelsTr/amos_0001.nii.gz
    <root>/imagesVa/…, <root>/labelsVa/…  the official validation part, here the official test part
    <root>/imagesTs/…                     no labels: passed over

The modality is told by the number alone: below 500 a CT, else an MR. Many cases lack some organs.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from iac_core.data.folders import existing, in_order, stem
from iac_core.data.nifti import read_volume
from iac_core.data.side_files import inside, read_json, texts, whole_numbers
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, Volume, VolumeRef

_NUMBER = re.compile(r"amos_(\d{4})")
_FIRST_MR = 500
_NAMES = {"arota": "aorta"}
"""Misspelt in the published file."""


class Amos:
    """A folder in the layout of AMOS22.

    Args:
        root: The folder that holds ``dataset.json``.
        modality: Keep the CT or the MR cases alone, or both.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(
        self,
        root: Path,
        modality: Literal["ct", "mr", "both"] = "both",
        *,
        max_volume_gib: float = MAX_VOLUME_GIB,
    ) -> None:
        self.root, self.modality, self.max_volume_gib = root, modality, max_volume_gib

    @cached_property
    def _header(self) -> dict[str, Any]:
        existing(self.root)
        return read_json(self.root / "dataset.json", needs={"labels": dict, "training": list})

    @property
    def description(self) -> DatasetDescription:
        """Organs by the names of ``dataset.json``; left and right differ, so no mirrored rows."""
        path, labels = self.root / "dataset.json", self._header["labels"]
        values = whole_numbers(path, "labels", labels)
        named = sorted(zip(values, texts(path, "labels", labels.values()), strict=True))
        return DatasetDescription(
            label_values=tuple(value for value, _ in named),
            classes={_NAMES.get(name, name): (value,) for value, name in named if value},
            channels=("image",),
            reorients=True,
            flip_axes=("columns",),
            side_files=("dataset.json",),
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled case of the wanted modality.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        path = self.root / "dataset.json"
        problems: list[Problem] = []
        refs = {}
        for part in ("training", "validation"):
            for entry in self._entries(part, problems):
                if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
                    problems.append(_wrong(path, part, "an image and a label", repr(entry)))
                    continue
                try:
                    image, label = (
                        inside(self.root, path, entry[key]) for key in ("image", "label")
                    )
                except DataError as error:
                    problems += error.problems
                    continue
                number = _NUMBER.fullmatch(stem(image))
                if number is None:
                    problems.append(_wrong(path, part, "a file like amos_0001.nii.gz", image.name))
                    continue
                is_ct = int(number[1]) < _FIRST_MR
                if self.modality not in ("both", "ct" if is_ct else "mr"):
                    continue
                if stem(image) in refs:
                    problems.append(_wrong(path, part, "each file once", image.name))
                    continue
                refs[stem(image)] = VolumeRef(
                    patient_id=stem(image),
                    volume_id=stem(image),
                    image_paths=(image,),
                    label_path=label,
                    intensity="ct" if is_ct else "mr",
                    is_official_test=part == "validation",
                )
        if not refs and not problems:
            wanted = "" if self.modality == "both" else f" of {self.modality.upper()}"
            problems.append(_wrong(path, "training", f"at least one case{wanted}", "none"))
        return in_order(refs.values(), problems)

    def _entries(self, part: str, problems: list[Problem]) -> list[Any]:
        entries = self._header.get(part) or []
        if isinstance(entries, list):
            return entries
        problems.append(_wrong(self.root / "dataset.json", part, "files in a list", repr(entries)))
        return []

    def load(self, ref: VolumeRef) -> Volume:
        """Read a case with its labels."""
        return read_volume(ref, n_channels=1, max_volume_gib=self.max_volume_gib)


def _wrong(path: Path, place: str, rule: str, value: str) -> Problem:
    return Problem(
        file=str(path),
        place=place,
        rule=f"entries of {place} must name {rule}",
        value=value[:80],
        way_out="restore dataset.json from the original data",
    )
