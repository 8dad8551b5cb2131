"""Read a sweep file: plain data within limits, and the line of every key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from iac_core.bounded_yaml import KEY_RULE, Built, Place, build, compose, read_text, write
from iac_core.errors import ConfigError
from iac_core.registry import did_you_mean

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

_SWEEP: Place = ("metadata", "sweep")
_MOST_SHOWN = 60
T = TypeVar("T")


def sweep_text(sweep: Mapping[str, Any]) -> str:
    """Return the text of a sweep file.

    Args:
        sweep: What stands under ``metadata.sweep``.
    """
    return write({"metadata": {"sweep": sweep}})


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """The sweep of a file.

    Attributes:
        path: The file.
        sweep: What stands under ``metadata.sweep``.
        lines: Path of keys and positions below ``metadata.sweep`` → line, from 1.
        unquoted: Path of a value that is no text → how the file writes it, such as ``no``.
    """

    path: Path
    sweep: dict[str, Any]
    lines: dict[Place, int]
    unquoted: dict[Place, str] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest place above it."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return 1


def read_sweep_file(path: Path) -> SweepFile:
    """Read a file whose ``metadata.sweep`` is a sweep.

    Ray's part of the file is only held to be YAML without a key that stands twice.

    Raises:
        ConfigError: If the file cannot be read, is no UTF-8, too large, no YAML or nested too
            deeply, a key stands twice, a root key is neither Ray's nor ``metadata``, the sweep
            holds something else than plain data, or there is no sweep. Every line of the message
            starts with file and line.
    """
    root = compose(read_text(path, what="sweep file"), str(path))
    built = Built() if root is None else build(root, str(path))
    _check_values(built)
    if not isinstance(built.value, dict):
        raise ConfigError(
            f"{path}:1: a sweep file must be a mapping with metadata.sweep",
            value=f"{repr(built.value)[:_MOST_SHOWN]}",
            way_out="see sweeps/README.md",
        )
    _check_root(path, built.value, built.lines)
    return SweepFile(
        path=path,
        sweep=built.value["metadata"]["sweep"],
        lines=_below(built.lines),
        unquoted=_below(built.unquoted),
    )


def _below(found: Mapping[Place, T]) -> dict[Place, T]:
    """What lies in the sweep, its places counted from there."""
    n = len(_SWEEP)
    return {place[n:]: value for place, value in found.items() if place[:n] == _SWEEP}


def _check_values(built: Built) -> None:
    """Refuse what no sweep may hold, every fault at once."""
    faults = [
        str(fault.problem)
        for fault in built.faults
        if fault.place[:1] in ((), _SWEEP[:1]) or fault.problem.rule == KEY_RULE
    ]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))


def _check_root(path: Path, data: dict[str, Any], lines: dict[Place, int]) -> None:
    if "metadata" not in data and "grid" in data:
        raise ConfigError(
            f"{path}:{lines['grid',]}: the sweep must stand under metadata.sweep",
            value="it at the root",
            way_out="write `metadata:` and `  sweep:` above and indent the rest by four spaces",
        )
    for key in data:
        if key not in CLUSTER_KEYS:
            raise ConfigError(
                f"{path}:{lines[key,]}: a root key must be metadata or one of Ray's cluster keys",
                value=f"{key[:_MOST_SHOWN]!r}{did_you_mean(key, list(CLUSTER_KEYS))}",
            )
    metadata = data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("sweep"), dict):
        raise ConfigError(
            f"{path}:{lines.get(('metadata',), 1)}: the file must hold a mapping metadata.sweep",
            value=f"{'none' if not metadata else repr(metadata)[:_MOST_SHOWN]}",
            way_out="see sweeps/README.md",
        )
