r"""A plain folder of images and labels with a few lines of YAML.

::

    <root>/images/case_1.nii.gz     several channels: case_1_0000.nii.gz, case_1_0001.nii.gz …
    <root>/labels/case_1.nii.gz
    <root>/dataset.yaml:

        labels: {background: 0, kidney: 1, tumour: 2}
        modality: mr                     # mr; mr_masked (background of exact zeros); ct
        channels: [t1, t2]               # optional: one channel
        regions: {whole: [1, 2]}         # optional: what is scored; otherwise every label
        patient_pattern: '(P\d+)_'       # optional: otherwise every case is a patient
        orientation: canonical           # optional; `file` cuts along the file's last axis
        flip_axes: [rows, columns]       # optional: axes of a slice that may be mirrored
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from iac_core.data.folders import existing, in_order, other_layout, paired_files, patient_of
from iac_core.data.nifti import read_volume
from iac_core.data.side_files import read_yaml
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.registry import did_you_mean
from iac_core.types import DatasetDescription, Volume, VolumeRef

NOTE = "dataset.yaml"
_KEYS = (
    "labels",
    "modality",
    "channels",
    "regions",
    "patient_pattern",
    "orientation",
    "flip_axes",
)
_EXAMPLE = "labels: {background: 0, kidney: 1} and modality: ct"


class UserFolder:
    """A folder with ``images``, ``labels`` and ``dataset.yaml``.

    Args:
        root: The folder.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(self, root: Path, *, max_volume_gib: float = MAX_VOLUME_GIB) -> None:
        self.root, self.max_volume_gib = root, max_volume_gib
        self._note = root / NOTE

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The YAML file with its defaults, checked."""
        existing(self.root)
        if not self._note.exists():
            rule = f"a plain data folder must hold images, labels and {NOTE} ({_EXAMPLE})"
            raise other_layout(self.root, rule, "`images`")
        raw = read_yaml(self._note)
        settings: dict[str, Any] = {
            "modality": "mr",
            "channels": ["image"],
            "regions": {},
            "patient_pattern": None,
            "orientation": "canonical",
            "flip_axes": ["rows", "columns"],
            **raw,
        }
        problems = list(self._problems(settings))
        if problems:
            raise DataError(problems)
        return settings

    @property
    def description(self) -> DatasetDescription:
        """What ``dataset.yaml`` says."""
        settings = self._settings
        labels: dict[str, int] = settings["labels"]
        classes = {name: (value,) for name, value in labels.items() if value != 0}
        regions = {name: tuple(sorted(values)) for name, values in settings["regions"].items()}
        return DatasetDescription(
            label_values=tuple(sorted({0, *labels.values()})),
            classes=regions or classes,
            channels=tuple(settings["channels"]),
            reorients=settings["orientation"] == "canonical",
            flip_axes=tuple(settings["flip_axes"]),
            side_files=(NOTE,),
        )

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every case.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        settings = self._settings
        images, labels = self.root / "images", self.root / "labels"
        pairs, problems = paired_files(images, labels, n_channels=len(settings["channels"]))
        if not pairs and not problems:
            rule = "images and labels must hold NIfTI files of the same names"
            raise other_layout(self.root, rule, "`images`")
        refs = []
        for pair in pairs:
            try:
                patient_id = patient_of(pair.case, settings["patient_pattern"])
            except DataError as error:
                problems += error.problems
                continue
            refs.append(
                VolumeRef(
                    patient_id=patient_id,
                    volume_id=pair.case,
                    image_paths=pair.image_paths,
                    label_path=pair.label_path,
                    intensity=settings["modality"],
                )
            )
        return in_order(refs, problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read all channels of a case with its labels."""
        return read_volume(
            ref, n_channels=len(self._settings["channels"]), max_volume_gib=self.max_volume_gib
        )

    def _problems(self, settings: dict[str, Any]) -> list[Problem]:
        found = [
            self._problem(
                str(name),
                "a key must be known",
                repr(name),
                did_you_mean(str(name), list(_KEYS))[2:],
            )
            for name in settings
            if name not in _KEYS
        ]
        labels: dict[str, int] = {}
        if _is_labels(settings.get("labels")):
            labels = settings["labels"]
        else:
            rule = (
                "labels must map names (in quotes, if need be) to different whole numbers up to "
                "255, background to 0"
            )
            found.append(self._problem("labels", rule, repr(settings.get("labels"))[:80]))
        for key, allowed in (
            ("modality", ("mr", "mr_masked", "ct")),
            ("orientation", ("canonical", "file")),
        ):
            if not isinstance(settings[key], str) or settings[key] not in allowed:
                rule = f"{key} must be one of {', '.join(allowed)}"
                found.append(self._problem(key, rule, repr(settings[key])))
        channels, axes = settings["channels"], settings["flip_axes"]
        if not _is_names(channels) or not channels:
            rule = "channels must be a list of different names"
            found.append(self._problem("channels", rule, repr(channels)))
        if not _is_names(axes) or not set(axes) <= {"rows", "columns"}:
            rule = "flip_axes must be a list of rows, columns, both or none"
            found.append(self._problem("flip_axes", rule, repr(axes)))
        regions, values = settings["regions"], set(labels.values())
        if not isinstance(regions, dict) or not all(
            isinstance(name, str)
            and isinstance(region, list)
            and region
            and all(type(value) is int and value in values - {0} for value in region)
            for name, region in regions.items()
        ):
            rule = "regions must map names (in quotes, if need be) to lists of label values"
            found.append(self._problem("regions", rule, repr(regions)[:80]))
        pattern = settings["patient_pattern"]
        if pattern is not None and not _is_pattern(pattern):
            rule = "patient_pattern must be a regular expression with one group"
            found.append(self._problem("patient_pattern", rule, repr(pattern)))
        return found

    def _problem(self, place: str, rule: str, value: str, way_out: str = "correct it") -> Problem:
        return Problem(file=str(self._note), place=place, rule=rule, value=value, way_out=way_out)


def _is_labels(labels: object) -> bool:
    if not isinstance(labels, dict) or len(labels) < 2:
        return False
    values = list(labels.values())
    whole = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in values)
    return (
        all(isinstance(name, str) for name in labels)
        and whole
        and 0 in values
        and len(set(values)) == len(values)
    )


def _is_names(names: object) -> bool:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return False
    return len(set(names)) == len(names)


def _is_pattern(pattern: object) -> bool:
    try:
        return isinstance(pattern, str) and re.compile(pattern).groups == 1
    except re.error:
        return False
