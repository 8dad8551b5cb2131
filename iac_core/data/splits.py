"""Which patients train, validate and test: dealt by patient, saved, hashed, reloaded."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from files.encoding import DamagedError, from_json
from files.writing import write_text
from iac_core.bounded_yaml import read_text
from iac_core.config import SplitSettings
from iac_core.errors import ConfigError
from iac_core.registry import did_you_mean
from iac_core.seeding import numpy_generator

_PARTS = ("train", "validation", "test")


class SplitFileError(ConfigError):
    """A saved split is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Patient ids of the three parts, each in ascending order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over the canonical JSON of the parts."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the parts and their hash."""
        write_text(path, json.dumps({**asdict(self), "hash": self.hash}, indent=1))

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read what `save` wrote.

        Raises:
            SplitFileError: If the file is damaged, or its parts no longer have the saved hash.
        """
        return cls.from_json(path.read_bytes(), str(path))

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "Split":
        """Return what `save` wrote into a file of a name; raises as `load`."""
        way_out = f"the file was changed, delete the folder {Path(name).parent} to make it again"
        try:
            raw = from_json(content, dict)
            split = cls(**{part: tuple(raw[part]) for part in _PARTS})
            saved = raw["hash"]
        except (DamagedError, KeyError, TypeError) as error:
            raise SplitFileError(
                f"{name}: a split must hold its parts and their hash, got {error}; {way_out}"
            ) from error
        if split.hash != saved:
            raise SplitFileError(
                f"{name}: the split must have the hash {saved}, got {split.hash}; {way_out}"
            )
        return split


def make_split(
    patient_ids: Sequence[str], settings: SplitSettings, official_test: Collection[str] = ()
) -> Split:
    """Split patients by the settings.

    With folds: patients are shuffled and dealt like cards; fold `fold` is the test part, a share
    of the others or the next fold validates, the rest trains. Over all folds every patient is
    tested exactly once, and with ``next_fold`` validates exactly once.

    Args:
        patient_ids: Every patient once, in any order.
        settings: Folds or a file.
        official_test: Patients that the publishers set aside for testing.

    Raises:
        ConfigError: If a part is empty, or the file names unknown or repeated patients.
    """
    known = sorted(set(patient_ids))
    official = sorted(set(official_test) & set(known))
    if settings.file:
        split = _from_file(known, settings)
    elif settings.test == "official" and official:
        split = _from_official(known, official, settings)
    else:
        split = _from_folds(known, settings)
    for part in _PARTS:
        if not getattr(split, part):
            raise ConfigError(
                "every part of a split must have a patient",
                value=f"none in {part!r} of {len(known)} patients",
                way_out="use fewer folds, another validation_share or more patients",
            )
    return split


def _from_folds(known: list[str], settings: SplitSettings) -> Split:
    if len(known) < settings.n_folds:
        raise ConfigError(
            f"a split must have at least as many patients as folds ({settings.n_folds})",
            value=len(known),
            way_out="lower n_folds or add patients",
        )
    shuffled = _shuffled(known, settings)
    test = shuffled[settings.fold :: settings.n_folds]
    rest = _without(shuffled, test)
    if settings.validation == "next_fold":
        return _parts(rest, _next_fold(shuffled, settings), test, settings)
    return _parts(rest, rest[: _n_validation(rest, settings)], test, settings)


def _from_official(known: list[str], test: list[str], settings: SplitSettings) -> Split:
    rest = _shuffled(_without(known, test), settings)
    if settings.validation == "next_fold":
        return _parts(rest, _next_fold(rest, settings), test, settings)
    n_validation = _n_validation(rest, settings)
    rest = np.roll(rest, -settings.fold * n_validation).tolist()
    return _parts(rest, rest[:n_validation], test, settings)


def _parts(
    rest: list[str], validation: list[str], test: list[str], settings: SplitSettings
) -> Split:
    """The split whose training patients are the first of the rest that do not validate."""
    train = _without(rest, validation)[: settings.n_train_patients]
    return Split(
        train=tuple(sorted(train)),
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
    )


def _shuffled(patients: list[str], settings: SplitSettings) -> list[str]:
    order = numpy_generator(settings.seed, "split").permutation(len(patients))
    return [patients[index] for index in order]


def _without(patients: list[str], others: list[str]) -> list[str]:
    left_out = set(others)
    return [patient for patient in patients if patient not in left_out]


def _n_validation(rest: list[str], settings: SplitSettings) -> int:
    return max(1, round(settings.validation_share * len(rest)))


def _next_fold(shuffled: list[str], settings: SplitSettings) -> list[str]:
    return shuffled[(settings.fold + 1) % settings.n_folds :: settings.n_folds]


def _from_file(known: list[str], settings: SplitSettings) -> Split:
    path = Path(settings.file or "")
    raw = read_split_file(path)
    named = [patient for part in _PARTS for patient in raw[part]]
    unknown = [patient for patient in named if patient not in known]
    if unknown:
        near = did_you_mean(unknown[0], known).split(" known:")[0].removesuffix(";")
        raise ConfigError(
            f"{path}: every patient must be in the data folder",
            value=f"{', '.join(unknown[:5])}{near}",
        )
    repeated = [patient for patient, count in Counter(named).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"{path}: a patient must be in one part once",
            value=f"{', '.join(repeated[:5])} twice",
            way_out="keep each in one part",
        )
    train = raw["train"][: settings.n_train_patients]
    return Split(
        train=tuple(sorted(train)),
        validation=tuple(sorted(raw["validation"])),
        test=tuple(sorted(raw["test"])),
    )


def read_split_file(path: Path) -> dict[str, list[str]]:
    """Read a split file.

    Raises:
        ConfigError: If it is missing or not of the form
            ``{"train": [...], "validation": [...], "test": [...]}``.
    """
    form = '{"train": [...], "validation": [...], "test": [...]} of patient ids'
    text = read_text(path, what="split file")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: a split file must be JSON {form}",
            value=error,
        ) from error
    fits = isinstance(raw, dict) and all(
        isinstance(raw.get(part), list) and all(isinstance(entry, str) for entry in raw[part])
        for part in _PARTS
    )
    if not fits:
        raise ConfigError(
            f"{path}: a split file must be JSON {form}",
            value=str(raw)[:80],
        )
    return {part: list(raw[part]) for part in _PARTS}
