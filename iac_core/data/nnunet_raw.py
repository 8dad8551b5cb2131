"""nnU-Net's raw layout, version 2.

::

    <root>/dataset.json                    channel_names {"0": "CT"}, labels {"background": 0, …},
                                           file_ending ".nii.gz"
    <root>/imagesTr/case_001_0000.nii.gz   one file per channel
    <root>/labelsTr/case_001.nii.gz
    <root>/imagesTs/…, <root>/labelsTs/…   the official test part, if it has labels

A label that names several values is a region; regions overlap and are what is scored.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from iac_core.data.folders import (
    ENDINGS,
    PairedFiles,
    existing,
    in_order,
    other_layout,
    paired_files,
    visible,
)
from iac_core.data.nifti import read_volume
from iac_core.data.side_files import inside, read_json, texts, whole_numbers
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, Intensity, Volume, VolumeRef


class NnunetRaw:
    """A raw data set of nnU-Net.

    Args:
        root: The folder that holds ``dataset.json``, for example ``Dataset027_ACDC``.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(self, root: Path, *, max_volume_gib: float = MAX_VOLUME_GIB) -> None:
        self.root, self.max_volume_gib = root, max_volume_gib
        self._json = root / "dataset.json"

    @cached_property
    def _header(self) -> dict[str, Any]:
        existing(self.root)
        if not self._json.exists():
            rule = "a raw folder of nnU-Net must hold dataset.json, imagesTr and labelsTr"
            raise other_layout(self.root, rule, "`imagesTr`")
        header = read_json(
            self._json, needs={"channel_names": dict, "labels": dict, "file_ending": str}
        )
        problems = []
        if header["file_ending"] not in ENDINGS:
            problems.append(
                self._problem(
                    "file_ending",
                    "files must be NIfTI (.nii.gz or .nii)",
                    header["file_ending"],
                    "convert them",
                )
            )
        if "ignore" in header["labels"]:
            problems.append(
                self._problem(
                    "labels", "every voxel must have a label", "an ignore label", "label them all"
                )
            )
        if problems:
            raise DataError(problems)
        return header

    @cached_property
    def description(self) -> DatasetDescription:
        """Labels, regions and channels of ``dataset.json``."""
        regions = {}
        labels = self._header["labels"]
        for name in texts(self._json, "labels", labels):
            entries = labels[name] if isinstance(labels[name], list) else [labels[name]]
            regions[name] = tuple(whole_numbers(self._json, "labels", entries))
        values = sorted({value for region in regions.values() for value in region} | {0})
        names = self._header["channel_names"]
        order = whole_numbers(self._json, "channel_names", names)
        if sorted(order) != list(range(len(order))):
            problem = self._problem(
                "channel_names", "channels must be numbered from 0", str(order), "number them so"
            )
            raise DataError([problem])
        channels = texts(self._json, "channel_names", names.values(), may_repeat=True)
        named = sorted(zip(order, channels, strict=True))
        return DatasetDescription(
            label_values=tuple(values),
            classes={name: region for name, region in regions.items() if region != (0,)},
            channels=tuple(name for _, name in named),
            reorients=True,
            side_files=("dataset.json",),
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled case.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        description = self.description
        kinds = {name.lower() == "ct" for name in description.channels}
        problems: list[Problem] = []
        if len(kinds) > 1:
            problems.append(
                self._problem(
                    "channel_names",
                    "channels must be all CT or none",
                    ", ".join(description.channels),
                    "give the CT channel or the others a data set of their own",
                )
            )
        intensity: Intensity = "ct" if True in kinds else "mr"
        refs = []
        for part in ("Tr", "Ts"):
            pairs, found = self._pairs(part, len(description.channels))
            problems += found
            refs += [
                VolumeRef(
                    patient_id=pair.case,
                    volume_id=pair.case,
                    image_paths=pair.image_paths,
                    label_path=pair.label_path,
                    intensity=intensity,
                    is_official_test=part == "Ts",
                )
                for pair in pairs
            ]
        if not refs and not problems:
            problems.append(
                self._problem(
                    "", "imagesTr and labelsTr must hold a case", "none", "restore the files"
                )
            )
        return in_order(refs, problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read all channels of a case with its labels."""
        return read_volume(
            ref, n_channels=len(self.description.channels), max_volume_gib=self.max_volume_gib
        )

    def _pairs(self, part: str, n_channels: int) -> tuple[list[PairedFiles], list[Problem]]:
        listed = self._header.get("dataset")
        if part == "Tr" and isinstance(listed, dict):
            pairs: list[PairedFiles] = []
            problems: list[Problem] = []
            for case, entry in sorted(listed.items()):
                try:
                    pairs.append(self._listed(case, entry, n_channels))
                except DataError as error:
                    problems += error.problems
            return pairs, problems
        images, labels = self.root / f"images{part}", self.root / f"labels{part}"
        if part == "Ts" and not visible(labels):
            return [], []
        endings = (self._header["file_ending"],)
        return paired_files(images, labels, n_channels=n_channels, endings=endings)

    def _listed(self, case: str, entry: object, n_channels: int) -> PairedFiles:
        """A case whose files ``dataset.json`` names one by one."""
        if not isinstance(entry, dict) or not isinstance(entry.get("images"), list):
            problem = self._problem(
                "dataset", "a case must have images and a label", repr(entry)[:60], "name both"
            )
            raise DataError([problem])
        if len(entry["images"]) != n_channels:
            rule = f"a case must have one file for each of the {n_channels} channels"
            value = f"{len(entry['images'])} of {case!r:.60}"
            raise DataError([self._problem("dataset", rule, value, "name them all")])
        return PairedFiles(
            case=case,
            image_paths=tuple(inside(self.root, self._json, name) for name in entry["images"]),
            label_path=inside(self.root, self._json, entry.get("label")),
        )

    def _problem(self, place: str, rule: str, value: str, way_out: str) -> Problem:
        return Problem(file=str(self._json), place=place, rule=rule, value=value, way_out=way_out)
