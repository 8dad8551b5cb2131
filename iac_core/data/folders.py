"""What the readers of layouts share: visible files, paired files, clear errors."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iac_core.data.side_files import one_problem
from iac_core.errors import DataError, IncompleteFolderError, Problem
from iac_core.types import VolumeRef

ENDINGS = (".nii.gz", ".nii")
_CAPITALS = ("capital letters in its ending", "rename it: the ending in small letters")
_PAIR = ("half of a pair of files (.hdr and .img)", "convert the pair to one .nii.gz file")
_COMPRESSED = ("a compression that is not gzip", "unpack the file, or compress it by gzip")
_FORMAT = ("another format", "convert it to NIfTI")
_OTHER_ENDINGS = {
    **dict.fromkeys((".nii.gz", ".nii"), _CAPITALS),
    **dict.fromkeys((".hdr", ".img", ".hdr.gz", ".img.gz"), _PAIR),
    **dict.fromkeys(
        (f".nii{ending}" for ending in (".zst", ".bz2", ".xz", ".zip", ".lz4", ".7z")), _COMPRESSED
    ),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".dcm"), _FORMAT),
}


def visible(folder: Path) -> list[Path]:
    """Return a folder's entries by name, without those that begin with ``.`` or ``_``.

    Archives made on a Mac hold a ``._name`` beside every file.

    Raises:
        DataError: If the folder cannot be listed, or a name in it is not UTF-8.
    """
    if not folder.is_dir():
        return []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        rule, way_out = "the folder must be readable", "look at its rights and its disk"
        raise one_problem(folder, "", rule, str(error), way_out) from error
    for entry in entries:
        if not entry.name.isprintable() and not _is_utf8(entry.name):
            rule, way_out = "names of files must be UTF-8", "rename the file"
            raise one_problem(folder, "", rule, ascii(entry.name), way_out)
    return [entry for entry in entries if not entry.name.startswith((".", "_"))]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_order(refs: Iterable[VolumeRef], problems: Sequence[Problem]) -> tuple[VolumeRef, ...]:
    """Return volumes by patient, then volume.

    Raises:
        IncompleteFolderError: If there are problems; it carries the volumes.
    """
    ordered = tuple(sorted(refs, key=lambda ref: (ref.patient_id, ref.volume_id)))
    if problems:
        raise IncompleteFolderError(problems, ordered)
    return ordered


def unreadable_files(folder: Path) -> list[Problem]:
    """Return the files of a folder that look like volumes, but that no reader takes.

    A file beside a NIfTI file of the same name is left alone.
    """
    entries = visible(folder)
    taken = {stem(entry) for entry in entries if entry.name.endswith(ENDINGS)}
    problems = []
    for entry in entries:
        name = entry.name.lower()
        for ending, (value, way_out) in _OTHER_ENDINGS.items():
            is_such = name.endswith(ending) and not entry.name.endswith(ENDINGS)
            if is_such and entry.name[: -len(ending)] not in taken:
                rule = "a volume must be a NIfTI file whose name ends in .nii.gz or .nii"
                problems.append(Problem(file=str(entry), rule=rule, value=value, way_out=way_out))
                break
    return problems


def same_folder(first: Path, second: Path) -> Problem:
    """Return the problem of two folders that stand for one case."""
    return Problem(
        file=str(second),
        rule="a case must have one folder",
        value=f"also {first}",
        way_out="remove the one that is not meant",
    )


def same_case(first: Path, second: Path) -> Problem:
    """Return the problem of two files that stand for one."""
    return Problem(
        file=str(second),
        rule="a case must have one file",
        value=f"{first.name} and {second.name}",
        way_out="remove the one that is not meant",
    )


def existing(root: Path) -> None:
    """Raise a `DataError` unless the data folder exists."""
    if root.is_dir():
        return
    raise DataError(
        [
            Problem(
                file=str(root),
                rule="the data folder must exist",
                value="a file" if root.exists() else "no folder",
                way_out="name the folder of the data set",
            )
        ]
    )


def other_layout(root: Path, rule: str, above: str) -> DataError:
    """Return the error for a folder that is not of a layout.

    Args:
        root: The folder.
        rule: What it must hold.
        above: What lies directly in the right folder, for the way out.
    """
    found = ", ".join(entry.name for entry in visible(root)[:6]) or "nothing"
    return DataError(
        [
            Problem(
                file=str(root),
                rule=rule,
                value=f"a folder that holds {found}",
                way_out=f"give the folder above {above}, or name the right layout",
            )
        ]
    )


def stem(path: Path) -> str:
    """Return a file's name without ``.nii`` or ``.nii.gz``.

    Examples:
        >>> stem(Path("labelsTr/la_003.nii.gz"))
        'la_003'
    """
    for ending in ENDINGS:
        if path.name.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedFiles:
    """A case of a folder of images and a folder of labels."""

    case: str
    image_paths: tuple[Path, ...]
    label_path: Path


def paired_files(
    images: Path, labels: Path, *, n_channels: int, endings: Sequence[str] = ENDINGS
) -> tuple[list[PairedFiles], list[Problem]]:
    """Pair ``<case>_0000.nii.gz``, one per channel, with ``<case>.nii.gz``.

    Where a single channel is wanted the image may be called ``<case>.nii.gz`` too.

    Args:
        images: Folder of images.
        labels: Folder of labels.
        n_channels: Channels of every case.
        endings: Endings of the files.

    Returns:
        Complete cases by name, and what is wrong with the others.
    """
    label_of = {stem(path): path for path in visible(labels) if path.name.endswith(tuple(endings))}
    found: dict[str, dict[int, Path]] = {}
    problems = [*unreadable_files(images), *unreadable_files(labels)]
    for path in visible(images):
        if path.name.endswith(tuple(endings)):
            name = stem(path)
            whole = n_channels == 1 and name in label_of
            case, channel = (name, 0) if whole else _channel(name, n_channels)
            first = found.setdefault(case, {}).setdefault(channel, path)
            if stem(first) != stem(path):
                problems.append(same_case(first, path))
    pairs = []
    for case in sorted(found.keys() | label_of.keys()):
        missing = set(range(n_channels)) - set(found.get(case, {}))
        extra = set(found.get(case, {})) - set(range(n_channels))
        if missing == set(range(n_channels)) and not extra:
            problems.append(_lonely(label_of[case], "image", images))
        elif missing or extra:
            wanted = ", ".join(f"{case}_{channel:04d}" for channel in range(n_channels))
            problems.append(
                Problem(
                    file=str(next(iter(found[case].values()))),
                    rule=f"a case must have one file per channel: {wanted}",
                    value=", ".join(stem(path) for path in found[case].values()),
                    way_out="restore the files, or correct the channels of the data set",
                )
            )
        elif case not in label_of:
            problems.append(_lonely(found[case][0], "labels", labels))
        else:
            paths = tuple(found[case][channel] for channel in range(n_channels))
            pairs.append(PairedFiles(case=case, image_paths=paths, label_path=label_of[case]))
    return pairs, problems


def patient_of(case: str, pattern: str | None) -> str:
    """Return the patient that a case belongs to.

    Args:
        case: Name of the case.
        pattern: Regular expression with one group, searched for in the name; None makes every case
            a patient.

    Raises:
        DataError: If the pattern does not match.
    """
    if pattern is None:
        return case
    match = re.search(pattern, case)
    if match is None or not match.groups() or not match[1]:
        rule = f"patient_pattern {pattern!r} must find the patient in every case's name"
        raise one_problem(Path(case), "", rule, repr(case), "correct the pattern, with one group")
    return match[1]


def _channel(name: str, n_channels: int) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)_(\d{4})", name)
    if match and (n_channels > 1 or match[2] == "0000"):
        return match[1], int(match[2])
    return name, 0 if n_channels == 1 else -1


def _lonely(path: Path, missing: str, where: Path) -> Problem:
    return Problem(
        file=str(path),
        rule="a case must have an image and labels",
        value=f"no {missing} in {where.name}",
        way_out="restore the file, or remove this one",
    )
