"""The ACDC layout: one folder per patient, an end-diastolic and an end-systolic frame.

::

    <root>/training/patient001/  (and testing/, or the patient folders directly under <root>)
        Info.cfg                        "ED: 1", "ES: 12", …; may be missing
        patient001_frame01.nii.gz       patient001_frame01_gt.nii.gz
        patient001_frame12.nii.gz       patient001_frame12_gt.nii.gz
        patient001_4d.nii.gz            ignored: it has no labels
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from iac_core.data.folders import (
    existing,
    in_order,
    other_layout,
    same_case,
    unreadable_files,
    visible,
)
from iac_core.data.nifti import read_labels, read_volume
from iac_core.data.side_files import one_problem
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import DataError, Problem
from iac_core.types import DatasetDescription, Volume, VolumeRef

_PATIENT = re.compile(r"patient\d+")
_FRAME = re.compile(r"(?P<patient>patient\d+)_frame(?P<frame>\d+)(?P<gt>_gt)?\.nii(\.gz)?")
_LEFT_VENTRICLE = 3
_MOST_INFO_BYTES = 2**16
_EXPECTED = (
    "<root>/training/patient001/patient001_frame01.nii.gz with patient001_frame01_gt.nii.gz"
)
_DESCRIPTION = DatasetDescription(
    label_values=(0, 1, 2, 3),
    classes={"RV": (1,), "MYO": (2,), "LV": (3,)},
    channels=("cine",),
    reorients=False,
)


class Acdc:
    """A folder in the layout of the ACDC challenge.

    Patients under ``testing`` are the official test part.

    Args:
        root: The folder that holds ``training`` and/or ``testing``, or the patient folders.
        max_volume_gib: Largest file in memory, by its header; nothing larger is read.
    """

    def __init__(self, root: Path, *, max_volume_gib: float = MAX_VOLUME_GIB) -> None:
        self.root, self.max_volume_gib = root, max_volume_gib

    @property
    def description(self) -> DatasetDescription:
        """Three structures of the heart on the file's own short axis."""
        return _DESCRIPTION

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return both frames of every patient.

        ED and ES come from ``Info.cfg``; without it, or without these lines in it, the frame with
        the larger left ventricle is ED, which reads the label files.

        Raises:
            DataError: With everything that is wrong with the folder.
        """
        folders = self._patient_folders()
        problems: list[Problem] = []
        refs: list[VolumeRef] = []
        for folder in folders:
            refs += self._frames(folder, problems)
        return in_order(refs, problems)

    def load(self, ref: VolumeRef) -> Volume:
        """Read a frame with its labels."""
        return read_volume(ref, n_channels=1, max_volume_gib=self.max_volume_gib)

    def _patient_folders(self) -> list[Path]:
        existing(self.root)
        places = [self.root / "training", self.root / "testing", self.root]
        folders = [
            entry
            for place in places
            for entry in visible(place)
            if entry.is_dir() and _PATIENT.fullmatch(entry.name)
        ]
        if not folders:
            raise other_layout(
                self.root, f"a folder in the ACDC layout must hold {_EXPECTED}", "`training`"
            )
        return folders

    def _frames(self, folder: Path, problems: list[Problem]) -> list[VolumeRef]:
        """The two labelled frames of a patient; notes what is wrong."""
        images: dict[int, Path] = {}
        labels: dict[int, Path] = {}
        before = len(problems)
        for path in visible(folder):
            match = _FRAME.fullmatch(path.name)
            if match and match["patient"] == folder.name:
                frames = labels if match["gt"] else images
                first = frames.setdefault(int(match["frame"]), path)
                if first != path:
                    problems.append(same_case(first, path))
        problems += unreadable_files(folder)
        for frame in sorted(images.keys() ^ labels.keys()):
            path = images.get(frame) or labels[frame]
            missing = "labels (_gt)" if frame in images else "image"
            problems.append(
                Problem(
                    file=str(path),
                    rule="a frame must have an image and labels",
                    value=f"no {missing}",
                    way_out="restore the file, or remove the frame",
                )
            )
        if len(problems) > before:
            return []
        phases = self._phases(folder, images, labels, problems)
        return [
            VolumeRef(
                patient_id=folder.name,
                volume_id=f"{folder.name}_frame{frame:02d}",
                phase=phase,
                image_paths=(images[frame],),
                label_path=labels[frame],
                is_official_test=folder.parent.name == "testing",
            )
            for frame, phase in phases.items()
        ]

    def _phases(
        self,
        folder: Path,
        images: Mapping[int, Path],
        labels: Mapping[int, Path],
        problems: list[Problem],
    ) -> dict[int, str]:
        """Frame → ED or ES."""
        try:
            named = read_info(folder / "Info.cfg")
        except DataError as error:
            problems += error.problems
            return {}
        wanted = {
            int(named[phase]): phase
            for phase in ("ED", "ES")
            if re.fullmatch(r"[0-9]{1,6}", named.get(phase, ""))
        }
        if len(wanted) == 2:
            for frame in sorted(set(wanted) - set(images)):
                problems.append(
                    Problem(
                        file=str(folder / "Info.cfg"),
                        place=wanted[frame],
                        rule="the named frame must be a file of the folder",
                        value=f"{wanted[frame]}: {frame}, but the frames are {sorted(images)}",
                        way_out="restore the frame, or correct Info.cfg",
                    )
                )
            return wanted if set(wanted) <= set(images) else {}
        if len(images) != 2:
            problems.append(
                Problem(
                    file=str(folder),
                    rule="a patient without ED and ES in Info.cfg must have 2 labelled frames",
                    value=f"{len(images)}",
                    way_out="add Info.cfg with lines `ED: n` and `ES: n`",
                )
            )
            return {}
        return self._by_volume(labels)

    def _by_volume(self, labels: Mapping[int, Path]) -> dict[int, str]:
        """The frame with the larger left ventricle is ED; ties go to the earlier one.

        A label file that cannot be read counts as empty: loading the volume says what is wrong.
        """
        sizes: dict[int, int] = {}
        for frame in sorted(labels):
            try:
                status = labels[frame].stat()
                sizes[frame] = _cavity_voxels(
                    labels[frame], status.st_mtime_ns, status.st_size, self.max_volume_gib
                )
            except (DataError, OSError):
                sizes[frame] = 0
        diastole = max(sizes, key=lambda frame: (sizes[frame], -frame))
        return {frame: "ED" if frame == diastole else "ES" for frame in sizes}


@functools.lru_cache(maxsize=100_000)
def _cavity_voxels(path: Path, mtime_ns: int, n_bytes: int, max_volume_gib: float) -> int:
    """Voxels of the left ventricle; a file is read once in a process as long as it is the same."""
    labels = read_labels(path, max_volume_gib=max_volume_gib)
    return int((labels == _LEFT_VENTRICLE).sum())


def read_info(path: Path) -> dict[str, str]:
    """Return the ``name: value`` lines of an ``Info.cfg``; empty if there is no file.

    A section header, comments and lines without a colon are skipped; the public files have no
    header.

    Raises:
        DataError: If it cannot be read, or is larger than 64 KiB.
    """
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            content = file.read(_MOST_INFO_BYTES + 1)
    except OSError as error:
        rule = "Info.cfg must be readable"
        raise one_problem(path, "", rule, str(error), "look at its rights") from error
    if len(content) > _MOST_INFO_BYTES:
        rule = f"Info.cfg must be at most {_MOST_INFO_BYTES} bytes"
        raise one_problem(path, "", rule, "more", "restore it from the original data")
    text = content.decode("utf-8-sig", errors="replace")
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}
