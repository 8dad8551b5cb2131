"""The small files beside volumes, ``dataset.json`` and ``dataset.yaml``, read within bounds.

Whatever is wrong with one is a `DataError` with the file, the place in it and the rule.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from iac_core.bounded_yaml import Built, build, compose, read_text
from iac_core.errors import ConfigError, DataError, Problem

_MOST_JSON_BYTES = 64 * 2**20
_MOST_DEPTH = 20
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_KINDS: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "a text", int: "a number"}


def read_json(path: Path, *, needs: Mapping[str, type]) -> dict[str, Any]:
    """Read a JSON object and check the types of the keys that a reader uses.

    Args:
        path: The file.
        needs: Key → type; every key must be there.

    Raises:
        DataError: If the file is missing, too large, no JSON object, nested deeper than 20 levels,
            names a key twice in one object, holds control characters or halves of characters in a
            key or in a text of the used keys, or lacks a key.
    """
    way_out = f"restore {path.name} from the original data"
    text = _text(path)
    repeated: list[str] = []

    def as_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            names = [name for name, _ in pairs]
            repeated.extend(name for name in mapping if names.count(name) > 1)
        return mapping

    try:
        raw = json.loads(text, object_pairs_hook=as_mapping)
    except ValueError as error:
        raise one_problem(path, "", f"{path.name} must be JSON", str(error), way_out) from error
    except RecursionError:
        raise _too_deep(path) from None
    if not isinstance(raw, dict):
        rule = f"{path.name} must be a JSON object"
        raise one_problem(path, "", rule, type(raw).__name__, way_out)
    if repeated:
        rule, way_out = "a key must stand once in its object", "give the second a name of its own"
        raise one_problem(path, "", rule, f"{repeated[0]!r:.60} twice", way_out)
    problems = []
    for key, kind in needs.items():
        if not isinstance(raw.get(key), kind) or isinstance(raw.get(key), bool):
            value = "nothing" if key not in raw else f"{raw[key]!r:.60}"
            rule = f"{path.name} must have the key {key!r}, {_KINDS[kind]}"
            problems.append(
                Problem(file=str(path), place=key, rule=rule, value=value, way_out=way_out)
            )
    if problems:
        raise DataError(problems)
    _check_tree(path, raw)
    return raw


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of plain values, within the limits of `iac_core.bounded_yaml`.

    Raises:
        DataError: If the file is missing, too large, no UTF-8 or no YAML mapping, nested too deep,
            names a key twice in one mapping, or holds a tag or a value that is not plain.
    """
    rule = f"{path.name} must be YAML of plain values"
    try:
        root = compose(read_text(path, what=path.name), str(path))
    except ConfigError as error:
        value = str(error).removeprefix(f"{path}:").strip()
        raise one_problem(path, "", rule, value) from error
    built = Built() if root is None else build(root, str(path))
    if built.faults:
        raise DataError([fault.problem for fault in built.faults])
    if not isinstance(built.value, dict):
        rule = f"{path.name} must hold `name: value` lines"
        raise one_problem(path, "", rule, type(built.value).__name__)
    return built.value


def whole_numbers(path: Path, key: str, raw: Iterable[object]) -> list[int]:
    """Return label values that a JSON file may hold as text.

    Raises:
        DataError: If one is no whole number from 0 to 255, or stands twice.
    """
    values: list[int] = []
    for entry in raw:
        text = str(entry) if isinstance(entry, str | int) else ""
        if not text.isdecimal() or len(text) > 3 or int(text) > 255:
            rule = "a label must be a whole number from 0 to 255"
            raise one_problem(path, key, rule, f"{entry!r:.60}", f"correct {path.name}")
        if int(text) in values:
            rule = "a label must stand once"
            raise one_problem(path, key, rule, f"{entry!r:.60} twice", f"correct {path.name}")
        values.append(int(text))
    return values


def texts(path: Path, key: str, raw: Iterable[object], *, may_repeat: bool = False) -> list[str]:
    """Return names of classes, all different, or of channels.

    Raises:
        DataError: If one is no text or empty, or stands twice where a class would be lost.
    """
    names: list[str] = []
    for name in raw:
        if not isinstance(name, str) or not name.strip():
            rule = f"a name in {key} must be a text"
            raise one_problem(path, key, rule, f"{name!r:.60}", "write it in quotes")
        if name in names and not may_repeat:
            rule = f"names in {key} must differ, or a class is lost"
            way_out = "give the second a name of its own"
            raise one_problem(path, key, rule, f"{name!r:.60} twice", way_out)
        names.append(name)
    return names


def inside(root: Path, path: Path, name: object) -> Path:
    """Return the file below the root that a JSON file names (``./imagesTr/x.nii.gz``).

    Raises:
        DataError: If it is no text or leads out of the folder.
    """
    if not isinstance(name, str) or ".." in Path(name).parts or not name.strip("./"):
        rule = "a file must be named by its path below the data folder"
        raise one_problem(path, "", rule, f"{name!r:.80}", f"correct {path.name}")
    return root / name.lstrip("/")


def one_problem(
    path: Path, place: str, rule: str, value: str, way_out: str = "correct it"
) -> DataError:
    """Return the error of a file with a single problem."""
    problem = Problem(file=str(path), place=place, rule=rule, value=value, way_out=way_out)
    return DataError([problem])


def _text(path: Path) -> str:
    """The whole file as UTF-8."""
    way_out = f"restore {path.name} from the original data"
    try:
        if path.exists() and not path.is_file():
            raise one_problem(path, "", "must be a file", "no regular file", way_out)
        if (size := path.stat().st_size) > _MOST_JSON_BYTES:
            rule = f"{path.name} must be at most {_MOST_JSON_BYTES} bytes"
            raise one_problem(path, "", rule, f"{size} bytes", way_out)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise one_problem(path, "", "the file must exist", "no file", way_out) from None
    except UnicodeDecodeError as error:
        way_out = "save it as UTF-8"
        raise one_problem(path, "", f"{path.name} must be UTF-8", str(error), way_out) from error
    except OSError as error:
        raise one_problem(path, "", f"{path.name} must be JSON", str(error), way_out) from error


def _too_deep(path: Path) -> DataError:
    rule = f"{path.name} must not be nested deeper than {_MOST_DEPTH} levels"
    return one_problem(path, "", rule, "more", f"restore {path.name} from the original data")


def _check_tree(path: Path, raw: object) -> None:
    """Refuse deep nesting, and texts that no terminal and no file name can hold."""
    stack: list[tuple[object, int]] = [(raw, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _MOST_DEPTH:
            raise _too_deep(path)
        if isinstance(value, dict):
            stack += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            stack += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and _ODD.search(value):
            rule = "a text must not hold control characters or halves of characters"
            raise one_problem(path, "", rule, f"{value!a:.80}")
