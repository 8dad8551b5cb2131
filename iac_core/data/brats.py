"""The BraTS layouts: one folder per case, one file per MR sequence, skull-stripped, 1 mm.

::

    <root>/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz  … _t1 _t1ce _t2 _seg
    <root>/HGG/Brats18_CBICA_AAB_1/…   and LGG; files may end in .nii
    <root>/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz      … -t1c -t2w -t2f -seg  (2023 on)

Until 2022 enhancing tumour is label 4, since 2023 it is 3. What is scored are three regions that
overlap: whole tumour, tumour core, enhancing tumour.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from iac_core.data.folders import (
    ENDINGS,
    existing,
    in_order,
    other_layout,
    same_case,
    same_folder,
    stem,
    unreadable_files,
    visible,
)
from iac_core.data.nifti import read_volume
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, Volume, VolumeRef

_CHANNELS = ("t1", "t1ce", "t2", "flair")
_SUFFIXES: Mapping[bool, tuple[str, ...]] = {
    False: ("_t1", "_t1ce", "_t2", "_flair"),
    True: ("-t1n", "-t1c", "-t2w", "-t2f"),
}
_OLD_CASE = re.compile(r"brats\d{2}(\d{2})?_\w+", re.IGNORECASE)
_NEW_CASE = re.compile(r"(BraTS-[A-Za-z]+-\d+)-(\d+)", re.IGNORECASE)
_ODD_MASK = re.compile(r".*_segm\.nii(\.gz)?", re.IGNORECASE)
_EXPECTED = (
    "<root>/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz with _t1, _t1ce, _t2 and _seg, "
    "or <root>/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz with -t1n, -t1c, -t2w and -seg"
)


class Brats:
    """A folder of BraTS cases of one label convention.

    A case whose name says that it has no labels (``Validation``) is passed over.

    Args:
        root: The folder that holds the cases, or folders of cases such as ``HGG`` and ``LGG``.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(self, root: Path, *, max_volume_gib: float = MAX_VOLUME_GIB) -> None:
        self.root, self.max_volume_gib = root, max_volume_gib

    @property
    def description(self) -> DatasetDescription:
        """Four channels; the label convention follows from the cases' names."""
        enhancing = 3 if self._is_new else 4
        return DatasetDescription(
            label_values=(0, 1, 2, enhancing),
            classes={"WT": (1, 2, enhancing), "TC": (1, enhancing), "ET": (enhancing,)},
            channels=_CHANNELS,
            reorients=True,
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled case; a patient of 2023 on may have several time points.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        cases, places = self._found
        problems = list(places)
        refs = []
        for folder in cases:
            ref = self._case(folder, problems)
            if ref is not None:
                refs.append(ref)
        return in_order(refs, problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read four channels with their labels."""
        return read_volume(ref, n_channels=4, max_volume_gib=self.max_volume_gib)

    @cached_property
    def _found(self) -> tuple[list[Path], list[Problem]]:
        """Folders of cases by name, and those of a name that another has."""
        existing(self.root)
        places = [self.root, *visible(self.root)]
        places += [inner for outer in visible(self.root) for inner in visible(outer)]
        found: dict[str, Path] = {}
        problems = []
        for entry in (entry for place in places for entry in visible(place)):
            is_case = _OLD_CASE.fullmatch(entry.name) or _NEW_CASE.fullmatch(entry.name)
            if not is_case or not entry.is_dir() or not _holds_volumes(entry):
                continue
            if found.setdefault(entry.name, entry) != entry:
                problems.append(same_folder(found[entry.name], entry))
        cases = [found[name] for name in sorted(found)]
        if not cases:
            rule = f"a folder in a BraTS layout must hold {_EXPECTED}"
            raise other_layout(self.root, rule, "the cases")
        return cases, problems

    @cached_property
    def _is_new(self) -> bool:
        kinds = {bool(_NEW_CASE.fullmatch(folder.name)) for folder in self._found[0]}
        if len(kinds) > 1:
            raise DataError(
                [
                    Problem(
                        file=str(self.root),
                        rule="cases of one folder must share a label convention",
                        value="cases until 2021 (enhancing tumour is 4) and since 2023 (it is 3)",
                        way_out="give each edition a folder and a dataset of its own",
                    )
                ]
            )
        return kinds.pop()

    def _case(self, folder: Path, problems: list[Problem]) -> VolumeRef | None:
        files: dict[str, Path] = {}
        for path in filter(_is_volume, visible(folder)):
            first = files.setdefault(stem(path).lower(), path)
            if first != path:
                problems.append(same_case(first, path))
        name = folder.name.lower()
        images = [files.get(name + suffix) for suffix in _SUFFIXES[self._is_new]]
        mask = files.get(name + ("-seg" if self._is_new else "_seg"))
        if mask is None:  # BraTS20_Training_355 calls its mask W39_1998.09.19_Segm.nii
            odd = [path for path in files.values() if _ODD_MASK.fullmatch(path.name)]
            mask = odd[0] if len(odd) == 1 else None
        if mask is None and "validation" in name:
            return None
        missing = [
            folder.name + suffix
            for suffix, path in zip(_SUFFIXES[self._is_new], images, strict=True)
            if path is None
        ]
        missing += [f"{folder.name}{'-' if self._is_new else '_'}seg"] if mask is None else []
        if missing or mask is None:
            problems += unreadable_files(folder)
            problems.append(
                Problem(
                    file=str(folder),
                    rule="a case must have four sequences and labels",
                    value=f"no {', '.join(missing)} (.nii.gz or .nii)",
                    way_out="restore the files, or remove the case's folder",
                )
            )
            return None
        match = _NEW_CASE.fullmatch(folder.name)
        return VolumeRef(
            patient_id=match[1] if match else folder.name,
            volume_id=folder.name,
            phase=match[2] if match else "",
            image_paths=tuple(path for path in images if path is not None),
            label_path=mask,
            intensity="mr_masked",
        )


def _is_volume(path: Path) -> bool:
    return path.name.endswith(ENDINGS)


def _holds_volumes(folder: Path) -> bool:
    """A case's folder; one that holds folders instead is a release around the cases."""
    return any(_is_volume(path) and path.is_file() for path in visible(folder)) or not any(
        path.is_dir() for path in visible(folder)
    )
