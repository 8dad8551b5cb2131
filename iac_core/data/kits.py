"""The KiTS layouts: one folder per case, abdominal CT, kidneys, tumours and (from 2021) cysts.

::

    <root>/case_00000/imaging.nii.gz
    <root>/case_00000/segmentation.nii.gz        (2019, 2023)
    <root>/case_00000/aggregated_MAJ_seg.nii.gz  (2021; segmentations/ holds single annotations)

The cases may lie under ``data`` or ``dataset``. Files have axes (slice, row, column), so volumes
are reoriented. Cases without labels from 210 on in 2019 are that challenge's test part.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from iac_core.data.folders import (
    existing,
    in_order,
    other_layout,
    same_folder,
    unreadable_files,
    visible,
)
from iac_core.data.nifti import read_volume
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import Problem
from iac_core.types import DatasetDescription, Volume, VolumeRef

Edition = Literal["kits19", "kits21", "kits23"]
_CASE = re.compile(r"case_(\d{5})")
_PLACES = ("", "data", "dataset", "kits21/data", "kits19/data", "kits23/dataset")
_LABEL_FILE: Mapping[Edition, str] = {
    "kits19": "segmentation.nii.gz",
    "kits21": "aggregated_MAJ_seg.nii.gz",
    "kits23": "segmentation.nii.gz",
}
_FIRST_UNLABELLED_2019 = 210
_REPEATED = "repeats unlabelled slices"
_FAULTS_2019: Mapping[str, str] = {
    "case_00015": f"wrong labels, replaced by others since; {_REPEATED}",
    "case_00023": "wrong labels",
    "case_00025": _REPEATED,
    "case_00037": "wrong labels, replaced by others since",
    "case_00061": _REPEATED,
    "case_00068": "wrong labels",
    "case_00117": _REPEATED,
    "case_00125": "wrong labels",
    "case_00133": "wrong labels",
}
"""Reported by users of KiTS19; all of it was labelled anew for KiTS21."""


class Kits:
    """A folder of KiTS cases.

    Args:
        root: The folder that holds the cases, or their folder ``data`` or ``dataset``.
        edition: Which challenge; the label files and what is scored differ.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(
        self, root: Path, edition: Edition, *, max_volume_gib: float = MAX_VOLUME_GIB
    ) -> None:
        self.root, self.edition, self.max_volume_gib = root, edition, max_volume_gib

    @property
    def description(self) -> DatasetDescription:
        """The regions that the edition's challenge scores; they overlap."""
        old = self.edition == "kits19"
        return DatasetDescription(
            label_values=(0, 1, 2) if old else (0, 1, 2, 3),
            classes=(
                {"kidney": (1, 2), "tumour": (2,)}
                if old
                else {"kidney": (1, 2, 3), "masses": (2, 3), "tumour": (2,)}
            ),
            channels=("ct",),
            reorients=True,
            known_faults=_FAULTS_2019 if old else {},
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled case.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        existing(self.root)
        folders: dict[str, Path] = {}
        problems: list[Problem] = []
        for entry in (entry for place in _PLACES for entry in visible(self.root / place)):
            if not entry.is_dir() or not _CASE.fullmatch(entry.name):
                continue
            if folders.setdefault(entry.name, entry) != entry:
                problems.append(same_folder(folders[entry.name], entry))
        if not folders:
            raise other_layout(
                self.root,
                "a folder in a KiTS layout must hold <root>/case_00000/imaging.nii.gz with "
                f"{_LABEL_FILE[self.edition]}",
                "the cases",
            )
        refs = [self._case(folders[name], problems) for name in sorted(folders)]
        return in_order((ref for ref in refs if ref is not None), problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read a case with its labels."""
        return read_volume(ref, n_channels=1, max_volume_gib=self.max_volume_gib)

    def _case(self, folder: Path, problems: list[Problem]) -> VolumeRef | None:
        label_path = folder / _LABEL_FILE[self.edition]
        image_path = folder / "imaging.nii.gz"
        is_test = (
            self.edition == "kits19" and int(folder.name.split("_")[1]) >= _FIRST_UNLABELLED_2019
        )
        if is_test and not label_path.exists():
            return None
        missing = [path.name for path in (image_path, label_path) if not path.exists()]
        if missing:
            problems.append(
                Problem(
                    file=str(folder),
                    rule=f"a case of {self.edition} must have its image and {label_path.name}",
                    value=f"no {' and no '.join(missing)}",
                    way_out=self._way_out(folder, missing),
                )
            )
            problems += unreadable_files(folder)
            return None
        return VolumeRef(
            patient_id=folder.name,
            volume_id=folder.name,
            image_paths=(image_path,),
            label_path=label_path,
            intensity="ct",
        )

    def _way_out(self, folder: Path, missing: list[str]) -> str:
        if "imaging.nii.gz" in missing:
            return "fetch the image with the challenge's own script, or remove the case's folder"
        for edition, name in _LABEL_FILE.items():
            if name != _LABEL_FILE[self.edition] and (folder / name).exists():
                return f"the folder looks like layout {edition}; name that one"
        if (folder / "segmentations").is_dir():
            return "single annotations are not enough; restore the aggregated file"
        return "restore the file, or remove the case's folder"
