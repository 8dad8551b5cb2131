"""Reading of an exported folder: whatever is damaged or missing in it is one `ConfigError`."""

import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from iac_core.cells.genotype import Genotype
from iac_core.config import OPERATION_NAMES, CellSettings
from iac_core.errors import ConfigError

CHECKSUMS = "checksums"
"""Key of the description: file → SHA-256 of its content."""
DESCRIPTION_SUM = "description_sha256"
"""Key in the metadata of the cells' weights: SHA-256 of the description without its checksums."""
_MOST_DESCRIPTION_BYTES = 64 * 2**20
_MOST_WEIGHTS_BYTES = 2**30
_MOST_NODES, _MOST_LEVELS = 64, 64
_WAY_OUT = "write one with `orchestrator export`"


def description_sum(description: Mapping[str, Any]) -> str:
    """Return SHA-256 of a description's canonical JSON, less its checksums."""
    without = {name: value for name, value in description.items() if name != CHECKSUMS}
    text = json.dumps(json.loads(json.dumps(without)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_description(path: Path, *, schema: int) -> dict[str, Any]:
    """Return a description whose used parts have the right types.

    Args:
        path: The JSON file.
        schema: Version that it must have.

    Raises:
        ConfigError: If it is missing, too large, damaged or of another version.
    """
    try:
        if (size := path.stat().st_size) > _MOST_DESCRIPTION_BYTES:
            raise ConfigError(
                f"{path}: a description must be at most {_MOST_DESCRIPTION_BYTES} bytes",
                value=size,
                way_out=_WAY_OUT,
            )
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"an exported folder must hold {path.name}",
            value=f"{path.parent} ({str(error) or type(error).__name__:.200})",
            way_out=_WAY_OUT,
        ) from error
    if not isinstance(raw, dict):
        _refuse(path, "a description must be a JSON object", raw)
    if raw.get("schema") != schema:
        raise ConfigError(
            f"{path}: the schema must be {schema}",
            value=f"{raw.get('schema')!r:.60}",
            way_out="export again with this version",
        )
    kinds = {"genotype": dict, "cell": dict, "sites": list}
    for key, kind in kinds.items():
        if not isinstance(raw.get(key), kind):
            _refuse(path, f"{key} must be a {'mapping' if kind is dict else 'list'}", raw.get(key))
    for site in raw["sites"]:
        names = ("skip_channels", "decoder_channels", "stride")
        if not isinstance(site, dict) or not all(_is_count(site.get(name)) for name in names):
            _refuse(path, f"a site must have {', '.join(names)}, whole numbers above 0", site)
    return raw


def read_weights(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a file, its content and the description compared with their checksums.

    Folders of versions that wrote no checksums are read without.

    Args:
        folder: The exported folder.
        name: File of the weights of the cells.
        description: Of the folder.

    Raises:
        ConfigError: If the file is missing, damaged, too large, or holds NaN or infinity.
    """
    path = folder / name
    try:
        if (size := path.stat().st_size) > _MOST_WEIGHTS_BYTES:
            _refuse(path, f"weights must be at most {_MOST_WEIGHTS_BYTES} bytes", size)
        content = path.read_bytes()
        _compare(path, content, description)
        weights: dict[str, Tensor] = load(content)
        _check_finite(path, weights)
    except OSError as error:
        raise ConfigError(
            f"an exported folder must hold {name}",
            value=f"{folder} ({error})",
            way_out=_WAY_OUT,
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{path}: weights must be whole",
            value=f"{error!s:.200}",
            way_out=f"copy the folder again, or {_WAY_OUT}",
        ) from error
    return weights


def parse_genotype(path: Path, raw: Mapping[str, Any]) -> Genotype:
    """Return the genotype of a description.

    Raises:
        ConfigError: If a number is not whole or out of range, or an operation is unknown.
    """
    n_nodes, levels = raw.get("n_nodes"), raw.get("levels")
    if not _is_count(n_nodes) or n_nodes > _MOST_NODES:
        _refuse(path, f"genotype.n_nodes must be from 1 to {_MOST_NODES}", n_nodes)
    if not isinstance(levels, list) or not 1 <= len(levels) <= _MOST_LEVELS:
        _refuse(path, f"genotype.levels must be a list of 1 to {_MOST_LEVELS}", levels)
    for edges in levels:
        if not isinstance(edges, list) or not edges:
            _refuse(path, "a level of the genotype must be a list of edges", edges)
        for edge in edges:
            is_edge = (
                isinstance(edge, list)
                and len(edge) == 3
                and all(type(state) is int for state in edge[:2])
            )
            if not is_edge:
                _refuse(path, "an edge must be [source, target, operation]", edge)
            if edge[2] not in OPERATION_NAMES:
                known = ", ".join(OPERATION_NAMES)
                _refuse(path, f"an operation must be one of {known}", edge[2])
        if len({tuple(edge) for edge in edges}) < len(edges):
            _refuse(path, "edges of a level must differ", edges)
    try:
        return Genotype.from_json(json.dumps({"n_nodes": n_nodes, "levels": levels}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; {_WAY_OUT}") from error


def parse_cell(path: Path, raw: Mapping[str, Any]) -> CellSettings:
    """Return the settings of the cells; all of them must be there.

    Raises:
        ConfigError: If one is missing, unknown, of another type or out of range.
    """
    hints = typing.get_type_hints(CellSettings)
    names = [field.name for field in fields(CellSettings)]
    if (odd := sorted({*names} ^ {*raw})) != []:
        _refuse(path, f"cell must have the settings {', '.join(names)}", f"a mismatch in {odd}")
    values = dict(raw)
    for name in names:
        allowed = typing.get_args(hints[name])
        value = values[name]
        if typing.get_origin(hints[name]) is typing.Literal:
            if not isinstance(value, str) or value not in allowed:
                _refuse(path, f"cell.{name} must be one of {', '.join(allowed)}", value)
        elif hints[name] is int and not _is_count(value):
            _refuse(path, f"cell.{name} must be a whole number above 0", value)
    width, operations = values["node_width"], values["operations"]
    if width is not None and not (_is_number(width) and math.isfinite(width)):
        _refuse(path, "cell.node_width must be a number or null", width)
    if not isinstance(operations, list) or not all(isinstance(one, str) for one in operations):
        _refuse(path, "cell.operations must be a list of names", operations)
    try:
        return CellSettings(**values | {"operations": tuple(operations)})
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path}: cell: {error}; {_WAY_OUT}") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(path: Path, content: bytes, description: Mapping[str, Any]) -> None:
    """Hold the weights against the description's checksum, and it against theirs."""
    sums = description.get(CHECKSUMS)
    with safe_open(path, framework="pt") as file:
        noted = (file.metadata() or {}).get(DESCRIPTION_SUM)
    if noted is None and sums is None:
        return
    if not isinstance(sums, dict) or sums.get(path.name) != hashlib.sha256(content).hexdigest():
        _refuse(path, "weights must be those that were written", "another checksum")
    for name, known in sums.items():  # the whole network's may have been left out
        beside = path.with_name(Path(name).name)
        if beside != path and beside.is_file() and sha256_of(beside) != known:
            _refuse(beside, "weights must be those that were written", "another checksum")
    if noted != description_sum(description):
        rule = "the description must be the one that was written with the weights"
        _refuse(path.parent, rule, "another checksum")


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            _refuse(path, "weights must be finite numbers", f"NaN or infinity in {name}")


def _is_count(value: object) -> typing.TypeGuard[int]:
    return type(value) is int and value > 0


def _is_number(value: object) -> typing.TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(path: Path, rule: str, value: object) -> NoReturn:
    raise ConfigError(
        f"{path}: {rule}",
        value=f"{value!r:.200}",
        way_out=f"copy the folder again, or {_WAY_OUT}",
    )
