"""Read a sweep file: plain data, and the line of every key. The only file that imports yaml."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from iac_core.errors import ConfigError
from iac_core.registry import did_you_mean

Place = tuple[str | int, ...]

CLUSTER_KEYS: tuple[str, ...] = (
    "cluster_name",
    "provider",
    "auth",
    "max_workers",
    "upscaling_speed",
    "idle_timeout_minutes",
    "docker",
    "available_node_types",
    "head_node_type",
    "head_node",
    "worker_nodes",
    "worker_default_node_type",
    "file_mounts",
    "cluster_synced_files",
    "file_mounts_sync_continuously",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "no_restart",
    "metadata",
)
"""Root keys of Ray's cluster launcher file, which a sweep file also is."""


class _Loader(yaml.SafeLoader):
    """Safe loading with numbers such as ``3e-3``, which YAML 1.1 takes for text."""


_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def sweep_text(sweep: Mapping[str, Any]) -> str:
    """Return the text of a sweep file.

    Args:
        sweep: What stands under ``metadata.sweep``.
    """
    return str(yaml.safe_dump({"metadata": {"sweep": sweep}}, sort_keys=False, allow_unicode=True))


def read_scalar(text: str) -> Any:  # noqa: ANN401 - what YAML reads: text, number, truth, nothing
    """Return one value as a sweep file would read it.

    Raises:
        ConfigError: If it is no YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"a value must be YAML, got {text!r}; quote it") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """The sweep of a file.

    Attributes:
        path: The file.
        sweep: What stands under ``metadata.sweep``.
        lines: Path of keys and positions below ``metadata.sweep`` → line, from 1.
    """

    path: Path
    sweep: dict[str, Any]
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest place above it."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return 1


def read_sweep_file(path: Path) -> SweepFile:
    """Read a file whose ``metadata.sweep`` is a sweep.

    Raises:
        ConfigError: If the file is missing or no YAML, a key stands twice, a root key is neither
            Ray's nor ``metadata``, or there is no sweep. The message starts with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the sweep file must exist, got {error.strerror}") from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        data = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{path}:{line}: a sweep file must be YAML, got: {error.problem}; mend this line"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}:1: a sweep file must be a mapping with metadata.sweep, got {data!r}"
        )
    assert root is not None, "a mapping comes from a node"
    lines = dict(_lines(root, (), path))
    _check_root(path, data, lines)
    sweep = data["metadata"]["sweep"]
    below = {
        place[2:]: line for place, line in lines.items() if place[:2] == ("metadata", "sweep")
    }
    return SweepFile(path=path, sweep=sweep, lines=below)


def _check_root(path: Path, data: dict[str, Any], lines: dict[Place, int]) -> None:
    if "metadata" not in data and "grid" in data:
        raise ConfigError(
            f"{path}:{lines[('grid',)]}: the sweep must stand under metadata.sweep, got it at the "
            "root; write `metadata:` and `  sweep:` above and indent the rest by four spaces"
        )
    for key in data:
        if key not in CLUSTER_KEYS:
            raise ConfigError(
                f"{path}:{lines[(key,)]}: a root key must be metadata or one of Ray's cluster "
                f"keys, got {key!r}{did_you_mean(str(key), list(CLUSTER_KEYS))}"
            )
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("sweep"), dict):
        raise ConfigError(
            f"{path}:{lines.get(('metadata',), 1)}: the file must hold a mapping metadata.sweep, "
            f"got {'none' if not metadata else repr(metadata)[:60]}; see sweeps/README.md"
        )


def _lines(node: yaml.Node, place: Place, path: Path) -> Iterator[tuple[Place, int]]:
    """Yield the line of every key and list entry; refuse a key that stands twice."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(
                    f"{path}:{line}: a key must stand once, got {key.value!r} also in line "
                    f"{seen[key.value]}; remove one of them"
                )
            seen[key.value] = line
            yield (*place, key.value), line
            yield from _lines(value, (*place, key.value), path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*place, index), value.start_mark.line + 1
            yield from _lines(value, (*place, index), path)
