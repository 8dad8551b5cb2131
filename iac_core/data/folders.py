"""What the readers of layouts share: visible files, JSON files, paired files, clear errors."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iac_core.errors import DataError, Problem

ENDINGS = (".nii.gz", ".nii")


def visible(folder: Path) -> list[Path]:
    """Return a folder's entries by name, without those that begin with ``.`` or ``_``.

    Archives made on a Mac hold a ``._name`` beside every file.
    """
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))


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
                way_out="give the right one with --data NAME=PATH",
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


def read_json(path: Path, *, needs: Mapping[str, type]) -> dict[str, Any]:
    """Read a JSON object and check the types of the keys that a reader uses.

    Args:
        path: The file.
        needs: Key → type; every key must be there.

    Raises:
        DataError: If the file is missing, no JSON object, or lacks a key.
    """
    way_out = f"restore {path.name} from the original data"
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise _one(path, "", "the file must exist", "no file", way_out) from None
    except (OSError, ValueError) as error:
        raise _one(path, "", f"{path.name} must be JSON", str(error), way_out) from error
    if not isinstance(raw, dict):
        rule = f"{path.name} must be a JSON object"
        raise _one(path, "", rule, type(raw).__name__, way_out)
    problems = []
    for key, kind in needs.items():
        if not isinstance(raw.get(key), kind):
            value = "nothing" if key not in raw else f"{raw[key]!r:.60}"
            rule = f"{path.name} must have the key {key!r}, {_KINDS[kind]}"
            problems.append(
                Problem(file=str(path), place=key, rule=rule, value=value, way_out=way_out)
            )
    if problems:
        raise DataError(problems)
    return raw


_KINDS: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "a text", int: "a number"}


def whole_numbers(path: Path, key: str, raw: Iterable[object]) -> list[int]:
    """Return label values that a JSON file may hold as text.

    Raises:
        DataError: If one is no whole number from 0 to 255.
    """
    values = []
    for entry in raw:
        text = str(entry)
        if not text.isdecimal() or int(text) > 255:
            rule = "a label must be a whole number from 0 to 255"
            raise _one(path, key, rule, repr(entry), f"correct {path.name}")
        values.append(int(text))
    return values


def inside(root: Path, path: Path, name: object) -> Path:
    """Return the file below the root that a JSON file names (``./imagesTr/x.nii.gz``).

    Raises:
        DataError: If it is no text or leads out of the folder.
    """
    if not isinstance(name, str) or ".." in Path(name).parts:
        rule = "a file must be named by its path below the data folder"
        raise _one(path, "", rule, repr(name), f"correct {path.name}")
    return root / name.lstrip("/")


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
    for path in visible(images):
        if path.name.endswith(tuple(endings)):
            name = stem(path)
            whole = n_channels == 1 and name in label_of
            case, channel = (name, 0) if whole else _channel(name, n_channels)
            found.setdefault(case, {})[channel] = path
    pairs, problems = [], []
    for case in sorted(found.keys() | label_of.keys()):
        missing = set(range(n_channels)) - set(found.get(case, {}))
        extra = set(found.get(case, {})) - set(range(n_channels))
        if missing == set(range(n_channels)) and not extra:
            problems.append(_lonely(label_of[case], "an image", images))
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
        raise _one(Path(case), "", rule, repr(case), "correct the pattern, with one group")
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


def _one(path: Path, place: str, rule: str, value: str, way_out: str) -> DataError:
    problem = Problem(file=str(path), place=place, rule=rule, value=value, way_out=way_out)
    return DataError([problem])
